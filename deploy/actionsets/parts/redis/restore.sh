export PATH="$PATH:/opt/bitnami/redis/bin:/opt/bitnami/valkey/bin"
read_chain engine
product=valkey; command -v valkey-server > /dev/null || product=redis
for tool in server cli check-rdb check-aof; do command -v "$product-$tool" > /dev/null || fail "no $product-$tool in this image; set KBB_IMAGE to the database's own image"; done
# Both once were one; from Redis 7.4 and Valkey 8 on neither reads the other's newer files.
[ "$product" = "$(value engine)" ] || echo "warning: the backup is of $(value engine) $(value version), this image has $product" >&2

data=${KBB_DATA_DIR:-$(value data_directory)}; file=$(value file)
take "$data"
into() { cat > "$data/$file"; }
unpack "$DP_BACKUP_NAME" "$(value object)" "$(value sha256)" into
"$product-check-rdb" "$data/$file" > "$work/check" || { tail -n 10 "$work/check" >&2; fail "$product-check-rdb finds the file damaged"; }
keys=$(sed -n 's/.*\[info\] \([0-9]*\) keys read.*/\1/p' "$work/check")

owner=${KBB_DATA_UID:-$(id -u "$product" 2>/dev/null || id -u redis 2>/dev/null || echo 999)}
group=$(id -g "$owner" 2>/dev/null || echo "$owner")
echo "loading it, without network"
mkdir "$work/run"
names=(--appendfilename "$(value append_file)")
# One file before Redis 7, a directory since.
if [ -n "$(value append_directory)" ]; then names+=(--appenddirname "$(value append_directory)"); fi
"$product-server" --port 0 --unixsocket "$work/run/socket" --dir "$data" --dbfilename "$file" --appendonly no "${names[@]}" --save "" --daemonize no > "$work/log" 2>&1 & running=$!
ask() { "$product-cli" -s "$work/run/socket" "$@"; }
info() { ask INFO | tr -d '\r' | sed -n "s/^$1://p"; }
until [ "$(info loading 2>/dev/null)" = 0 ]; do
  kill -0 "$running" 2>/dev/null || { tail -n 20 "$work/log" >&2; fail "the server did not load the file (the last lines above)"; }
  sleep 0.2
done
loaded=$(sed -n 's/.*keys loaded: \([0-9]*\), keys expired: \([0-9]*\).*/\1 \2/p' "$work/log")
[ "$((${loaded% *} + ${loaded#* }))" = "$keys" ] || fail "the file has $keys keys, the server loaded ${loaded% *} and let ${loaded#* } expire"
# A server with an append-only file would not even look at an RDB file beside it: it would start empty.
wanted=${appendonly:-source}
if [ "$wanted" = source ]; then wanted=$(value appendonly); fi
if [ "$wanted" = yes ]; then
  echo "writing the append-only file"
  [ "$(ask CONFIG SET appendonly yes)" = OK ] || fail "the append-only file could not be switched on"
  until [ "$(info aof_rewrite_in_progress)" = 0 ] && [ "$(info aof_rewrite_scheduled)" = 0 ]; do sleep 0.2; done
  [ "$(info aof_last_bgrewrite_status)" = ok ] || { tail -n 20 "$work/log" >&2; fail "the append-only file was not written"; }
fi
ask SHUTDOWN NOSAVE > /dev/null 2>&1 || true
wait "$running" || { tail -n 20 "$work/log" >&2; fail "the server did not stop cleanly"; }
if [ "$wanted" = yes ]; then
  rm "$data/$file"
  log="$data/$(value append_directory)/$(value append_file).manifest"
  if [ -z "$(value append_directory)" ]; then log="$data/$(value append_file)"; fi
  "$product-check-aof" "$log" > "$work/check" 2>&1 || { tail -n 10 "$work/check" >&2; fail "$product-check-aof finds $log damaged"; }
fi
chown -R "$owner:$group" "$data"
restored "{\"engine\":\"$product\",\"position\":\"$(value replication_id):$(value offset_before)\",\"keys\":\"${loaded% *}\"}" "$data"
echo "restored ${loaded% *} keys"
