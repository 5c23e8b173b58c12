//! The contract's table of what differs between a file system and an object store, row by row on both; and what an object
//! store is asked for.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::common::{Endpoint, Run};

const ZEROS: &str = "TotalSize: 0\nEntries: 0\nDirs: 0\nFiles: 0\n";
const NO_DIR: &str = "Error: failed to remove directories: ";

/// What a command prints, or how its error begins.
type Outcome = Result<&'static str, &'static str>;
/// A command, and how it ends on files and in a store.
type Row = (&'static [&'static str], Outcome, Outcome);

#[test]
fn situations_end_differently_on_files_and_in_a_store_as_the_contract_says() {
    let root = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let on = |store: bool, args: &[&str]| {
        if store { endpoint.mover(args) } else { Run::new(args).env("DATASAFED_LOCAL_BACKEND_PATH", root.path()) }
    };
    let rows: &[Row] = &[
        (&["list", "nope"], Err("Error: directory not found"), Ok("")),
        (&["list", "a/b/"], Err("Error: error in ListJSON: "), Ok("")),
        (&["stat", "nope"], Err("Error: error in ListJSON: directory not found"), Ok(ZEROS)),
        (
            &["pull", "nope", "-"],
            Err("Error: pull \"nope\": object not found"),
            Err("Error: pull \"nope\": object not found"),
        ),
        (
            &["pull", "a", "-"],
            Err("Error: pull \"a\": is a directory not a file"),
            Err("Error: pull \"a\": object not found"),
        ),
        (&["rm", "nope"], Ok(""), Ok("")),
        (&["rm", "a"], Err("Error: is a directory not a file"), Ok("")),
        (&["rm", "-r", "nope"], Err(NO_DIR), Ok("")),
        (&["rm", "-r", "a/b"], Err("Error: failed to remove directories: is a file not a directory"), Ok("")),
        (&["rmdir", "nope"], Ok(""), Ok("")),
        (&["rmdir", "a"], Err("Error: remove "), Ok("")),
        (&["mkdir", "made/deep"], Ok(""), Ok("")),
        (&["list", "-d", "made"], Ok("made/deep/\n"), Ok("")),
        (
            &["stat", "a"],
            Ok("TotalSize: 5\nEntries: 1\nDirs: 0\nFiles: 1\n"),
            Ok("TotalSize: 5\nEntries: 1\nDirs: 0\nFiles: 1\n"),
        ),
    ];
    for store in [false, true] {
        on(store, &["push", "-", "a/b"]).stdin(b"hello").succeeds();
        for (args, files, objects) in rows {
            match *if store { objects } else { files } {
                Ok(text) => assert_eq!(on(store, args).succeeds_with_text(), text, "{args:?}"),
                Err(start) => {
                    let error = on(store, args).fails();
                    assert!(error.starts_with(start), "{args:?}: {error}");
                }
            }
        }
        // Whatever was refused or had no effect: the object stays.
        assert_eq!(on(store, &["list", "-r", "-f", "/"]).succeeds_with_text(), "a/b\n");
    }
}

#[test]
fn directories_of_a_store_have_the_contracts_size_and_time() {
    let endpoint = Endpoint::start();
    for name in ["x/y/a", "x/b", "z"] {
        endpoint.mover(&["push", "-", name]).stdin(b"12").succeeds();
    }
    let list = |args: &[&str]| endpoint.mover(args).succeeds_with_text();
    assert_eq!(list(&["list", "-d", "-o", "long", "/"]), "2000-01-01T00:00:00Z\t0\tx/\n");
    // All objects in the order of their keys, then the directories that these imply.
    assert_eq!(list(&["list", "-r", "/"]), "x/b\nx/y/a\nz\nx/\nx/y/\n");
    let dirs = list(&["list", "-r", "-d", "-o", "long", "/"]);
    let this_year = jiff::Timestamp::now().strftime("%Y-").to_string();
    assert!(dirs.lines().all(|line| line.starts_with(&this_year) && line.contains("\t-1\tx/")), "{dirs}");
    assert_eq!(list(&["list", "--max-depth", "2", "/"]), "x/\nx/b\nx/y/\nz\n");
    assert_eq!(list(&["stat", "/"]), "TotalSize: 6\nEntries: 5\nDirs: 2\nFiles: 3\n");
}

#[test]
fn a_bucket_that_nobody_made_yet_lists_as_empty_and_takes_no_object() {
    let endpoint = Endpoint::start();
    let elsewhere = endpoint.with_conf("root", "no-such-bucket");
    let (code, out, err) = elsewhere.mover(&["list", "/"]).output();
    assert_eq!((code, out.as_slice()), (0, &b""[..]), "{err}");
    assert_eq!(elsewhere.mover(&["list", "-o", "json", "/"]).succeeds(), b"[]\n");
    let error = elsewhere.mover(&["push", "-", "x"]).stdin(b"x").fails();
    assert!(error.contains("NoSuchBucket"), "{error}");
}

/// Passes bytes on in both directions and notes the methods that are asked for.
fn counting(to: &str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (to, noted) = (to.to_owned(), asked.clone());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&to) else { continue };
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
            let (mut client, mut server, noted) = (client, server, noted.clone());
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(read @ 1..) = client.read(&mut buffer) {
                    // A request of a listing fits into one read, and nothing else follows it before its answer.
                    let text = String::from_utf8_lossy(&buffer[..read]);
                    if let Some(line) = text.lines().next().filter(|line| line.ends_with(" HTTP/1.1")) {
                        noted.lock().unwrap().push(line.to_owned());
                    }
                    if server.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, asked)
}

#[test]
fn a_listing_costs_its_pages_and_nothing_per_object() {
    let endpoint = Endpoint::start();
    let dir = endpoint.path("bucket/many");
    std::fs::create_dir_all(&dir).unwrap();
    for number in 0..2100 {
        std::fs::write(dir.join(format!("{number:05}")), b"x").unwrap();
    }
    let (address, asked) = counting(endpoint.address());
    for version in ["1", "2"] {
        let through = endpoint.with_conf("endpoint", &format!("http://{address}")).and("list_version", version);
        for (args, pages) in [
            (&["list", "many"][..], 3),
            (&["list", "-r", "/"], 3),
            (&["list", "-o", "json", "-s", "mtime", "many"], 3),
            (&["stat", "/"], 3),
            (&["list", "many/00007"], 0),
        ] {
            asked.lock().unwrap().clear();
            through.mover(args).succeeds();
            let asked = asked.lock().unwrap();
            let heads = asked.iter().filter(|line| line.starts_with("HEAD ")).count();
            let lists: Vec<_> = asked.iter().filter(|line| line.starts_with("GET ")).collect();
            assert!(lists.iter().all(|line| line.contains("list-type=2") == (version == "2")), "{args:?}: {asked:?}");
            assert!(heads <= 1 && lists.len() == pages && asked.len() == heads + lists.len(), "{args:?}: {asked:?}");
        }
    }
}
