for tool in mongodump mongosh; do command -v "$tool" > /dev/null || fail "no $tool in this image; set KBB_IMAGE in the method's env to the database's own image, with its tools"; done
if [ "$tls" = verify ]; then : "${KBB_TLS_CA:?set KBB_TLS_CA in the env of the method to a file with the certificates to trust}"; fi
place="$DP_DB_HOST:${DP_DB_PORT:-27017}"
# What it is, and up to where it has written.
look() {
  ask > "$work/$1" <<'JS' || { tail -n 3 "$work/$1" >&2; fail "$place cannot be asked as ${DP_DB_USER:-nobody} (the lines above)"; }
const hello = db.hello();
const role = hello.msg === "isdbgrid" ? "router" : hello.arbiterOnly ? "arbiter" : hello.isWritablePrimary ? "primary" : hello.secondary ? "secondary" : "none";
const facts = {version: db.version(), role, set: hello.setName || ""};
if (role === "primary" || role === "secondary") {
  const ts = hello.lastWrite && hello.lastWrite.opTime.ts;
  facts.oplog = ts ? `${ts.getHighBitsUnsigned()}:${ts.getLowBitsUnsigned()}` : "";
  facts.time = new Date(Math.floor(hello.localTime.getTime() / 1000) * 1000).toISOString().replace(".000", "");
  facts.fcv = db.adminCommand({getParameter: 1, featureCompatibilityVersion: 1}).featureCompatibilityVersion.version;
  facts.sharded = hello.setName && db.system.version.countDocuments({_id: "shardIdentity"}) ? "yes" : "no";
  let options = {};
  // Not every account may ask.
  try { options = db.adminCommand({getCmdLineOpts: 1}).parsed || {}; } catch {}
  facts.directory = (options.storage || {}).dbPath || "/data/db";
}
print("KBB " + JSON.stringify(facts));
JS
  sed -n 's/^KBB //p' "$work/$1" > "$work/$1.facts"
}
look before
fact() { value "$1" "$work/${2:-before}.facts"; }
version=$(fact version) set=$(fact set)
case "$(fact role)" in
  primary | secondary) ;;
  router) fail "$place is a router of a sharded cluster; a dump of it is of no single moment: back up by volume snapshots" ;;
  *) fail "$place is $(fact role), neither primary nor secondary: there is nothing to be read from it" ;;
esac
[ "$(fact sharded)" = no ] || fail "$place is one shard of a cluster; a backup of it alone could not be brought back"
extra=()
if [ "$oplog" = on ]; then
  [ -n "$set" ] || fail "$place is no member of a replica set and keeps no operations: a backup would not be of one moment; make it a replica set of one, or set the parameter oplog to off"
  extra+=(--oplog)
fi
login=(--host "$DP_DB_HOST" --port "${DP_DB_PORT:-27017}")
if [ -n "${DP_DB_USER:-}" ]; then
  # Nothing secret among the arguments.
  quoted() { value=${1//\\/\\\\}; value=${value//\"/\\\"}; printf '"%s"' "$value"; }
  echo "password: $(quoted "${DP_DB_PASSWORD:-}")" > "$work/tools.yaml"
  login+=(--username "$DP_DB_USER" --authenticationDatabase "$authSource" --config "$work/tools.yaml")
fi
case "$tls" in
  verify) login+=(--ssl --sslCAFile "$KBB_TLS_CA") ;;
  insecure) login+=(--ssl --tlsInsecure) ;;
esac

forget dump.archive
object=dump.archive$suffix
echo "dumping $place (MongoDB $version, ${set:-no replica set})"
copy() { mongodump "${login[@]}" "${extra[@]}" --archive --numParallelCollections="$parallel" 2> "$work/log"; }
store "$object" copy || { tail -n 10 "$work/log" >&2; fail "the dump failed (the last lines above)"; }
look after
[ "$(fact set after)" = "$set" ] || fail "$place has become another server meanwhile"
facts="\"engine\":\"mongodb\",\"version\":\"$version\",\"fcv\":\"$(fact fcv)\",\"replica_set\":\"$set\",\"data_directory\":\"$(fact directory)\",\"oplog\":\"$oplog\",\"oplog_before\":\"$(fact oplog)\",\"oplog_after\":\"$(fact oplog after)\",\"object\":\"$object\",\"compression\":\"$compression\""
complete "$facts" "\"sha256\":\"$digest\"" "$(fact time)" "$(fact time after)"
echo "stored $size bytes"
