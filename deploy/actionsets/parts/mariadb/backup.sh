case "$tls" in
  verify) echo "ssl-ca=$(quoted "${KBB_TLS_CA:?set KBB_TLS_CA in the env of the method to a file with the certificates to trust}")"; echo "ssl-verify-server-cert=1" ;;
  off) echo "skip-ssl" ;;
  *) echo "ssl-verify-server-cert=0" ;;
esac >> "$work/my.cnf"
ask() { "$client" --defaults-file="$work/my.cnf" --batch --skip-column-names --execute="$1"; }

version=$(ask "select version()") || fail "cannot log in to $DP_DB_HOST:${DP_DB_PORT:-3306} as ${DP_DB_USER:-root} (see the line above)"
case "$version" in *MariaDB*) ;; *) fail "the server is $version and not MariaDB" ;; esac
series=$(cut -d. -f1,2 <<<"$version")
[ "${tools%.*}" = "$series" ] || fail "the server is $version, $backup is $tools; set KBB_IMAGE to an image of the same series"
# A role may grant what the account itself lacks, which only the server can judge.
missing=$(ask "select group_concat(p separator ', ') from (select 'RELOAD' p union select 'PROCESS' union select 'LOCK TABLES' union select 'BINLOG MONITOR') w
  where current_role() is null and p not in (select privilege_type from information_schema.user_privileges
    where grantee = concat('''', replace(current_user(), '@', '''@'''), ''''))")
[ "$missing" = NULL ] || fail "the account $(ask "select current_user()") lacks $missing; run: grant reload, process, lock tables, binlog monitor on *.* to …"

data=$(ask "select @@datadir"); data=${data%/}
[ -f "$data/aria_log_control" ] ||
  fail "the server's data directory $data is not here; its volume must be among the method's targetVolumes, at the same path"
for setting in innodb_data_home_dir innodb_undo_directory innodb_log_group_home_dir; do
  place=$(ask "select @@$setting")
  case "$place" in NULL|""|.|./|"$data"|"$data"/*) ;; *) fail "$setting is $place, outside of $data; this ActionSet restores one directory" ;; esac
done
[ -z "$(find "$data" -name '*.isl' -print -quit)" ] || fail "there are tables with a DATA DIRECTORY of their own; this ActionSet restores one directory"

# What this server's files are, so that an increment never lands on another's: Aria's own identifier lasts as long as the
# data directory, and each restore begins a new line of history.
identity=$(od -An -tx1 -j4 -N16 "$data/aria_log_control" | tr -d ' \n')
lineage=none; if [ -f "$data/kbbackup_lineage" ]; then lineage=$(<"$data/kbbackup_lineage"); fi
server_id=$(ask "select @@server_id")
same identity "$identity" "was taken of another data directory than $data of $DP_DB_HOST"
same lineage "$lineage" "is of the time before this server was restored"
same server_id "$server_id" "was taken of a server with another server_id than $server_id"
same series "$series" "is of another series than this server, $version"

start=$(ask "select date_format(utc_timestamp(), '%Y-%m-%dT%H:%i:%sZ')")
format=mbstream
stream "MariaDB $version"
# The moment of consistency has passed; rounded up, a target at this time lies behind it.
end=$(ask "select date_format(utc_timestamp() + interval 1 second, '%Y-%m-%dT%H:%i:%sZ')")

position=$(sed -n "s/^binlog_pos = filename '\([^']*\)', position '\([0-9]*\)'.*/\1:\2/p" "$work"/lsn/*_info)
gtid=$(sed -n "s/^binlog_pos = .*GTID of the last change '\([^']*\)'.*/\1/p" "$work"/lsn/*_info)

facts="\"engine\":\"mariadb\",\"version\":\"$version\",\"series\":\"$series\",\"tool_version\":\"$tools\",\"identity\":\"$identity\",\"lineage\":\"$lineage\",\"server_id\":\"$server_id\",\"parent\":\"$parent\",\"from_lsn\":\"$from_lsn\",\"to_lsn\":\"$to_lsn\",\"last_lsn\":\"$last_lsn\",\"binlog\":\"$position\",\"gtid\":\"$gtid\",\"data_directory\":\"$data\",\"lower_case_table_names\":\"$(ask "select @@lower_case_table_names")\",\"object\":\"$object\",\"compression\":\"$compression\""
complete "$facts" "\"sha256\":\"$digest\"" "$start" "$end"
echo "stored $size bytes; consistent at LSN $last_lsn, binlog ${position:-off}, GTID ${gtid:-none}"
