//! A proxy that does to HTTP what networks and servers do. One request per connection, so that each can be treated alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

/// What a request asks a store for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    Anything,
    Head,
    Get,
    List,
    Put,
    Begin,
    Part,
    Complete,
    Abort,
    Delete,
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It arrives late.
    Late(Duration),
    /// Its head arrives at once, its body late.
    LateBody(Duration),
    /// The connection is reset when so many bytes of the body have come.
    ResetAfter(usize),
    /// The server never hears of it, and an answer of this status comes, with these headers.
    Answer(u16, &'static str, &'static str),
    /// The server does the work, and the connection is reset instead of the answer.
    AnswerLost,
    /// The answer's body ends after so many bytes, by the end of the connection or by a reset.
    Cut { after: usize, reset: bool },
    /// So many bytes of the answer's body come, and then nothing more.
    Stall { after: usize },
    /// The request is taken, and nothing comes.
    Silence,
    /// The answer comes whole, but the connection stays open long after it.
    SlowClose,
}

/// A rule: the first one that fits a request and is not used up is applied.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) asks: Asks,
    /// So many requests pass first.
    pub(crate) skip: usize,
    /// How many requests it befalls.
    pub(crate) times: usize,
    pub(crate) fault: Fault,
}

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) address: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    rules: Mutex<Vec<Rule>>,
    befallen: AtomicUsize,
    seen: Mutex<Vec<(Instant, Asks, String)>>,
    ended: Mutex<bool>,
}

impl Proxy {
    pub(crate) fn start(upstream: &str, rules: Vec<Rule>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            rules: Mutex::new(rules),
            befallen: AtomicUsize::new(0),
            seen: Mutex::default(),
            ended: Mutex::new(false),
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if *serving.ended.lock().unwrap() {
                    return;
                }
                let shared = serving.clone();
                // A client or server that hangs up ends the connection, and nothing else.
                thread::spawn(move || drop(shared.pass(client)));
            }
        });
        Self { address, shared }
    }

    /// How many requests something befell.
    pub(crate) fn befallen(&self) -> usize {
        self.shared.befallen.load(Ordering::SeqCst)
    }

    /// The requests so far: when, what for, and which address.
    pub(crate) fn seen(&self) -> Vec<(Instant, Asks, String)> {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        *self.shared.ended.lock().unwrap() = true;
        let _ = TcpStream::connect(&self.address);
    }
}

fn asks(method: &str, target: &str) -> Asks {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_bucket = !path.trim_matches('/').contains('/');
    let has = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
    match method {
        "HEAD" => Asks::Head,
        "GET" if is_bucket => Asks::List,
        "GET" => Asks::Get,
        "PUT" if has("partNumber") => Asks::Part,
        "PUT" => Asks::Put,
        "POST" if has("uploads") => Asks::Begin,
        "POST" if has("uploadId") => Asks::Complete,
        "DELETE" if has("uploadId") => Asks::Abort,
        _ => Asks::Delete,
    }
}

/// Head of a message, and the size of its body when it says one.
fn read_head(from: &mut impl BufRead) -> std::io::Result<(String, Option<usize>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let size = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Ok((head, size))
}

fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

impl Shared {
    fn fault(&self, asked: Asks) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let rule =
            rules.iter_mut().find(|rule| (rule.asks == asked || rule.asks == Asks::Anything) && rule.times > 0)?;
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        rule.times -= 1;
        self.befallen.fetch_add(1, Ordering::SeqCst);
        Some(rule.fault.clone())
    }

    fn pass(&self, client: TcpStream) -> std::io::Result<()> {
        client.set_nodelay(true)?;
        let mut reader = BufReader::new(client.try_clone()?);
        let mut client = client;
        let (head, size) = read_head(&mut reader)?;
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let asked = asks(method, target);
        self.seen.lock().unwrap().push((Instant::now(), asked, format!("{method} {target}")));
        let mut body = reader.by_ref().take(size.unwrap_or(0) as u64);
        let fault = self.fault(asked);
        match &fault {
            Some(Fault::Late(time)) => thread::sleep(*time),
            Some(Fault::ResetAfter(bytes)) => {
                std::io::copy(&mut body.take(*bytes as u64), &mut std::io::sink())?;
                reset(&client);
                return Ok(());
            }
            Some(Fault::Silence) => {
                std::io::copy(&mut body, &mut std::io::sink())?;
                self.hold();
                return Ok(());
            }
            Some(Fault::Answer(status, headers, text)) => {
                std::io::copy(&mut body, &mut std::io::sink())?;
                let text = if method == "HEAD" { "" } else { text };
                write!(
                    client,
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{text}",
                    text.len()
                )?;
                return Ok(());
            }
            _ => {}
        }
        let mut server = TcpStream::connect(&self.upstream)?;
        server.set_nodelay(true)?;
        let end = head.len() - 2;
        write!(server, "{}connection: close\r\n\r\n", &head[..end])?;
        if let Some(Fault::LateBody(time)) = &fault {
            thread::sleep(*time);
        }
        // A client that goes away half way takes the server's connection along: an answer would never come.
        if std::io::copy(&mut body, &mut server)? < size.unwrap_or(0) as u64 {
            return Ok(());
        }
        let mut server = BufReader::new(server);
        let (head, _) = read_head(&mut server)?;
        match fault {
            Some(Fault::AnswerLost) => {
                std::io::copy(&mut server, &mut std::io::sink())?;
                reset(&client);
            }
            Some(Fault::Cut { after, reset: by_reset }) => {
                client.write_all(head.as_bytes())?;
                std::io::copy(&mut server.take(after as u64), &mut client)?;
                if by_reset {
                    // What was sent must not be lost with the reset.
                    thread::sleep(Duration::from_millis(50));
                    reset(&client);
                }
            }
            Some(Fault::Stall { after }) => {
                client.write_all(head.as_bytes())?;
                std::io::copy(&mut server.take(after as u64), &mut client)?;
                self.hold();
                return Ok(());
            }
            Some(Fault::SlowClose) => {
                let head = head.replace("connection: close\r\n", "");
                client.write_all(head.as_bytes())?;
                std::io::copy(&mut server, &mut client)?;
                thread::sleep(Duration::from_secs(3));
            }
            _ => {
                client.write_all(head.as_bytes())?;
                std::io::copy(&mut server, &mut client)?;
                let _ = client.shutdown(Shutdown::Write);
            }
        }
        Ok(())
    }

    /// Keeps a connection open as long as the proxy runs.
    fn hold(&self) {
        while !*self.ended.lock().unwrap() {
            thread::sleep(Duration::from_millis(100));
        }
    }
}
