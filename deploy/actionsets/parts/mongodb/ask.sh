export PATH="$PATH:/opt/bitnami/mongodb/bin"
# Asks the server by the script that comes in: ask. The shell takes name and password from the environment, so that they are not among its arguments.
ask() {
  cat > "$work/ask.js" <<'JS'
const env = process.env, quoted = encodeURIComponent;
const account = env.DP_DB_USER ? `${quoted(env.DP_DB_USER)}:${quoted(env.DP_DB_PASSWORD || "")}@` : "";
const host = env.DP_DB_HOST.includes(":") ? `[${env.DP_DB_HOST}]` : env.DP_DB_HOST;
const options = new URLSearchParams({directConnection: "true", serverSelectionTimeoutMS: "20000", appName: "kbbackup"});
if (account) options.set("authSource", env.authSource || "admin");
if ((env.tls || "off") !== "off") options.set("tls", "true");
if (env.tls === "verify") options.set("tlsCAFile", env.KBB_TLS_CA);
if (env.tls === "insecure") options.set("tlsInsecure", "true");
db = connect(`mongodb://${account}${host}:${env.DP_DB_PORT || 27017}/admin?${options}`);
JS
  cat >> "$work/ask.js"
  mongosh --nodb --quiet --norc "$work/ask.js" 2>&1
}
