//! A running copy of the recorded workload under another name, or the same: pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kbbackup_api::names::{annotations, labels};
use kube::ResourceExt as _;

use crate::backup::workload::Workload;

/// What the copy is to be.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// Name of the new StatefulSet.
    pub name: &'a str,
    /// Namespace of the restore.
    pub namespace: &'a str,
    /// Its replicas.
    pub replicas: i32,
    /// Name of the backup.
    pub backup: &'a str,
    /// `<namespace>/<name>/<uid>` of the restore.
    pub restored_by: &'a str,
}

/// The objects of the copy, ready to be created in this order: ConfigMaps, Services, StatefulSet.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// Created only if absent.
    pub config_maps: Vec<ConfigMap>,
    /// The Services.
    pub services: Vec<Service>,
    /// The StatefulSet.
    pub stateful_set: StatefulSet,
}

/// The copy of `recorded` that `wish` asks for.
pub fn copy(recorded: &Workload, wish: &Wish<'_>) -> Copy {
    let old = recorded.stateful_set.name_any();
    let renamer = Renamer { old: &old, new: wish.name };
    let mut set = recorded.stateful_set.clone();
    set.metadata = renamer.meta(&set.metadata, wish, wish.name.to_owned());
    let mut marked = false;
    if let Some(spec) = &mut set.spec {
        spec.replicas = Some(wish.replicas);
        spec.service_name = spec.service_name.as_deref().map(|name| renamer.service(name));
        let before = spec.selector.match_labels.clone();
        renamer.labels(&mut spec.selector.match_labels);
        renamer.labels(&mut spec.template.metadata.get_or_insert_default().labels);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            renamer.labels(&mut claim.metadata.labels);
        }
        // The same labels would make two StatefulSets fight for the same pods.
        marked = old != wish.name && before == spec.selector.match_labels;
        if marked {
            let mark = |labels: &mut Option<BTreeMap<String, String>>| {
                labels.get_or_insert_default().insert(labels::WORKLOAD.to_owned(), wish.name.to_owned());
            };
            mark(&mut spec.selector.match_labels);
            mark(&mut spec.template.metadata.get_or_insert_default().labels);
        }
    }
    let services = recorded.services.iter().map(|service| {
        let mut service = service.clone();
        service.metadata = renamer.meta(&service.metadata, wish, renamer.service(&service.name_any()));
        if let Some(spec) = &mut service.spec {
            renamer.labels(&mut spec.selector);
            if marked && let Some(selector) = &mut spec.selector {
                selector.insert(labels::WORKLOAD.to_owned(), wish.name.to_owned());
            }
        }
        service
    });
    let config_maps = recorded.config_maps.iter().map(|map| {
        let mut map = map.clone();
        map.metadata = renamer.meta(&map.metadata, wish, map.name_any());
        map
    });
    Copy { config_maps: config_maps.collect(), services: services.collect(), stateful_set: set }
}

struct Renamer<'a> {
    old: &'a str,
    new: &'a str,
}

impl Renamer<'_> {
    /// The old name as a whole or as a prefix becomes the new one; other names get the new one in front.
    fn service(&self, name: &str) -> String {
        match name.strip_prefix(self.old) {
            Some(rest) if rest.is_empty() || rest.starts_with('-') => format!("{}{rest}", self.new),
            _ if self.old == self.new => name.to_owned(),
            _ => format!("{}-{name}", self.new),
        }
    }

    fn labels(&self, labels: &mut Option<BTreeMap<String, String>>) {
        labels
            .iter_mut()
            .flat_map(BTreeMap::values_mut)
            .filter(|value| *value == self.old)
            .for_each(|value| self.new.clone_into(value));
    }

    fn meta(&self, meta: &ObjectMeta, wish: &Wish<'_>, name: String) -> ObjectMeta {
        let mut labels = meta.labels.clone();
        self.labels(&mut labels);
        labels.get_or_insert_default().insert(labels::RESTORED_FROM.to_owned(), wish.backup.to_owned());
        let mut annotations = meta.annotations.clone().unwrap_or_default();
        annotations.insert(annotations::RESTORED_BY.to_owned(), wish.restored_by.to_owned());
        ObjectMeta {
            name: Some(name),
            namespace: Some(wish.namespace.to_owned()),
            labels,
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn recorded(labels: Value) -> Workload {
        serde_json::from_value(json!({
            "statefulSet": {"metadata": {"name": "pg", "namespace": "old", "labels": {"app.kubernetes.io/instance": "pg"}},
                "spec": {"serviceName": "pg-headless", "replicas": 3, "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "db", "image": "pg:15"}]}},
                    "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}},
            "services": [
                {"metadata": {"name": "pg-headless"}, "spec": {"clusterIP": "None", "selector": labels}},
                {"metadata": {"name": "pg"}, "spec": {"selector": labels}},
                {"metadata": {"name": "database"}, "spec": {"selector": labels}}],
            "configMaps": [{"metadata": {"name": "conf"}, "data": {"a": "b"}}],
            "secrets": ["auth"]
        }))
        .unwrap()
    }

    fn wish(name: &str) -> Wish<'_> {
        Wish { name, namespace: "new", replicas: 1, backup: "b1", restored_by: "new/r/u" }
    }

    #[test]
    fn a_copy_under_another_name() {
        let copy = copy(&recorded(json!({ "app": "postgres", "app.kubernetes.io/instance": "pg" })), &wish("pg-two"));
        insta::assert_json_snapshot!(
            json!({ "configMaps": copy.config_maps, "services": copy.services, "set": copy.stateful_set })
        );
    }

    #[test]
    fn labels_that_do_not_tell_are_completed() {
        let copy = copy(&recorded(json!({ "app": "postgres" })), &wish("pg-two"));
        let spec = copy.stateful_set.spec.unwrap();
        let wanted = json!({ "app": "postgres", "kbbackup.io/workload": "pg-two" });
        assert_eq!(serde_json::to_value(spec.selector.match_labels).unwrap(), wanted);
        assert_eq!(serde_json::to_value(spec.template.metadata.unwrap().labels).unwrap(), wanted);
        assert!(
            copy.services
                .iter()
                .all(|service| serde_json::to_value(&service.spec.as_ref().unwrap().selector).unwrap() == wanted)
        );
    }

    #[test]
    fn the_same_name_is_an_exact_copy() {
        let from = recorded(json!({ "app": "pg" }));
        let copy = copy(&from, &wish("pg"));
        let (old, new) = (from.stateful_set.spec.unwrap(), copy.stateful_set.spec.unwrap());
        assert_eq!(
            (&old.selector, &old.template, &old.service_name),
            (&new.selector, &new.template, &new.service_name)
        );
        let names: Vec<_> = copy.services.iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(names, ["pg-headless", "pg", "database"]);
    }

    #[test]
    fn service_names() {
        let renamer = Renamer { old: "pg", new: "two" };
        for (old, new) in [("pg", "two"), ("pg-rw", "two-rw"), ("pgbouncer", "two-pgbouncer"), ("db", "two-db")] {
            assert_eq!(renamer.service(old), new);
        }
    }
}
