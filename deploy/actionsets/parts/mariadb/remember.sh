# What the log stage goes on with, or begins anew from when it was interrupted: remember
remember() {
  local name
  cp "$work/server.cnf" "$data/.kbbackup-server.cnf"
  for name in DP_BACKUP_NAME DP_BACKUP_ROOT_PATH DP_TARGET_RELATIVE_PATH DP_BASE_BACKUP_NAME DP_ANCESTOR_INCREMENTAL_BACKUP_NAMES; do
    printf '%s=%q\n' "$name" "${!name:-}"
  done > "$data/.kbbackup-base"
  sync
}
