//! Embeds the manifests that `install` applies, and turns the parameter schemas of the shipped storage providers into a
//! table of flags. Whatever `*.yaml` lies in the folders is taken, so a new file needs no change here.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Folder below `deploy/`, and the name of the list made of it.
const FOLDERS: [(&str, &str); 5] = [
    ("crds", "CRDS"),
    ("install", "OPERATOR"),
    ("providers", "PROVIDERS"),
    ("actionsets", "ACTION_SETS"),
    ("policytemplates", "POLICY_TEMPLATES"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let deploy = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../deploy").canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut manifests = String::new();
    for (folder, list) in FOLDERS {
        let folder = deploy.join(folder);
        println!("cargo::rerun-if-changed={}", folder.display());
        writeln!(manifests, "/// Name and text of each file of `{}`.", list.to_lowercase())?;
        writeln!(manifests, "pub(crate) const {list}: &[(&str, &str)] = &[")?;
        for file in yaml_files(&folder)? {
            println!("cargo::rerun-if-changed={}", file.display());
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            writeln!(manifests, "    ({name:?}, include_str!({:?})),", file.display().to_string())?;
        }
        writeln!(manifests, "];")?;
    }
    fs::write(out.join("manifests.rs"), manifests)?;
    fs::write(out.join("provider_flags.rs"), provider_flags(&deploy.join("providers"))?)?;
    Ok(())
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What is known of one parameter over all providers that have it.
#[derive(Default)]
struct Flag {
    description: String,
    boolean: bool,
    secret: bool,
    providers: Vec<String>,
}

fn provider_flags(folder: &Path) -> Result<String, Box<dyn Error>> {
    let mut flags: BTreeMap<String, Flag> = BTreeMap::new();
    for file in yaml_files(folder)? {
        let provider: Value = serde_norway::from_str(&fs::read_to_string(&file)?)?;
        let name = provider["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let schema = &provider["spec"]["parametersSchema"];
        let secrets: Vec<&str> =
            schema["credentialFields"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema["openAPIV3Schema"]["properties"].as_object();
        for (parameter, property) in properties.into_iter().flatten() {
            let flag = flags.entry(parameter.clone()).or_default();
            if flag.description.is_empty() {
                property["description"].as_str().unwrap_or_default().clone_into(&mut flag.description);
            }
            flag.boolean |= property["type"] == "boolean";
            flag.secret |= secrets.contains(&parameter.as_str());
            flag.providers.push(name.clone());
        }
    }
    let mut text = String::from("pub(crate) const FLAGS: &[ProviderFlag] = &[\n");
    for (parameter, flag) in flags {
        let description = flag.description.lines().next().unwrap_or_default().trim().trim_end_matches('.').to_owned();
        let providers = flag.providers.join(", ");
        let (boolean, secret) = (flag.boolean, flag.secret);
        writeln!(
            text,
            "    ProviderFlag {{ parameter: {parameter:?}, flag: {:?}, description: {description:?}, boolean: {boolean}, \
             secret: {secret}, providers: {providers:?} }},",
            kebab(&parameter)
        )?;
    }
    text.push_str("];\n");
    Ok(text)
}

/// `accessKeyId` is the flag `--access-key-id`.
fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            kebab.push('-');
        }
        kebab.push(c.to_ascii_lowercase());
    }
    kebab
}
