//! Replays the recorded command lines of the reference against this mover.
//!
//! `data/vectors.json` holds 305 recorded runs: set-up, command, environment, and what came out. Everything is compared
//! except where this mover differs on purpose; each such case stands in [`DEVIATIONS`] with its reason.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use base64::Engine;
use serde_json::Value;

/// Vectors whose result differs on purpose, with the reason.
const DEVIATIONS: &[(&str, &str)] = &[
    ("list-r-s", "-r with -s is accepted: a script in the field needs it"),
    ("push-self", "an object pushed onto itself keeps its content instead of losing it"),
    ("pull-missing-file", "the local file is opened after the object was found"),
    ("pull-missing-truncates", "the local file is opened after the object was found"),
    ("pull-d-missing", "the local file is opened after the object was found"),
    ("version", "our own version"),
    ("help-needs-conf", "help needs no configuration"),
];

struct Case<'a> {
    vector: &'a Value,
    dir: tempfile::TempDir,
}

impl Case<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn expand(&self, text: &str) -> String {
        text.replace("{T}", &self.dir.path().to_string_lossy())
    }

    fn bytes(&self, content: &Value) -> Vec<u8> {
        match (&content["text"], &content["b64"]) {
            (Value::String(text), _) => self.expand(text).into_bytes(),
            (_, Value::String(text)) => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
            _ => panic!("no content in {content}"),
        }
    }

    fn set_up(&self, default_conf: &str) {
        fs::create_dir_all(self.path("b")).unwrap();
        fs::create_dir_all(self.path("w")).unwrap();
        let conf = self.vector["conf"].as_str().unwrap_or(default_conf);
        fs::write(self.path("ds.conf"), self.expand(conf)).unwrap();
        let mut times = Vec::new();
        for item in self.vector["setup"].as_array().into_iter().flatten() {
            let name = item["path"].as_str().unwrap();
            let path = match name.strip_prefix('@') {
                Some(name) => self.path(name),
                None => self.path("b").join(name),
            };
            if item["dir"] == true {
                fs::create_dir_all(&path).unwrap();
            } else if let Some(target) = item["symlink"].as_str() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(self.expand(target), &path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, self.bytes(item)).unwrap();
            }
            if let Some(mtime) = item["mtime"].as_f64() {
                times.push((path, mtime));
            }
        }
        times.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        for (path, mtime) in times {
            let time = SystemTime::UNIX_EPOCH + Duration::from_nanos((mtime * 1e9).round() as u64);
            File::open(&path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
        }
    }

    fn command(&self, args: &[String], env: &Value, base_env: &Value) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_datasafed"));
        command.args(args);
        self.environment(&mut command, env, base_env);
        command
    }

    fn environment(&self, command: &mut Command, env: &Value, base_env: &Value) {
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.path("w"));
        for (name, value) in [base_env, env].into_iter().filter_map(Value::as_object).flatten() {
            command.env(name, OsString::from_vec(self.expand(value.as_str().unwrap()).into_bytes()));
        }
        command.current_dir(self.path("w"));
    }

    fn args(&self, vector: &Value) -> Vec<String> {
        let mut args: Vec<String> =
            vector["args"].as_array().into_iter().flatten().map(|arg| self.expand(arg.as_str().unwrap())).collect();
        if vector["use_conf"] != false {
            args.splice(0..0, ["-c".to_owned(), self.path("ds.conf").to_string_lossy().into_owned()]);
        }
        args
    }

    /// Runs a command and returns its exit code and output.
    fn run(&self, vector: &Value, base_env: &Value) -> (i32, Vec<u8>, String) {
        let mut command = if let Some(shell) = vector["shell"].as_str() {
            let mut command = Command::new("bash");
            self.environment(&mut command, &vector["env"], base_env);
            let bin = env!("CARGO_BIN_EXE_datasafed");
            command.arg("-c").arg(shell).env("BIN", bin).env("T", self.dir.path());
            command.env("DS", format!("{bin} -c {}", self.path("ds.conf").display()));
            command
        } else {
            self.command(&self.args(vector), &vector["env"], base_env)
        };
        let input = self.path(".stdin");
        fs::write(&input, if vector["stdin"].is_object() { self.bytes(&vector["stdin"]) } else { Vec::new() }).unwrap();
        command.stdin(File::open(&input).unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.output().unwrap();
        fs::remove_file(input).unwrap();
        (output.status.code().unwrap_or(-1), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Content of a directory in the form of the vectors.
    fn tree(&self, root: &str) -> BTreeMap<String, Vec<u8>> {
        fn walk(dir: &Path, prefix: &str, tree: &mut BTreeMap<String, Vec<u8>>) {
            for item in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = format!("{prefix}{}", item.file_name().to_string_lossy());
                if item.path().is_dir() {
                    tree.insert(format!("{name}/"), b"dir".to_vec());
                    walk(&item.path(), &format!("{name}/"), tree);
                } else {
                    tree.insert(name, fs::read(item.path()).unwrap_or_default());
                }
            }
        }
        let mut tree = BTreeMap::new();
        walk(&self.path(root), "", &mut tree);
        tree
    }

    fn expected_tree(&self, value: &Value) -> BTreeMap<String, Vec<u8>> {
        value
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, content)| {
                let bytes = match content {
                    Value::String(_) => b"dir".to_vec(),
                    content if content["random"] == true => format!("random {}", content["size"]).into_bytes(),
                    content => self.bytes(content),
                };
                (name.clone(), bytes)
            })
            .collect()
    }

    /// Everything that is not as recorded.
    fn differences(&self, base_env: &Value) -> Vec<String> {
        let vector = self.vector;
        for pre in vector["pre"].as_array().into_iter().flatten() {
            let mut pre = pre.clone();
            if pre["env"].is_null() {
                pre["env"] = vector["env"].clone();
            }
            self.run(&pre, base_env);
        }
        let (code, stdout, stderr) = self.run(vector, base_env);
        let mut differences = Vec::new();
        if i64::from(code) != vector["rc"].as_i64().unwrap() {
            differences.push(format!("exit {code}, expected {}; stderr {stderr:?}", vector["rc"]));
        }
        if let Some(difference) = self.compare_output(&stdout) {
            differences.push(difference);
        }
        let last_error = |text: &str| text.lines().rev().find(|line| line.starts_with("Error: ")).map(str::to_owned);
        let expected = last_error(&self.expand(vector["stderr"].as_str().unwrap_or_default()));
        let found = last_error(&stderr);
        // The reference's words about damaged streams depend on a race, so only the kind of the error is compared.
        let is_decoder = |text: &Option<String>| {
            text.as_ref().is_some_and(|text| text.contains("decompression error") || text.contains("gzip stream"))
        };
        if found != expected && !(is_decoder(&found) && is_decoder(&expected)) {
            differences.push(format!("stderr {found:?}, expected {expected:?}"));
        }
        for (name, root) in [("backend_after", "b"), ("workdir_after", "w")] {
            if vector[name].is_object() {
                let (mut found, expected) = (self.tree(root), self.expected_tree(&vector[name]));
                for (name, bytes) in &mut found {
                    // Encrypted objects begin with random bytes: only their size is recorded.
                    if expected.get(name).is_some_and(|expected| expected.starts_with(b"random ")) {
                        *bytes = format!("random {}", bytes.len()).into_bytes();
                    }
                }
                if found != expected {
                    differences.push(format!("{name} {:?}, expected {:?}", short(&found), short(&expected)));
                }
            }
        }
        differences
    }

    fn compare_output(&self, stdout: &[u8]) -> Option<String> {
        let vector = self.vector;
        let mut expected = match &vector["stdout"] {
            Value::Object(_) => self.bytes(&vector["stdout"]),
            _ => return None,
        };
        let mut found = stdout.to_vec();
        let as_text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if as_text(&expected).contains("{DIRSIZE}") {
            // Directories have the size that this file system gives them.
            let size = fs::metadata(self.path("b")).unwrap().len().to_string();
            expected = as_text(&expected).replace("{DIRSIZE}", &size).into_bytes();
        }
        // One line of JSON instead of several is a deliberate difference; the content is not.
        if let (Ok(left), Ok(right)) =
            (serde_json::from_slice::<Value>(&found), serde_json::from_slice::<Value>(&expected))
            && right.is_array()
        {
            let lines = as_text(&found).lines().count();
            return (left != right || lines != 1).then(|| format!("JSON {left}, expected {right}"));
        }
        if vector["stdout_lines_unordered"] == true {
            let sorted = |bytes: &[u8]| {
                let mut lines: Vec<String> = as_text(bytes).lines().map(str::to_owned).collect();
                lines.sort();
                lines.join("\n").into_bytes()
            };
            (found, expected) = (sorted(&found), sorted(&expected));
        }
        (found != expected).then(|| format!("stdout {:?}, expected {:?}", as_text(&found), as_text(&expected)))
    }
}

fn short(tree: &BTreeMap<String, Vec<u8>>) -> BTreeMap<&String, String> {
    tree.iter()
        .map(|(name, bytes)| (name, String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned()))
        .collect()
}

#[test]
fn the_recorded_command_lines_give_the_recorded_results() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors.json");
    let data: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let default_conf = data["default_conf"].as_str().unwrap();
    let (mut passed, mut deviated, mut failures) = (0, Vec::new(), Vec::new());
    for vector in data["vectors"].as_array().unwrap() {
        let id = vector["id"].as_str().unwrap();
        if vector["nondeterministic"] == true {
            continue;
        }
        let case = Case { vector, dir: tempfile::tempdir().unwrap() };
        case.set_up(default_conf);
        let differences = case.differences(&data["base_env"]);
        let known = DEVIATIONS.iter().any(|(name, _)| *name == id);
        match (differences.is_empty(), known) {
            (true, false) => passed += 1,
            (false, true) => deviated.push(id),
            (true, true) => failures.push(format!("{id}: no longer deviates; take it off the list")),
            (false, false) => failures.push(format!("{id}: {}", differences.join("\n    "))),
        }
    }
    println!("{passed} as recorded, {} deviate on purpose: {}", deviated.len(), deviated.join(" "));
    assert!(failures.is_empty(), "{} vectors differ:\n{}", failures.len(), failures.join("\n"));
}
