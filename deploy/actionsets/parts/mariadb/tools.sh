export PATH="$PATH:/opt/bitnami/mariadb/bin"
pick() { for tool in "$@"; do command -v "$tool" && return; done; fail "no $1 in this image; set KBB_IMAGE in the method's or restore's env to the database's own image"; }
backup=$(pick mariadb-backup mariabackup)
client=$(pick mariadb mysql)
tools=$("$backup" --version 2>&1 | grep -o '[0-9]*\.[0-9]*\.[0-9]*' | head -n 1)
