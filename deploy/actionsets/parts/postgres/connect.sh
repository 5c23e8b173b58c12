export PGHOST="$DP_DB_HOST" PGPORT="${DP_DB_PORT:-5432}" PGUSER="${DP_DB_USER:-postgres}" PGPASSWORD="${DP_DB_PASSWORD:-}"
export PGDATABASE="${KBB_PG_DATABASE:-postgres}" PGCONNECT_TIMEOUT=15 PGAPPNAME=kbbackup
ask() { psql -XAtqw -v ON_ERROR_STOP=1 -c "$1"; }
version=$(ask "show server_version_num") || fail "cannot log in to $PGHOST:$PGPORT as $PGUSER (see the line above)"
[ "$version" -ge 130000 ] || fail "the server is version $version; PostgreSQL 13 is the oldest that this knows"
