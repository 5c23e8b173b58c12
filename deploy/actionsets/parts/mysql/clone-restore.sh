for tool in mysqld mysql; do command -v "$tool" > /dev/null || fail "no $tool in this image; set KBB_IMAGE to the database's own image"; done
verify=${verify:-check}
read_chain engine
version=$(value version); tools=$(mysqld --version | grep -o '[0-9]*\.[0-9]*\.[0-9]*' | head -n 1)
[ "${tools%.*}" = "$(cut -d. -f1,2 <<<"$version")" ] || fail "the backup is of MySQL $version, this image has $tools; set KBB_IMAGE to an image of the same series"

data=${KBB_DATA_DIR:-$(value data_directory)}
take "$data"
unpack "$DP_BACKUP_NAME" "$(value object)" "$(value sha256)" tar -xf - -C "$data"

owner=${KBB_DATA_UID:-$(id -u mysql 2> /dev/null || echo 999)}
group=$(id -g "$owner" 2> /dev/null || echo "$owner")
chown -R "$owner:$group" "$data"
chmod 0700 "$data"
shape=(--innodb-page-size="$(value page_size)" --innodb-data-file-path="$(value data_file_path)" --lower-case-table-names="$(value lower_case_table_names)")
binlog=$(value binlog)
if [ -n "${DP_RESTORE_TIMESTAMP:-}" ]; then
  remember "$binlog" "$(value gtid_executed)" "$version"
  exit 0
fi
echo "starting the server on the restored files, without network"
serve --skip-log-bin
gtid=$(executed)
[ "$gtid" = "$(value gtid_executed)" ] || fail "the restored server has executed $gtid; the backup's set is $(value gtid_executed)"
[ "$(ask "select @@server_uuid")" != "$(value server_uuid)" ] || fail "the restored server has the source's server_uuid"
if [ "$verify" = check ]; then check_tables; fi
quit
# The server that takes over gets an identity of its own.
rm -f "$data/auto.cnf"
restored "{\"engine\":\"mysql\",\"position\":\"${gtid:-$binlog}\",\"binlog\":\"$binlog\"}" "$data"
echo "restored to GTID set ${gtid:-none}, binlog ${binlog:-unknown}"
