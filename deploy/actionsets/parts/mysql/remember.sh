# What the log stage goes on from: remember BINLOG GTID VERSION
remember() {
  local base=$DP_BACKUP_NAME binlog=$1 gtid=$2 version=$3
  declare -p base binlog gtid version owner group shape | sed 's/^declare -[-a]* //' > "$data/.kbbackup-base"
  sync
  echo "left as it was backed up: the log stage follows"
}
