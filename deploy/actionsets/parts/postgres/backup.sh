increment=()
if [ -n "${DP_PARENT_BACKUP_NAME:-}" ]; then
  [ "$version" -ge 170000 ] || fail "incremental backups need PostgreSQL 17 or later, the server is version $version; use the full method"
  [ "$(ask "show summarize_wal")" = on ] ||
    fail "the server does not summarize its WAL; run: alter system set summarize_wal = on; select pg_reload_conf(); and take a full backup after that"
  [ -z "$(ask "select 1 from pg_tablespace where spcname not in ('pg_default', 'pg_global') limit 1")" ] ||
    fail "the server has user tablespaces, of which there are no increments; use the full method"
  parent="$DP_BACKUP_ROOT_PATH/$DP_PARENT_BACKUP_NAME${DP_TARGET_RELATIVE_PATH:+/$DP_TARGET_RELATIVE_PATH}"
  DATASAFED_BACKEND_BASE_PATH="$parent" datasafed pull /COMPLETE "$work/parent" || fail "the parent $DP_PARENT_BACKUP_NAME never became whole"
  DATASAFED_BACKEND_BASE_PATH="$parent" datasafed pull /backup_manifest "$work/parent_manifest"
  [ "$(field system_identifier "$work/parent")" = "$(ask "select system_identifier from pg_control_system()")" ] ||
    fail "the parent $DP_PARENT_BACKUP_NAME is of another cluster; take a full backup"
  increment=(--incremental="$work/parent_manifest")
fi
