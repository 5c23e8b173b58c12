verify=${verify:-check}
lay_out
if [ -n "${DP_RESTORE_TIMESTAMP:-}" ]; then
  remember
  echo "left as it was backed up: the log stage follows"
  exit 0
fi
gtid=$(value gtid "$last") binlog=$(value binlog "$last")
conclude "$gtid"
restored "{\"engine\":\"mariadb\",\"position\":\"${gtid:-$binlog}\",\"binlog\":\"$binlog\",\"lsn\":\"$(value last_lsn "$last")\"}" "$data"
echo "restored to GTID ${gtid:-none}, binlog ${binlog:-off}, LSN $(value last_lsn "$last")"
