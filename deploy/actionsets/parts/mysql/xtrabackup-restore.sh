for tool in xtrabackup xbstream; do
  command -v "$tool" > /dev/null || fail "no $tool in this image; set KBB_IMAGE to an image of Percona XtraBackup of the server's series"
done
backup=xtrabackup unstream=xbstream
read_chain server_uuid lineage
last="$work/$DP_BACKUP_NAME.complete"
data=${KBB_DATA_DIR:-$(value data_directory "$last")}
take "$data"
stage="$data/.kbbackup-stage"
mkdir "$stage"

# Only the last step may undo what was not committed: an increment still belongs to transactions that a step undid.
held() { if [ "$1" != "$DP_BACKUP_NAME" ]; then echo --apply-log-only; fi; }
prepare_chain
kind=$(checkpoint backup_type "$stage/full")
case "$kind" in full-prepared | log-applied) ;; *) fail "the copy is not fully prepared: $kind" ;; esac
# How its files must be opened.
mapfile -t shape < <(sed -nE 's/^innodb_(page_size|data_file_path|undo_tablespaces)=/--innodb_\1=/p' "$stage/full/backup-my.cnf")
tool --move-back --force-non-empty-directories --datadir="$data"
rm -rf "$stage"
# The server that takes over gets an identity of its own, and no source to replicate from. From here on this is another
# history: no increment of the one may follow a backup of the other.
rm -f "$data/auto.cnf" "$data/relay-log.info" "$data/master.info"
od -An -tx1 -N16 /dev/urandom | tr -d ' \n' > "$data/kbbackup_lineage"
owner=${KBB_DATA_UID:-$(id -u mysql 2> /dev/null || echo 999)}
group=${KBB_DATA_GID:-$(id -g mysql 2> /dev/null || echo 999)}
chown -R "$owner:$group" "$data"
chmod 0700 "$data"
gtid=$(value gtid_executed "$last"); binlog=$(value binlog "$last")
if [ -n "${DP_RESTORE_TIMESTAMP:-}" ]; then
  remember "$binlog" "$gtid" "$(value version "$last")"
  exit 0
fi
restored "{\"engine\":\"mysql\",\"position\":\"${gtid:-$binlog}\",\"binlog\":\"$binlog\",\"lsn\":\"$(value last_lsn "$last")\"}" "$data"
echo "restored to GTID ${gtid:-none}, binlog ${binlog:-off}, LSN $(value last_lsn "$last")"
