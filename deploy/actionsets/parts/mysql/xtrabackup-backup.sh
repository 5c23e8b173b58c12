# The server's directory, by the volume that is mounted here. Images with the tool rarely have a client to ask with.
data=${KBB_DATA_DIR:-}
if [ -z "$data" ]; then
  mapfile -t roots < <(mounts)
  if [ "${#roots[@]}" -gt 0 ]; then data=$(find "${roots[@]}" -xdev -name ibdata1 -print -quit 2> /dev/null); data=${data%/ibdata1}; fi
fi
[ -f "$data/auto.cnf" ] || fail "the server's data directory is not here${data:+ ($data has no auto.cnf)}; its volume must be among the method's targetVolumes, or set KBB_DATA_DIR in the method's env"
for tool in xtrabackup xbstream; do
  command -v "$tool" > /dev/null || fail "no $tool in this image; set KBB_IMAGE in the method's env to an image of Percona XtraBackup of the server's series"
done
backup=xtrabackup format=xbstream
tools=$(xtrabackup --version 2>&1 | grep -o '[0-9]*\.[0-9]*\.[0-9]*' | head -n 1)
server_uuid=$(sed -n 's/^server-uuid *= *//p' "$data/auto.cnf")
lineage=none; if [ -f "$data/kbbackup_lineage" ]; then lineage=$(<"$data/kbbackup_lineage"); fi

case "$tls" in
  verify) echo "ssl-ca=$(quoted "${KBB_TLS_CA:?set KBB_TLS_CA in the env of the method to a file with the certificates to trust}")"; echo "ssl-mode=VERIFY_CA" ;;
  required) echo "ssl-mode=REQUIRED" ;;
esac >> "$work/my.cnf"
same server_uuid "$server_uuid" "was taken of another server than $server_uuid"
same lineage "$lineage" "is of the time before this server was restored"

start=$(date +%FT%TZ)
stream "xtrabackup $tools"
end=$(date -d '+1 second' +%FT%TZ)

info() { sed -n "s/^$1 = //p" "$work"/lsn/*_info; }
version=$(info server_version)
position=$(info binlog_pos | sed -n "s/^filename '\([^']*\)', position '\([0-9]*\)'.*/\1:\2/p")
gtid=$(sed -n "/^binlog_pos = /,/^[a-z_]* = /s/.*GTID of the last change '\([^']*\)'.*/\1/p" "$work"/lsn/*_info)

facts="\"engine\":\"mysql\",\"version\":\"$version\",\"tool_version\":\"$tools\",\"server_uuid\":\"$server_uuid\",\"lineage\":\"$lineage\",\"parent\":\"$parent\",\"from_lsn\":\"$from_lsn\",\"to_lsn\":\"$to_lsn\",\"last_lsn\":\"$last_lsn\",\"binlog\":\"$position\",\"gtid_executed\":\"$gtid\",\"data_directory\":\"$data\",\"object\":\"$object\",\"compression\":\"$compression\""
complete "$facts" "\"sha256\":\"$digest\"" "$start" "$end"
echo "stored $size bytes; consistent at LSN $last_lsn, binlog ${position:-off}, GTID ${gtid:-none}"
