//! A small API server: it keeps the objects that it was given or sent, finishes what it is asked for as the operator would,
//! and remembers every request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::world;

#[derive(Default)]
struct State {
    /// By their paths.
    objects: BTreeMap<String, Value>,
    asked: Vec<String>,
    written: Vec<Value>,
    /// What is created is never finished.
    idle: bool,
    /// What somebody else makes of an object's metadata just before it is patched.
    overtaken: Option<Value>,
}

pub(crate) struct Api {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Api {
    /// Serves objects by their path until the test ends.
    pub(crate) fn start(objects: BTreeMap<String, Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { objects, ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        Self { address, state }
    }

    /// From now on nothing that is created comes to an end.
    pub(crate) fn idle(self) -> Self {
        self.state.lock().unwrap().idle = true;
        self
    }

    /// The next object that is patched has other metadata by then.
    pub(crate) fn overtake(&self, metadata: Value) {
        self.state.lock().unwrap().overtaken = Some(metadata);
    }

    /// Puts an object at its path.
    pub(crate) fn put(&self, path: String, object: Value) {
        self.state.lock().unwrap().objects.insert(path, object);
    }

    /// The object at a path.
    pub(crate) fn object(&self, path: &str) -> Value {
        self.state.lock().unwrap().objects[path].clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Method and path of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }

    /// What was sent to be written, in order.
    pub(crate) fn written(&self) -> Vec<Value> {
        self.state.lock().unwrap().written.clone()
    }

    /// The only object of a kind that was sent.
    #[track_caller]
    pub(crate) fn only(&self, kind: &str) -> Value {
        let mut all = self.written();
        all.retain(|object| object["kind"] == kind);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    body: Value,
}

/// Reads a request; None when the connection is over.
fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut first = String::new();
    if reader.read_line(&mut first).is_err() || first.is_empty() {
        return None;
    }
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
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
    let query =
        ["%2F/", "%3D=", "%2C,"].iter().fold(query.to_owned(), |text, pair| text.replace(&pair[..3], &pair[3..]));
    Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}

/// Answers one request after the other on a connection.
fn serve(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let mut stream = stream;
        if request.query.contains("watch=true") {
            // Nothing happens any more: the stream stays open and silent.
            let head = "HTTP/1.1 200 x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            drop(stream.write_all(head.as_bytes()));
            drop(reader.read(&mut [0]));
            return;
        }
        let (code, answer) = state.lock().unwrap().answer(&request);
        let text = answer.to_string();
        let head =
            format!("HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
        if stream.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

fn version(object: &Value) -> &Value {
    &object["metadata"]["resourceVersion"]
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
        "message": message});
    (code, status)
}

fn conflict() -> (u16, Value) {
    failure(409, "Conflict", "the object has been modified; please apply your changes to the latest version")
}

impl State {
    fn answer(&mut self, request: &Request) -> (u16, Value) {
        let path = &request.path;
        self.asked.push(format!("{} {path}", request.method));
        if request.method == "PATCH"
            && let Some(object) = self.objects.get_mut(path)
            && let Some(Value::Object(metadata)) = self.overtaken.take()
        {
            object["metadata"].as_object_mut().unwrap().extend(metadata);
        }
        match (request.method.as_str(), self.objects.get(path)) {
            ("POST", _) => {
                self.written.push(request.body.clone());
                let mut object = request.body.clone();
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                object["metadata"]["uid"] = json!(name);
                object["metadata"]["resourceVersion"] = json!("2");
                if !self.idle {
                    finish(&mut object);
                }
                self.objects.insert(format!("{path}/{name}"), object.clone());
                (201, object)
            }
            ("PATCH", Some(present))
                if version(&request.body).is_string() && version(&request.body) != version(present) =>
            {
                conflict()
            }
            ("PATCH", present) => {
                self.written.push(request.body.clone());
                let mut object = present.cloned().unwrap_or_else(|| request.body.clone());
                if !self.idle {
                    finish(&mut object);
                }
                self.objects.insert(path.clone(), object.clone());
                (200, object)
            }
            ("PUT", Some(present)) => {
                let object = request.body.clone();
                if version(&object) != version(present) {
                    return conflict();
                }
                // As a rule of the schema would.
                if object["spec"]["backoffLimit"].as_i64().is_some_and(|limit| limit > 10) {
                    return failure(
                        422,
                        "Invalid",
                        "spec.backoffLimit: Invalid value: should be less than or equal to 10",
                    );
                }
                self.written.push(object.clone());
                self.objects.insert(path.clone(), object.clone());
                (200, object)
            }
            (_, Some(object)) => (200, object.clone()),
            // Only plural names are collections.
            (_, None) if path.ends_with('s') => {
                let items = self.list(path, &request.query);
                let metadata = json!({"resourceVersion": "1"});
                (200, json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items}))
            }
            (_, None) => failure(404, "NotFound", &format!("{path} not found")),
        }
    }

    /// The objects of a collection, in one namespace or in all, that have the labels and the name that were asked for.
    fn list(&self, path: &str, query: &str) -> Vec<&Value> {
        let (base, plural) = path.rsplit_once('/').unwrap();
        let inside = |key: &str| {
            let (folder, _) = key.rsplit_once('/').unwrap();
            folder == path
                || (folder.starts_with(&format!("{base}/namespaces/")) && folder.ends_with(&format!("/{plural}")))
        };
        let asked = |key: &str| query.split('&').find_map(|part| part.strip_prefix(key)).unwrap_or_default();
        let (labels, name) = (asked("labelSelector="), asked("fieldSelector=").strip_prefix("metadata.name="));
        let matches = |object: &Value| {
            let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().all(|(key, value)| object["metadata"]["labels"][key] == value)
                && name.is_none_or(|name| object["metadata"]["name"] == name)
        };
        self.objects.iter().filter(|(key, object)| inside(key) && matches(object)).map(|(_, object)| object).collect()
    }
}

/// What the operator would make of a new object.
fn finish(object: &mut Value) {
    match object["kind"].as_str() {
        Some("BackupRepo") => object["status"] = json!({"phase": "Ready", "observedGeneration": 0}),
        Some("Restore") => {
            object["status"] = json!({"phase": "Completed"});
            world::exchanged(object);
        }
        Some("BackupSchedule") => object["status"] = json!({"phase": "Available"}),
        Some("Backup") => {
            let done = json!({"phase": "Completed", "completionTimestamp": jiff::Timestamp::now().to_string()});
            world::recorded(object, "Full", done);
        }
        Some("CustomResourceDefinition") => {
            object["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
        }
        Some("Deployment") => {
            object["status"] = json!({"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1});
        }
        Some("StatefulSet") => object["status"] = json!({"replicas": 1, "readyReplicas": 1}),
        _ => {}
    }
}
