# The copy itself, by the tool in $backup in the stream format $format; it begins where the parent ends: stream VERSION
since=(); from_lsn=0
if [ -n "$parent" ]; then from_lsn=$(value to_lsn "$work/parent"); since=(--incremental-lsn="$from_lsn"); fi
copy() {
  "$backup" --defaults-file="$work/my.cnf" --backup --stream="$format" --datadir="$data" --extra-lsndir="$work/lsn" \
    --target-dir="$work/target" --tmpdir="$work" --parallel="$parallel" "${since[@]}" 2> "$work/log"
}
stream() {
  forget "data.$format"
  object=data.$format$suffix
  echo "streaming ${parent:+what changed since $parent (LSN $from_lsn) in }$data of $DP_DB_HOST ($1)"
  store "$object" copy || { tail -n 20 "$work/log" >&2; fail "the copy failed (the last lines above)"; }
  said_ok "$backup"
  to_lsn=$(checkpoint to_lsn "$work/lsn"); last_lsn=$(checkpoint last_lsn "$work/lsn")
  local began; began=$(checkpoint from_lsn "$work/lsn")
  if [ "$began" != "$from_lsn" ] || [ "${to_lsn:-0}" -lt "$from_lsn" ]; then
    fail "the copy covers LSN $began to $to_lsn and should begin at $from_lsn"
  fi
}
