superuser=$(field superuser /dp_downward/status_extras) identifier=$(field system_identifier /dp_downward/status_extras)
same_major "$(field server_version_num /dp_downward/status_extras)"
find_data /dp_downward/status_extras
[ -e "$data/PG_VERSION" ] || fail "there is no base backup in $data to replay the log on"
[ "$(control 'Database system identifier')" = "$identifier" ] ||
  fail "the base backup is of the cluster $(control 'Database system identifier'), the log of $identifier"
if [ ! -e "$mark" ]; then
  # A volume of a snapshot comes as it was when the server ran; what is in a repository was unpacked by the stage before.
  base="$DP_BACKUP_ROOT_PATH/${DP_BASE_BACKUP_NAME:-}${DP_TARGET_RELATIVE_PATH:+/$DP_TARGET_RELATIVE_PATH}"
  if stored=$(DATASAFED_BACKEND_BASE_PATH="$base" datasafed list -f / 2> /dev/null) && grep -qx COMPLETE <<< "$stored"; then
    fail "$data holds a database that this restore did not put there; restore into new volumes"
  fi
  echo "$DP_BACKUP_NAME" > "$mark"
fi
settings=(recovery_target_action=promote recovery_target_timeline="$timeline" recovery_target_inclusive="$inclusive")
case "$target" in
  time) settings+=(recovery_target_time="$(date -u -d "@$DP_RESTORE_TIMESTAMP" '+%Y-%m-%d %H:%M:%S+00')") ;;
  latest) at_least=$(field end_lsn /dp_downward/status_extras) ;;
  immediate) settings+=(recovery_target=immediate) ;;
  lsn | xid | name)
    [ -n "$targetValue" ] || fail "target $target needs targetValue"
    settings+=("recovery_target_$target=$targetValue") ;;
esac
[ "$timeline" = latest ] || at_least=""

# The server asks; whoever has the keys of the repository answers. They are never the server's.
mkfifo "$run/ask" "$run/answer"
serve() {
  set +e
  while true; do
    read -r name place < "$run/ask" || continue
    datasafed postgres fetch-wal --catalogue "$work/catalogue" "$name" "$data/$place"
    code=$?
    if [ "$code" = 0 ]; then chown "$owner:$group" "$data/$place"; fi
    echo "$code" > "$run/answer"
  done
}
cat > "$run/fetch" <<'FETCH'
here=$(dirname "$0")
echo "$1 $2" > "$here/ask" && read -r code < "$here/answer" && exit "$code"
exit 126
FETCH
serve > "$work/served" 2>&1 & server=$!
trap 'code=$?; kill "$server" 2> /dev/null || true; if [ "$code" != 0 ]; then grep -v "is not in the repository" "$work/served" | tail -n 5 >&2 || true; fi; rm -rf "$work"; exit "$code"' EXIT
rm -f "$data/recovery.signal"
as_owner touch "$data/recovery.signal"
settings+=(restore_command="bash '$run/fetch' %f %p")
echo "replaying the log: target $target ${targetValue:-} ${DP_RESTORE_TIME:-}, timeline $timeline"
promoted=yes
recover
kill "$server" 2> /dev/null || true
conclude
