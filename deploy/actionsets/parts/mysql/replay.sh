for tool in mysqld mysql mysqlbinlog; do command -v "$tool" > /dev/null || fail "no $tool in this image; set KBB_IMAGE to the database's own image"; done
verify=${verify:-check}
extras=/dp_downward/status_extras
data=${KBB_DATA_DIR:-$(value data_directory "$extras")}
[ -n "$data" ] || fail "the backup does not say where the data directory was; set KBB_DATA_DIR in the restore's env"
if [ ! -e "$data/.kbbackup-restore" ] || [ ! -e "$data/.kbbackup-base" ]; then
  fail "$data holds no base backup that a stage of this restore put there; the log of MySQL is replayed on kbb-mysql-clone or kbb-mysql-xtrabackup, in new volumes"
fi
# shellcheck disable=SC1091 # What the stage before has written: assignments.
. "$data/.kbbackup-base"
tools=$(mysqld --version | grep -o '[0-9]*\.[0-9]*\.[0-9]*' | head -n 1)
[ "${tools%.*}" = "$(cut -d. -f1,2 <<<"$version")" ] || fail "backup $base is of MySQL $version, this image has $tools; set KBB_IMAGE to an image of the same series"
[ -n "$binlog" ] || fail "backup $base was taken of a server without a binary log: there is no place in one to replay from"
fetch_log "$binlog" "$gtid"
# What an attempt that died has applied is in the server's own set, and is not applied once more.
if [ "${#files[@]}" != 0 ]; then
  echo "replaying ${#files[@]} log files, from $(plan start) in the first to $(plan stop) in the last"
  serve --skip-log-bin --gtid-mode=ON --enforce-gtid-consistency=ON --max-allowed-packet=1G --innodb-flush-log-at-trx-commit=2
  # One process reads all files: transactions and temporary tables may need each other. Accounts are changed by the log too, so
  # the server must know them; this session stays.
  {
    echo "flush local privileges;"
    mysqlbinlog --no-defaults --start-position="$(plan start)" --stop-position="$(plan stop)" "${files[@]}"
  } | session --binary-mode --max-allowed-packet=1G > /dev/null || { show_log; fail "the log could not be replayed (the lines above)"; }
  quit
fi
echo "starting the server on the restored files, without network"
serve --skip-log-bin --gtid-mode=ON --enforce-gtid-consistency=ON
reached=$(executed)
[ "$reached" = "$(plan gtid)" ] || fail "replay ended at GTID set $reached, and not at $(plan gtid)"
if [ "$verify" = check ]; then check_tables; fi
quit
# The server that takes over gets an identity of its own.
rm -rf "$data/.kbbackup-log" "$data/.kbbackup-base" "$data/auto.cnf"
restored "{\"engine\":\"mysql\",\"position\":\"$(plan gtid)\",\"binlog\":\"$(plan binlog)\",\"lastCommit\":\"$(plan last)\"}" "$data"
echo "recovered to GTID set $(plan gtid), binlog $(plan binlog); last commit: $(plan last)"
