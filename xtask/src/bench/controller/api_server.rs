//! An etcd and an API server that nobody else uses.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use super::audit::Log;
use crate::cluster::{go, programs};

/// The two of them, ended when dropped.
pub(crate) struct ApiServer {
    pub(super) dir: PathBuf,
    pub(super) audit: Log,
    port: u16,
    children: Vec<Child>,
}

/// Who may call: the bench itself, and the operator, whose requests are counted.
const USERS: [&str; 2] = ["bench", "controller"];

impl ApiServer {
    /// Starts both with their data below `dir`, and creates our kinds.
    pub(crate) fn start(dir: &Path, root: &Path) -> Result<Self> {
        let text = |file: &str| dir.join(file).to_string_lossy().into_owned();
        let kubernetes = programs()?;
        let (port, etcd, peers) = (free_port()?, free_port()?, free_port()?);
        let tokens: String = USERS.map(|user| format!("{user}-token,{user},{user},system:masters\n")).concat();
        std::fs::write(dir.join("tokens.csv"), tokens)?;
        let rules = json!([{ "level": "Metadata", "users": ["controller"], "omitStages": ["RequestReceived"] },
            { "level": "Metadata", "users": ["bench"], "omitStages": ["RequestReceived"], "verbs": ["create", "patch"],
              "resources": [{ "group": "dataprotection.kubeblocks.io" }, { "group": "", "resources": ["pods", "pods/status"] }] },
            { "level": "None" }]);
        let policy = json!({ "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules });
        std::fs::write(dir.join("audit.json"), policy.to_string())?;
        let audit = Log::new(dir.join("audit.log"));
        audit.forget()?;
        let key = text("service-accounts.key");
        if !Path::new(&key).exists() {
            let made = Command::new("openssl").args(["genrsa", "-out", &key, "2048"]).stderr(Stdio::null()).status()?;
            anyhow::ensure!(made.success(), "openssl ended with {made}");
        }
        let mut this = Self { dir: dir.to_owned(), audit, port, children: Vec::new() };
        let urls = [format!("http://127.0.0.1:{etcd}"), format!("http://127.0.0.1:{peers}")];
        this.spawn(
            &go::ETCD.path()?,
            &[
                ("--data-dir", text("etcd")),
                ("--listen-client-urls", urls[0].clone()),
                ("--advertise-client-urls", urls[0].clone()),
                ("--listen-peer-urls", urls[1].clone()),
                ("--initial-advertise-peer-urls", urls[1].clone()),
                ("--initial-cluster", format!("default={}", urls[1])),
                ("--quota-backend-bytes", (4_u64 << 30).to_string()),
                ("--log-level", "warn".into()),
                // Nobody needs this data after a power cut.
                ("--unsafe-no-fsync", "true".into()),
            ],
        )?;
        this.spawn(
            &kubernetes.join("kube-apiserver"),
            &[
                ("--etcd-servers", urls[0].clone()),
                ("--secure-port", port.to_string()),
                ("--bind-address", "127.0.0.1".into()),
                ("--cert-dir", text("certificates")),
                ("--token-auth-file", text("tokens.csv")),
                ("--authorization-mode", "AlwaysAllow".into()),
                // Pods here have no account and no node.
                ("--disable-admission-plugins", "ServiceAccount".into()),
                ("--service-cluster-ip-range", "10.97.0.0/16".into()),
                ("--service-account-issuer", "https://kubernetes.default.svc".into()),
                ("--service-account-key-file", key.clone()),
                ("--service-account-signing-key-file", key),
                ("--audit-policy-file", text("audit.json")),
                ("--audit-log-path", text("audit.log")),
                ("--audit-log-mode", "blocking".into()),
                // One operator may ask as much as it likes; how much that is gets counted.
                ("--enable-priority-and-fairness", "false".into()),
            ],
        )?;
        for user in USERS {
            std::fs::write(this.kubeconfig(user), this.access(user).to_string())?;
        }
        this.kubectl(&kubernetes, &["get", "--raw=/readyz"], 240)?;
        let crds = root.join("deploy/crds");
        this.kubectl(&kubernetes, &["apply", "--server-side", "-f", &crds.to_string_lossy()], 20)?;
        this.kubectl(&kubernetes, &["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"], 3)?;
        let providers = root.join("deploy/providers");
        this.kubectl(&kubernetes, &["apply", "--server-side", "-f", &providers.to_string_lossy()], 20)?;
        Ok(this)
    }

    fn spawn(&mut self, program: &Path, args: &[(&str, String)]) -> Result<()> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let log = std::fs::File::create(self.dir.join(format!("{name}.log")))?;
        let child = Command::new(program)
            .args(args.iter().map(|(flag, value)| format!("{flag}={value}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        self.children.push(child);
        Ok(())
    }

    /// Tries a command until it works, four times a second.
    fn kubectl(&self, kubernetes: &Path, args: &[&str], tries: usize) -> Result<()> {
        let mut said = String::new();
        for _ in 0..tries {
            let mut command = Command::new(kubernetes.join("kubectl"));
            let done = command.arg("--kubeconfig").arg(self.kubeconfig("bench")).args(args).output()?;
            if done.status.success() {
                return Ok(());
            }
            said = String::from_utf8_lossy(&done.stderr).into_owned();
            std::thread::sleep(Duration::from_millis(250));
        }
        bail!("kubectl {}: {said}", args.join(" "))
    }

    /// Where the access of a user is written down.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir.join(format!("{user}.kubeconfig"))
    }

    fn access(&self, user: &str) -> serde_json::Value {
        let server = format!("https://127.0.0.1:{}", self.port);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{ "name": "bench", "cluster": { "server": server, "insecure-skip-tls-verify": true } }],
            "users": [{ "name": user, "user": { "token": format!("{user}-token") } }],
            "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": user } }],
        })
    }

    /// A client for the bench.
    pub(crate) async fn client(&self) -> Result<Client> {
        let access = Kubeconfig::read_from(self.kubeconfig("bench"))?;
        let config = kube::Config::from_custom_kubeconfig(access, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A port that nobody listens on.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
