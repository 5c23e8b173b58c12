//! A container with nothing in it but the mover's static binary reaches a store by the name of its Service over TLS, by the
//! certificate of an authority that nobody else knows.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kbbackup_e2e::LIMIT;
use kbbackup_testing::fixtures::list;
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

use crate::begin;

const SERVER: &str = "kbbackup.test/versitygw:1.8.0";
const WORDS: &str = "words that nobody on the way may read\n";

/// An authority, and a certificate of it for the names of the Service `store`.
fn certificates(dir: &Path, namespace: &str) {
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"];
    let authority = ["-subj", "/CN=nobody-else-knows", "-addext", "basicConstraints=critical,CA:TRUE"];
    openssl(&[&new[..], &authority, &["-keyout", "ca.key", "-out", "ca.crt"]].concat());
    let names = format!("subjectAltName=DNS:store,DNS:store.{namespace}.svc");
    let server =
        ["-subj", "/CN=store", "-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"];
    openssl(&[&new[..], &server, &["-addext", &names, "-keyout", "tls.key", "-out", "tls.crt"]].concat());
}

fn server(certificates: &Path) -> Vec<Value> {
    let read = |name: &str| std::fs::read_to_string(certificates.join(name)).unwrap();
    let labels = json!({ "app": "store" });
    // `other` leads to the same server by a name that is not in its certificate.
    let service = |name: &str| {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "selector": labels, "ports": [{ "port": 443, "targetPort": 7443 }] } })
    };
    let command = [
        "/bin/versitygw",
        "--port",
        ":7443",
        "--cert",
        "/tls/tls.crt",
        "--key",
        "/tls/tls.key",
        "--region",
        "us-east-1",
        "posix",
        "/data",
    ];
    vec![
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "store-tls" }, "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": read("tls.crt"), "tls.key": read("tls.key") } }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "authority" },
            "data": { "ours.crt": read("ca.crt") } }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "input" }, "data": { "words": WORDS } }),
        service("store"),
        service("other"),
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "store" }, "spec": {
            "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": {
                "terminationGracePeriodSeconds": 0, "containers": [{ "name": "store", "image": SERVER,
                    "imagePullPolicy": "IfNotPresent", "command": command,
                    "env": [{ "name": "ROOT_ACCESS_KEY_ID", "value": "key" }, { "name": "ROOT_SECRET_ACCESS_KEY", "value": "secret" }],
                    "readinessProbe": { "tcpSocket": { "port": 7443 }, "periodSeconds": 1 },
                    "volumeMounts": [{ "name": "data", "mountPath": "/data/bucket" }, { "name": "tls", "mountPath": "/tls" },
                        { "name": "tmp", "mountPath": "/tmp" }] }],
                "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "tmp", "emptyDir": {} },
                    { "name": "tls", "secret": { "secretName": "store-tls" } }] } } } }),
    ]
}

/// How a mover learns of the authority.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trust {
    Nothing,
    File,
    Dir,
    /// A folder `certs` beside the executable.
    Beside,
}

/// Runs the mover in its own image, without a shell, as nobody, with nothing that it could write to. Gives its exit code and its log.
fn mover(space: &TempNamespace, image: &str, name: &str, host: &str, trust: Trust, args: &[&str]) -> (i64, String) {
    let conf = format!(
        "[storage]\ntype = s3\nprovider = Other\naccess_key_id = key\nsecret_access_key = secret\nregion = us-east-1\n\
         endpoint = https://{host}\nroot = bucket\nforce_path_style = true\n"
    );
    let (env, mount) = match trust {
        Trust::Nothing => (json!([]), "/unused"),
        Trust::File => (json!([{ "name": "SSL_CERT_FILE", "value": "/ca/ours.crt" }]), "/ca"),
        Trust::Dir => (json!([{ "name": "SSL_CERT_DIR", "value": "/nowhere:/ca" }]), "/ca"),
        Trust::Beside => (json!([]), "/certs"),
    };
    let command = [&["/datasafed"], args].concat();
    let objects = [
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "datasafed.conf": conf } }),
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false,
            "containers": [{ "name": "mover", "image": image, "imagePullPolicy": "IfNotPresent", "command": command, "env": env,
                "securityContext": { "runAsUser": 65532, "runAsNonRoot": true, "readOnlyRootFilesystem": true,
                    "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                "volumeMounts": [{ "name": "conf", "mountPath": "/etc/datasafed" }, { "name": "input", "mountPath": "/input" },
                    { "name": "authority", "mountPath": mount }] }],
            "volumes": [{ "name": "conf", "secret": { "secretName": name } }, { "name": "input", "configMap": { "name": "input" } },
                { "name": "authority", "configMap": { "name": "authority" } }] } }),
    ];
    space.kubectl.apply(&list(&objects).to_string()).unwrap();
    let over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let pod = space.kubectl.wait_for("pod", name, LIMIT, over).unwrap();
    let code = pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"].as_i64().unwrap();
    (code, space.kubectl.run(&["logs", name]).unwrap())
}

#[test]
fn an_empty_image_pushes_to_a_service_over_tls_with_an_authority_of_its_own() {
    let (cluster, space) = begin("tls").unwrap();
    let dir = std::env::temp_dir().join(&space.name);
    std::fs::create_dir_all(&dir).unwrap();
    certificates(&dir, &space.name);
    space.kubectl.apply(&list(&server(&dir)).to_string()).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    space.kubectl.run(&["rollout", "status", "deployment/store", "--timeout=180s"]).unwrap();

    // The image that the operator gives to its workers.
    let operator = cluster.in_namespace("kbbackup-system").get(&["deployment", "kbbackup-controller"]).unwrap();
    let env = operator["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    let image = env.iter().find(|one| one["name"] == "DATASAFED_IMAGE").unwrap()["value"].as_str().unwrap().to_owned();

    let short = "store".to_owned();
    let long = format!("store.{}.svc", space.name);
    for (name, host, trust) in
        [("by-file", &long, Trust::File), ("by-dir", &short, Trust::Dir), ("beside", &short, Trust::Beside)]
    {
        let object = format!("dir/{name}");
        let pushed = mover(&space, &image, name, host, trust, &["push", "-z", "zstd", "/input/words", &object]);
        assert_eq!(pushed, (0, String::new()), "{name}");
        let pulled = mover(&space, &image, &format!("{name}-back"), host, trust, &["pull", "-d", "zstd", &object, "-"]);
        assert_eq!(pulled, (0, WORDS.to_owned()), "{name}");
    }
    // Neither an authority that is not known nor a name that is not in the certificate is talked to, and both are told soon.
    for (name, host, trust) in [("stranger", "store", Trust::Nothing), ("misnamed", "other", Trust::File)] {
        let begun = std::time::Instant::now();
        let (code, log) = mover(&space, &image, name, host, trust, &["push", "/input/words", "secret"]);
        assert!(code == 1 && log.contains("certificate"), "{name}: {code} {log}");
        assert!(begun.elapsed() < Duration::from_secs(90), "{name}");
    }
    let (code, listed) = mover(&space, &image, "list", &long, Trust::File, &["list", "-r", "-f", "/"]);
    assert_eq!((code, listed.as_str()), (0, "dir/beside\ndir/by-dir\ndir/by-file\n"));
}
