//! A small API server: it shows the objects that it was given, lists them, accepts deletions, and remembers what was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

pub(crate) struct Api {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Api {
    /// Serves objects by their path until the test ends.
    pub(crate) fn start(objects: BTreeMap<String, Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (shared, log) = (Arc::new(objects), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (objects, log) = (shared.clone(), log.clone());
                std::thread::spawn(move || serve(&stream, &objects, &log));
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Method and path of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Answers one request after the other on a connection.
fn serve(stream: &TcpStream, objects: &BTreeMap<String, Value>, log: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).is_err() || first.is_empty() {
            return;
        }
        let mut words = first.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        log.lock().unwrap().push(format!("{method} {path}"));
        let (code, answer) = answer(&path, objects);
        let text = answer.to_string();
        let head =
            format!("HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
        let mut stream = stream;
        if stream.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

/// An object, or the list of those below a path; only plural names are collections.
fn answer(path: &str, objects: &BTreeMap<String, Value>) -> (u16, Value) {
    if let Some(object) = objects.get(path) {
        return (200, object.clone());
    }
    if path.ends_with('s') {
        let below = |key: &String| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        let items: Vec<&Value> = objects.iter().filter(|(key, _)| below(key)).map(|(_, object)| object).collect();
        return (
            200,
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}),
        );
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
        "message": format!("{path} not found")});
    (404, status)
}
