# Unpacks a backup of the chain into a directory, by the program in $unstream: into BACKUP DIRECTORY
into() {
  mkdir "$2"
  unpack "$1" "$(value object "$work/$1.complete")" "$(value sha256 "$work/$1.complete")" "$unstream" -x -C "$2"
}
tool() {
  "$backup" --no-defaults "$@" --target-dir="$stage/full" > "$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; fail "$backup $1 failed (the last lines above)"; }
  said_ok "$backup $1"
}
# Puts the chain together in $stage/full; `held BACKUP` gives what the tool is told besides: prepare_chain
prepare_chain() {
  local name extra
  into "${chain[0]}" "$stage/full"
  mapfile -t extra < <(held "${chain[0]}")
  tool --prepare "${extra[@]}"
  for name in "${chain[@]:1}"; do
    into "$name" "$stage/increment"
    mapfile -t extra < <(held "$name")
    tool --prepare "${extra[@]}" --incremental-dir="$stage/increment"
    rm -rf "$stage/increment"
  done
  local reached; reached=$(checkpoint to_lsn "$stage/full")
  [ "$reached" = "$(value to_lsn "$last")" ] || fail "the prepared copy is at LSN $reached, not at $(value to_lsn "$last")"
}
