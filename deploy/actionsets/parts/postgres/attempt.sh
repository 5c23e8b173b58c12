work=$(mktemp -d "${KBB_SCRATCH:-/tmp}/kbb.XXXXXX")
finish() {
  code=$?
  if [ -n "${HOLD_PID:-}" ]; then kill "$HOLD_PID" 2> /dev/null || true; fi
  rm -rf "$work"
  if [ "$code" -ne 0 ]; then touch "$DP_BACKUP_INFO_FILE.exit"; fi
  exit "$code"
}
trap finish EXIT
case "$compression" in none) suffix="" squeeze=() ;; *) suffix=.zst squeeze=(-z "$compression") ;; esac
# The server's time, with so many seconds added: now SECONDS
now() { ask "select to_char(date_trunc('second', clock_timestamp() at time zone 'UTC') + interval '$1 second', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"; }
report() { cp "$work/COMPLETE" "$DP_BACKUP_INFO_FILE.new"; mv "$DP_BACKUP_INFO_FILE.new" "$DP_BACKUP_INFO_FILE"; }
# What an earlier attempt left is not to be taken for this one's, be it whole or not: only what this one stores is sealed.
if stored=$(datasafed list -f -r / 2> /dev/null); then
  datasafed rm /COMPLETE
  grep -E '^(([0-9]+|base)\.tar|[0-9]+\.dump|globals\.sql|backup_manifest$|databases$|sums$)' <<< "$stored" | while read -r object; do
    datasafed rm "/$object"
  done || true
fi
# Stores standard input and notes the digest of what came in: store NAME
store() {
  [ -p "$work/tap" ] || mkfifo "$work/tap"
  sha256sum < "$work/tap" > "$work/digest" & local sum=$!
  tee "$work/tap" | datasafed push "${squeeze[@]}" - "/$1$suffix"
  wait "$sum"
  echo "$(cut -c1-64 "$work/digest") $1$suffix" >> "$work/sums"
}
