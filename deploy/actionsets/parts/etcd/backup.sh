export PATH="$PATH:/opt/bitnami/etcd/bin"
for tool in etcdctl etcdutl; do command -v "$tool" > /dev/null || fail "no $tool in this image; set KBB_IMAGE in the method's env to an image with bash, etcdctl and etcdutl of the server's version"; done

# The tools take the login from here, so that it is not among their arguments.
scheme=https
case "$tls" in
  verify) export ETCDCTL_CACERT="${KBB_TLS_CA:?set KBB_TLS_CA in the env of the method to a file with the certificates to trust}" ;;
  insecure) export ETCDCTL_INSECURE_SKIP_TLS_VERIFY=true ;;
  *) scheme=http ;;
esac
if [ -n "${KBB_TLS_CERT:-}" ]; then export ETCDCTL_CERT="$KBB_TLS_CERT" ETCDCTL_KEY="${KBB_TLS_KEY:?set KBB_TLS_KEY beside KBB_TLS_CERT}"; fi
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS="$scheme://$DP_DB_HOST:${DP_DB_PORT:-2379}"
if [ -n "${DP_DB_PASSWORD:-}" ]; then export ETCDCTL_USER="${DP_DB_USER:-root}:$DP_DB_PASSWORD"; fi

# One member is asked, and it must be one that keeps up.
status=$(etcdctl endpoint status -w json) || fail "$ETCDCTL_ENDPOINTS does not answer (see the lines above)"
members=$(etcdctl member list -w json) || fail "$ETCDCTL_ENDPOINTS does not name its members (see the lines above)"
etcdctl endpoint health > /dev/null || fail "$ETCDCTL_ENDPOINTS is not healthy: a majority may be missing, and its data may be old"
number() { grep -o "\"$1\":[0-9]*" <<<"$2" | head -n 1 | cut -d: -f2; }
member=$(grep -o "{\"ID\":$(number member_id "$status"),[^}]*}" <<<"$members")
case "$member" in *'"isLearner":true'*) fail "$ETCDCTL_ENDPOINTS is a learner; back up a member that votes" ;; esac
name=$(sed -n 's/.*"name":"\([^"]*\)".*/\1/p' <<<"$member")
peer=$(sed -n 's/.*"peerURLs":\["\([^"]*\)".*/\1/p' <<<"$member")
version=$(sed -n 's/.*"version":"\([^"]*\)".*/\1/p' <<<"$status")
tools=$(etcdutl version | sed -n 's/^etcdutl version: //p')
[ "${version%.*}" = "${tools%.*}" ] || fail "the server is $version, etcdutl is $tools; set KBB_IMAGE to an image of the same minor version"

# Where its files are, so that a restore puts them there.
place=${KBB_DATA_DIR:-${ETCD_DATA_DIR:-}}
if [ -z "$place" ]; then
  mapfile -t roots < <(mounts)
  if [ "${#roots[@]}" -gt 0 ]; then place=$(find "${roots[@]}" -xdev -path '*/member/snap/db' -print -quit 2> /dev/null); place=${place%/member/snap/db}; fi
fi
[ -n "$place" ] || fail "nothing says where the data directory is; mount its volume by the method's targetVolumes, or set KBB_DATA_DIR in the method's env"
owner=0:0; if [ -d "$place/member" ]; then owner=$(stat -c %u:%g "$place/member"); fi

forget snapshot.db
object=snapshot.db$suffix
start=$(date +%FT%TZ)
echo "taking a snapshot of $ETCDCTL_ENDPOINTS (etcd $version, revision $(number revision "$status"))"
etcdctl snapshot save "$work/snapshot.db" > "$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; fail "the snapshot failed (the last lines above); with authentication it needs the role root"; }
end=$(date -d '+1 second' +%FT%TZ)
# Its trailing hash is checked here: a snapshot that is cut short is none.
found=$(etcdutl snapshot status "$work/snapshot.db" -w json) || fail "etcdutl finds the snapshot damaged"
revision=$(number revision "$found")
[ "$revision" -ge "$(number revision "$status")" ] || fail "the snapshot is of revision $revision, the member was at $(number revision "$status") before"
copy() { cat "$work/snapshot.db"; }
store "$object" copy || fail "the snapshot could not be stored (see the line above)"

facts="\"engine\":\"etcd\",\"version\":\"$version\",\"cluster_id\":\"$(number cluster_id "$status")\",\"member\":\"$name\",\"peer\":\"$peer\",\"revision\":\"$revision\",\"keys\":\"$(number totalKey "$found")\",\"hash\":\"$(number hash "$found")\",\"data_directory\":\"$place\",\"owner\":\"$owner\",\"object\":\"$object\",\"compression\":\"$compression\""
complete "$facts" "\"sha256\":\"$digest\"" "$start" "$end"
echo "stored $size bytes of revision $revision"
