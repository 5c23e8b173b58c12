verify=${verify:-check}
binlog_tool=$(pick mariadb-binlog mysqlbinlog)
extras=/dp_downward/status_extras
data=${KBB_DATA_DIR:-$(value data_directory "$extras")}
[ -n "$data" ] || fail "the backup does not say where the data directory was; set KBB_DATA_DIR in the restore's env"
if [ ! -e "$data/.kbbackup-restore" ] || [ ! -e "$data/.kbbackup-base" ]; then
  fail "$data holds no base backup that a stage of this restore put there; the log of MariaDB is replayed on kbb-mariadb-full or kbb-mariadb-incremental, in new volumes"
fi
log=$DP_BACKUP_NAME
# shellcheck disable=SC1091 # What the stage before has written: assignments.
. "$data/.kbbackup-base"
base=$DP_BACKUP_NAME
if [ -e "$data/.kbbackup-replay" ]; then
  # MariaDB would apply once more what it has applied.
  echo "an earlier attempt ended in the middle of its replay; the base backup is restored anew"
  lay_out
  remember
else
  cp "$data/.kbbackup-server.cnf" "$work/server.cnf"
fi
DP_BACKUP_NAME=$log
at "$base" pull /COMPLETE - > "$work/base" || fail "backup $base has no COMPLETE object: it was never finished (or see the line above)"
[ "${tools%.*}" = "$(value series "$work/base")" ] || fail "the backup is of MariaDB $(value version "$work/base"), this image has $tools; set KBB_IMAGE to an image of the same series"
from=$(value binlog "$work/base") gtid=$(value gtid "$work/base")
[ -n "$from" ] || fail "backup $base was taken of a server without a binary log: there is no place in one to replay from"
fetch_log "$from" "$gtid"
if [ "${#files[@]}" != 0 ]; then
  touch "$data/.kbbackup-replay"
  sync
  chown -R "$owner:$group" "$data/.kbbackup-log"
  echo "replaying ${#files[@]} log files, from $(plan start) in the first to $(plan stop) in the last"
  # Its own log counts what is applied, and refuses what would be applied twice.
  serve --log-bin="$data/.kbbackup-log/replayed" --server-id=1 --gtid-strict-mode=ON --sync-binlog=0 --max-allowed-packet=1G \
    --innodb-flush-log-at-trx-commit=2
  # One process reads all files: transactions and temporary tables may need each other. It prints no times, and is told none:
  # what decides is a position. Accounts are changed by the log too, so the server must know them; this session stays.
  {
    echo "set global gtid_binlog_state = '$gtid';"
    echo "flush local privileges;"
    "$binlog_tool" --no-defaults --start-position="$(plan start)" --stop-position="$(plan stop)" "${files[@]}"
    echo "select @@global.gtid_binlog_pos;"
  } | session --binary-mode --max-allowed-packet=1G > "$work/reached" || { show_log; fail "the log could not be replayed (the lines above)"; }
  reached=$(tail -n 1 "$work/reached")
  sorted() { tr ',' '\n' <<< "$1" | sort; }
  [ "$(sorted "$reached")" = "$(sorted "$(plan gtid)")" ] || fail "replay ended at GTID $reached, and not at $(plan gtid)"
  quit
fi
conclude "$(plan gtid)"
rm -rf "$data/.kbbackup-log" "$data/.kbbackup-replay" "$data/.kbbackup-base" "$data/.kbbackup-server.cnf"
restored "{\"engine\":\"mariadb\",\"position\":\"$(plan gtid)\",\"binlog\":\"$(plan binlog)\",\"lastCommit\":\"$(plan last)\"}" "$data"
echo "recovered to GTID $(plan gtid), binlog $(plan binlog); last commit: $(plan last)"
