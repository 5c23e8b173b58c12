//! What is checked in is what the types say.

use std::{collections::BTreeSet, fs, path::Path};

#[path = "../examples/crds/render.rs"]
mod render;

#[test]
fn the_definitions_in_deploy_are_fresh() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    let mut stale = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (name, text) in render::files().unwrap() {
        if fs::read_to_string(directory.join(&name)).is_ok_and(|found| found == text) {
            names.insert(name);
        } else {
            stale.insert(name);
        }
    }
    for entry in fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !names.contains(&name) {
            stale.insert(name);
        }
    }
    assert!(stale.is_empty(), "stale in deploy/crds: {stale:?}; run cargo xtask codegen");
}
