//! Keys, certificates and kubeconfigs of the local node, made with openssl.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::paths::State;
use super::{NODE_IP, sh};

struct Certificate {
    name: &'static str,
    subject: &'static str,
    names: &'static str,
}

const CERTIFICATES: &[Certificate] = &[
    Certificate {
        name: "apiserver",
        subject: "/CN=kube-apiserver",
        names: "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,\
                DNS:localhost,IP:127.0.0.1,IP:10.96.0.1,IP:10.88.0.1",
    },
    Certificate { name: "kubelet", subject: "/CN=node1", names: "DNS:node1,IP:10.88.0.1,IP:127.0.0.1" },
    Certificate { name: "apiserver-to-kubelet", subject: "/O=system:masters/CN=kube-apiserver", names: "" },
    Certificate { name: "admin", subject: "/O=system:masters/CN=kbbackup-test-admin", names: "" },
    Certificate { name: "node", subject: "/O=system:nodes/CN=system:node:node1", names: "" },
];

/// Makes what is missing.
pub(crate) fn ensure(state: &State) -> Result<()> {
    fs::create_dir_all(state.join("pki"))?;
    if !state.pki("ca.crt").exists() {
        issue(state, "ca", "/CN=kbbackup-test-ca", &["-addext", "basicConstraints=critical,CA:TRUE"])?;
    }
    for one in CERTIFICATES {
        if !state.pki(&format!("{}.crt", one.name)).exists() {
            let (ca, key) = (path(state, "ca.crt"), path(state, "ca.key"));
            let mut extra = vec!["-CA", &ca, "-CAkey", &key];
            extra.extend([
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-addext",
                "extendedKeyUsage=serverAuth,clientAuth",
            ]);
            let names = format!("subjectAltName={}", one.names);
            if !one.names.is_empty() {
                extra.extend(["-addext", &names]);
            }
            issue(state, one.name, one.subject, &extra)?;
        }
    }
    if !state.pki("service-accounts.pub").exists() {
        let (key, public) = (path(state, "service-accounts.key"), path(state, "service-accounts.pub"));
        sh::output(&mut sh::command("openssl", ["genrsa", "-out", &key, "2048"]))?;
        sh::output(&mut sh::command("openssl", ["rsa", "-in", &key, "-pubout", "-out", &format!("{public}.new")]))?;
        fs::rename(format!("{public}.new"), public)?;
    }
    write_kubeconfig(state, "admin", &state.kubeconfig())?;
    write_kubeconfig(state, "node", &state.pki("node.kubeconfig"))
}

/// The certificate is named last: one that exists has its key.
fn issue(state: &State, name: &str, subject: &str, extra: &[&str]) -> Result<()> {
    let (key, cert) = (path(state, &format!("{name}.key")), path(state, &format!("{name}.crt")));
    let temporary = format!("{cert}.new");
    let mut openssl = sh::command("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-nodes", "-days", "3650", "-subj", subject, "-keyout", &key, "-out", &temporary]).args(extra);
    sh::output(&mut openssl)?;
    Ok(fs::rename(temporary, cert)?)
}

fn path(state: &State, file: &str) -> String {
    state.pki(file).to_string_lossy().into_owned()
}

fn write_kubeconfig(state: &State, user: &str, to: &Path) -> Result<()> {
    // JSON is YAML; the kubeconfig names the files instead of holding them so that there is one copy of each key.
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "kbbackup",
        "clusters": [{"name": "kbbackup", "cluster": {
            "server": format!("https://{NODE_IP}:6443"), "certificate-authority": state.pki("ca.crt"),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate": state.pki(&format!("{user}.crt")), "client-key": state.pki(&format!("{user}.key")),
        }}],
        "contexts": [{"name": "kbbackup", "context": {"cluster": "kbbackup", "user": user}}],
    });
    let text = serde_json::to_string_pretty(&config)?;
    if fs::read_to_string(to).is_ok_and(|found| found == text) {
        return Ok(());
    }
    let temporary = to.with_extension("new");
    fs::write(&temporary, text)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
    Ok(fs::rename(temporary, to)?)
}
