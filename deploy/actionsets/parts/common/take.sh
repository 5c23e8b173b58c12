# Somebody's data is never touched: a directory with content is refused, unless this restore began it: take DIRECTORY
take() {
  mkdir -p "$1"
  [ "$(stat -c %d "$1")" != "$(stat -c %d /)" ] || fail "no volume is mounted at $1, where the data was; mount one there, or set KBB_DATA_DIR in the restore's env"
  if [ -e "$1/.kbbackup-restore" ]; then
    [ "$(cat "$1/.kbbackup-restore")" = "$DP_BACKUP_NAME" ] || fail "$1 holds an unfinished restore of another backup"
    echo "an earlier attempt left an unfinished restore in $1; starting over"
    find "$1" -mindepth 1 -maxdepth 1 ! -name .kbbackup-restore ! -name lost+found -exec rm -rf {} +
  elif [ -n "$(find "$1" -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit)" ]; then
    fail "$1 is not empty; restore into new volumes"
  fi
  echo "$DP_BACKUP_NAME" > "$1/.kbbackup-restore"
}
