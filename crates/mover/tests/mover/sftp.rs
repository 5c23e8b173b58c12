//! Getting into an SFTP server: whose key it shows, and with what it lets us in.

use std::fs;
use std::io::{self, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::disk::Disk;
use crate::common::servers::sshd::{Sshd, keygen, sign};
use crate::common::{Run, pseudo_random};

const PHRASE: &str = "a phrase";

/// A run with a configuration of these lines.
fn run(dir: &Path, lines: &str, args: &[&str]) -> Run {
    let conf = dir.join(format!("{}.conf", blake3::hash(lines.as_bytes()).to_hex()));
    fs::write(&conf, format!("[storage]\n{lines}")).unwrap();
    let mut all = vec!["-c", conf.to_str().unwrap()];
    all.extend(args);
    Run::new(&all)
}

/// The key that the server knows, and where its own is known.
fn usual(sshd: &Sshd) -> String {
    let path = |name: &str| sshd.dir.join(name).display().to_string();
    format!("key_file = {}\nknown_hosts_file = {}\nroot = {}\n", path("key"), path("known"), path("data"))
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn a_server_is_only_believed_with_the_key_that_is_known() {
    let sshd = Sshd::start("");
    let list = |known: &str| {
        let key = sshd.dir.join("key");
        let root = sshd.dir.join("data");
        let lines = format!("{}key_file = {}\nroot = {}\n{known}", sshd.address, key.display(), root.display());
        run(&sshd.dir, &lines, &["list", "/"])
    };
    let known = |name: &str, public: &str| {
        let line = format!("[localhost]:{} {}", sshd.port, fs::read_to_string(sshd.dir.join(public)).unwrap());
        fs::write(sshd.dir.join(name), line).unwrap();
        format!("known_hosts_file = {}\n", sshd.dir.join(name).display())
    };
    list(&known("right", "host.pub")).succeeds();
    let said = list(&known("wrong", "key.pub")).fails();
    assert!(said.contains("is not the one in known_hosts_file") && said.contains("SHA256:"), "{said}");
    // The server has another kind of key than the one that is known.
    keygen(&sshd.dir, "other", &["-t", "ecdsa", "-N", ""]);
    assert!(list(&known("kind", "other.pub")).fails().contains("is not the one in known_hosts_file"));
    fs::write(sshd.dir.join("none"), "elsewhere ssh-ed25519 AAAA\n").unwrap();
    let said = list(&format!("known_hosts_file = {}\n", sshd.dir.join("none").display())).fails();
    assert!(said.contains(&format!("the host [localhost]:{} is not in known_hosts_file", sshd.port)), "{said}");
    let (code, _, said) = list("").output();
    assert_eq!((code, said.lines().count()), (0, 1), "{said}");
    assert!(said.contains("known_hosts_file is not set") && said.contains("SHA256:"), "{said}");
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn keys_of_all_kinds_let_us_in_and_others_do_not() {
    let sshd = Sshd::start("");
    let known = format!("known_hosts_file = {}\n", sshd.dir.join("known").display());
    let kinds: [(&str, &[&str]); 6] = [
        ("ed25519", &["-t", "ed25519"]),
        ("ecdsa", &["-t", "ecdsa"]),
        ("ecdsa-384", &["-t", "ecdsa", "-b", "384"]),
        ("rsa", &["-t", "rsa", "-b", "3072"]),
        ("rsa-pem", &["-t", "rsa", "-b", "2048", "-m", "PEM"]),
        ("rsa-pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8"]),
    ];
    for (name, options) in kinds {
        for phrase in ["", PHRASE] {
            let name = format!("{name}{}", phrase.len());
            let path = keygen(&sshd.dir, &name, &[options, &["-N", phrase]].concat());
            let list = |more: &str| {
                let lines = format!("{}{known}key_file = {}\n{more}", sshd.address, path.display());
                run(&sshd.dir, &lines, &["list", "/"])
            };
            let with_phrase = format!("key_file_pass.need_obscure = {PHRASE}\n");
            let said = list(&with_phrase).fails();
            assert!(said.contains("does not let") && said.contains("tried publickey"), "{name}: {said}");
            sshd.authorize(&path);
            list(&with_phrase).succeeds();
            if phrase.is_empty() {
                list("").succeeds();
            } else {
                assert!(list("").fails().contains("cannot be read without key_file_pass"), "{name}");
                let said = list("key_file_pass.need_obscure = other\n").fails();
                assert!(said.contains("cannot be read with key_file_pass"), "{name}: {said}");
            }
        }
    }
    let pem = fs::read_to_string(sshd.dir.join("ed255190")).unwrap().replace('\n', "\\n");
    run(&sshd.dir, &format!("{}{known}key_pem = {pem}\n", sshd.address), &["list", "/"]).succeeds();
    let said = run(&sshd.dir, &format!("{}{known}", sshd.address), &["list", "/"]).fails();
    assert!(said.contains("nothing that it takes is configured"), "{said}");
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn a_certificate_of_an_authority_lets_us_in() {
    let authority = tempfile::tempdir().unwrap();
    let signer = keygen(authority.path(), "authority", &["-t", "ed25519", "-N", ""]);
    fs::set_permissions(authority.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let sshd = Sshd::start(&format!("TrustedUserCAKeys {}\n", signer.with_extension("pub").display()));
    let user = sshd.address.lines().last().unwrap().trim_start_matches("user = ");
    let key = keygen(&sshd.dir, "certified", &["-t", "ed25519", "-N", ""]);
    sign(&signer, user, &key);
    let lines = |certificate: &str| {
        let known = sshd.dir.join("known");
        format!("{}known_hosts_file = {}\nkey_file = {}\n{certificate}", sshd.address, known.display(), key.display())
    };
    run(&sshd.dir, &lines(""), &["list", "/"]).fails();
    let certificate = format!("pubkey_file = {}-cert.pub\n", key.display());
    run(&sshd.dir, &lines(&certificate), &["list", "/"]).succeeds();
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn a_full_disk_a_read_only_one_and_a_forbidden_place_have_their_names() {
    let sshd = Sshd::start("");
    let Some(disk) = Disk::new(4) else { return };
    fs::set_permissions(disk.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let lines = usual(&sshd).replace(&sshd.dir.join("data").display().to_string(), &disk.path().display().to_string());
    let push = |name: &str| run(&sshd.dir, &format!("{}{lines}", sshd.address), &["push", "-", name]);
    let said = push("large").stdin(&pseudo_random(8 << 20)).fails();
    assert!(said.contains("are free on its disk"), "{said}");
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
    disk.remount("ro");
    let said = push("small").stdin(b"x").fails();
    assert!(said.contains("its file system is read-only"), "{said}");
    let lines = usual(&sshd).replace(&sshd.dir.join("data").display().to_string(), "/proc");
    let said = run(&sshd.dir, &format!("{}{lines}", sshd.address), &["push", "-", "x"]).stdin(b"x").fails();
    assert!(said.contains("the server answered"), "{said}");
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn links_lead_to_files_and_odd_names_are_left_out() {
    let sshd = Sshd::start("");
    let data = sshd.dir.join("data");
    let lines = format!("{}{}", sshd.address, usual(&sshd));
    run(&sshd.dir, &lines, &["push", "-", "dir/file"]).stdin(b"12345").succeeds();
    symlink("dir/file", data.join("to-file")).unwrap();
    symlink("dir", data.join("to-dir")).unwrap();
    symlink("nowhere", data.join("to-nothing")).unwrap();
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"odd\xff");
    fs::write(data.join("dir").join(odd), b"x").unwrap();
    let (code, listed, said) = run(&sshd.dir, &lines, &["list", "-r", "/"]).output();
    assert_eq!((code, String::from_utf8_lossy(&listed).as_ref()), (0, "dir/\nto-file\ndir/file\n"), "{said}");
    for words in
        ["to-dir: a link to a directory is not followed", "to-nothing: a link that", "a name that is not UTF-8"]
    {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(run(&sshd.dir, &lines, &["pull", "to-file", "-"]).succeeds(), b"12345");
    let without = run(&sshd.dir, &format!("{lines}skip_links = true\n"), &["list", "/"]).succeeds_with_text();
    assert_eq!(without, "dir/\n");
    // What cannot be named stays, and is told.
    let said = run(&sshd.dir, &lines, &["rm", "-r", "dir"]).fails();
    assert!(said.contains("the server answered Failure"), "{said}");
}

/// Like a server that is stopped, or a router that has forgotten the connection.
#[test]
fn a_server_that_says_nothing_is_named_within_half_a_minute() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let lines = format!("type = sftp\nhost = 127.0.0.1\nport = {port}\nuser = u\n");
    let fails = |args: &[&str], run: Run| {
        let began = Instant::now();
        let said = run.stdin(b"x").fails();
        assert!(began.elapsed() < Duration::from_secs(30), "{args:?}: {:?}", began.elapsed());
        said
    };
    let runs = [&["list", "/"][..], &["pull", "x", "-"], &["push", "-", "x"], &["rm", "x"], &["check", "prefix"]];
    // Each begins when the configuration is written.
    let runs = runs.map(|args| (args, run(dir.path(), &lines, args)));
    thread::scope(|scope| {
        for (args, run) in runs {
            scope.spawn(move || {
                let said = fails(args, run);
                assert!(said.contains("did not let us in within 7 seconds"), "{args:?}: {said}");
            });
        }
    });
    drop(listener);
    let gone = fails(&["list"], run(dir.path(), &lines, &["list", "/"]));
    assert!(gone.contains("cannot be reached") && gone.contains("connection refused"), "{gone}");
}

/// Hands bytes on between a client and a server, and hangs up once after so many from the server.
fn relay(port: u16, hang_up_after: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut left = Some(hang_up_after);
        for client in listener.incoming() {
            let (mut client, left) = (client.unwrap(), left.take());
            let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || drop(io::copy(&mut from, &mut to)));
            thread::spawn(move || {
                let limit = left.unwrap_or(usize::MAX) as u64;
                let _ = io::copy(&mut (&mut server).take(limit), &mut client);
                let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            });
        }
    });
    address.port()
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn a_broken_connection_costs_a_pull_nothing_and_a_push_its_object() {
    let sshd = Sshd::start("");
    let lines = format!("{}{}", sshd.address, usual(&sshd));
    let bytes = pseudo_random(20 << 20);
    run(&sshd.dir, &lines, &["push", "-", "object"]).stdin(&bytes).succeeds();
    let through = |hang_up_after: usize| {
        let port = relay(sshd.port, hang_up_after);
        let line = fs::read_to_string(sshd.dir.join("known")).unwrap();
        let known = line.replace(&sshd.port.to_string(), &port.to_string());
        fs::write(sshd.dir.join(format!("known-{port}")), known).unwrap();
        lines
            .replace(&format!("port = {}", sshd.port), &format!("port = {port}"))
            .replace("/known", &format!("/known-{port}"))
    };
    let pulled = run(&sshd.dir, &through(9 << 20), &["pull", "object", "-"]).succeeds();
    assert!(pulled == bytes);
    // Answers to a push are small.
    let said = run(&sshd.dir, &through(7000), &["push", "-", "object"]).stdin(&bytes[1..]).fails();
    assert!(said.contains("the server ended the connection") || said.contains("the connection broke"), "{said}");
    assert!(run(&sshd.dir, &lines, &["pull", "object", "-"]).succeeds() == bytes);
    assert_eq!(fs::read_dir(sshd.dir.join("data")).unwrap().count(), 1);
    // One that breaks between two questions is made anew.
    run(&sshd.dir, &through(3500), &["list", "-r", "/"]).succeeds();
}
