//! One control connection: what is asked over it, and what the answers of all kinds of servers mean.

use std::io;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use suppaftp::Status;
use suppaftp::list::{File, ListParser};
use suppaftp::tokio::{AsyncRustlsConnector, AsyncRustlsFtpStream, AsyncRustlsStream, TransferStream};
use suppaftp::types::{FileType, FtpError, FtpResult, Mode};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Settings;
use crate::error::{Cause, Error, Result};
use crate::output;
use crate::storage::connect::tend;
use crate::storage::tree::{Item, said};

/// A listing that rests for so long has failed.
const IDLE: Duration = Duration::from_mins(1);

pub(super) struct Connection {
    stream: AsyncRustlsFtpStream,
    /// Where the login starts, with a slash at its end: what relative paths are relative to.
    home: String,
    /// Whether the server lists for programs.
    machine: bool,
    epsv: bool,
    used: Instant,
}

impl Connection {
    pub(super) async fn open(settings: &Settings) -> Result<Self> {
        let wrong = |error: FtpError| fault(&error);
        let tcp = settings.endpoint.connect().await?;
        let domain = &settings.endpoint.host;
        let connector = |tls: &super::Tls| AsyncRustlsConnector::from(TlsConnector::from(tls.config.clone()));
        let mut stream = match &settings.tls {
            Some(tls) if tls.implicit => {
                // The library connects by itself here, to the address that has just answered.
                let address = tcp.peer_addr().map_err(|error| wrong(FtpError::ConnectionError(error)))?;
                drop(tcp);
                AsyncRustlsFtpStream::connect_secure_implicit(address, connector(tls), domain).await.map_err(wrong)?
            }
            Some(tls) => {
                let plain = AsyncRustlsFtpStream::connect_with_stream(tcp).await.map_err(wrong)?;
                plain.into_secure(connector(tls), domain).await.map_err(wrong)?
            }
            None => AsyncRustlsFtpStream::connect_with_stream(tcp).await.map_err(wrong)?,
        };
        stream = stream.passive_stream_builder(|address| {
            Box::pin(async move {
                let stream = tokio::net::TcpStream::connect(address).await.map_err(FtpError::ConnectionError)?;
                tend(&stream);
                Ok(stream)
            })
        });
        stream.login(settings.user.as_str(), settings.password.as_str()).await.map_err(wrong)?;
        if settings.tls.as_ref().is_some_and(|tls| tls.implicit) {
            // What is usual for data over implicit TLS differs; a server that does not know these has it anyway.
            for command in ["PBSZ 0", "PROT P"] {
                match stream.custom_command(command, &[Status::CommandOk]).await {
                    Err(error) if is_broken(&error) => return Err(fault(&error)),
                    _ => {}
                }
            }
        }
        stream.transfer_type(FileType::Binary).await.map_err(wrong)?;
        let machine = settings.mlsd && lists_for_programs(&mut stream).await?;
        let mut home = stream.pwd().await.map_err(wrong)?;
        if !home.ends_with('/') {
            home.push('/');
        }
        // The address in the answer to PASV is often one from behind a router; the one that has answered is right.
        stream.set_passive_nat_workaround(true);
        stream.set_mode(if settings.epsv { Mode::ExtendedPassive } else { Mode::Passive });
        Ok(Self { stream, home, machine, epsv: settings.epsv, used: Instant::now() })
    }

    pub(super) fn rest(&mut self) {
        self.used = Instant::now();
    }

    pub(super) fn rested(&self) -> Duration {
        self.used.elapsed()
    }

    /// Paths are absolute, because listing changes the directory.
    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') { path.to_owned() } else { format!("{}{path}", self.home) }
    }

    pub(super) async fn stat(&mut self, path: &str) -> FtpResult<Option<Item>> {
        let path = self.absolute(path);
        if path == "/" {
            return Ok(Some(root()));
        }
        let path = path.trim_end_matches('/');
        if self.machine {
            match self.stream.mlst(Some(path)).await {
                Ok(line) => match ListParser::parse_mlst(&line) {
                    Ok(file) => return Ok(Some(item(&file))),
                    Err(_) => return Ok(None),
                },
                Err(error) if code(&error) == Some(502) || code(&error) == Some(500) => self.machine = false,
                Err(error) => return missing(error),
            }
        }
        // Some servers tell the size of a directory as well, so this is asked first.
        match self.stream.cwd(path).await {
            Ok(()) => return Ok(Some(root())),
            Err(error) if is_broken(&error) => return Err(error),
            Err(_) => {}
        }
        let size = match self.stream.size(path).await {
            Ok(size) => size as u64,
            Err(error) => return missing(error),
        };
        let modified = match self.stream.mdtm(path).await {
            Ok(time) => Timestamp::from_second(time.and_utc().timestamp()).unwrap_or(Timestamp::UNIX_EPOCH),
            Err(error) if is_broken(&error) => return Err(error),
            Err(_) => Timestamp::UNIX_EPOCH,
        };
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        Ok(Some(Item { name, dir: false, size, modified }))
    }

    pub(super) async fn list(&mut self, path: &str) -> FtpResult<Option<Vec<Item>>> {
        let absolute = self.absolute(path);
        let absolute = if absolute.len() > 1 { absolute.trim_end_matches('/') } else { &absolute };
        let listed = if self.machine {
            self.lines(&format!("MLSD {absolute}"), machine_line).await
        } else {
            // Names with blanks, and with letters that a shell would expand, are no argument for every server.
            match self.stream.cwd(absolute).await {
                Ok(()) => self.lines("LIST -a", human_line).await,
                Err(error) => Err(error),
            }
        };
        match listed {
            // Some servers list a file as if it were a directory of its own.
            Ok(items) if items.len() == 1 && !items[0].dir && absolute.ends_with(&items[0].name) => {
                Ok(self.stat(path).await?.filter(|found| found.dir).map(|_| items))
            }
            Ok(items) => Ok(Some(items)),
            Err(error) if is_broken(&error) || fault(&error).is(Cause::AccessDenied) => Err(error),
            // What is no directory is refused in many ways.
            Err(error) => match self.stat(path).await? {
                Some(item) if item.dir => Err(error),
                _ => Ok(None),
            },
        }
    }

    /// Items of a listing, read as it comes.
    async fn lines(&mut self, command: &str, parse: fn(&str) -> Option<Item>) -> FtpResult<Vec<Item>> {
        self.passive().await?;
        let (_, mut transfer) =
            self.stream.custom_data_command(command, &[Status::AboutToSend, Status::AlreadyOpen]).await?;
        let mut items = Vec::new();
        let mut rest: Vec<u8> = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = match timeout(IDLE, transfer.read(&mut buffer)).await {
                Ok(Ok(read)) => read,
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                Ok(Err(error)) => return Err(FtpError::ConnectionError(error)),
                Err(_) => return Err(FtpError::ConnectionError(io::ErrorKind::TimedOut.into())),
            };
            rest.extend_from_slice(&buffer[..read]);
            let complete =
                if read == 0 { rest.len() } else { rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1) };
            for line in String::from_utf8_lossy(&rest[..complete]).split('\n') {
                items.extend(parse(line.strip_suffix('\r').unwrap_or(line)));
            }
            rest.drain(..complete);
            if read == 0 {
                break;
            }
        }
        transfer.finish().await?;
        Ok(items)
    }

    /// Finds out once whether the server knows the newer way to open a data connection.
    async fn passive(&mut self) -> FtpResult<()> {
        if !self.epsv {
            return Ok(());
        }
        match self.stream.custom_command("EPSV", &[Status::ExtendedPassiveMode]).await {
            Ok(_) => {}
            Err(error) if is_broken(&error) => return Err(error),
            Err(_) => self.stream.set_mode(Mode::Passive),
        }
        self.epsv = false;
        Ok(())
    }

    pub(super) async fn retrieve(&mut self, path: &str, offset: &str) -> FtpResult<TransferStream<AsyncRustlsStream>> {
        self.passive().await?;
        self.stream.resume_transfer(offset.parse().unwrap_or(0)).await?;
        self.stream.retr_as_stream(self.absolute(path)).await
    }

    pub(super) async fn store(&mut self, path: &str) -> FtpResult<TransferStream<AsyncRustlsStream>> {
        self.passive().await?;
        self.stream.put_with_stream(self.absolute(path)).await
    }

    pub(super) async fn rename(&mut self, from: &str, to: &str) -> FtpResult<()> {
        self.stream.rename(self.absolute(from), self.absolute(to)).await
    }

    pub(super) async fn remove(&mut self, path: &str) -> FtpResult<()> {
        self.stream.rm(self.absolute(path)).await
    }

    pub(super) async fn mkdir(&mut self, path: &str) -> FtpResult<()> {
        self.stream.mkdir(self.absolute(path)).await
    }

    pub(super) async fn rmdir(&mut self, path: &str) -> FtpResult<()> {
        self.stream.rmdir(self.absolute(path)).await
    }
}

/// Whether the server has MLST and MLSD. The library's own reading of the answer gives up at a line that is not as the standard
/// has it, and takes no other answer to this question for a whole one; as a refusal of something else it comes whole.
async fn lists_for_programs(stream: &mut AsyncRustlsFtpStream) -> Result<bool> {
    match stream.custom_command("FEAT", &[Status::Help]).await {
        Ok(answer) | Err(FtpError::UnexpectedResponse(answer)) if answer.status != Status::NotAvailable => {
            let text = String::from_utf8_lossy(&answer.body).to_ascii_uppercase();
            Ok(text.lines().any(|line| line.split_whitespace().next() == Some("MLST")))
        }
        Ok(_) => Ok(false),
        Err(error) => Err(fault(&error)),
    }
}

fn root() -> Item {
    Item { name: String::new(), dir: true, size: 0, modified: Timestamp::UNIX_EPOCH }
}

fn item(file: &File) -> Item {
    Item {
        name: file.name().to_owned(),
        dir: file.is_directory(),
        size: file.size() as u64,
        modified: Timestamp::try_from(file.modified()).unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

fn machine_line(line: &str) -> Option<Item> {
    let facts = line.split_once("; ").map_or(line, |(facts, _)| facts).to_ascii_lowercase();
    if line.is_empty() || facts.contains("type=cdir") || facts.contains("type=pdir") {
        return None;
    }
    regular(line, ListParser::parse_mlsd(line).ok())
}

fn human_line(line: &str) -> Option<Item> {
    if line.is_empty() || line.starts_with("total ") {
        return None;
    }
    regular(line, ListParser::parse_posix(line).or_else(|_| ListParser::parse_dos(line)).ok())
}

/// Links and devices are not objects.
fn regular(line: &str, file: Option<File>) -> Option<Item> {
    match file {
        Some(file) if matches!(file.name(), "." | "..") => None,
        Some(file) if file.is_directory() || file.is_file() => Some(item(&file)),
        _ => {
            output::note(&format!("NOTICE: can't copy, it is not a regular file: {line}"));
            None
        }
    }
}

/// The server's three digits.
fn code(error: &FtpError) -> Option<u32> {
    match error {
        FtpError::UnexpectedResponse(response) => Some(response.status.code()),
        _ => None,
    }
}

/// Whether the connection can still be used after this error.
pub(super) fn is_broken(error: &FtpError) -> bool {
    match error {
        FtpError::UnexpectedResponse(response) => {
            matches!(response.status.code(), 421 | 425 | 426)
        }
        FtpError::ConnectionError(error) => error.kind() != io::ErrorKind::InvalidInput,
        _ => true,
    }
}

/// Nothing, when the error says that there is nothing.
fn missing<T>(error: FtpError) -> FtpResult<Option<T>> {
    match code(&error) {
        Some(550 | 450 | 501 | 553) if !fault(&error).is(Cause::AccessDenied) => Ok(None),
        _ => Err(error),
    }
}

/// Names the cause of a failure: by its number where that says enough, else by words that servers use.
pub(super) fn fault(error: &FtpError) -> Error {
    match error {
        FtpError::ConnectionError(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Error::other(format!("ftp: {}", crate::error::reason(error)))
        }
        FtpError::ConnectionError(error) => {
            Error::new(Cause::Unreachable, format!("ftp: the connection broke: {}", crate::error::reason(error)))
        }
        FtpError::SecureError(text) => Error::new(Cause::Tls, format!("ftp: TLS: {text}")),
        FtpError::UnexpectedResponse(response) => {
            let text = String::from_utf8_lossy(&response.body).trim().replace(['\r', '\n'], " ");
            let cause = match response.status.code() {
                421 | 425 | 426 => Cause::Unreachable,
                430 | 530 | 532 => Cause::AccessDenied,
                452 | 552 => Cause::NoSpace,
                _ => said(&text),
            };
            Error::new(cause, format!("ftp: the server answered {text}"))
        }
        FtpError::BadResponse => Error::other("ftp: the server's answer could not be understood"),
        other => Error::other(format!("ftp: {other}")),
    }
}
