//! This machine: files on PATH that kubectl would mistake for us, and completion.

use std::{env, fs, path::Path};

use super::Finding;

pub(super) fn plugin() -> Vec<Finding> {
    let names: Vec<String> = env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect::<Vec<_>>())
        .unwrap_or_default()
        .iter()
        .flat_map(|folder| files(folder))
        .collect();
    judge(&names)
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("kubectl"))
        .collect()
}

fn judge(names: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let shadows: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| name.starts_with("kubectl-kbbackup-")).collect();
    if !shadows.is_empty() {
        findings.push(
            Finding::warn(
                "plugin",
                format!("files on PATH take commands away from this plugin: {}", shadows.join(", ")),
            )
            .cure("remove or rename them; kubectl prefers the longest name"),
        );
    }
    if !names.iter().any(|name| name == "kubectl_complete-kbbackup") {
        findings.push(
            Finding::warn("completion", "completion through kubectl is not set up")
                .cure("kubectl kbbackup completion install"),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shadowing_plugin_is_found() {
        let names = ["kubectl-kbbackup-repo".to_owned(), "kubectl_complete-kbbackup".to_owned()];
        let findings = judge(&names);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].message.contains("kubectl-kbbackup-repo"));
    }
}
