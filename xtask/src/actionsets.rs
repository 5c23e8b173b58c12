//! ActionSets that share pieces of shell: written from `deploy/actionsets/parts/<engine>/`, so that each is whole by itself.
//!
//! A line `# include NAME` in a recipe stands for the file of that name beside it, indented as the line is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

const ACTION_SETS: &str = "deploy/actionsets";

/// Writes the ActionSets anew, or gives the names of those that are stale.
pub(crate) fn generate(root: &Path, check: bool) -> Result<Vec<String>> {
    let mut changed = Vec::new();
    for (name, text) in assembled(&root.join(ACTION_SETS).join("parts"))? {
        let file = root.join(ACTION_SETS).join(&name);
        if fs::read_to_string(&file).ok().as_ref() == Some(&text) {
            continue;
        }
        if !check {
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        changed.push(format!("{ACTION_SETS}/{name}"));
    }
    Ok(changed)
}

fn assembled(parts: &Path) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for engine in fs::read_dir(parts).with_context(|| format!("cannot read {}", parts.display()))? {
        let engine = engine?.path();
        for file in fs::read_dir(&engine).with_context(|| format!("cannot read {}", engine.display()))? {
            let file = file?.path();
            if file.extension().is_some_and(|extension| extension == "yaml") {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let text = include(&read(&file)?, &|part| read(&engine.join(part)))
                    .with_context(|| format!("cannot assemble {}", file.display()))?;
                all.insert(name, text);
            }
        }
    }
    Ok(all)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn include(recipe: &str, part: &dyn Fn(&str) -> Result<String>) -> Result<String> {
    let mut text = String::new();
    for line in recipe.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let Some(name) = line.trim_start().strip_prefix("# include ") else {
            text += &format!("{line}\n");
            continue;
        };
        for line in part(name)?.lines() {
            text += &if line.is_empty() { "\n".to_owned() } else { format!("{indent}{line}\n") };
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::include;

    #[test]
    fn a_part_stands_where_it_is_named_as_far_in_as_its_name() {
        let part = |name: &str| Ok(format!("one {name}\n\n  two\n"));
        let text = include("a:\n  - |\n    # include x.sh\n    end\n", &part).unwrap();
        assert_eq!(text, "a:\n  - |\n    one x.sh\n\n      two\n    end\n");
        assert!(include("# include y\n", &|_| anyhow::bail!("none")).is_err());
    }
}
