//! The mover beside `cat` and `zstd`.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::run::{Measured, measure};
use crate::{artifacts, ui};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Size of the data in MiB
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Runs of each; the table shows the fastest
    #[arg(long, default_value_t = 3)]
    runs: u32,
}

pub(super) fn run(root: &Path, args: &Args) -> Result<()> {
    let binaries = ui::long_step("build the mover", || artifacts::build(root))?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    ui::step("write data that compresses about threefold", || write_data(&data, args.size << 20))?;
    let store = dir.path().join("store");
    std::fs::create_dir(&store)?;
    let copy = dir.path().join("copy");

    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {line}")]).env("DATA", &data).env("COPY", &copy);
        command.env("DATASAFED", &binaries.mover).env("DATASAFED_LOCAL_BACKEND_PATH", &store);
        command
    };
    let rows = [
        ("cat > file", r#"cat "$DATA" > "$COPY""#),
        ("zstd -1 -T0", r#"zstd -q -f -1 -T0 "$DATA" -o "$COPY""#),
        ("zstd -3 -T0", r#"zstd -q -f -3 -T0 "$DATA" -o "$COPY""#),
        ("push", r#""$DATASAFED" push - plain < "$DATA""#),
        ("push -z zstd-fastest", r#""$DATASAFED" push -z zstd-fastest - fastest < "$DATA""#),
        ("push -z zstd", r#""$DATASAFED" push -z zstd - three < "$DATA""#),
        ("zstd -d", r#"zstd -q -f -d "$DATASAFED_LOCAL_BACKEND_PATH/three" -o "$COPY""#),
        ("pull", r#""$DATASAFED" pull plain - > "$COPY""#),
        ("pull -d zstd", r#""$DATASAFED" pull -d zstd three - > "$COPY""#),
    ];
    let mut best: Vec<Option<Measured>> = vec![None; rows.len()];
    for _ in 0..args.runs {
        for (row, (_, line)) in rows.iter().enumerate() {
            let one = measure(&mut shell(line))?;
            let faster = best[row].is_none_or(|before| one.time < before.time);
            if faster {
                best[row] = Some(one);
            }
        }
    }
    ui::result(format!(
        "{:24} {:>9} {:>9} {:>10}",
        format!("{} MiB, best of {}", args.size, args.runs),
        "seconds",
        "MiB/s",
        "peak MiB"
    ));
    for ((name, _), one) in rows.iter().zip(best.into_iter().flatten()) {
        let seconds = one.time.as_secs_f64();
        let rate = args.size as f64 / seconds;
        ui::result(format!("{name:24} {seconds:9.2} {rate:9.0} {:10.1}", one.peak as f64 / 1024.0));
    }
    Ok(())
}

/// Lines of text with random numbers in them, as tables look.
fn write_data(path: &Path, size: u64) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut state, mut written) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    while written < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let line = format!("{:012}|{:016x}|customer number {}\n", written, state, state % 1000);
        file.write_all(line.as_bytes())?;
        written += line.len() as u64;
    }
    file.flush()?;
    Ok(())
}
