//! Names: odd ones, those below a base path, those of encrypted objects.

use age::secrecy::ExposeSecret;

use crate::common::servers::Repository;

/// Whatever a shell, a URL, a pattern or a command of a protocol could take for something else.
const NAMES: &[&str] = &[
    "with blank",
    "two  blanks",
    "ünïcode-日本語",
    "100%",
    "%41%2F",
    "a+b",
    "a#b",
    "a?b=c&d",
    "it's",
    "say \"so\"",
    "semi;colon",
    "[x]*",
    "~tilde",
    "-dash",
    "<angle>&amp;",
    "..dots",
    "pipe|pipe",
    "a:b@c",
];

pub(super) fn any_name_can_be_used(repository: &Repository<'_>) {
    let forbidden = repository.traits().forbidden;
    let names: Vec<&str> = NAMES.iter().copied().filter(|name| !name.contains(|c| forbidden.contains(c))).collect();
    for name in &names {
        let path = format!("/d {name}/{name}");
        repository.push(&path, name.as_bytes());
        assert_eq!(repository.pull(&path), name.as_bytes(), "{name}");
        assert_eq!(repository.list(&[&path]), format!("d {name}/{name}\n"));
        assert_eq!(repository.list(&[&format!("d {name}")]), format!("d {name}/{name}\n"));
    }
    let mut expected: Vec<String> = names.iter().map(|name| format!("d {name}/{name}")).collect();
    expected.sort();
    assert_eq!(repository.lines(&["-r", "-f", "/"]), expected);
    let json: serde_json::Value = serde_json::from_str(&repository.list(&["-r", "-f", "-o", "json", "/"])).unwrap();
    let mut listed: Vec<&str> = json.as_array().unwrap().iter().map(|item| item["path"].as_str().unwrap()).collect();
    listed.sort_unstable();
    assert_eq!(listed, expected);
    for (at, name) in names.iter().enumerate() {
        repository.run(&["rm", &format!("/d {name}/{name}")]).succeeds();
        assert_eq!(repository.lines(&["-r", "-f", "/"]).len(), names.len() - at - 1, "{name}");
    }
}

pub(super) fn nothing_leaves_the_base_path(repository: &Repository<'_>) {
    repository.push("outside", b"out");
    let inside = |args: &[&str]| repository.run(args).env("DATASAFED_BACKEND_BASE_PATH", " /base/p ");
    inside(&["push", "-", "/../dir/file"]).stdin(b"in").succeeds();
    inside(&["push", "-", "../outside"]).stdin(b"in").fails();
    let listed = inside(&["list", "-r", "/"]).succeeds_with_text();
    assert!(["dir/\ndir/file\n", "dir/file\ndir/\n"].contains(&listed.as_str()), "{listed}");
    assert_eq!(inside(&["list", "dir/file"]).succeeds_with_text(), "dir/file\n");
    assert_eq!(inside(&["pull", "/dir/file", "-"]).succeeds(), b"in");
    assert_eq!(repository.lines(&["-r", "-f", "/"]), ["base/p/dir/file", "outside"]);
    inside(&["rm", "-r", "dir"]).succeeds();
    assert_eq!(repository.lines(&["-r", "-f", "/"]), ["outside"]);
}

pub(super) fn encrypted_objects_have_their_names(repository: &Repository<'_>) {
    let identity = age::x25519::Identity::generate();
    for (algorithm, phrase) in [("AES-256-CFB", "secret"), ("age", identity.to_string().expose_secret())] {
        let dir = format!("{algorithm}/dir");
        let hidden = |args: &[&str]| {
            repository
                .run(args)
                .env("DATASAFED_ENCRYPTION_ALGORITHM", algorithm)
                .env("DATASAFED_ENCRYPTION_PASS_PHRASE", phrase)
        };
        let name = format!("{dir}/file one");
        hidden(&["push", "-z", "zstd", "-", &name]).stdin(b"some text").succeeds();
        assert_eq!(hidden(&["pull", "-d", "zstd", &name, "-"]).succeeds(), b"some text");
        assert_eq!(hidden(&["list", &dir]).succeeds_with_text(), format!("{name}\n"));
        assert_eq!(hidden(&["list", &name]).succeeds_with_text(), format!("{name}\n"));
        assert_eq!(repository.list(&[&dir]), format!("{name}.enc\n"));
        assert!(repository.pull(&format!("{name}.enc")).len() > 9);
        hidden(&["rm", &name]).succeeds();
        assert_eq!(repository.list(&["-r", "-f", "/"]), "");
    }
}
