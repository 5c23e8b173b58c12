check=$(pick mariadb-check mysqlcheck); server=$(pick mariadbd mysqld); unstream=$(pick mbstream)
verify=${verify:-check}
read_chain identity lineage server_id series
last="$work/$DP_BACKUP_NAME.complete"
[ "${tools%.*}" = "$(value series "$last")" ] || fail "the backup is of MariaDB $(value version "$last"), this image has $tools; set KBB_IMAGE to an image of the same series"
data=${KBB_DATA_DIR:-$(value data_directory "$last")}
take "$data"
stage="$data/.kbbackup-stage"
mkdir "$stage"

# One order for the whole chain: this tool undoes nothing before the end by itself.
held() { :; }
prepare_chain

# Settings without which these files cannot be opened.
{
  echo "[mariadbd]"
  echo "ignore-db-dirs=lost+found"
  grep -E '^innodb_(page_size|data_file_path|undo_tablespaces)=' "$stage/full/backup-my.cnf" || true
  echo "lower_case_table_names=$(value lower_case_table_names "$last")"
} > "$work/server.cnf"
tool --move-back --force-non-empty-directories --datadir="$data"
rm -rf "$stage"
# From here on this is another history than the source's: no increment of the one may follow a backup of the other.
od -An -tx1 -N16 /dev/urandom | tr -d ' \n' > "$data/kbbackup_lineage"

owner=${KBB_DATA_UID:-$(id -u mysql 2>/dev/null || echo 999)}
group=$(id -g "$owner" 2>/dev/null || echo "$owner")
chown -R "$owner:$group" "$data"
chmod 0700 "$data"
run=$(mktemp -d); chown "$owner:$group" "$run"; chmod 0644 "$work/server.cnf"; chmod 0711 "$work"
echo "starting the server on the restored files, without network"
"$server" --defaults-file="$work/server.cnf" --datadir="$data" --socket="$run/socket" --pid-file="$run/pid" --user="$owner" \
  --skip-networking --skip-grant-tables --skip-log-bin --skip-slave-start --event-scheduler=disabled > "$run/log" 2>&1 & running=$!
show_log() { tail -n 30 "$run/log" >&2; }
ask() { "$client" --no-defaults --socket="$run/socket" --user=root --batch --skip-column-names --execute="$1"; }
until ask "select 1" > /dev/null 2>&1; do
  kill -0 "$running" 2>/dev/null || { show_log; fail "the server did not come up on the restored files"; }
  sleep 0.2
done
if [ "$verify" = check ]; then
  echo "checking every table"
  found=$("$check" --no-defaults --socket="$run/socket" --user=root --all-databases --check --silent 2>&1) || fail "the tables could not be checked: $found"
  if grep -qiE 'error|corrupt|crash' <<<"$found"; then echo "$found" >&2; fail "tables are damaged (the lines above)"; fi
fi
gtid=$(value gtid "$last")
# New transactions go on counting where the copy ends, instead of using the source's numbers once more.
if [ -n "$gtid" ]; then ask "set global gtid_slave_pos = '$gtid'"; fi
kill "$running"
wait "$running" || { show_log; fail "the restored server did not stop cleanly"; }
if grep -F '[ERROR]' "$run/log" >&2 && [ "$verify" = check ]; then fail "the restored server found errors (the lines above)"; fi
rm -rf "$run"
binlog=$(value binlog "$last")
restored "{\"engine\":\"mariadb\",\"position\":\"${gtid:-$binlog}\",\"binlog\":\"$binlog\",\"lsn\":\"$(value last_lsn "$last")\"}" "$data"
echo "restored to GTID ${gtid:-none}, binlog ${binlog:-off}, LSN $(value last_lsn "$last")"
