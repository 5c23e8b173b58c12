//! Writes the definitions as YAML, one file per kind: `cargo run -p kbbackup-api --example crds -- DIRECTORY`.
//!
//! `cargo xtask codegen` calls this; run that instead.

use std::{env, error::Error, fs, path::PathBuf};

mod render;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(env::args_os().nth(1).ok_or("usage: crds DIRECTORY")?);
    fs::create_dir_all(&directory)?;
    for (name, text) in render::files()? {
        fs::write(directory.join(name), text)?;
    }
    Ok(())
}
