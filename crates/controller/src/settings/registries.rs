//! Where images come from: the `registries` map of `config.yaml` (behaviour 8.2), for clusters that pull from a mirror.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::Context as _;
use serde::Deserialize;

/// Name of the file.
const FILE: &str = "config.yaml";

/// The registry that an image without one comes from, and the namespace of its images that name none.
const DOCKER_HUB: (&str, &str) = ("docker.io", "library");

/// How images are rewritten. Empty: not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Registries {
    /// For images of registries that no entry names; empty keeps theirs.
    default_registry: String,
    /// The same for the part between registry and repository.
    default_namespace: String,
    registry_config: Vec<Registry>,
}

/// What becomes of the images of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Registry {
    from: String,
    /// Empty or absent: the default registry.
    #[serde(default)]
    to: String,
    /// For namespaces that the mapping does not name; empty keeps theirs.
    #[serde(default)]
    default_namespace: String,
    #[serde(default)]
    namespace_mapping: BTreeMap<String, String>,
}

/// The part of `config.yaml` that we read.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    registries: Registries,
}

impl Registries {
    /// Reads the text of a `config.yaml`.
    ///
    /// # Errors
    /// When it is no YAML, when `registries` has a field that we do not know, or an entry names no registry.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let Config { registries } = serde_norway::from_str(text)?;
        anyhow::ensure!(
            registries.registry_config.iter().all(|registry| !registry.from.is_empty()),
            "an entry of registries.registryConfig has no `from`; name the registry it is about, for example docker.io"
        );
        Ok(registries)
    }

    /// The image to pull instead of `image`. Without any rule it stays as written, which the kubelet reads the same way.
    pub fn rewrite(&self, image: &str) -> String {
        if *self == Self::default() || image.is_empty() {
            return image.to_owned();
        }
        let Name { registry, namespace, rest } = Name::of(image);
        let or = |wish: &str, else_: &str| if wish.is_empty() { else_.to_owned() } else { wish.to_owned() };
        let (registry, namespace) = match self.registry_config.iter().find(|entry| entry.from == registry) {
            Some(entry) => {
                let to = or(&entry.to, &or(&self.default_registry, registry));
                let mapped = entry.namespace_mapping.get(namespace);
                (to, mapped.cloned().unwrap_or_else(|| or(&entry.default_namespace, namespace)))
            }
            // A database whose own image was rewritten before: what is used again is not moved twice.
            None if self.registry_config.iter().any(|entry| entry.to == registry)
                || self.default_registry == registry =>
            {
                (registry.to_owned(), namespace.to_owned())
            }
            None => (or(&self.default_registry, registry), or(&self.default_namespace, namespace)),
        };
        if namespace.is_empty() { format!("{registry}/{rest}") } else { format!("{registry}/{namespace}/{rest}") }
    }
}

/// The parts of an image's name, with what it leaves out.
struct Name<'a> {
    registry: &'a str,
    namespace: &'a str,
    /// Repository, tag and digest.
    rest: &'a str,
}

impl<'a> Name<'a> {
    fn of(image: &'a str) -> Self {
        // A tag or digest may not hold a slash, so the last slash ends the namespace.
        let (path, rest) = image.rsplit_once('/').unwrap_or(("", image));
        let (first, more) = path.split_once('/').unwrap_or((path, ""));
        let is_host = first.contains(['.', ':']) || first == "localhost" || first.contains(char::is_uppercase);
        let (registry, namespace) = match (is_host, first) {
            (true, "index.docker.io") => (DOCKER_HUB.0, more),
            (true, host) => (host, more),
            (false, _) => (DOCKER_HUB.0, path),
        };
        let namespace = if registry == DOCKER_HUB.0 && namespace.is_empty() { DOCKER_HUB.1 } else { namespace };
        Self { registry, namespace, rest }
    }
}

/// The rules as they are now: the file may change while we run.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<Mutex<Followed>>);

#[derive(Debug, Default)]
struct Followed {
    file: PathBuf,
    /// Of the text that was read last. A mounted ConfigMap changes by a link, and so the file's number does too.
    stamp: Option<Stamp>,
    rules: Registries,
}

type Stamp = (u64, SystemTime);

impl From<Registries> for Live {
    fn from(rules: Registries) -> Self {
        Self(Arc::new(Mutex::new(Followed { rules, ..Followed::default() })))
    }
}

impl Live {
    /// Reads `file`, and reads it again when an image is asked for after it has changed: nothing wakes up for it in
    /// between. A change that cannot be read is logged once, and the rules stay.
    ///
    /// # Errors
    /// When the file cannot be read now.
    pub fn follow(file: &Path) -> anyhow::Result<Self> {
        let stamp = Some(stamp(file).with_context(|| format!("{} cannot be read", file.display()))?);
        let followed = Followed { file: file.to_owned(), stamp, rules: read(file)? };
        Ok(Self(Arc::new(Mutex::new(followed))))
    }

    /// [`Registries::rewrite`] by the rules of this moment.
    pub fn rewrite(&self, image: &str) -> String {
        let mut followed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        followed.refresh();
        followed.rules.rewrite(image)
    }
}

impl Followed {
    fn refresh(&mut self) {
        if self.stamp.is_none() {
            return; // there is no file
        }
        // A file that is gone for a moment, while it is replaced, changes nothing.
        let Ok(stamp) = stamp(&self.file) else { return };
        if self.stamp == Some(stamp) {
            return;
        }
        // Taken before the text is read: what changes in between is seen the next time.
        self.stamp = Some(stamp);
        match read(&self.file) {
            Ok(rules) if rules == self.rules => {}
            Ok(rules) => {
                tracing::info!("the rules for image registries have changed");
                self.rules = rules;
            }
            Err(error) => tracing::warn!("the rules for image registries stay as they were: {error:#}"),
        }
    }
}

fn stamp(file: &Path) -> std::io::Result<Stamp> {
    let metadata = std::fs::metadata(file)?;
    Ok((metadata.ino(), metadata.modified()?))
}

fn read(file: &Path) -> anyhow::Result<Registries> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Registries::parse(&text).with_context(|| format!("registries in {} are not usable", file.display()))
}

/// The first `config.yaml` in the contract's directories.
pub fn file(home: Option<&str>) -> Option<PathBuf> {
    let home = home.map(|home| Path::new(home).join(".kubeblocks"));
    [Some(PathBuf::from("/etc/kubeblocks")), home, Some(PathBuf::from("."))]
        .into_iter()
        .flatten()
        .map(|directory| directory.join(FILE))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIRROR: &str = "registries:
  defaultRegistry: mirror.example:5000
  registryConfig:
    - from: docker.io
      to: hub.example
      defaultNamespace: all
      namespaceMapping: {apecloud: ours}
    - from: quay.io
    - from: ghcr.io
      to: hub.example
";

    #[rstest::rstest]
    #[case("mysql:8", "hub.example/all/mysql:8")] // docker.io/library
    #[case("apecloud/datasafed:0.2.3", "hub.example/ours/datasafed:0.2.3")]
    #[case("index.docker.io/apecloud/datasafed", "hub.example/ours/datasafed")]
    #[case("ghcr.io/kbbackup/mover:1@sha256:0a", "hub.example/kbbackup/mover:1@sha256:0a")]
    #[case("ghcr.io/a/b/c:1", "hub.example/a/b/c:1")]
    #[case("quay.io/minio/minio", "mirror.example:5000/minio/minio")] // no `to`: the default
    #[case("localhost:5000/x", "mirror.example:5000/x")] // no namespace to keep
    #[case("hub.example/all/mysql:8", "hub.example/all/mysql:8")] // rewritten before
    #[case("", "")]
    fn behaviour_8_2_images_come_from_the_mapped_registry(#[case] image: &str, #[case] wanted: &str) {
        assert_eq!(Registries::parse(MIRROR).unwrap().rewrite(image), wanted);
    }

    #[rstest::rstest]
    #[case("mysql:8", "docker.io/team/mysql:8")]
    #[case("quay.io/minio/minio", "quay.io/team/minio")]
    fn behaviour_8_2_the_default_namespace_is_for_registries_without_an_entry(
        #[case] image: &str,
        #[case] wanted: &str,
    ) {
        assert_eq!(Registries::parse("registries: {defaultNamespace: team}").unwrap().rewrite(image), wanted);
    }

    #[test]
    fn behaviour_8_2_without_rules_images_stay_as_written() {
        for text in ["", "registries: {}", "MANAGED_NAMESPACES: a"] {
            assert_eq!(Registries::parse(text).unwrap().rewrite("mysql:8"), "mysql:8");
        }
    }

    #[test]
    fn behaviour_8_2_what_cannot_be_meant_is_refused() {
        for (text, wanted) in [
            ("registries: {defaultRegistri: a}", "defaultRegistri"),
            ("registries: {registryConfig: [{from: ''}]}", "`from`"),
        ] {
            let error = format!("{:#}", Registries::parse(text).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn behaviour_8_2_the_registry_map_is_read_again_when_the_file_changes() {
        let directory = tempfile::tempdir().unwrap();
        // As the kubelet mounts a ConfigMap: the file is a link through a link that is swapped.
        let put = |version: &str, text: &str| {
            let (data, link) = (directory.path().join(version), directory.path().join("..tmp"));
            std::fs::create_dir(&data).unwrap();
            std::fs::write(data.join(FILE), text).unwrap();
            std::os::unix::fs::symlink(version, &link).unwrap();
            std::fs::rename(&link, directory.path().join("..data")).unwrap();
        };
        let file = directory.path().join(FILE);
        std::os::unix::fs::symlink("..data/config.yaml", &file).unwrap();
        put("..1", "registries: {defaultRegistry: one.example}");
        let live = Live::follow(&file).unwrap();
        assert_eq!(live.rewrite("mysql"), "one.example/library/mysql");
        put("..2", "registries: {defaultRegistry: two.example}");
        assert_eq!(live.clone().rewrite("mysql"), "two.example/library/mysql");
        put("..3", "registries: 7");
        assert_eq!(live.rewrite("mysql"), "two.example/library/mysql", "what cannot be read changes nothing");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(live.rewrite("mysql"), "two.example/library/mysql", "nor does a file that is gone");
    }

    #[test]
    fn behaviour_8_2_a_wrong_file_stops_the_start() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "registries: 7").unwrap();
        let error = format!("{:#}", Live::follow(&directory.path().join(FILE)).unwrap_err());
        assert!(error.contains(FILE), "{error}");
    }
}
