//! Services that lend keys, as far as clients see them: STS, the container endpoint of pods, and the metadata of a machine.
//! Each answers only who asks as the protocol has it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Lines of the header, in small letters up to the colon.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn has(&self, header: &str) -> bool {
        self.headers.iter().any(|line| line == header)
    }
}

/// The keys that are lent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    pub(crate) secret: &'static str,
    /// How long they live.
    pub(crate) lives: Duration,
}

impl Keys {
    /// Those that the endpoint of the tests knows.
    pub(crate) const RIGHT: Self = Self { secret: "test-secret", lives: Duration::from_secs(3600) };

    fn ends(self) -> Timestamp {
        Timestamp::now() + self.lives
    }

    /// As the container endpoint and the machine's metadata tell them.
    pub(crate) fn json(self) -> String {
        let (secret, ends) = (self.secret, self.ends());
        format!(
            "{{\"Code\":\"Success\",\"AccessKeyId\":\"TESTKEYOFOURTESTS\",\"SecretAccessKey\":\"{secret}\",\
             \"Token\":\"lent\",\"Expiration\":\"{ends}\"}}"
        )
    }

    /// As STS tells them.
    pub(crate) fn xml(self, action: &str) -> String {
        let (secret, ends) = (self.secret, self.ends());
        format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
             <AccessKeyId>TESTKEYOFOURTESTS</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
             <SessionToken>lent</SessionToken><Expiration>{ends}</Expiration></Credentials></{action}Result>\
             </{action}Response>"
        )
    }
}

/// A running service.
pub(crate) struct Lender {
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Lender {
    /// Answers with status and body, by the request and how many came before it.
    pub(crate) fn start(answer: impl Fn(&Asked, usize) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let seen = asked.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let before = seen.lock().unwrap().len();
                // Who hangs up early gets no answer.
                let _ = answer_one(client, |request| {
                    let answered = answer(request, before);
                    seen.lock().unwrap().push(request.clone());
                    answered
                });
            }
        });
        Self { address, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer_one(mut stream: TcpStream, answer: impl FnOnce(&Asked) -> (u16, String)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut asked = Asked { method, target, ..Asked::default() };
    let mut size = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        let name = name.to_lowercase();
        if name == "content-length" {
            size = value.parse().unwrap();
        }
        asked.headers.push(format!("{name}: {value}"));
    }
    let mut body = vec![0; size];
    reader.read_exact(&mut body)?;
    asked.body = String::from_utf8_lossy(&body).into_owned();
    let (status, text) = answer(&asked);
    write!(stream, "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}", text.len())
}
