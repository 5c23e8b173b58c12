set -Eeuo pipefail
umask 077
fail() { echo "error: $*" >&2; exit 1; }
export PATH="$PATH:$DP_DATASAFED_BIN_PATH" TZ=UTC LC_ALL=C
export DATASAFED_BACKEND_BASE_PATH="$DP_BACKUP_BASE_PATH"
work=$(mktemp -d "${KBB_SCRATCH:-/tmp}/kbbackup.XXXXXX")
# Who is cancelled ends at once, with everything under way.
trap 'trap "" TERM; kill 0; exit 143' TERM
# A fact of a backup, by its COMPLETE object: value KEY [FILE]
value() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "${2:-$work/$DP_BACKUP_NAME.complete}"; }
# The mover at the place of another backup of this policy: at BACKUP ARGUMENTS…
at() { DATASAFED_BACKEND_BASE_PATH="$DP_BACKUP_ROOT_PATH/$1/${DP_TARGET_RELATIVE_PATH:-}" datasafed "${@:2}"; }
