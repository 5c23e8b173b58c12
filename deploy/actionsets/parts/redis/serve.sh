export PATH="$PATH:/opt/bitnami/redis/bin:/opt/bitnami/valkey/bin"
product=valkey; command -v valkey-server > /dev/null || product=redis
for tool in server cli check-rdb check-aof; do command -v "$product-$tool" > /dev/null || fail "no $product-$tool in this image; set KBB_IMAGE to the database's own image"; done
owner=${KBB_DATA_UID:-$(id -u "$product" 2>/dev/null || id -u redis 2>/dev/null || echo 999)}
group=$(id -g "$owner" 2>/dev/null || echo "$owner")
ask() { "$product-cli" -s "$work/run/socket" "$@"; }
info() { ask INFO | tr -d '\r' | sed -n "s/^$1://p"; }
# Starts the server on what was restored, without network, and waits until it has read all of it: serve OPTION…
serve() {
  mkdir "$work/run"
  "$product-server" --port 0 --unixsocket "$work/run/socket" --dir "$data" --save "" --daemonize no "$@" > "$work/log" 2>&1 & running=$!
  until [ "$(info loading 2>/dev/null)" = 0 ]; do
    kill -0 "$running" 2>/dev/null || { tail -n 20 "$work/log" >&2; fail "the server did not load what was restored (the last lines above)"; }
    sleep 0.2
  done
}
# Waits until the append-only file is written anew.
rewritten() {
  until [ "$(info aof_rewrite_in_progress)" = 0 ] && [ "$(info aof_rewrite_scheduled)" = 0 ]; do sleep 0.2; done
  [ "$(info aof_last_bgrewrite_status)" = ok ] || { tail -n 20 "$work/log" >&2; fail "the append-only file was not written"; }
}
quit() {
  ask SHUTDOWN NOSAVE > /dev/null 2>&1 || true
  wait "$running" || { tail -n 20 "$work/log" >&2; fail "the server did not stop cleanly"; }
}
# An append-only file is as it should be: check_log FILE
check_log() { "$product-check-aof" "$1" > "$work/check" 2>&1 || { tail -n 10 "$work/check" >&2; fail "$product-check-aof finds $1 damaged"; }; }
