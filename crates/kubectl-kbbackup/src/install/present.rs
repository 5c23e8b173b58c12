//! What runs already, and what a newer installation keeps of it. Values only.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Container};
use kube::ResourceExt;

use super::{CONTROLLER_IMAGE, MOVER_IMAGE, Settings, VERSION, VERSION_LABEL};

/// The operator as it was installed, as far as its Deployment tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present {
    pub version: Option<String>,
    controller: Option<String>,
    mover: Option<String>,
    pull_policy: Option<String>,
}

impl Present {
    pub(crate) fn of(operator: &Deployment) -> Self {
        let spec = operator.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let container = spec.and_then(|spec| spec.containers.first());
        let controller = container.and_then(|container| container.image.clone());
        // A chart or a file that was applied by hand writes no label, but a released image has its version for a tag.
        let tag = controller.as_deref().and_then(|image| split(image).1).filter(|tag| numbers(tag).is_some());
        Self {
            version: operator.labels().get(VERSION_LABEL).cloned().or_else(|| tag.map(str::to_owned)),
            mover: container.and_then(|container| env(container, "DATASAFED_IMAGE")),
            // The server fills in imagePullPolicy by itself; the variable stands there only when it was asked for.
            pull_policy: container.and_then(|container| env(container, "KUBEBLOCKS_IMAGE_PULL_POLICY")),
            controller,
        }
    }

    /// Fills in what was not asked for: an image from another registry stays there, one with a tag of its own stays as it is.
    pub(crate) fn keep(&self, settings: Settings) -> Settings {
        let kept = |asked: Option<String>, present: &Option<String>, ours: &str| {
            asked.or_else(|| moved(present.as_deref()?, self.version.as_deref(), ours))
        };
        Settings {
            controller_image: kept(settings.controller_image, &self.controller, CONTROLLER_IMAGE),
            mover_image: kept(settings.mover_image, &self.mover, MOVER_IMAGE),
            pull_policy: settings.pull_policy.or_else(|| self.pull_policy.clone()),
            namespace: settings.namespace,
        }
    }

    /// Whether what runs is of a later version than this program.
    pub(crate) fn is_newer(&self) -> bool {
        let present = self.version.as_deref().and_then(numbers);
        present.is_some_and(|present| Some(present) > numbers(VERSION))
    }
}

fn env(container: &Container, name: &str) -> Option<String> {
    container.env.iter().flatten().find(|variable| variable.name == name)?.value.clone()
}

/// The image for this version, or None for the usual one.
fn moved(present: &str, version: Option<&str>, ours: &str) -> Option<String> {
    let (repository, tag) = split(present);
    if repository == split(ours).0 && !present.contains('@') && tag.and_then(numbers).is_some() {
        return None;
    }
    Some(if tag.is_some() && tag == version { format!("{repository}:{VERSION}") } else { present.to_owned() })
}

/// Repository and tag; what stands behind `@` is a digest, and a colon in front of a slash belongs to a port.
fn split(image: &str) -> (&str, Option<&str>) {
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') && !image.contains('@') => (repository, Some(tag)),
        _ => (image, None),
    }
}

/// The numbers of `1.2.3` or `1.2.3-rc.1`.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let version = version.split(['-', '+']).next()?;
    let numbers: Vec<u64> = version.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    (numbers.len() == 3).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn operator(label: Option<&str>, controller: &str, mover: &str) -> Present {
        let labels = label.map_or(json!({}), |version| json!({VERSION_LABEL: version}));
        let deployment = json!({"metadata": {"labels": labels}, "spec": {"selector": {}, "template": {"spec": {"containers": [{
            "name": "controller", "image": controller, "imagePullPolicy": "IfNotPresent",
            "env": [{"name": "DATASAFED_IMAGE", "value": mover}]}]}}}});
        Present::of(&serde_json::from_value(deployment).unwrap())
    }

    fn images(present: &Present) -> (Option<String>, Option<String>) {
        let settings = present.keep(Settings::default());
        (settings.controller_image, settings.mover_image)
    }

    #[test]
    fn our_own_images_give_way_to_those_of_this_version() {
        let present = operator(None, "ghcr.io/kbbackup/controller:0.0.9", "ghcr.io/kbbackup/mover:0.0.9");
        assert_eq!(present.version.as_deref(), Some("0.0.9"));
        assert_eq!(images(&present), (None, None));
    }

    #[test]
    fn images_of_another_registry_stay_there_and_move_to_this_version() {
        let present = operator(Some("0.0.9"), "reg.local:5000/kb/controller:0.0.9", "reg.local:5000/kb/mover:0.0.9");
        let wanted = |name: &str| Some(format!("reg.local:5000/kb/{name}:{VERSION}"));
        assert_eq!(images(&present), (wanted("controller"), wanted("mover")));
    }

    #[test]
    fn tags_of_one_s_own_and_digests_stay_as_they_are() {
        for image in ["kb.test/controller:dev", "reg.local:5000/controller", "ghcr.io/kbbackup/controller@sha256:00"] {
            assert_eq!(images(&operator(Some("0.0.9"), image, image)), (Some(image.into()), Some(image.into())));
        }
    }

    #[test]
    fn what_is_asked_for_wins_and_a_policy_of_the_server_s_is_not_kept() {
        let present = operator(Some("0.0.9"), "kb.test/controller:dev", "kb.test/mover:dev");
        let asked = Settings { mover_image: Some("other:1".into()), ..Settings::default() };
        let kept = present.keep(asked);
        assert_eq!(kept.mover_image.as_deref(), Some("other:1"));
        assert_eq!(kept.controller_image.as_deref(), Some("kb.test/controller:dev"));
        assert_eq!(kept.pull_policy, None);
    }

    #[test]
    fn an_installation_keeps_what_its_own_settings_were() {
        let settings = Settings {
            namespace: "x".into(),
            controller_image: Some("kb.test/controller:dev".into()),
            mover_image: Some("kb.test/mover:dev".into()),
            pull_policy: Some("Never".into()),
        };
        let written = crate::install::operator(&settings).unwrap();
        let written = written.iter().find(|manifest| manifest.kind() == "Deployment").unwrap().value();
        let present = Present::of(&serde_json::from_value(written.clone()).unwrap());
        assert_eq!(present.version.as_deref(), Some(VERSION));
        let kept = present.keep(Settings { namespace: "x".into(), ..Settings::default() });
        assert_eq!(format!("{kept:?}"), format!("{settings:?}"));
    }

    #[test]
    fn only_a_later_version_is_newer() {
        for (version, newer) in
            [(VERSION, false), ("0.0.9", false), ("0.99.0", true), ("10.0.0-rc.1", true), ("dev", false)]
        {
            assert_eq!(operator(Some(version), "x", "y").is_newer(), newer, "{version}");
        }
        assert!(!operator(None, "x@sha256:00", "y").is_newer());
    }
}
