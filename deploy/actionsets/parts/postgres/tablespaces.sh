# Tablespaces go where they were when that is a volume of this restore, else below KBB_TABLESPACE_DIR.
place_tablespaces() {
  local oid location device root above
  [ -e "$data/tablespace_map" ] || return 0
  root=$(stat -c %d /)
  : > "$work/map"
  while read -r oid location; do
    if [ -n "${KBB_TABLESPACE_DIR:-}" ]; then location="$KBB_TABLESPACE_DIR/$oid"; fi
    above=$location
    until [ -d "$above" ]; do above=$(dirname "$above"); done
    device=$(stat -c %d "$above")
    [ "$device" != "$root" ] || [ -n "${KBB_TABLESPACE_DIR:-}" ] ||
      fail "the tablespace $oid was in $location, which is on no volume of this restore; set KBB_TABLESPACE_DIR to a directory on one"
    mkdir -p "$location"
    if [ -n "$(find "$location" -mindepth 1 -print -quit)" ]; then
      [ "$(cat "$location/.kbbackup-restore" 2> /dev/null)" = "$DP_BACKUP_NAME" ] || fail "$location is not empty; restore into new volumes"
      find "$location" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
    fi
    echo "$DP_BACKUP_NAME" > "$location/.kbbackup-restore"
    unpack "$1" "$(objects "$1" | grep -E "^$oid\.tar(\.zst)?$")" "$location"
    rm "$location/.kbbackup-restore"
    chown -R "$owner:$group" "$location"
    chmod 0700 "$location"
    rm -rf "$data/pg_tblspc/$oid"
    ln -s "$location" "$data/pg_tblspc/$oid"
    echo "$oid $location" >> "$work/map"
  done < "$data/tablespace_map"
}
