//! The krew manifest of a release: the template with version, addresses and checksums, and the platforms that there are
//! archives for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::VERSION;

const TEMPLATE: &str = "plugin-manifest/kbbackup.yaml";
/// Begins each platform.
const PLATFORM: &str = "    - selector:\n";

pub(super) fn template(root: &Path) -> Result<String> {
    let path = root.join(TEMPLATE);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Fills the template. `archives` are file names and digests by platform.
pub(super) fn fill(template: &str, url: &str, archives: &BTreeMap<String, (String, String)>) -> Result<String> {
    let mut parts = template.split(PLATFORM);
    let head = parts.next().unwrap_or_default();
    // The words at the top are about the template.
    let mut filled = head.to_owned();
    while filled.starts_with('#') {
        filled = filled.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    }
    let mut named = 0;
    for platform in parts {
        let Some((key, (file, digest))) =
            archives.iter().find(|(key, _)| platform.contains(&format!("{{{{url:{key}}}}}")))
        else {
            continue;
        };
        let address = format!("{}/{file}", url.trim_end_matches('/'));
        let platform = platform.replace(&format!("{{{{url:{key}}}}}"), &address);
        filled += PLATFORM;
        filled += &platform.replace(&format!("{{{{sha256:{key}}}}}"), digest);
        named += 1;
    }
    ensure!(named == archives.len(), "{TEMPLATE} does not know all of {:?}", archives.keys());
    let filled = filled.replace("{{version}}", &format!("v{VERSION}"));
    ensure!(!filled.contains("{{"), "something in {TEMPLATE} was not filled in");
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archives(platforms: &[&str]) -> BTreeMap<String, (String, String)> {
        platforms.iter().map(|key| ((*key).to_owned(), (format!("{key}.tar.gz"), "ab".repeat(32)))).collect()
    }

    #[test]
    fn only_what_was_built_is_offered() {
        let template = template(&crate::root()).unwrap();
        let filled = fill(&template, "https://there.test/v1/", &archives(&["linux-amd64"])).unwrap();
        assert!(filled.starts_with("apiVersion: krew.googlecontainertools.github.com/v1alpha2\n"), "{filled}");
        assert!(filled.contains("uri: \"https://there.test/v1/linux-amd64.tar.gz\""), "{filled}");
        assert!(filled.contains("amd64") && !filled.contains("arm64"), "{filled}");
        let both = fill(&template, "https://there.test", &archives(&["linux-amd64", "linux-arm64"])).unwrap();
        assert_eq!(both.matches(PLATFORM).count(), 2);
        assert!(fill(&template, "https://there.test", &archives(&["plan9-mips"])).is_err());
    }
}
