for tool in xtrabackup xbstream; do
  command -v "$tool" > /dev/null || fail "no $tool in this image; set KBB_IMAGE to an image of Percona XtraBackup of the server's series"
done
read_chain server_uuid lineage
last="$work/$DP_BACKUP_NAME.complete"
data=${KBB_DATA_DIR:-$(value data_directory "$last")}
take "$data"
stage="$data/.kbbackup-stage"
mkdir "$stage"

into() {
  mkdir "$2"
  unpack "$1" "$(value object "$work/$1.complete")" "$(value sha256 "$work/$1.complete")" xbstream -x -C "$2"
}
tool() {
  xtrabackup --no-defaults "$@" --target-dir="$stage/full" > "$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; fail "xtrabackup $1 failed (the last lines above)"; }
  said_ok "xtrabackup $1"
}
# Only the last step may undo what was not committed: an increment still belongs to transactions that a step undid.
held() { if [ "$1" != "$DP_BACKUP_NAME" ]; then echo --apply-log-only; fi; }
into "${chain[0]}" "$stage/full"
# shellcheck disable=SC2046 # one word or none
tool --prepare $(held "${chain[0]}")
for name in "${chain[@]:1}"; do
  into "$name" "$stage/increment"
  # shellcheck disable=SC2046 # one word or none
  tool --prepare $(held "$name") --incremental-dir="$stage/increment"
  rm -rf "$stage/increment"
done
reached=$(checkpoint to_lsn "$stage/full"); kind=$(checkpoint backup_type "$stage/full")
[ "$reached" = "$(value to_lsn "$last")" ] || fail "the prepared copy is at LSN $reached, not at $(value to_lsn "$last")"
case "$kind" in full-prepared | log-applied) ;; *) fail "the copy is not fully prepared: $kind" ;; esac
tool --move-back --force-non-empty-directories --datadir="$data"
rm -rf "$stage"
# The server that takes over gets an identity of its own, and no source to replicate from. From here on this is another
# history: no increment of the one may follow a backup of the other.
rm -f "$data/auto.cnf" "$data/relay-log.info" "$data/master.info"
od -An -tx1 -N16 /dev/urandom | tr -d ' \n' > "$data/kbbackup_lineage"
chown -R "${KBB_DATA_UID:-$(id -u mysql 2> /dev/null || echo 999)}:${KBB_DATA_GID:-$(id -g mysql 2> /dev/null || echo 999)}" "$data"
chmod 0700 "$data"
gtid=$(value gtid_executed "$last"); binlog=$(value binlog "$last")
restored "{\"engine\":\"mysql\",\"position\":\"${gtid:-$binlog}\",\"binlog\":\"$binlog\",\"lsn\":\"$(value last_lsn "$last")\"}" "$data"
echo "restored to GTID ${gtid:-none}, binlog ${binlog:-off}, LSN $(value last_lsn "$last")"
