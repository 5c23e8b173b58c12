[ "$(ask "select rolreplication or rolsuper from pg_roles where rolname = current_user")" = t ] ||
  fail "role $PGUSER lacks REPLICATION; run: alter role \"$PGUSER\" replication"
tablespaces=$(ask "select string_agg(spcname, ', ') from pg_tablespace where spcname not in ('pg_default', 'pg_global')")
data_directory=$(psql -XAtqw -c "show data_directory" 2> /dev/null) || data_directory=""
identifier=$(ask "select system_identifier from pg_control_system()")
start=$(now 0)

# A temporary slot keeps the WAL of this copy until the connection ends, so there is nothing to clean up after a
# kill. Without a free slot the copy is tried all the same: the server refuses it if WAL went missing.
coproc HOLD { exec psql -XAtqw 2> /dev/null; }
slot="kbb_${HOSTNAME//[^a-z0-9]/_}"
echo "select 'held' from pg_create_physical_replication_slot('${slot:0:60}', true, true);" >&"${HOLD[1]}" || true
held=""
read -r -t 20 held <&"${HOLD[0]}" || true
[ "$held" = held ] || echo "warning: no free replication slot; the WAL of this copy is not held back" >&2

options=(-Ft -X fetch -c "$checkpoint" -w -l "$DP_BACKUP_NAME" --manifest-checksums=SHA256 "${increment[@]}")
if [ -n "$maxRate" ]; then options+=(--max-rate="$maxRate"); fi
echo "copying $PGHOST:$PGPORT (PostgreSQL $version, data directory ${data_directory:-not told})"
if [ -z "$tablespaces" ]; then
  mkfifo "$work/manifest_tap"
  { tar -xOf - backup_manifest > "$work/backup_manifest" && cat > /dev/null; } < "$work/manifest_tap" & manifest=$!
  pg_basebackup -D - "${options[@]}" | tee "$work/manifest_tap" | store base.tar
  wait "$manifest" || fail "the stream ended without a readable backup_manifest"
else
  # Several tars do not fit into one stream: they are written here first.
  need=$(ask "select (sum(pg_tablespace_size(oid)) / 1024)::bigint from pg_tablespace")
  room=$(df -Pk "$work" | awk 'NR == 2 {print $4}')
  [ "$room" -gt "$need" ] ||
    fail "with user tablespaces ($tablespaces) the copy needs $need kB in $work, and there are $room; mount a larger volume and name it in KBB_SCRATCH"
  pg_basebackup -D "$work/copy" "${options[@]}"
  mv "$work/copy/backup_manifest" "$work/backup_manifest"
  for file in "$work"/copy/*.tar; do
    name=$(basename "$file")
    store "$name" < "$file"
    rm "$file"
  done
fi

# The moment at which the copy became consistent has passed; rounded up, a target at this time lies behind it.
end=$(now 1)
range=$(tr -d '\n' < "$work/backup_manifest" | grep -o '"WAL-Ranges": *\[[^]]*\]') || fail "backup_manifest names no WAL range"
of_range() { grep -o "\"$1\": *\"\?[0-9A-F/]*" <<< "$range" | tail -n 1 | sed 's/.*[" ]//'; }
timeline=$(of_range Timeline) end_lsn=$(of_range End-LSN)
start_lsn=$(grep -o '"Start-LSN": *"[0-9A-F/]*"' <<< "$range" | head -n 1 | sed 's/"$//; s/.*"//')
datasafed push "$work/backup_manifest" /backup_manifest
echo "$(sha256sum < "$work/backup_manifest" | cut -c1-64) backup_manifest" >> "$work/sums"
datasafed push "$work/sums" /sums
size=$(datasafed stat / | awk '/^TotalSize/ {print $2}')
cat > "$work/COMPLETE" <<INFO
{"totalSize":"$size","timeRange":{"start":"$start","end":"$end"},
 "extras":[{"engine":"postgresql","server_version_num":"$version","system_identifier":"$identifier",
   "timeline":"$timeline","start_lsn":"$start_lsn","end_lsn":"$end_lsn","parent":"${DP_PARENT_BACKUP_NAME:-}",
   "data_directory":"$data_directory","superuser":"$PGUSER","compression":"$compression",
   "tool":"$(pg_basebackup --version)","sums":"$(sha256sum < "$work/sums" | cut -c1-64)"}]}
INFO
datasafed push "$work/COMPLETE" /COMPLETE
report
echo "stored $size bytes; consistent at $end_lsn on timeline $timeline"
