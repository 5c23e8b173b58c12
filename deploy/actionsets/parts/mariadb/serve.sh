# Starts the server on what was restored, without network and for whoever reaches its socket: serve OPTION…
serve() {
  run=$(mktemp -d); chown "$owner:$group" "$run"; chmod 0644 "$work/server.cnf"; chmod 0711 "$work"
  "$server" --defaults-file="$work/server.cnf" --datadir="$data" --socket="$run/socket" --pid-file="$run/pid" --tmpdir="$run" --user="$owner" \
    --skip-networking --skip-grant-tables --skip-slave-start --event-scheduler=disabled "$@" > "$run/log" 2>&1 & running=$!
  until query "select 1" > /dev/null 2>&1; do
    kill -0 "$running" 2>/dev/null || { show_log; fail "the server did not come up on the restored files"; }
    sleep 0.2
  done
}
show_log() { tail -n 30 "$run/log" >&2; }
session() { "$client" --no-defaults --socket="$run/socket" --user=root --batch --skip-column-names "$@"; }
query() { session --execute="$1"; }
check_tables() {
  local found
  echo "checking every table"
  found=$("$check" --no-defaults --socket="$run/socket" --user=root --all-databases --check --silent 2>&1) || fail "the tables could not be checked: $found"
  if grep -qiE 'error|corrupt|crash' <<<"$found"; then echo "$found" >&2; fail "tables are damaged (the lines above)"; fi
}
quit() {
  kill "$running"
  wait "$running" || { show_log; fail "the restored server did not stop cleanly"; }
  if grep -F '[ERROR]' "$run/log" >&2 && [ "$verify" = check ]; then fail "the restored server found errors (the lines above)"; fi
  rm -rf "$run"
}
# What the server is afterwards: at the GTID, with tables that are whole: conclude GTID
conclude() {
  echo "starting the server on the restored files, without network"
  serve --skip-log-bin
  if [ "$verify" = check ]; then check_tables; fi
  # New transactions go on counting where the copy ends, instead of using the source's numbers once more.
  if [ -n "$1" ]; then query "set global gtid_slave_pos = '$1'"; fi
  quit
}
