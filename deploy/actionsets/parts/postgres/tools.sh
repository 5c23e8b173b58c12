set -Eeuo pipefail
cd /
fail() { echo "error: $*" >&2; exit 1; }
export PATH="$PATH:$DP_DATASAFED_BIN_PATH" TZ=UTC LC_ALL=C DATASAFED_BACKEND_BASE_PATH="$DP_BACKUP_BASE_PATH"
for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/bitnami/postgresql/bin; do
  if [ -x "$dir/psql" ]; then PATH="$PATH:$dir"; fi
done
for tool in psql pg_ctl pg_basebackup; do
  command -v "$tool" > /dev/null || fail "no $tool in this image; set KBB_IMAGE in the env to the database's own image"
done
