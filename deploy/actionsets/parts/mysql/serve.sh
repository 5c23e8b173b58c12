# Starts the server on what was restored, without network and for whoever reaches its socket: serve OPTION…
serve() {
  install -d -m 0700 -o "$owner" "$work/run"; chmod 0711 "$work"
  mysqld --no-defaults --user="$owner" --datadir="$data" --skip-networking --mysqlx=OFF --skip-grant-tables --skip-replica-start --secure-file-priv= \
    --auto-generate-certs=OFF --caching-sha2-password-auto-generate-rsa-keys=OFF --event-scheduler=DISABLED --socket="$work/run/socket" --pid-file="$work/run/pid" \
    "${shape[@]}" "$@" > "$work/run/log" 2>&1 & running=$!
  until ask "select 1" > /dev/null 2>&1; do
    kill -0 "$running" 2> /dev/null || { show_log; fail "the server did not come up on the restored files"; }
    sleep 0.2
  done
}
show_log() { tail -n 20 "$work/run/log" >&2; }
session() { mysql --no-defaults --socket="$work/run/socket" --user=root --batch --skip-column-names "$@"; }
ask() { session --execute="$1"; }
executed() { ask "select replace(@@global.gtid_executed, '\n', '')"; }
check_tables() {
  echo "checking every table"
  ask "select concat('check table \`', replace(table_schema, '\`', '\`\`'), '\`.\`', replace(table_name, '\`', '\`\`'), '\`;') from information_schema.tables
    where table_type = 'BASE TABLE' and table_schema not in ('information_schema', 'performance_schema')" > "$work/tables"
  session < "$work/tables" > "$work/found" || fail "the tables could not be checked (see the line above)"
  if grep -vP '\tstatus\tOK$|\tnote\t' "$work/found" >&2; then fail "tables are damaged (the lines above)"; fi
  [ "$(grep -c . "$work/found")" -ge "$(grep -c . "$work/tables")" ] || fail "not every table was checked"
}
quit() {
  kill "$running"
  wait "$running" || { show_log; fail "the restored server did not stop cleanly"; }
}
