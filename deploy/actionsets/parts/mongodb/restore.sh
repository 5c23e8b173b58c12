for tool in mongod mongorestore mongosh; do command -v "$tool" > /dev/null || fail "no $tool in this image; set KBB_IMAGE to the database's own image, with its tools"; done
verify=${verify:-check}
read_chain engine
version=$(value version); tools=$(mongod --version | sed -n 's/^db version v//p')
[ "$(cut -d. -f1,2 <<<"$tools")" = "$(cut -d. -f1,2 <<<"$version")" ] || fail "the backup is of MongoDB $version, this image has $tools; set KBB_IMAGE to an image of the same series"
data=${KBB_DATA_DIR:-$(value data_directory)}
take "$data"
owner=${KBB_DATA_UID:-$(id -u mongodb 2> /dev/null || id -u mongod 2> /dev/null || echo 999)}
group=$(id -g "$owner" 2> /dev/null || echo "$owner")

echo "starting a server on the empty volume, without network"
export DP_DB_HOST=127.0.0.1 DP_DB_PORT=27917 DP_DB_USER="" tls=off
mongod --dbpath "$data" --bind_ip 127.0.0.1 --port 27917 --nounixsocket > "$work/log" 2>&1 & running=$!
until ask <<< 'print(db.version())' > /dev/null; do
  kill -0 "$running" 2> /dev/null || { tail -n 20 "$work/log" >&2; fail "the server did not come up (the last lines above)"; }
  sleep 0.2
done
told() { tail -n 10 "$work/$1" >&2; fail "$2 (the last lines above)"; }
into() {
  local extra=()
  if [ "$(value oplog)" = on ]; then extra+=(--oplogReplay); fi
  # Sessions end with their server.
  mongorestore --host 127.0.0.1 --port 27917 --archive --drop --preserveUUID --stopOnError --nsExclude=config.system.sessions \
    --numParallelCollections="${parallel:-4}" "${extra[@]}" > "$work/said" 2>&1 || told said "the archive could not be restored"
}
# Not in front of `||`: the shell would go on behind a failure inside of it.
unpack "$DP_BACKUP_NAME" "$(value object)" "$(value sha256)" into
ask > "$work/said" <<< "const fcv = db.adminCommand({getParameter: 1, featureCompatibilityVersion: 1}).featureCompatibilityVersion.version;
if (fcv !== '$(value fcv)') db.adminCommand({setFeatureCompatibilityVersion: '$(value fcv)', confirm: true});" || told said "the server does not take the source's feature compatibility version $(value fcv)"
if [ "$verify" = check ]; then
  echo "checking every collection"
  ask > "$work/said" <<'JS' || told said "collections are damaged"
const bad = [];
let all = 0;
for (const {name} of db.adminCommand({listDatabases: 1}).databases.filter(({name}) => name !== "local")) {
  const one = db.getSiblingDB(name);
  for (const collection of one.getCollectionInfos({type: "collection"})) {
    all += 1;
    const found = one.getCollection(collection.name).validate({full: true});
    if (!found.valid || (found.errors || []).length) bad.push(`${name}.${collection.name}`);
  }
}
if (bad.length) throw new Error("damaged: " + bad.join(", "));
print(`${all} collections are whole`);
JS
  tail -n 1 "$work/said"
fi
kill "$running"
wait "$running" || told log "the restored server did not stop cleanly"
chown -R "$owner:$group" "$data"
restored "{\"engine\":\"mongodb\",\"position\":\"$(value oplog_after)\",\"replicaSet\":\"$(value replica_set)\"}" "$data"
echo "restored to the state of $(value oplog_after) or a moment before"
