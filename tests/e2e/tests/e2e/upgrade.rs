//! `upgrade`: an installation of an earlier version becomes this one; backups stay, one that runs goes on, and both are restored.

use kbbackup_e2e::{LIMIT, ended, phase};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::kubectl::Kubectl;
use serde_json::{Value, json};

use crate::{begin, files};

/// Images of both lie in the cluster, see `xtask/src/test.rs`; what is in them is the same.
const OLD: &str = "0.0.9";
const NEW: &str = env!("CARGO_PKG_VERSION");
const OPERATOR: &str = "deployment/kbbackup-controller";

fn image(name: &str, version: &str) -> String {
    format!("kbbackup.test/{name}:{version}")
}

/// What the operator's Deployment says of itself: version, its image and the mover's.
fn installed(operator: &Kubectl) -> [String; 3] {
    let object = operator.get(&[OPERATOR]).unwrap();
    let container = &object["spec"]["template"]["spec"]["containers"][0];
    let mover = container["env"].as_array().unwrap().iter().find(|env| env["name"] == "DATASAFED_IMAGE").unwrap();
    let version = &object["metadata"]["labels"]["app.kubernetes.io/version"];
    [version, &container["image"], &mover["value"]].map(|text| text.as_str().unwrap_or_default().to_owned())
}

fn install(cluster: &Kubectl, controller: &str, mover: &str) {
    let images = ["--controller-image", controller, "--mover-image", mover, "--image-pull-policy", "IfNotPresent"];
    let args = ["kbbackup", "install", "--embedded-repo=false", "--yes", "--timeout", "4m"];
    cluster.run(&[&args[..], &images].concat()).unwrap();
}

#[test]
fn an_earlier_installation_is_upgraded_with_its_backups_chaos() {
    let (cluster, space) = begin("upgrade").unwrap();
    let operator = cluster.in_namespace("kbbackup-system");
    let [_, controller, mover] = installed(&operator);

    // As the earlier version left it: its label, its images, a definition without a field, a recipe that it had not.
    install(&cluster, &image("controller", OLD), &image("mover", OLD));
    operator.run(&["label", OPERATOR, "--overwrite", &format!("app.kubernetes.io/version={OLD}")]).unwrap();
    operator.run(&["delete", "actionset/kbb-etcd", "backuppolicytemplate/kbb-etcd"]).unwrap();
    let crd = "crd/backuppolicytemplates.dataprotection.kubeblocks.io";
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/backoffLimit";
    let less = json!([{"op": "remove", "path": field}]).to_string();
    operator.run(&["patch", crd, "--type=json", "-p", &less]).unwrap();
    assert_eq!(installed(&operator), [OLD.to_owned(), image("controller", OLD), image("mover", OLD)]);

    files::create(&space, 1).unwrap();
    let sums = "cd /data && find . -type f -not -path './lost+found*' | sort | xargs sha256sum";
    files::run(&space.kubectl, "files-0", "head -c 300000 /dev/urandom > /data/noise; sync").unwrap();
    let before = files::run(&space.kubectl, "files-0", sums).unwrap();
    let (set, slow) = (format!("{}-tar", space.name), format!("{}-slow", space.name));
    let patient = format!("sleep 40\n{}", files::PACK);
    let objects = [
        files::recipe(&set, "Full", files::PACK, files::UNPACK),
        files::recipe(&slow, "Full", &patient, files::UNPACK),
        files::policy("Any", &[("full", &set, None), ("slow", &slow, None)]),
        fixtures::backup("old", "files", "full"),
    ];
    space.kubectl.apply(&list(&objects).to_string()).unwrap();
    let old = ended(&space, "old", LIMIT).unwrap();
    assert_eq!(phase(&old), "Completed", "{}", old["status"]);
    space.kubectl.apply(&fixtures::backup("meanwhile", "files", "slow").to_string()).unwrap();
    let runs = |object: &Value| phase(object) == "Running" && object["status"]["actions"][0]["phase"] == "Running";
    space.kubectl.wait_for("backup", "meanwhile", LIMIT, runs).unwrap();

    let preview = cluster.run(&["kbbackup", "upgrade", "--dry-run=client", "-o", "yaml"]).unwrap();
    assert!(preview.contains(&image("controller", NEW)), "{preview}");
    assert_eq!(installed(&operator)[0], OLD, "that was a look");
    let done = cluster.try_run(&["kbbackup", "upgrade", "--yes", "--timeout", "4m"]).unwrap();
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stderr.contains(&format!("{OLD} to {NEW}")), "{}", done.stderr);
    assert_eq!(installed(&operator), [NEW.to_owned(), image("controller", NEW), image("mover", NEW)]);
    let said = cluster.run(&["kbbackup", "version", "-o", "json"]).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["operatorImage"], json!(image("controller", NEW)), "{said}");
    operator.get(&["actionset/kbb-etcd"]).unwrap();
    operator.get(&["backuppolicytemplate/kbb-etcd"]).unwrap();
    let whole = operator.get(&[crd]).unwrap();
    assert!(whole.pointer(field).is_some(), "the definition is this version's");

    // The backup of before is untouched, the one that ran is finished, and a new one works.
    let same = space.kubectl.get(&["backup", "old"]).unwrap();
    let lasting = |object: &Value| {
        let seal = object["metadata"]["annotations"]["kbbackup.io/seal"].clone();
        json!([object["metadata"]["uid"], object["status"]["phase"], object["status"]["path"], seal])
    };
    assert_eq!(lasting(&same), lasting(&old));
    let meanwhile = ended(&space, "meanwhile", LIMIT).unwrap();
    assert_eq!(phase(&meanwhile), "Completed", "{}", meanwhile["status"]);
    space.kubectl.apply(&fixtures::backup("new", "files", "full").to_string()).unwrap();
    assert_eq!(phase(&ended(&space, "new", LIMIT).unwrap()), "Completed");
    for (backup, to) in [("old", "files-old"), ("meanwhile", "files-meanwhile")] {
        space.kubectl.run(&["kbbackup", "restore", to, "--from", backup, "--wait", "--timeout", "4m"]).unwrap();
        assert_eq!(files::run(&space.kubectl, &format!("{to}-0"), sums).unwrap(), before, "{backup}");
    }

    // As the other tests have it.
    cluster
        .run(&[
            "kbbackup",
            "upgrade",
            "--yes",
            "--timeout",
            "4m",
            "--controller-image",
            &controller,
            "--mover-image",
            &mover,
        ])
        .unwrap();
    drop(space);
    for set in [set, slow] {
        drop(cluster.try_run(&["delete", "actionset", &set, "--wait=false"]));
    }
}
