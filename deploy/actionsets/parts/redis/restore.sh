read_chain engine
# Both once were one; from Redis 7.4 and Valkey 8 on neither reads the other's newer files.
[ "$product" = "$(value engine)" ] || echo "warning: the backup is of $(value engine) $(value version), this image has $product" >&2

data=${KBB_DATA_DIR:-$(value data_directory)}; file=$(value file)
take "$data"
into() { cat > "$data/$file"; }
unpack "$DP_BACKUP_NAME" "$(value object)" "$(value sha256)" into
"$product-check-rdb" "$data/$file" > "$work/check" || { tail -n 10 "$work/check" >&2; fail "$product-check-rdb finds the file damaged"; }
keys=$(sed -n 's/.*\[info\] \([0-9]*\) keys read.*/\1/p' "$work/check")

echo "loading it, without network"
names=(--appendfilename "$(value append_file)")
# One file before Redis 7, a directory since.
if [ -n "$(value append_directory)" ]; then names+=(--appenddirname "$(value append_directory)"); fi
serve --dbfilename "$file" --appendonly no "${names[@]}"
loaded=$(sed -n 's/.*keys loaded: \([0-9]*\), keys expired: \([0-9]*\).*/\1 \2/p' "$work/log")
[ "$((${loaded% *} + ${loaded#* }))" = "$keys" ] || fail "the file has $keys keys, the server loaded ${loaded% *} and let ${loaded#* } expire"
# A server with an append-only file would not even look at an RDB file beside it: it would start empty.
wanted=${appendonly:-source}
if [ "$wanted" = source ]; then wanted=$(value appendonly); fi
if [ "$wanted" = yes ]; then
  echo "writing the append-only file"
  [ "$(ask CONFIG SET appendonly yes)" = OK ] || fail "the append-only file could not be switched on"
  rewritten
fi
quit
if [ "$wanted" = yes ]; then
  rm "$data/$file"
  log="$data/$(value append_directory)/$(value append_file).manifest"
  if [ -z "$(value append_directory)" ]; then log="$data/$(value append_file)"; fi
  check_log "$log"
fi
chown -R "$owner:$group" "$data"
restored "{\"engine\":\"$product\",\"position\":\"$(value replication_id):$(value offset_before)\",\"keys\":\"${loaded% *}\"}" "$data"
echo "restored ${loaded% *} keys"
