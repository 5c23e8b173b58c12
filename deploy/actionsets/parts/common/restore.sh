trap 'rm -rf "$work"' EXIT
# The full backup, what lies between, and the one that is wanted: each whole, and each the next of the one before. The facts
# that are named must be the same in all: read_chain FACT…
read_chain() {
  local between=${DP_ANCESTOR_INCREMENTAL_BACKUP_NAMES:-} before="" name facts fact
  read -ra chain <<<"${DP_BASE_BACKUP_NAME:-} ${between//,/ }"
  if [ "${chain[*]}" != "$DP_BACKUP_NAME" ]; then chain+=("$DP_BACKUP_NAME"); fi
  for name in "${chain[@]}"; do
    facts="$work/$name.complete"
    at "$name" pull /COMPLETE - > "$facts" || fail "backup $name has no COMPLETE object: it was never finished (or see the line above)"
    [ "$(value parent "$facts")" = "$before" ] || fail "backup $name continues $(value parent "$facts"), but ${before:-nothing} comes before it"
    if [ -n "$before" ]; then
      for fact in "$@"; do
        [ "$(value "$fact" "$facts")" = "$(value "$fact" "$work/$before.complete")" ] || fail "backups $before and $name are of different servers or places ($fact)"
      done
      [ "$(value from_lsn "$facts")" = "$(value to_lsn "$work/$before.complete")" ] || fail "backup $name begins at LSN $(value from_lsn "$facts"), $before ends at $(value to_lsn "$work/$before.complete")"
    fi
    before=$name
  done
}
# Gives an object of a backup to a function, and compares its digest: unpack BACKUP OBJECT DIGEST FUNCTION ARGUMENTS…
unpack() {
  local expand=() sum
  case "$2" in *.zst) expand=(-d zstd) ;; esac
  rm -f "$work/tap"; mkfifo "$work/tap"
  sha256sum < "$work/tap" > "$work/sum" & sum=$!
  echo "unpacking $2 of $1"
  at "$1" pull "${expand[@]}" "/$2" - | tee "$work/tap" | { "${@:4}"; cat > /dev/null; }
  wait "$sum"
  [ "$(cut -c1-64 "$work/sum")" = "$3" ] || fail "$2 of backup $1 is not what was stored"
}
# Says what was reached; the volumes are this backup's from now on: restored JSON DIRECTORY…
restored() {
  sync
  local place
  for place in "${@:2}"; do rm "$place/.kbbackup-restore"; done
  sync
  echo "$1" > /dev/termination-log
}
