for tool in mysqld mysql; do command -v "$tool" > /dev/null || fail "no $tool in this image; set KBB_IMAGE in the method's env to the database's own image"; done
host=$DP_DB_HOST port=${DP_DB_PORT:-3306} user=${DP_DB_USER:-root}
ask() { mysql --defaults-file="$work/my.cnf" --batch --skip-column-names --execute="$1"; }
version=$(ask "select version()") || fail "cannot log in to $host:$port as $user (see the line above)"
tools=$(mysqld --version | grep -o '[0-9]*\.[0-9]*\.[0-9]*' | head -n 1)
[ "${version%%-*}" = "$tools" ] || fail "the server is $version, this image has $tools; cloning needs the very same version: set KBB_IMAGE to the database's own image"
ask "show grants" | grep -qE 'ALL PRIVILEGES ON \*\.\*|BACKUP_ADMIN' || fail "the account $user lacks BACKUP_ADMIN; run: grant backup_admin on *.* to …"
[ "$(ask "select plugin_status from information_schema.plugins where plugin_name = 'clone'")" = ACTIVE ] ||
  fail "the server has no clone plugin; run: install plugin clone soname 'mysql_clone.so'"
data=$(ask "select @@datadir"); data=${data%/}
server_uuid=$(ask "select @@server_uuid"); names=$(ask "select @@lower_case_table_names")
start=$(ask "select date_format(utc_timestamp(), '%Y-%m-%dT%H:%i:%sZ')")

# A server of our own takes the copy over the network and brings it to rest: nothing is written beside the database.
owner=$(id -u mysql 2> /dev/null || echo 999)
install -d -m 0700 -o "$owner" "$work/mine" "$work/run"
chmod 0711 "$work"
settings=(--no-defaults --user="$owner" --skip-networking --mysqlx=OFF --skip-log-bin --secure-file-priv= --auto-generate-certs=OFF --caching-sha2-password-auto-generate-rsa-keys=OFF
  --socket="$work/run/socket" --pid-file="$work/run/pid" --innodb-page-size="$(ask "select @@innodb_page_size")"
  --innodb-data-file-path="$(ask "select @@innodb_data_file_path")" --lower-case-table-names="$names")
local_ask() { mysql --no-defaults --socket="$work/run/socket" --user=root --batch --skip-column-names "$@"; }
show_log() { tail -n 20 "$work/run/log" >&2; }
begin() {
  mysqld "${settings[@]}" --datadir="$1" "${@:2}" > "$work/run/log" 2>&1 & running=$!
  until local_ask -e "select 1" > /dev/null 2>&1; do
    kill -0 "$running" 2> /dev/null || { show_log; fail "mysqld did not come up on $1"; }
    sleep 0.2
  done
}
stop() { kill "$running"; wait "$running" || { show_log; fail "mysqld did not stop cleanly"; }; }
mysqld "${settings[@]}" --initialize-insecure --datadir="$work/mine" > "$work/run/log" 2>&1 || { show_log; fail "mysqld could not make a data directory"; }
begin "$work/mine" --plugin-load-add=mysql_clone.so
echo "cloning $host:$port (MySQL $version)"
text() { value=${1//\\/\\\\}; value=${value//\'/\\\'}; printf "'%s'" "$value"; }
local_ask <<SQL || fail "the server could not be cloned (see the line above)"
set global clone_valid_donor_list = $(text "$host:$port");
clone instance from $(text "$user")@$(text "$host"):$port identified by $(text "${DP_DB_PASSWORD:-}") data directory = '$work/run/copy'$([ "$tls" = required ] && echo ' require ssl' || true);
SQL
end=$(ask "select date_format(utc_timestamp() + interval 1 second, '%Y-%m-%dT%H:%i:%sZ')")
stop
rm -rf "$work/mine"
begin "$work/run/copy" --skip-grant-tables --plugin-load-add=mysql_clone.so
others=$(local_ask -e "select group_concat(table_schema, '.', table_name separator ', ') from (select * from information_schema.tables where table_type = 'BASE TABLE'
  and engine <> 'InnoDB' and table_schema not in ('mysql', 'information_schema', 'performance_schema', 'sys') limit 5) t")
[ "$others" = NULL ] || fail "only InnoDB tables can be cloned; these would come back empty: $others"
gtid=$(local_ask -e "select replace(@@global.gtid_executed, '\n', '')")
position=$(local_ask -e "select concat(binlog_file, ':', binlog_position) from performance_schema.clone_status")
stop
rm -f "$work/run/copy/auto.cnf"; rm -rf "$work/run/copy/#clone"

forget data.tar
object=data.tar$suffix
copy() { tar -C "$work/run/copy" --numeric-owner -cf - .; }
store "$object" copy || fail "the copy could not be stored (see the line above)"
facts="\"engine\":\"mysql\",\"version\":\"$version\",\"server_uuid\":\"$server_uuid\",\"gtid_executed\":\"$gtid\",\"binlog\":\"$position\",\"data_directory\":\"$data\",\"lower_case_table_names\":\"$names\",\"page_size\":\"$(ask "select @@innodb_page_size")\",\"data_file_path\":\"$(ask "select @@innodb_data_file_path")\",\"object\":\"$object\",\"compression\":\"$compression\""
complete "$facts" "\"sha256\":\"$digest\"" "$start" "$end"
echo "stored $size bytes; consistent at GTID set ${gtid:-none}, binlog ${position:-unknown}"
