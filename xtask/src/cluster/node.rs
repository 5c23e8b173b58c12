//! What the local node is made of: configuration files and the processes in the order they start.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::go;
use super::paths::State;
use super::process::Daemon;
use super::{BRIDGE, DNS_IP, NODE, NODE_IP, PAUSE_IMAGE, POD_RANGE, SERVICE_RANGE};

/// The programs of the node, as paths in the cache.
pub(crate) struct Programs {
    pub kubernetes: PathBuf,
    pub csi_btrfs: PathBuf,
    pub csi_snapshotter: PathBuf,
    pub snapshot_controller: PathBuf,
}

impl Programs {
    pub(crate) fn build() -> Result<Self> {
        Ok(Self {
            kubernetes: go::KUBERNETES.dir()?,
            csi_btrfs: go::CSI_BTRFS.path()?,
            csi_snapshotter: go::CSI_SNAPSHOTTER.path()?,
            snapshot_controller: go::SNAPSHOT_CONTROLLER.path()?,
        })
    }

    pub(crate) fn kubectl(&self) -> PathBuf {
        self.kubernetes.join("kubectl")
    }
}

pub(crate) fn etcd(state: &State) -> Daemon {
    Daemon {
        name: "etcd",
        program: "/usr/bin/etcd".into(),
        // Not the usual ports: an etcd of the machine's own may have those.
        args: args(&[
            ("--data-dir", &text(&state.join("etcd"))),
            ("--listen-client-urls", "http://127.0.0.1:12379"),
            ("--advertise-client-urls", "http://127.0.0.1:12379"),
            ("--listen-peer-urls", "http://127.0.0.1:12380"),
            ("--initial-advertise-peer-urls", "http://127.0.0.1:12380"),
            ("--initial-cluster", "default=http://127.0.0.1:12380"),
            ("--log-level", "warn"),
        ]),
        config: vec![],
    }
}

pub(crate) fn apiserver(state: &State, programs: &Programs) -> Daemon {
    let pki = |file: &str| text(&state.pki(file));
    Daemon {
        name: "kube-apiserver",
        program: programs.kubernetes.join("kube-apiserver"),
        args: args(&[
            ("--etcd-servers", "http://127.0.0.1:12379"),
            ("--advertise-address", NODE_IP),
            ("--secure-port", "6443"),
            ("--tls-cert-file", &pki("apiserver.crt")),
            ("--tls-private-key-file", &pki("apiserver.key")),
            ("--client-ca-file", &pki("ca.crt")),
            ("--kubelet-certificate-authority", &pki("ca.crt")),
            ("--kubelet-client-certificate", &pki("apiserver-to-kubelet.crt")),
            ("--kubelet-client-key", &pki("apiserver-to-kubelet.key")),
            ("--kubelet-preferred-address-types", "InternalIP"),
            ("--authorization-mode", "Node,RBAC"),
            ("--enable-admission-plugins", "NodeRestriction"),
            ("--service-cluster-ip-range", SERVICE_RANGE),
            ("--service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
            ("--service-account-key-file", &pki("service-accounts.pub")),
            ("--service-account-signing-key-file", &pki("service-accounts.key")),
            ("--allow-privileged", "true"),
            // What the operator's accounts ask for is compared with their roles after the tests.
            ("--audit-policy-file", &text(&state.join("audit-policy.json"))),
            ("--audit-log-path", &text(&state.audit_log())),
            ("--audit-log-mode", "blocking"),
        ]),
        config: vec![state.pki("apiserver.crt"), state.join("audit-policy.json")],
    }
}

/// Everything that needs the API server, in the order in which it should come.
pub(crate) fn workers(state: &State, programs: &Programs) -> Vec<Daemon> {
    let kubeconfig = text(&state.kubeconfig());
    let pki = |file: &str| text(&state.pki(file));
    let kubernetes = |name: &'static str, flags: &[(&str, &str)], config: Vec<PathBuf>| Daemon {
        name,
        program: programs.kubernetes.join(name),
        args: args(flags),
        config,
    };
    vec![
        kubernetes(
            "kubelet",
            &[
                ("--config", &text(&state.join("kubelet.json"))),
                ("--kubeconfig", &pki("node.kubeconfig")),
                ("--root-dir", &text(&state.join("kubelet"))),
                ("--node-ip", NODE_IP),
                ("--hostname-override", NODE),
            ],
            vec![state.join("kubelet.json")],
        ),
        kubernetes(
            "kube-controller-manager",
            &[
                ("--kubeconfig", &kubeconfig),
                ("--authentication-kubeconfig", &kubeconfig),
                ("--authorization-kubeconfig", &kubeconfig),
                ("--use-service-account-credentials", "true"),
                ("--service-account-private-key-file", &pki("service-accounts.key")),
                ("--root-ca-file", &pki("ca.crt")),
                ("--cluster-signing-cert-file", &pki("ca.crt")),
                ("--cluster-signing-key-file", &pki("ca.key")),
                ("--leader-elect", "false"),
                ("--bind-address", "127.0.0.1"),
            ],
            vec![],
        ),
        kubernetes(
            "kube-scheduler",
            &[
                ("--kubeconfig", &kubeconfig),
                ("--authentication-kubeconfig", &kubeconfig),
                ("--authorization-kubeconfig", &kubeconfig),
                ("--leader-elect", "false"),
                ("--bind-address", "127.0.0.1"),
            ],
            vec![],
        ),
        kubernetes(
            "kube-proxy",
            &[
                ("--kubeconfig", &kubeconfig),
                ("--hostname-override", NODE),
                ("--proxy-mode", "iptables"),
                ("--cluster-cidr", POD_RANGE),
                // 0 leaves the kernel's settings alone; in a container or micro VM they are read-only.
                ("--conntrack-max-per-core", "0"),
                ("--conntrack-tcp-timeout-established", "0s"),
                ("--conntrack-tcp-timeout-close-wait", "0s"),
                ("--iptables-min-sync-period", "100ms"),
            ],
            vec![],
        ),
        Daemon {
            name: "csi-btrfs",
            program: programs.csi_btrfs.clone(),
            args: args(&[
                ("--pool", &text(&state.join("pool"))),
                ("--socket", &text(&state.csi_socket())),
                ("--node", NODE),
                ("--register", &text(&state.join("kubelet/plugins_registry/btrfs.csi.kbbackup.io-reg.sock"))),
                ("--kubeconfig", &kubeconfig),
            ]),
            config: vec![],
        },
        Daemon {
            name: "snapshot-controller",
            program: programs.snapshot_controller.clone(),
            args: args(&[("--kubeconfig", &kubeconfig), ("--retry-interval-max", "10s")]),
            config: vec![],
        },
        Daemon {
            name: "csi-snapshotter",
            program: programs.csi_snapshotter.clone(),
            args: args(&[
                ("--kubeconfig", &kubeconfig),
                ("--csi-address", &text(&state.csi_socket())),
                ("--retry-interval-max", "10s"),
            ]),
            config: vec![],
        },
    ]
}

pub(crate) fn containerd(state: &State) -> Daemon {
    Daemon {
        name: "containerd",
        program: "/usr/bin/containerd".into(),
        args: args(&[("--config", &text(&state.join("containerd.toml")))]),
        config: vec![state.join("containerd.toml")],
    }
}

/// Writes the configuration files. Unchanged ones keep their content, so nothing restarts for them.
pub(crate) fn configure(state: &State) -> Result<()> {
    for dir in ["cni", "containerd", "kubelet/plugins/btrfs.csi.kbbackup.io", "kubelet/plugins_registry", "pod-logs"] {
        fs::create_dir_all(state.join(dir))?;
    }
    // The images' and pods' folders hold other people's files: nobody but root passes.
    set_mode(state.root(), 0o711)?;
    write(&state.join("kubelet.json"), &serde_json::to_string_pretty(&kubelet(state))?)?;
    write(&state.join("audit-policy.json"), &serde_json::to_string_pretty(&audit_policy())?)?;
    write(&state.join("cni/10-kbbackup.conflist"), &serde_json::to_string_pretty(&cni(state))?)?;
    write(&state.join("containerd.toml"), &containerd_toml(state))
}

/// Who asked for what, of the accounts in the operator's namespace only; nothing of the content.
fn audit_policy() -> serde_json::Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "omitManagedFields": true,
        "rules": [
            {"level": "Metadata", "userGroups": ["system:serviceaccounts:kbbackup-system"]},
            {"level": "None"},
        ],
    })
}

fn kubelet(state: &State) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": state.pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "clusterDNS": [DNS_IP],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{}", state.containerd_socket().display()),
        "enforceNodeAllocatable": [],
        // The disk is shared with whatever else the machine does.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
        "failCgroupV1": false,
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "24h",
        "maxPods": 250,
        "podLogsDir": state.join("pod-logs"),
        "resolvConf": "/dev/null",
        "serializeImagePulls": false,
        "shutdownGracePeriod": "0s",
        "syncFrequency": "30s",
        "tlsCertFile": state.pki("kubelet.crt"),
        "tlsPrivateKeyFile": state.pki("kubelet.key"),
    })
}

fn cni(state: &State) -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "kbbackup",
        "plugins": [
            {
                "type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": state.join("cni/addresses"),
                    "ranges": [[{"subnet": POD_RANGE}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// `restrict_oom_score_adj`: a machine without `CAP_SYS_RESOURCE` cannot lower the score of a pod's sandbox, and without
/// the setting no pod starts. The network namespaces lie below `state`, so that unmounting that is enough to end them.
fn containerd_toml(state: &State) -> String {
    let path = |name: &str| state.join(name).display().to_string();
    format!(
        r#"version = 2
root = "{root}"
state = "{run}"

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{cni}"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"#,
        root = path("containerd/root"),
        run = path("containerd/run"),
        socket = state.containerd_socket().display(),
        opt = path("containerd/opt"),
        cni = path("cni"),
    )
}

fn write(path: &Path, content: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|found| found == content) {
        return Ok(());
    }
    let temporary = path.with_extension("new");
    fs::write(&temporary, content).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(fs::rename(temporary, path)?)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

fn args(flags: &[(&str, &str)]) -> Vec<String> {
    flags.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
