finish() {
  code=$?
  rm -rf "$work"
  if [ "$code" -ne 0 ]; then touch "$DP_BACKUP_INFO_FILE.exit"; fi
  exit "$code"
}
trap finish EXIT
case "$compression" in none) suffix="" squeeze=() ;; *) suffix=.zst squeeze=(-z "$compression") ;; esac
# What an earlier attempt left is not to be taken for this one's: forget NAME…
forget() { for leftover in COMPLETE "$@"; do datasafed rm "/$leftover"; datasafed rm "/$leftover.zst"; done; }
# Stores what a function writes to standard output, and leaves the digest of it in $digest: store OBJECT FUNCTION
store() {
  [ -p "$work/tap" ] || mkfifo "$work/tap"
  sha256sum < "$work/tap" > "$work/sum" & local sum=$! stream
  { "$2" | tee "$work/tap" | datasafed push "${squeeze[@]}" - "/$1"; } & stream=$!
  # Waited for, not run in front: a shell that waits hears a TERM.
  wait "$stream" || return 1
  # Said outright: whoever handles a failure of this function switches the shell's own checks off in it.
  wait "$sum" || return 1
  digest=$(cut -c1-64 "$work/sum")
}
# Last of all: who finds COMPLETE finds a whole backup: complete FACTS MORE START END. Facts are told in the Backup as well.
complete() {
  echo "{$1,$2}" > "$work/complete"
  datasafed push "$work/complete" /COMPLETE
  size=$(datasafed stat / | sed -n 's/^TotalSize: //p')
  echo "{\"totalSize\":\"$size\",\"timeRange\":{\"start\":\"$3\",\"end\":\"$4\"},\"extras\":[{$1}]}" > "$DP_BACKUP_INFO_FILE.new"
  mv "$DP_BACKUP_INFO_FILE.new" "$DP_BACKUP_INFO_FILE"
}
