for tool in mysqld mysql; do command -v "$tool" > /dev/null || fail "no $tool in this image; set KBB_IMAGE to the database's own image"; done
verify=${verify:-check}
read_chain engine
version=$(value version); tools=$(mysqld --version | grep -o '[0-9]*\.[0-9]*\.[0-9]*' | head -n 1)
[ "${tools%.*}" = "$(cut -d. -f1,2 <<<"$version")" ] || fail "the backup is of MySQL $version, this image has $tools; set KBB_IMAGE to an image of the same series"

data=${KBB_DATA_DIR:-$(value data_directory)}
take "$data"
unpack "$DP_BACKUP_NAME" "$(value object)" "$(value sha256)" tar -xf - -C "$data"

owner=${KBB_DATA_UID:-$(id -u mysql 2> /dev/null || echo 999)}
group=$(id -g "$owner" 2> /dev/null || echo "$owner")
chown -R "$owner:$group" "$data"
chmod 0700 "$data"
install -d -m 0700 -o "$owner" "$work/run"; chmod 0711 "$work"
echo "starting the server on the restored files, without network"
mysqld --no-defaults --user="$owner" --datadir="$data" --skip-networking --mysqlx=OFF --skip-log-bin --skip-grant-tables --skip-replica-start --secure-file-priv= \
  --auto-generate-certs=OFF --caching-sha2-password-auto-generate-rsa-keys=OFF --event-scheduler=DISABLED --socket="$work/run/socket" --pid-file="$work/run/pid" \
  --innodb-page-size="$(value page_size)" --innodb-data-file-path="$(value data_file_path)" --lower-case-table-names="$(value lower_case_table_names)" > "$work/run/log" 2>&1 & running=$!
show_log() { tail -n 20 "$work/run/log" >&2; }
ask() { mysql --no-defaults --socket="$work/run/socket" --user=root --batch --skip-column-names --execute="$1"; }
until ask "select 1" > /dev/null 2>&1; do
  kill -0 "$running" 2> /dev/null || { show_log; fail "the server did not come up on the restored files"; }
  sleep 0.2
done
gtid=$(ask "select replace(@@global.gtid_executed, '\n', '')")
[ "$gtid" = "$(value gtid_executed)" ] || fail "the restored server has executed $gtid; the backup's set is $(value gtid_executed)"
[ "$(ask "select @@server_uuid")" != "$(value server_uuid)" ] || fail "the restored server has the source's server_uuid"
if [ "$verify" = check ]; then
  echo "checking every table"
  ask "select concat('check table \`', replace(table_schema, '\`', '\`\`'), '\`.\`', replace(table_name, '\`', '\`\`'), '\`;') from information_schema.tables
    where table_type = 'BASE TABLE' and table_schema not in ('information_schema', 'performance_schema')" > "$work/tables"
  mysql --no-defaults --socket="$work/run/socket" --user=root --batch --skip-column-names < "$work/tables" > "$work/found" || fail "the tables could not be checked (see the line above)"
  if grep -vP '\tstatus\tOK$|\tnote\t' "$work/found" >&2; then fail "tables are damaged (the lines above)"; fi
  [ "$(grep -c . "$work/found")" -ge "$(grep -c . "$work/tables")" ] || fail "not every table was checked"
fi
kill "$running"
wait "$running" || { show_log; fail "the restored server did not stop cleanly"; }
# The server that takes over gets an identity of its own.
rm -f "$data/auto.cnf"
binlog=$(value binlog)
restored "{\"engine\":\"mysql\",\"position\":\"${gtid:-$binlog}\",\"binlog\":\"$binlog\"}" "$data"
echo "restored to GTID set ${gtid:-none}, binlog ${binlog:-unknown}"
