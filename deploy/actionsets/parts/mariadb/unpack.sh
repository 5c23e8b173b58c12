check=$(pick mariadb-check mysqlcheck); server=$(pick mariadbd mysqld); unstream=$(pick mbstream)
# One order for the whole chain: this tool undoes nothing before the end by itself.
held() { :; }
# Puts the chain of $DP_BACKUP_NAME into its data directory, whole but not yet started: lay_out
lay_out() {
  read_chain identity lineage server_id series
  last="$work/$DP_BACKUP_NAME.complete"
  [ "${tools%.*}" = "$(value series "$last")" ] || fail "the backup is of MariaDB $(value version "$last"), this image has $tools; set KBB_IMAGE to an image of the same series"
  data=${KBB_DATA_DIR:-$(value data_directory "$last")}
  take "$data"
  stage="$data/.kbbackup-stage"
  mkdir "$stage"
  prepare_chain
  # Settings without which these files cannot be opened. What this restore keeps beside them is no database.
  {
    echo "[mariadbd]"
    echo "ignore-db-dirs=lost+found"
    echo "ignore-db-dirs=.kbbackup-log"
    grep -E '^innodb_(page_size|data_file_path|undo_tablespaces)=' "$stage/full/backup-my.cnf" || true
    echo "lower_case_table_names=$(value lower_case_table_names "$last")"
  } > "$work/server.cnf"
  tool --move-back --force-non-empty-directories --datadir="$data"
  rm -rf "$stage"
  # From here on this is another history than the source's: no increment of the one may follow a backup of the other.
  od -An -tx1 -N16 /dev/urandom | tr -d ' \n' > "$data/kbbackup_lineage"
  chown -R "$owner:$group" "$data"
  chmod 0700 "$data"
}
owner=${KBB_DATA_UID:-$(id -u mysql 2>/dev/null || echo 999)}
group=$(id -g "$owner" 2>/dev/null || echo "$owner")
