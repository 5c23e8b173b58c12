//! Remote paths: how what a script writes becomes a key.

use crate::error::{Error, Result};

/// Lexical cleaning: collapses `//`, `.` and `..`; the empty path becomes `.`.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            name => parts.push(name),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// The logical root that all paths of a process lie below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Base(String);

/// A remote path as given, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// As the command line has it.
    pub(crate) given: String,
    /// Relative to the base path, without slashes at its ends; empty for the root.
    pub(crate) path: String,
    /// Relative to the repository's root; empty for the root.
    pub(crate) key: String,
    /// Whether the given path ends in a slash.
    pub(crate) slash: bool,
}

impl Base {
    /// Reads a base path.
    ///
    /// # Errors
    /// When the cleaned path begins with two dots.
    pub(crate) fn new(text: &str) -> Result<Self> {
        let cleaned = clean(text.trim());
        let cleaned = cleaned.trim_start_matches('/');
        if cleaned.starts_with("..") {
            return Err(Error::other(format!("invalid path: base path \"{cleaned}\" prefixed with '..'")));
        }
        Ok(Self(if cleaned == "." { String::new() } else { cleaned.to_owned() }))
    }

    /// Resolves a path below the base.
    ///
    /// # Errors
    /// When the path would leave the base.
    pub(crate) fn resolve(&self, given: &str) -> Result<Target> {
        let cleaned = clean(given);
        let path = cleaned.strip_prefix('/').unwrap_or(&cleaned);
        if path == ".." || path.starts_with("../") {
            return Err(Error::other(format!("invalid path: invalid rpath \"{given}\": prefixed with '..'")));
        }
        let path = if path == "." { "" } else { path };
        Ok(Target {
            given: given.to_owned(),
            path: path.to_owned(),
            key: join(&self.0, path),
            slash: given.ends_with('/'),
        })
    }

    pub(crate) fn key(&self) -> &str {
        &self.0
    }

    /// What a key is called in output: relative to the base.
    pub(crate) fn strip<'a>(&self, key: &'a str) -> &'a str {
        if self.0.is_empty() { key } else { key.strip_prefix(&self.0).map_or(key, |rest| rest.trim_start_matches('/')) }
    }
}

/// Joins two clean relative keys, either of which may be empty.
pub(crate) fn join(left: &str, right: &str) -> String {
    match (left.is_empty(), right.is_empty()) {
        (true, _) => right.to_owned(),
        (false, true) => left.to_owned(),
        (false, false) => format!("{left}/{right}"),
    }
}

/// The key of an absolute repository path such as `Backup.status.path`.
pub(crate) fn absolute_key(path: &str) -> String {
    clean(&format!("/{path}")).trim_start_matches('/').to_owned()
}

/// The part of `key` below `dir`; `None` when it lies elsewhere or is `dir` itself.
pub(crate) fn below<'a>(key: &'a str, dir: &str) -> Option<&'a str> {
    if dir.is_empty() {
        return (!key.is_empty()).then_some(key);
    }
    key.strip_prefix(dir)?.strip_prefix('/').filter(|rest| !rest.is_empty())
}

/// Directory and last name of a key.
pub(crate) fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (given, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("a//b/./c", "a/b/c"),
            ("/../x", "/x"),
            ("x/../../z", "../z"),
            ("a/..", "."),
            ("..a", "..a"),
        ] {
            assert_eq!(clean(given), cleaned, "{given}");
        }
    }

    #[test]
    fn nothing_leaves_the_base() {
        let base = Base::new(" /base/p ").unwrap();
        assert_eq!(base.resolve("/../a.txt").unwrap().key, "base/p/a.txt");
        assert_eq!(base.resolve("./").unwrap().key, "base/p");
        assert!(base.resolve("../x").is_err());
        assert!(base.resolve("..").is_err());
        assert_eq!(base.resolve("..x").unwrap().path, "..x");
        assert!(Base::new("..base").is_err());
        assert_eq!(Base::new("/../base").unwrap().key(), "base");
        assert_eq!(base.strip("base/p/q"), "q");
    }

    #[test]
    fn below_is_strict() {
        assert_eq!(below("a/b/c", "a/b"), Some("c"));
        assert_eq!(below("a/bc", "a/b"), None);
        assert_eq!(below("a/b", "a/b"), None);
        assert_eq!(below("x", ""), Some("x"));
    }

    proptest! {
        #![proptest_config(crate::testing::cases(512))]

        /// Wherever a path points, it is below the base, and what is printed leads back to it.
        #[test]
        fn no_path_leaves_its_base(base in "[./a ]{0,10}", given in "[./ab]{0,14}") {
            let Ok(base) = Base::new(&base) else { return Ok(()) };
            prop_assert!(base.key().split('/').all(|part| part != ".." && part != "."));
            let Ok(target) = base.resolve(&given) else {
                prop_assert!(!given.starts_with('/'), "only a relative path can lead outside");
                return Ok(());
            };
            prop_assert!(target.key.split('/').all(|part| part != ".." && part != "."));
            prop_assert!(target.key == base.key() || base.key().is_empty() || below(&target.key, base.key()).is_some());
            prop_assert!(!target.key.starts_with('/') && !target.key.ends_with('/') && !target.key.contains("//"));
            prop_assert_eq!(base.strip(&target.key), &target.path);
            prop_assert_eq!(base.resolve(&target.path).unwrap().key, target.key);
        }

        #[test]
        fn cleaning_twice_changes_nothing(path in "[./ab]{0,14}") {
            let once = clean(&path);
            prop_assert_eq!(clean(&once), once);
        }
    }
}
