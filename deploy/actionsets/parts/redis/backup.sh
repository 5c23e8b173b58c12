export PATH="$PATH:/opt/bitnami/redis/bin:/opt/bitnami/valkey/bin"
client=$(command -v valkey-cli || command -v redis-cli) || fail "neither valkey-cli nor redis-cli in this image; set KBB_IMAGE in the method's env to the database's own image"
# The client takes the password from here, so that it is not among its arguments.
export REDISCLI_AUTH="${DP_DB_PASSWORD:-}"
if [ -z "$REDISCLI_AUTH" ]; then unset REDISCLI_AUTH; fi
login=("$client" -h "$DP_DB_HOST" -p "${DP_DB_PORT:-6379}" --no-auth-warning)
if [ -n "${DP_DB_USER:-}" ] && [ "$DP_DB_USER" != default ]; then login+=(--user "$DP_DB_USER"); fi
case "$tls" in
  verify) login+=(--tls --cacert "${KBB_TLS_CA:?set KBB_TLS_CA in the env of the method to a file with the certificates to trust}") ;;
  insecure) login+=(--tls --insecure) ;;
esac
# The client ends well when the server says no.
ask() {
  local said
  said=$("${login[@]}" "$@" 2>&1) || fail "$DP_DB_HOST:${DP_DB_PORT:-6379} cannot be asked for $1: ${said%%$'\n'*}"
  case "$said" in NOAUTH*|WRONGPASS*|NOPERM*|ERR*|*AUTH\ failed*) fail "$DP_DB_HOST:${DP_DB_PORT:-6379} refuses $1 to ${DP_DB_USER:-default}: ${said%%$'\n'*}" ;; esac
  printf '%s\n' "${said//$'\r'/}"
}
info=$(ask INFO)
info() { sed -n "s/^$1://p" <<<"$info" | head -n 1; }
setting() { ask CONFIG GET "$1" | sed -n 2p; }
now() { date -u -d "@$(($(ask TIME | head -n 1) + $1))" +%FT%TZ; }
[ "$(info cluster_enabled)" != 1 ] || fail "$DP_DB_HOST is one shard of a cluster; a backup of it alone could not be brought back"
if [ "$(info role)" = slave ] && [ "$(info master_link_status)" != up ]; then fail "$DP_DB_HOST is a replica that has lost its primary; its data may be old"; fi
product=redis; version=$(info redis_version)
if [ -n "$(info valkey_version)" ]; then product=valkey; version=$(info valkey_version); fi
data=$(setting dir); file=$(setting dbfilename); aof=$(setting appendonly); aof_name=$(setting appendfilename); aof_directory=$(setting appenddirname)

forget dump.rdb
object=dump.rdb$suffix
start=$(now 0)
echo "streaming $DP_DB_HOST:${DP_DB_PORT:-6379} ($product $version)"
mkfifo "$work/ends"
# What is whole begins with a word and ends with a mark and eight bytes.
{ read -rN5 word; printf %s "$word"; tail -c 9 | head -c 1; } < "$work/ends" > "$work/marks" & ends=$!
# Of a server that sends without knowing the size the client passes on 40 bytes that only say that all was sent.
whole() {
  local word=""
  IFS= read -rN5 word || true
  if grep -q 'until EOF marker' "$work/log"; then { printf %s "$word"; cat; } | head -c -40; else printf %s "$word"; cat; fi
}
copy() { "${login[@]}" --rdb - 2> "$work/log" | whole | tee "$work/ends"; }
store "$object" copy || { tail -n 5 "$work/log" >&2; fail "the copy failed (the last lines above)"; }
wait "$ends" || true
case "$(<"$work/marks")" in REDIS$'\xff'|VALKE$'\xff') ;; *) tail -n 5 "$work/log" >&2; fail "the stream is no whole RDB file (what the client said is above)" ;; esac
# The copy is of the moment at which the server began to write it, which has passed.
end=$(now 1)

facts="\"engine\":\"$product\",\"version\":\"$version\",\"run_id\":\"$(info run_id)\",\"replication_id\":\"$(info master_replid)\",\"offset_before\":\"$(info master_repl_offset)\",\"data_directory\":\"$data\",\"file\":\"$file\",\"appendonly\":\"$aof\",\"append_file\":\"$aof_name\",\"append_directory\":\"$aof_directory\",\"object\":\"$object\",\"compression\":\"$compression\""
complete "$facts" "\"sha256\":\"$digest\"" "$start" "$end"
echo "stored $size bytes"
