# Nothing secret among the arguments: a file that only this script reads, and that no other options are read beside.
quoted() { value=${1//\\/\\\\}; value=${value//\"/\\\"}; printf '"%s"\n' "$value"; }
{
  echo "[client]"
  echo "host=$(quoted "$DP_DB_HOST")"
  echo "port=${DP_DB_PORT:-3306}"
  echo "user=$(quoted "${DP_DB_USER:-root}")"
  echo "password=$(quoted "${DP_DB_PASSWORD:-}")"
} > "$work/my.cnf"
