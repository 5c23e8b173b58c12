//! What an FTP server does is done, also when its answer is lost.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::common::servers::{Server, Tls};
use crate::common::{Run, pseudo_random};

/// Hands the control connection on, and ends it instead of giving the first answer to a rename.
fn relay(port: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let renames = Arc::new(AtomicUsize::new(0));
    let count = renames.clone();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, count) = (client.unwrap(), count.clone());
            thread::spawn(move || drop(pass(&client, port, &count)));
        }
    });
    (address.port(), renames)
}

fn pass(client: &TcpStream, port: u16, renames: &AtomicUsize) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port))?;
    let (mut answers, mut back) = (server.try_clone()?, client.try_clone()?);
    let lost = Arc::new(AtomicUsize::new(0));
    let loses = lost.clone();
    let answering = thread::spawn(move || {
        let mut lines = BufReader::new(&mut answers);
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|read| read > 0) && loses.load(Ordering::SeqCst) == 0 {
            if back.write_all(line.as_bytes()).is_err() {
                break;
            }
            line.clear();
        }
        let _ = back.shutdown(Shutdown::Both);
    });
    let (mut requests, mut to) = (BufReader::new(client), &server);
    let mut line = String::new();
    while requests.read_line(&mut line)? > 0 {
        if line.starts_with("RNTO ") && renames.fetch_add(1, Ordering::SeqCst) == 0 {
            lost.store(1, Ordering::SeqCst);
        }
        to.write_all(line.as_bytes())?;
        line.clear();
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = answering.join();
    Ok(())
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn a_rename_whose_answer_is_lost_is_not_asked_for_again() {
    let server = Server::vsftpd(Tls::No);
    let repository = server.repository("lost");
    let conf = fs::read_to_string(repository.conf()).unwrap();
    let line = conf.lines().find(|line| line.starts_with("port = ")).unwrap();
    let (port, renames) = relay(line["port = ".len()..].parse().unwrap());
    let through = format!("{}.relay", repository.conf());
    fs::write(&through, conf.replace(line, &format!("port = {port}"))).unwrap();
    let bytes = pseudo_random(1 << 20);
    Run::new(&["-c", &through, "push", "-", "dir/object"]).stdin(&bytes).succeeds();
    assert_eq!(renames.load(Ordering::SeqCst), 1);
    assert!(repository.pull("dir/object") == bytes);
    assert_eq!(repository.lines(&["-r", "-f", "/"]), ["dir/object"]);
}
