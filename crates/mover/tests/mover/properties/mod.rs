//! What every back end must do, as the contract and `FORMAT.md` have it.

mod amount;
mod backup;
mod names;
mod unfinished;

use crate::common::pseudo_random;
use crate::common::servers::Repository;

type Property = fn(&Repository<'_>);

/// Names are those of the repositories that they are asserted of.
pub(crate) const PROPERTIES: &[(&str, Property)] = &[
    ("sizes", objects_of_all_sizes_come_back),
    ("amount", amount::more_than_memory_goes_there_and_back),
    ("names", names::any_name_can_be_used),
    ("listing", listings_show_what_lies_there),
    ("removing", removing_removes_that_and_nothing_else),
    ("directories", directories_are_made_and_removed),
    ("missing", what_is_missing_is_told_as_the_contract_has_it),
    ("base", names::nothing_leaves_the_base_path),
    ("encrypted", names::encrypted_objects_have_their_names),
    ("overwriting", unfinished::an_object_is_the_old_one_until_the_new_one_is_whole),
    ("stopped", unfinished::a_stopped_push_leaves_nothing),
    ("failed", unfinished::a_push_without_its_input_leaves_nothing),
    ("killed", unfinished::a_killed_push_shows_nothing),
    ("once", backup::one_of_several_seals_wins),
    ("created once", an_object_is_created_once),
    ("backup", backup::a_backup_is_sealed_verified_and_deleted),
    ("checked", the_check_succeeds_and_leaves_nothing),
];

fn objects_of_all_sizes_come_back(repository: &Repository<'_>) {
    for size in [0, 1, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 27 << 20] {
        let bytes = pseudo_random(size);
        let name = format!("dir/{size}");
        repository.push(&name, &bytes);
        assert!(repository.pull(&name) == bytes, "{size}");
        let stat = repository.run(&["stat", "--json", &name]).succeeds_with_text();
        assert_eq!(stat, format!("{{\"dirs\":0,\"entries\":1,\"files\":1,\"total_size\":{size}}}\n"));
    }
    let listed = repository.list(&["-o", "long", "dir"]);
    for size in [0, 1, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 27 << 20] {
        assert!(listed.contains(&format!("\t{size}\tdir/{size}\n")), "{listed}");
    }
    // A regular file, of a size that is known.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pseudo_random(9 << 20)).unwrap();
    repository.run(&["push", file.path().to_str().unwrap(), "dir/file"]).succeeds();
    assert!(repository.pull("dir/file") == pseudo_random(9 << 20));
}

fn an_object_is_created_once(repository: &Repository<'_>) {
    for size in [0, 5, 9 << 20] {
        let (name, bytes) = (format!("logs/{size}"), pseudo_random(size));
        let once = |bytes: &[u8]| repository.run(&["push", "--once", "-", &name]).stdin(bytes);
        once(&bytes).succeeds();
        once(&bytes).succeeds();
        let error = once(b"others").fails();
        assert!(error.contains("the object exists already, with other content"), "{error}");
        assert!(repository.pull(&name) == bytes, "{size}");
    }
    // Nothing unfinished is left of those who came second.
    assert_eq!(repository.list(&["-f", "logs"]).lines().count(), 3);
}

fn listings_show_what_lies_there(repository: &Repository<'_>) {
    for name in ["a/b/deep", "a/one", "a/two", "b", "a-b"] {
        repository.push(name, name.as_bytes());
    }
    assert_eq!(repository.list(&["/"]), "a/\na-b\nb\n");
    assert_eq!(repository.list(&["-d", "/"]), "a/\n");
    assert_eq!(repository.list(&["-f", "/"]), "a-b\nb\n");
    assert_eq!(repository.list(&["a"]), "a/b/\na/one\na/two\n");
    assert_eq!(repository.list(&["a/one"]), "a/one\n");
    assert_eq!(repository.list(&["/b"]), "b\n");
    assert_eq!(repository.lines(&["-r", "/"]), ["a-b", "a/", "a/b/", "a/b/deep", "a/one", "a/two", "b"]);
    assert_eq!(repository.lines(&["-r", "-f", "a"]), ["a/b/deep", "a/one", "a/two"]);
    assert_eq!(repository.lines(&["-r", "-d", "/"]), ["a/", "a/b/"]);
    assert_eq!(repository.lines(&["--max-depth", "2", "/"]), ["a-b", "a/", "a/b/", "a/one", "a/two", "b"]);
    assert_eq!(repository.list(&["-f", "--name", "t*", "a"]), "a/two\n");
    let json: serde_json::Value = serde_json::from_str(&repository.list(&["-o", "json", "a/two"])).unwrap();
    assert_eq!((json[0]["path"].as_str(), json[0]["size"].as_i64()), (Some("a/two"), Some(5)));
    assert_eq!(json[0]["is_dir"], false);
    // A server may round to minutes, and an old one tells its own zone's time.
    let age = jiff::Timestamp::now().as_second() - json[0]["mtime"].as_i64().unwrap();
    assert!(age.abs() < 15 * 3600, "{json}");
    let stat = repository.run(&["stat", "/"]).succeeds_with_text();
    assert_eq!(stat, "TotalSize: 22\nEntries: 7\nDirs: 2\nFiles: 5\n");
    assert_eq!(repository.run(&["stat", "a/"]).succeeds_with_text(), "TotalSize: 18\nEntries: 4\nDirs: 1\nFiles: 3\n");
}

fn removing_removes_that_and_nothing_else(repository: &Repository<'_>) {
    for name in ["a/b/c", "a/b/d/e", "a/bc", "a/b-", "x"] {
        repository.push(name, b"x");
    }
    repository.run(&["rm", "x"]).succeeds();
    repository.run(&["rm", "x"]).succeeds();
    let traits = repository.traits();
    let on_directory = repository.run(&["rm", "a"]);
    if traits.directories && !traits.lenient {
        assert_eq!(on_directory.fails(), "Error: is a directory not a file");
    } else {
        on_directory.succeeds();
    }
    assert_eq!(repository.lines(&["-r", "-f", "/"]), ["a/b-", "a/b/c", "a/b/d/e", "a/bc"]);
    if traits.directories {
        repository.run(&["rm", "-r", "nope"]).fails();
        repository.run(&["rm", "-r", "a/bc"]).fails();
    } else {
        repository.run(&["rm", "-r", "nope"]).succeeds();
        repository.run(&["rm", "-r", "a/bc"]).succeeds();
    }
    repository.run(&["rm", "a/b", "-r"]).succeeds();
    assert_eq!(repository.lines(&["-r", "/"]), ["a/", "a/b-", "a/bc"]);
    repository.run(&["rm", "-r", "/"]).succeeds();
    repository.is_empty();
}

fn directories_are_made_and_removed(repository: &Repository<'_>) {
    repository.run(&["mkdir", "d/e"]).succeeds();
    repository.run(&["mkdir", "d/e"]).succeeds();
    repository.run(&["rmdir", "nope"]).succeeds();
    repository.push("d/file", b"x");
    let traits = repository.traits();
    if !traits.directories {
        repository.run(&["rmdir", "d"]).succeeds();
        assert_eq!(repository.list(&["-r", "-f", "/"]), "d/file\n");
        return;
    }
    assert_eq!(repository.lines(&["-r", "/"]), ["d/", "d/e/", "d/file"]);
    assert_eq!(repository.list(&["d/e"]), "");
    let full = repository.run(&["rmdir", "d"]);
    if traits.lenient {
        full.succeeds();
    } else {
        assert!(full.fails().ends_with("directory not empty"));
    }
    assert!(repository.run(&["rmdir", "d/file"]).fails().ends_with("is a file not a directory"));
    assert!(repository.run(&["mkdir", "d/file"]).fails().ends_with("not a directory"));
    repository.run(&["push", "-", "d/file/below"]).stdin(b"x").fails();
    assert!(repository.run(&["push", "-", "d/e"]).stdin(b"x").fails().ends_with("is a directory not a file"));
    repository.run(&["rmdir", "d/e"]).succeeds();
    repository.run(&["rm", "d/file"]).succeeds();
    repository.run(&["rmdir", "d"]).succeeds();
    assert_eq!(repository.list(&["-r", "/"]), "");
}

fn what_is_missing_is_told_as_the_contract_has_it(repository: &Repository<'_>) {
    let missing = "Error: pull \"nope\": object not found";
    assert_eq!(repository.run(&["pull", "nope", "-"]).fails(), missing);
    // The root itself may be missing: nobody has written yet.
    assert_eq!(repository.list(&["/"]), "");
    assert_eq!(repository.list(&["-o", "json", "/"]), "[]\n");
    repository.push("dir/file", b"x");
    assert_eq!(repository.run(&["pull", "nope", "-"]).fails(), missing);
    repository.run(&["pull", "dir", "-"]).fails();
    assert_eq!(
        repository.run(&["pull", "dir/", "-"]).fails(),
        "Error: pull \"dir/\": invalid path: rpath \"dir/\" ends with '/'"
    );
    if repository.traits().directories {
        assert_eq!(repository.run(&["list", "nope"]).fails(), "Error: directory not found");
        assert_eq!(repository.run(&["stat", "nope"]).fails(), "Error: error in ListJSON: directory not found");
        repository.run(&["list", "dir/file/"]).fails();
    } else {
        assert_eq!(repository.list(&["nope"]), "");
        let zeros = "TotalSize: 0\nEntries: 0\nDirs: 0\nFiles: 0\n";
        assert_eq!(repository.run(&["stat", "nope"]).succeeds_with_text(), zeros);
    }
}

fn the_check_succeeds_and_leaves_nothing(repository: &Repository<'_>) {
    repository.run(&["check", "prefix"]).succeeds();
    repository.is_empty();
}
