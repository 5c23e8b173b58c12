#!/bin/bash
# Starts MariaDB or MySQL in a container, with the variables people know: MARIADB_ROOT_PASSWORD or MYSQL_ROOT_PASSWORD
# (also as NAME_FILE), MARIADB_ROOT_HOST or MYSQL_ROOT_HOST. An empty /var/lib/mysql gets a new server; one with a
# server's data in it is left as it is, whatever the variables say.
set -euo pipefail

value_of() {
    local name file
    for name in "$@"; do
        file=${name}_FILE
        if [[ -n ${!file:-} ]]; then
            printf '%s' "$(<"${!file}")"
            return
        elif [[ -n ${!name:-} ]]; then
            printf '%s' "${!name}"
            return
        fi
    done
}

if command -v mariadbd >/dev/null; then
    server=mariadbd client=mariadb
else
    server=mysqld client=mysql
fi
# Only the server's own start is special; `mariadbd --version`, a shell or a tool runs as given.
if [[ ${1:-} == -* ]]; then
    set -- "$server" --user=mysql "$@"
fi
if [[ ${1:-} != "$server" ]]; then
    exec "$@"
fi
for arg in "$@"; do
    case $arg in
    --help | --verbose | --version | -V | -'?') exec "$@" ;;
    esac
done

data=/var/lib/mysql
mkdir -p "$data" /run/mysqld
find "$data" /run/mysqld \! -user mysql -exec chown mysql:mysql '{}' +

if [[ ! -d $data/mysql ]]; then
    password=$(value_of MARIADB_ROOT_PASSWORD MYSQL_ROOT_PASSWORD)
    host=$(value_of MARIADB_ROOT_HOST MYSQL_ROOT_HOST)
    if [[ -z $password ]]; then
        echo "set MARIADB_ROOT_PASSWORD or MYSQL_ROOT_PASSWORD" >&2
        exit 1
    fi
    if [[ $server == mariadbd ]]; then
        mariadb-install-db --user=mysql --datadir="$data" --skip-test-db --auth-root-authentication-method=normal --force >/dev/null
    else
        mysqld --initialize-insecure --user=mysql --datadir="$data"
    fi

    # A server only this script can reach prepares the rest: a readiness probe must not take it for the real one.
    private=$(mktemp --directory)
    chown mysql "$private"
    "$@" --skip-networking --socket="$private/socket" --pid-file="$private/pid" --skip-log-bin &
    pid=$!
    ask() { "$client" --no-defaults --socket="$private/socket" --user=root "$@"; }
    until ask --execute="select 1" >/dev/null 2>&1; do
        kill -0 "$pid"
        sleep 0.2
    done
    quoted=${password//\\/\\\\}
    quoted=${quoted//\'/\\\'}
    # Accounts without a name would take the place of any user@'%' for whoever connects from this machine.
    if [[ $server == mariadbd ]]; then
        ask --execute="delete from mysql.global_priv where user = ''"
    fi
    for file in /docker-entrypoint-initdb.d/*.sql; do
        if [[ -f $file ]]; then ask <"$file"; fi
    done
    ask <<SQL
        flush privileges;
        create user if not exists 'root'@'${host:-%}' identified by '$quoted';
        grant all on *.* to 'root'@'${host:-%}' with grant option;
        alter user 'root'@'localhost' identified by '$quoted';
SQL
    kill "$pid"
    wait "$pid"
    rm -rf "$private"
fi

exec "$@"
