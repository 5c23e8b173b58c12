case "$target" in
  time) to=(--to-time="$DP_RESTORE_TIMESTAMP") ;;
  *) to=(--latest) ;;
esac
datasafed redis describe "${to[@]}" > "$work/about"
about() { sed -n "s/^$1 //p" "$work/about"; }
[ "$product" = "$(about engine)" ] || echo "warning: the log is of $(about engine) $(about version), this image has $product" >&2
data=${KBB_DATA_DIR:-$(about data_directory)}
take "$data"
log="$data/$(about append_directory)"; manifest="$log/$(about append_file).manifest"
echo "fetching the base and what was done since"
datasafed redis fetch-aof "${to[@]}" "$log" > "$work/plan"
plan() { sed -n "s/^$1 //p" "$work/plan"; }
check_log "$manifest"
echo "loading it, without network: the data of $(plan base), and $(plan files) files of commands up to $(plan last)"
serve --appendonly yes --aof-load-truncated no --appenddirname "$(about append_directory)" --appendfilename "$(about append_file)" --dbfilename "$(about file)"
# What comes from here on is another history than the source's, with a base of its own.
if [ "${appendonly:-yes}" = yes ]; then
  ask BGREWRITEAOF > /dev/null
  rewritten
else
  [ "$(ask SAVE)" = OK ] || { tail -n 20 "$work/log" >&2; fail "the RDB file was not written"; }
fi
databases=$(info '\(db[0-9]*\)' | wc -l)
quit
if [ "${appendonly:-yes}" = yes ]; then
  check_log "$manifest"
else
  rm -rf "$log"
  "$product-check-rdb" "$data/$(about file)" > "$work/check" || { tail -n 10 "$work/check" >&2; fail "$product-check-rdb finds the file damaged"; }
fi
chown -R "$owner:$group" "$data"
restored "{\"engine\":\"$product\",\"position\":\"$(plan position)\",\"lastCommit\":\"$(plan last)\"}" "$data"
echo "recovered $databases databases up to $(plan last), position $(plan position)"
