//! Chains of incremental backups: which parent a new one builds on, and which ones a restore needs.

use jiff::Timestamp;

/// What the rules need to know about a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name of the Backup.
    pub name: String,
    /// Whether it is a full or an incremental backup; `None` is any other type.
    pub kind: Option<Kind>,
    /// Name of the policy.
    pub policy: String,
    /// Name of the backup method.
    pub method: String,
    /// The full method that its method builds on.
    pub compatible_method: String,
    /// Name of the repository.
    pub repo: String,
    /// Recorded parent, empty for a full backup.
    pub parent: String,
    /// Recorded full backup at the root, empty for a full backup.
    pub base: String,
    /// Whether it is completed.
    pub completed: bool,
    /// When the data ends.
    pub end: Option<Timestamp>,
    /// How many targets it has, as far as it is known.
    pub targets: Option<usize>,
}

/// The two kinds of links of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Stands alone.
    Full,
    /// Builds on its parent.
    Incremental,
}

/// Why a chain cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A backup of the chain is gone.
    #[error("backup {child} builds on backup {parent}, which does not exist")]
    Missing {
        /// The one that needs it.
        child: String,
        /// The one that is not there.
        parent: String,
    },
    /// A backup of the chain does not fit.
    #[error("backup {child} cannot build on backup {parent}: {why}")]
    Unfit {
        /// The one that builds.
        child: String,
        /// The one it builds on.
        parent: String,
        /// What is wrong with that.
        why: &'static str,
    },
    /// The chain bites its tail.
    #[error("the chain of backup {0} comes back to itself")]
    Cycle(String),
    /// There is nothing to build on.
    #[error(
        "there is no completed {method} backup of policy {policy} in repository {repo} to build on: take one first"
    )]
    NoParent {
        /// The full method.
        method: String,
        /// The policy.
        policy: String,
        /// The repository.
        repo: String,
    },
}

/// Base and ancestors of an incremental backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The full backup.
    pub base: String,
    /// The incrementals between base and the backup itself, oldest first.
    pub ancestors: Vec<String>,
}

/// The parent of the new incremental backup `child`, and its base: the one asked for, else the newest that fits.
///
/// # Errors
/// [`ChainError`] when the parent asked for does not fit, or none does.
pub fn parent<'a>(child: &Link, asked: Option<&str>, backups: &'a [Link]) -> Result<(&'a Link, &'a str), ChainError> {
    let chosen = match asked {
        Some(name) => backups
            .iter()
            .find(|link| link.name == name)
            .ok_or_else(|| ChainError::Missing { child: child.name.clone(), parent: name.to_owned() })?,
        None => newest_parent(child, backups)?,
    };
    fits_new(child, chosen).map_err(|why| unfit(child, chosen, why))?;
    let base = match chosen.kind {
        Some(Kind::Full) => chosen.name.as_str(),
        Some(Kind::Incremental) => chosen.base.as_str(),
        None => return Err(unfit(child, chosen, "it is neither a full nor an incremental backup")),
    };
    if backups.iter().any(|link| link.name == base) {
        Ok((chosen, base))
    } else {
        Err(ChainError::Missing { child: chosen.name.clone(), parent: base.to_owned() })
    }
}

/// The full backup that the new differential backup `child` builds on: the one asked for, else the newest that fits.
///
/// # Errors
/// [`ChainError`] when the one asked for does not fit or is no full backup, or none does.
pub fn base<'a>(child: &Link, asked: Option<&str>, backups: &'a [Link]) -> Result<&'a Link, ChainError> {
    let chosen = match asked {
        Some(name) => backups
            .iter()
            .find(|link| link.name == name)
            .ok_or_else(|| ChainError::Missing { child: child.name.clone(), parent: name.to_owned() })?,
        None => newest_full(child, backups)?,
    };
    fits_new(child, chosen).map_err(|why| unfit(child, chosen, why))?;
    if chosen.kind == Some(Kind::Full) { Ok(chosen) } else { Err(unfit(child, chosen, "it is not a full backup")) }
}

fn newest<'a>(child: &Link, kind: Kind, method: &str, backups: &'a [Link]) -> Option<&'a Link> {
    backups
        .iter()
        .filter(|link| link.kind == Some(kind) && link.method == method && fits_new(child, link).is_ok())
        .max_by(|a, b| (a.end, &a.name).cmp(&(b.end, &b.name)))
}

fn newest_full<'a>(child: &Link, backups: &'a [Link]) -> Result<&'a Link, ChainError> {
    newest(child, Kind::Full, &child.compatible_method, backups).ok_or_else(|| ChainError::NoParent {
        method: child.compatible_method.clone(),
        policy: child.policy.clone(),
        repo: child.repo.clone(),
    })
}

fn newest_parent<'a>(child: &Link, backups: &'a [Link]) -> Result<&'a Link, ChainError> {
    let full = newest_full(child, backups)?;
    Ok(newest(child, Kind::Incremental, &child.method, backups)
        .filter(|incremental| incremental.end >= full.end && incremental.base == full.name)
        .unwrap_or(full))
}

fn fits_new(child: &Link, parent: &Link) -> Result<(), &'static str> {
    let rules = [
        (parent.completed, "it is not completed"),
        (parent.policy == child.policy, "it belongs to another policy"),
        (
            parent.method == child.method || parent.method == child.compatible_method,
            "its method is neither the same nor the compatible one",
        ),
        (parent.end.is_some(), "it has no end time"),
        (parent.repo == child.repo, "it lies in another repository"),
        (parent.targets.zip(child.targets).is_none_or(|(a, b)| a == b), "it has another number of targets"),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(why))
}

/// Walks from an incremental backup to its full one, checking each step.
///
/// # Errors
/// [`ChainError`] names the first step that does not hold.
pub fn walk<'a>(backup: &'a Link, find: impl Fn(&str) -> Option<&'a Link>) -> Result<Chain, ChainError> {
    let mut chain = Chain::default();
    let mut seen = vec![backup.name.as_str()];
    let mut child = backup;
    loop {
        let parent = find(&child.parent)
            .ok_or_else(|| ChainError::Missing { child: child.name.clone(), parent: child.parent.clone() })?;
        if seen.contains(&parent.name.as_str()) {
            return Err(ChainError::Cycle(backup.name.clone()));
        }
        seen.push(&parent.name);
        let full = parent.kind == Some(Kind::Full);
        let rules = [
            (child.completed && parent.completed, "both must be completed"),
            (parent.policy == child.policy, "they belong to different policies"),
            (parent.kind.is_some(), "it is neither a full nor an incremental backup"),
            (full || parent.method == child.method, "their methods differ"),
            (full || parent.base == child.base, "they rest on different full backups"),
            (!full || parent.method == child.compatible_method, "its method is not the compatible one"),
            (!full || parent.name == child.base, "it is not the recorded base"),
            ((parent.end, &parent.name) < (child.end, &child.name), "it does not end earlier"),
            (parent.repo == child.repo, "they lie in different repositories"),
        ];
        if let Some((_, why)) = rules.into_iter().find(|(holds, _)| !holds) {
            return Err(unfit(child, parent, why));
        }
        if full {
            chain.base.clone_from(&parent.name);
            chain.ancestors.reverse();
            return Ok(chain);
        }
        chain.ancestors.push(parent.name.clone());
        child = parent;
    }
}

fn unfit(child: &Link, parent: &Link, why: &'static str) -> ChainError {
    ChainError::Unfit { child: child.name.clone(), parent: parent.name.clone(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(name: &str, end: i64) -> Link {
        Link {
            name: name.to_owned(),
            kind: Some(Kind::Full),
            policy: "p".to_owned(),
            method: "full".to_owned(),
            compatible_method: String::new(),
            repo: "r".to_owned(),
            parent: String::new(),
            base: String::new(),
            completed: true,
            end: Some(Timestamp::from_second(end).unwrap()),
            targets: Some(1),
        }
    }

    fn incremental(name: &str, parent: &str, base: &str, end: i64) -> Link {
        Link {
            kind: Some(Kind::Incremental),
            method: "incr".to_owned(),
            compatible_method: "full".to_owned(),
            parent: parent.to_owned(),
            base: base.to_owned(),
            ..full(name, end)
        }
    }

    fn new_child() -> Link {
        Link { completed: false, end: None, ..incremental("new", "", "", 0) }
    }

    #[test]
    fn behaviour_4_6_the_newest_incremental_of_the_newest_full_is_the_parent() {
        let backups = [full("f1", 10), incremental("i1", "f1", "f1", 20), incremental("i2", "i1", "f1", 30)];
        assert_eq!(parent(&new_child(), None, &backups).map(|(p, b)| (p.name.as_str(), b)), Ok(("i2", "f1")));
        let later_full = [&backups[..], &[full("f2", 25)]].concat();
        assert_eq!(parent(&new_child(), None, &later_full).map(|(p, b)| (p.name.as_str(), b)), Ok(("f2", "f2")));
    }

    #[test]
    fn behaviour_4_6_a_parent_must_fit() {
        for (change, why) in [
            (Link { completed: false, ..full("f", 1) }, "it is not completed"),
            (Link { policy: "q".into(), ..full("f", 1) }, "it belongs to another policy"),
            (Link { repo: "q".into(), ..full("f", 1) }, "it lies in another repository"),
            (Link { targets: Some(2), ..full("f", 1) }, "it has another number of targets"),
            (Link { end: None, ..full("f", 1) }, "it has no end time"),
            (Link { method: "m".into(), ..full("f", 1) }, "its method is neither the same nor the compatible one"),
        ] {
            let backups = [change];
            assert!(matches!(parent(&new_child(), None, &backups), Err(ChainError::NoParent { .. })), "{why}");
            assert_eq!(parent(&new_child(), Some("f"), &backups), Err(unfit(&new_child(), &backups[0], why)));
        }
        assert!(matches!(parent(&new_child(), Some("gone"), &[]), Err(ChainError::Missing { .. })));
        let unknown = [Link { targets: None, ..full("f", 1) }];
        assert!(parent(&new_child(), None, &unknown).is_ok(), "the number of targets is not known yet");
    }

    #[test]
    fn behaviour_4_6_a_differential_backup_builds_on_the_newest_full_one() {
        let backups = [full("f1", 10), full("f2", 20), incremental("i1", "f2", "f2", 30)];
        let name = |asked| base(&new_child(), asked, &backups).map(|link| link.name.as_str());
        assert_eq!(name(None), Ok("f2"));
        assert_eq!(name(Some("f1")), Ok("f1"));
        assert!(matches!(name(Some("i1")), Err(ChainError::Unfit { why: "it is not a full backup", .. })));
        assert!(matches!(base(&new_child(), None, &backups[2..]), Err(ChainError::NoParent { .. })));
    }

    #[test]
    fn behaviour_6_3_a_chain_is_walked_to_its_full_backup() {
        let backups = [full("f", 1), incremental("i1", "f", "f", 2), incremental("i2", "i1", "f", 3)];
        let last = incremental("i3", "i2", "f", 4);
        let find = |name: &str| backups.iter().find(|link| link.name == name);
        assert_eq!(walk(&last, find), Ok(Chain { base: "f".into(), ancestors: vec!["i1".into(), "i2".into()] }));
        assert_eq!(walk(&backups[1], find), Ok(Chain { base: "f".into(), ancestors: vec![] }));
    }

    #[test]
    fn behaviour_6_3_a_broken_chain_is_refused() {
        let walk_of = |links: &[Link]| walk(&links[0], |name| links.iter().find(|link| link.name == name));
        let good = [incremental("i2", "i1", "f", 3), incremental("i1", "f", "f", 2), full("f", 1)];
        assert!(walk_of(&good).is_ok());
        assert!(matches!(walk_of(&good[..2]), Err(ChainError::Missing { .. })));
        let cycle = [incremental("i2", "i1", "f", 3), incremental("i1", "i2", "f", 2)];
        assert!(matches!(walk_of(&cycle), Err(ChainError::Cycle(_))));
        for change in [
            Link { completed: false, ..good[1].clone() },
            Link { policy: "q".into(), ..good[1].clone() },
            Link { method: "other".into(), ..good[1].clone() },
            Link { base: "g".into(), ..good[1].clone() },
            Link { repo: "q".into(), ..good[1].clone() },
            Link { end: Some(Timestamp::from_second(9).unwrap()), ..good[1].clone() },
            Link { kind: None, ..good[1].clone() },
        ] {
            let links = [good[0].clone(), change, good[2].clone()];
            assert!(matches!(walk_of(&links), Err(ChainError::Unfit { .. })), "{:?}", links[1]);
        }
    }
}
