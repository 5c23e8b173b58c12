# What is to be replayed on a base that ended there, up to the target that was asked for: fetch_log BINLOG GTID. `files` are the
# log's afterwards, and `plan` tells the rest.
fetch_log() {
  local to
  case "$target" in
    time) to=(--to-time="$DP_RESTORE_TIMESTAMP") ;;
    latest) to=(--latest) ;;
    *)
      [ -n "$targetValue" ] || fail "target $target needs targetValue"
      to=("--to-$target=$targetValue") ;;
  esac
  if [ "$inclusive" = off ]; then to+=(--exclusive); fi
  echo "fetching the log from $1 (GTID ${2:-none}): target $target ${targetValue:-} ${DP_RESTORE_TIME:-}"
  rm -rf "$data/.kbbackup-log"
  datasafed mysql fetch-binlogs --from="$1" --from-gtid="$2" "${to[@]}" "$data/.kbbackup-log" > "$work/plan"
  mapfile -t files < <(plan file)
}
plan() { sed -n "s/^$1 //p" "$work/plan"; }
