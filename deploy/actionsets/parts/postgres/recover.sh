find_data() {
  data=${KBB_DATA_DIR:-$(field data_directory "$1")} || true
  [ -n "$data" ] || fail "the backup does not say where the data directory was; set KBB_DATA_DIR in the restore's env"
  mark="$data/.kbbackup-restore"
}
control() { pg_controldata -D "$data" | sed -n "s/^$1: *//p"; }
run=$(mktemp -d)
chmod 0700 "$run"
show_log() { tail -n 30 "$run/recovery.log" >&2 || true; }
why() { grep -h 'FATAL: ' "$run/recovery.log" | grep -v 'starting up' | tail -n 1 | sed 's/.*FATAL: *//' || true; }
# Starts the server on what was restored and waits until it has recovered, with `settings` beside what is needed.
recover() {
  # A plain configuration: the server recovers here without network, archiver or anything the source had set.
  # What the WAL demands to be as large as on the source comes from the control file.
  local conf="$data/postgresql.conf" options="" setting
  if [ ! -e "$conf" ]; then conf="$run/postgresql.conf"; : > "$conf"; fi
  echo "local all all trust" > "$run/hba.conf"
  : > "$run/ident.conf"
  chown -R "$owner:$group" "$run"
  for setting in listen_addresses= unix_socket_directories="$run" port=5432 config_file="$conf" hba_file="$run/hba.conf" \
    ident_file="$run/ident.conf" external_pid_file="$run/pid" archive_mode=off primary_conninfo= ssl=off logging_collector=off \
    log_destination=stderr log_min_messages=warning lc_messages=C huge_pages=off shared_buffers=64MB hot_standby=off \
    synchronous_standby_names= recovery_min_apply_delay=0 \
    max_connections="$(control "max_connections setting")" max_worker_processes="$(control "max_worker_processes setting")" \
    max_wal_senders="$(control "max_wal_senders setting")" max_prepared_transactions="$(control "max_prepared_xacts setting")" \
    max_locks_per_transaction="$(control "max_locks_per_xact setting")" "${settings[@]}"; do
    options+=" -c ${setting@Q}"
  done
  rm -f "$data/postmaster.pid" "$data/standby.signal"
  # The source's replication and recovery are over.
  if [ -e "$data/postgresql.auto.conf" ]; then
    sed -i -E '/^(primary_conninfo|primary_slot_name|restore_command|archive_cleanup_command|recovery_[a-z_]+) *=/d' "$data/postgresql.auto.conf"
  fi
  echo "recovering"
  as_owner env -u DATASAFED_ENCRYPTION_PASS_PHRASE pg_ctl -D "$data" -w -t "${KBB_RECOVERY_TIMEOUT:-86400}" -l "$run/recovery.log" -s -o "$options" start ||
    { show_log; fail "the server did not recover: $(why)"; }
  # pg_ctl answers as soon as the postmaster runs; the end of recovery is when the server lets us in and writes.
  until [ "$(query 'select pg_is_in_recovery()' 2> /dev/null)" = f ]; do
    as_owner pg_ctl -D "$data" -s status > /dev/null || { show_log; fail "the server went down during recovery: $(why)"; }
    sleep 0.2
  done
}
query() { as_owner psql -XAtqw -v ON_ERROR_STOP=1 -h "$run" -p 5432 -U "$superuser" -d "${2:-${KBB_PG_DATABASE:-postgres}}" -c "$1"; }
# Checks what has recovered, stops it, and says how far it came.
conclude() {
  local position commit timeline history database
  [ "$(query 'select system_identifier from pg_control_system()')" = "$identifier" ] ||
    fail "the restored cluster has another system identifier than the backup"
  superuser=$(query "select rolname from pg_roles where rolsuper and rolcanlogin order by oid limit 1")
  query "select datname from pg_database where datallowconn" | while read -r database; do
    if command -v pg_amcheck > /dev/null && [ "$(query "select count(*) from pg_extension where extname = 'amcheck'" "$database")" = 1 ]; then
      as_owner pg_amcheck -h "$run" -p 5432 -U "$superuser" -d "$database" || fail "pg_amcheck found damage in the database $database"
    fi
  done
  timeline=$(query "select ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int")
  as_owner pg_ctl -D "$data" -w -m fast -s stop || { show_log; fail "the restored server did not stop cleanly"; }
  [ "$(control 'Database cluster state')" = "shut down" ] || fail "the restored server was not shut down cleanly"
  # Where a new timeline began is where replay ended, to the byte.
  history="$data/pg_wal/$(printf %08X "$timeline").history"
  position=$(sed -n 's/.*redo done at \([0-9A-F/]*\).*/\1/p' "$run/recovery.log" | tail -n 1)
  if [ "$promoted" = yes ]; then position=$(awk '$1 ~ /^[0-9]+$/ {print $2}' "$history" | tail -n 1); fi
  if [ -n "$at_least" ] && [ "$(bytes "$position")" -lt "$(bytes "$at_least")" ]; then
    fail "the log was replayed to $position only, though the archive says that it holds everything before $at_least"
  fi
  commit=$(sed -n 's/.*last completed transaction was at log time \(.*\)$/\1/p' "$run/recovery.log" | tail -n 1)
  rm -rf "$run" "$mark" "$data/recovery.signal"
  sync
  echo "{\"engine\":\"postgresql\",\"position\":\"$position\",\"timeline\":\"$timeline\",\"lastCommit\":\"$commit\"}" > /dev/termination-log
  echo "recovered to $position on timeline $timeline; last commit: ${commit:-none in the replayed log}"
}
bytes() { echo $(((16#${1%/*} << 32) + 16#${1#*/})); }
promoted=no at_least="" settings=()
