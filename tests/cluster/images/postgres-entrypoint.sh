#!/bin/bash
# Starts PostgreSQL in a container, with the variables people know: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB (each
# also as NAME_FILE), POSTGRES_HOST_AUTH_METHOD, POSTGRES_INITDB_ARGS and PGDATA. An empty PGDATA gets a new cluster; one
# with a cluster in it is left as it is, whatever the variables say.
set -euo pipefail

value_of() {
    local name=$1 file=${1}_FILE
    if [[ -n ${!file:-} ]]; then
        printf '%s' "$(<"${!file}")"
    else
        printf '%s' "${!name:-${2:-}}"
    fi
}

# Only the server's own start is special; `postgres --version`, a shell or a tool runs as given.
if [[ ${1:-} == -* ]]; then
    set -- postgres "$@"
fi
if [[ ${1:-} != postgres ]]; then
    exec "$@"
fi
for arg in "$@"; do
    case $arg in
    --help | -'?' | --version | -V | --describe-config | -C) exec "$@" ;;
    esac
done

: "${PGDATA:=/var/lib/postgresql/data}"
export PGDATA

if [[ $(id -u) == 0 ]]; then
    mkdir -p "$PGDATA"
    chmod 0700 "$PGDATA"
    find "$PGDATA" \! -user postgres -exec chown postgres:postgres '{}' +
    mkdir -p /var/run/postgresql
    chown postgres:postgres /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$BASH_SOURCE" "$@"
fi

mkdir -p "$PGDATA"
chmod 0700 "$PGDATA" 2>/dev/null || true

if [[ ! -s $PGDATA/PG_VERSION ]]; then
    user=$(value_of POSTGRES_USER postgres)
    password=$(value_of POSTGRES_PASSWORD)
    database=$(value_of POSTGRES_DB "$user")
    method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    if [[ -z $password && $method != trust ]]; then
        echo "POSTGRES_PASSWORD is empty; set it, or POSTGRES_HOST_AUTH_METHOD=trust to let everybody in" >&2
        exit 1
    fi
    # shellcheck disable=SC2086 # the arguments are words by intent
    initdb --username="$user" --pwfile=<(printf '%s\n' "$password") --encoding=UTF8 ${POSTGRES_INITDB_ARGS:-}
    printf '\nhost all all all %s\nhost replication all all %s\n' "$method" "$method" >>"$PGDATA/pg_hba.conf"

    # A server only this script can reach prepares the rest: a readiness probe must not take it for the real one.
    private=$(mktemp --directory)
    PGHOST=$private pg_ctl --wait --silent --options="-c listen_addresses='' -c unix_socket_directories='$private'" start
    export PGHOST=$private PGUSER=$user
    if [[ $database != postgres ]]; then
        psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=postgres --set=name="$database" <<<'CREATE DATABASE :"name";'
    fi
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
        *.sh) bash "$file" ;;
        *.sql) psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname="$database" --file="$file" ;;
        *.sql.gz) gunzip --stdout "$file" | psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname="$database" ;;
        esac
    done
    unset PGHOST PGUSER
    pg_ctl --wait --silent --mode=fast stop
    rm -rf "$private"
fi

exec "$@"
