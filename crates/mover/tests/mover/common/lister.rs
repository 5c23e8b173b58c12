//! A store that holds as many small objects as one wishes, and nothing but their names.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A running one.
pub(crate) struct Lister {
    pub(crate) address: String,
    deleted: Arc<AtomicUsize>,
}

/// The name of an object: 60 letters behind the directory, each object in a directory of its own when that is wished.
fn name(number: usize, own_directory: bool) -> String {
    let tail = format!("{number:010}-{}", "x".repeat(49));
    if own_directory { format!("dir/{tail}/f") } else { format!("dir/{tail}") }
}

impl Lister {
    pub(crate) fn start(objects: usize, own_directories: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let deleted = Arc::new(AtomicUsize::new(0));
        let counter = deleted.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let counter = counter.clone();
                thread::spawn(move || drop(answer(&client, objects, own_directories, &counter)));
            }
        });
        Self { address, deleted }
    }

    /// How many objects it was asked to delete.
    pub(crate) fn deleted(&self) -> usize {
        self.deleted.load(Ordering::SeqCst)
    }
}

fn answer(client: &TcpStream, objects: usize, own: bool, deleted: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    loop {
        let (mut first, mut size, mut line) = (String::new(), 0, String::new());
        reader.read_line(&mut first)?;
        if first.is_empty() {
            return Ok(());
        }
        while reader.read_line(&mut line)? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                size = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; size];
        reader.read_exact(&mut body)?;
        let (status, text) = if first.starts_with("HEAD") {
            ("404 Not Found", String::new())
        } else if first.starts_with("POST") {
            ("200 OK", delete(&String::from_utf8_lossy(&body), deleted))
        } else {
            ("200 OK", page(&first, objects, own))
        };
        let mut client = client;
        write!(client, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{text}", text.len())?;
    }
}

/// The first object that is asked for: a token is its number, a marker the name before it.
fn from(first: &str) -> usize {
    let value = |key: &str| Some(first.split_once(key)?.1.split(['&', ' ']).next()?.replace("%2F", "/"));
    if let Some(token) = value("continuation-token=") {
        return token.parse().unwrap();
    }
    value("marker=").map_or(0, |marker| marker.split(['/', '-']).nth(1).unwrap().parse::<usize>().unwrap() + 1)
}

fn page(first: &str, objects: usize, own: bool) -> String {
    let from = from(first);
    let to = (from + 1000).min(objects);
    let grouped = own && first.contains("delimiter=");
    let mut text = "<ListBucketResult>".to_owned();
    for number in from..to {
        let name = name(number, own);
        if grouped {
            write!(text, "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", name.trim_end_matches('f')).unwrap();
        } else {
            write!(
                text,
                "<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"x\"</ETag>\
                 <Size>{}</Size></Contents>",
                number % 100
            )
            .unwrap();
        }
    }
    let more = to < objects;
    write!(text, "<IsTruncated>{more}</IsTruncated>").unwrap();
    if more {
        let marker = name(to - 1, own);
        let marker = if grouped { marker.trim_end_matches('f') } else { &marker };
        write!(text, "<NextContinuationToken>{to}</NextContinuationToken><NextMarker>{marker}</NextMarker>").unwrap();
    }
    text + "</ListBucketResult>"
}

fn delete(body: &str, deleted: &AtomicUsize) -> String {
    let keys: Vec<&str> = body.split("<Key>").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
    deleted.fetch_add(keys.len(), Ordering::SeqCst);
    let mut text = "<DeleteResult>".to_owned();
    for key in keys {
        write!(text, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
    }
    text + "</DeleteResult>"
}
