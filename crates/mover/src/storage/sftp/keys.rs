//! The contract's keys of `sftp`, and the keys that log in.

use std::borrow::Cow;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;

use russh::client::Config;
use russh::keys::{Algorithm, Certificate, PrivateKey, decode_secret_key, ssh_key};
use russh::{Preferred, SshId, cipher, kex, mac};

use super::Transfers;
use super::hosts::KnownHost;
use super::login::{Settings, Start, Way};
use super::session::MOST;
use crate::config::env;
use crate::config::value::Options;
use crate::error::{Error, Result};
use crate::storage::connect::{Endpoint, Resolver};
use crate::storage::{login_name, password};

/// Keys that mean something here.
const USED: &[&str] = &[
    "host",
    "port",
    "user",
    "pass",
    "key_pem",
    "key_file",
    "key_file_pass",
    "pubkey",
    "pubkey_file",
    "known_hosts_file",
    "chunk_size",
    "concurrency",
    "disable_concurrent_reads",
    "disable_concurrent_writes",
    "set_modtime",
    "skip_links",
    "subsystem",
    "server_command",
    "ciphers",
    "key_exchange",
    "macs",
    "host_key_algorithms",
];
/// Keys whose effect we do not have or need.
const IGNORED: &[&str] = &[
    // Nothing is run on the server: sizes are compared, and what is sealed has digests of its own.
    "shell_type",
    "path_override",
    "disable_hashcheck",
    "hashes",
    "md5sum_command",
    "sha1sum_command",
    "crc32sum_command",
    "sha256sum_command",
    "blake3sum_command",
    "xxh3sum_command",
    "xxh128sum_command",
    "copy_is_hardlink",
    // There is one connection, and it is kept.
    "connections",
    "idle_timeout",
    "use_fstat",
    "ask_password",
    "encoding",
];
const REFUSED: &[(&str, &str)] = &[
    ("key_use_agent", "this mover has no agent; use key_file or key_pem"),
    ("use_insecure_cipher", "this mover has no insecure ciphers"),
    ("ssh", "this mover runs no programs"),
    ("socks_proxy", "proxies for SFTP are not supported"),
    ("http_proxy", "proxies for SFTP are not supported"),
    ("set_env", "this mover sets no variables on a server"),
];

/// Silence after which a server is asked for a sign of life, and how many may stay away.
const KEEPALIVE: Duration = Duration::from_secs(15);
const SILENCES: usize = 3;
/// What the server may send before it is read, and what of that at once.
const WINDOW: u32 = 8 << 20;
const PACKET: u32 = 32 << 10;
const REQUESTS: usize = 64;
/// No chunk is smaller.
const LEAST: u64 = 512;

pub(super) fn settings(options: &Options<'_>) -> Result<Settings> {
    let known: Vec<&str> = USED.iter().chain(IGNORED).chain(REFUSED.iter().map(|(key, _)| key)).copied().collect();
    options.refuse_unknown("sftp", &known)?;
    options.refuse("sftp", REFUSED)?;
    let host = options.text("host").ok_or_else(|| Error::other("sftp: host is missing"))?;
    let port = options.port("port", 22)?;
    let hosts = options.text("known_hosts_file").map(|file| KnownHost::read(&path(file), host, port)).transpose()?;
    let start = match options.text("server_command") {
        Some(command) => Start::Command(command.to_owned()),
        None => Start::Subsystem(options.text("subsystem").unwrap_or("sftp").to_owned()),
    };
    Ok(Settings {
        endpoint: Endpoint { host: host.to_owned(), port, resolver: Resolver::new()? },
        user: login_name(options),
        ways: ways(options)?,
        config: Arc::new(Config {
            client_id: SshId::Standard(concat!("SSH-2.0-kbbackup_", env!("CARGO_PKG_VERSION")).to_owned()),
            window_size: WINDOW,
            maximum_packet_size: PACKET,
            preferred: preferred(options, hosts.as_ref())?,
            keepalive_interval: Some(KEEPALIVE),
            keepalive_max: SILENCES,
            ..Config::default()
        }),
        host: hosts,
        warned: Arc::new(Once::new()),
        start,
    })
}

pub(super) fn transfers(options: &Options<'_>) -> Result<Transfers> {
    let chunk = options.size("chunk_size")?.map(|size| size.clamp(LEAST, MOST as u64) as usize);
    let many = options.number("concurrency")?.unwrap_or(REQUESTS).max(1);
    let one_or = |one: bool| if one { 1 } else { many };
    Ok(Transfers {
        chunk,
        reads: one_or(options.bool("disable_concurrent_reads", false)?),
        writes: one_or(options.bool("disable_concurrent_writes", false)?),
        links: !options.bool("skip_links", false)?,
        times: options.bool("set_modtime", true)?,
    })
}

/// A path of this machine; `~/` is the home of whoever runs this.
fn path(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), env("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(text),
    }
}

/// Algorithms that names between blanks or commas stand for.
fn algorithms<T>(options: &Options<'_>, key: &str, find: impl Fn(&str) -> Option<T>) -> Result<Option<Vec<T>>> {
    let Some(text) = options.text(key) else { return Ok(None) };
    let names = text.split([' ', ',']).filter(|name| !name.is_empty());
    let found: Result<Vec<T>> = names
        .map(|name| find(name).ok_or_else(|| Error::other(format!("sftp: {key}: {name:?} is not known here"))))
        .collect();
    found.map(Some)
}

fn preferred(options: &Options<'_>, host: Option<&KnownHost>) -> Result<Preferred> {
    // Machines that move backups have AES in their processors.
    const CIPHERS: &[cipher::Name] = &[
        cipher::AES_256_GCM,
        cipher::CHACHA20_POLY1305,
        cipher::AES_256_CTR,
        cipher::AES_192_CTR,
        cipher::AES_128_CTR,
    ];
    // Names of what both sides can do besides, not of an exchange.
    const BESIDES: &[kex::Name] = &[kex::EXTENSION_SUPPORT_AS_CLIENT, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT];
    let usual = Preferred::DEFAULT;
    let cipher = algorithms(options, "ciphers", |name| cipher::Name::try_from(name).ok())?;
    let mac = algorithms(options, "macs", |name| mac::Name::try_from(name).ok())?;
    let kex = algorithms(options, "key_exchange", |name| kex::Name::try_from(name).ok())?;
    let kex = kex.map(|kex| [kex, BESIDES.to_vec()].concat());
    let key = algorithms(options, "host_key_algorithms", |name| name.parse::<Algorithm>().ok())?;
    // A signature with SHA-1 proves nothing any more.
    let safe = usual.key.iter().filter(|key| **key != Algorithm::Rsa { hash: None }).cloned().collect();
    let key: Vec<Algorithm> = key.unwrap_or(safe);
    Ok(Preferred {
        kex: kex.map_or(usual.kex, Cow::Owned),
        key: Cow::Owned(host.map_or(key.clone(), |host| host.preferred(&key))),
        cipher: cipher.map_or(Cow::Borrowed(CIPHERS), Cow::Owned),
        mac: mac.map_or(usual.mac, Cow::Owned),
        compression: usual.compression,
    })
}

/// Ways to log in, in the order in which they are tried: keys, the password, the password as an answer.
fn ways(options: &Options<'_>) -> Result<Vec<Way>> {
    let mut ways = Vec::new();
    let phrase = password(options, "key_file_pass")?;
    let certificate = certificate(options)?;
    if let Some(pem) = options.text("key_pem") {
        // One line in a configuration file.
        let key = private_key("key_pem", &pem.replace("\\n", "\n"), phrase.as_deref())?;
        ways.push(Way::Key(Arc::new(key), certificate.clone()));
    }
    if let Some(file) = options.text("key_file").map(path) {
        let pem =
            fs::read_to_string(&file).map_err(|error| Error::file("open", &file, &error).within("sftp: key_file"))?;
        let key = private_key("key_file", &pem, phrase.as_deref())?;
        ways.push(Way::Key(Arc::new(key), certificate));
    }
    if let Some(password) = password(options, "pass")? {
        ways.push(Way::Password(password.clone()));
        ways.push(Way::Questions(password));
    }
    Ok(ways)
}

fn private_key(from: &str, pem: &str, phrase: Option<&str>) -> Result<PrivateKey> {
    // A key without a phrase may be used with one at hand.
    decode_secret_key(pem, None).or_else(|plain| match phrase {
        Some(phrase) => decode_secret_key(pem, Some(phrase))
            .map_err(|error| Error::other(format!("sftp: {from} cannot be read with key_file_pass: {error}"))),
        None => Err(Error::other(format!("sftp: {from} cannot be read without key_file_pass: {plain}"))),
    })
}

/// A certificate for the key, which an authority that the server trusts has signed.
fn certificate(options: &Options<'_>) -> Result<Option<Box<Certificate>>> {
    let (key, text) = match (options.text("pubkey"), options.text("pubkey_file").map(path)) {
        (Some(text), _) => ("pubkey", text.to_owned()),
        (None, Some(file)) => {
            let read = fs::read_to_string(&file);
            ("pubkey_file", read.map_err(|error| Error::file("open", &file, &error).within("sftp: pubkey_file"))?)
        }
        (None, None) => return Ok(None),
    };
    let read = Certificate::from_openssh(text.trim());
    read.map(|certificate| Some(Box::new(certificate))).map_err(|error| {
        let why = match error {
            ssh_key::Error::Time => "it must have an end of validity (ssh-keygen -V)".to_owned(),
            other => other.to_string(),
        };
        Error::other(format!("sftp: {key} is no certificate that can be used: {why}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ini::Ini;

    fn opened(lines: &str) -> Result<(Settings, Transfers)> {
        let ini = Ini::parse(&format!("[storage]\ntype = sftp\n{lines}")).unwrap();
        let options = Options::new(&ini);
        Ok((settings(&options)?, transfers(&options)?))
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for (lines, part) in [
            ("user = u", "host is missing"),
            ("host = h\nport = x", "as a port"),
            ("host = h\nusr = x", "unknown key \"usr\""),
            ("host = h\nkey_use_agent = true", "has no agent"),
            ("host = h\nssh = ssh -v", "runs no programs"),
            ("host = h\nsocks_proxy = p", "proxies for SFTP"),
            ("host = h\nuse_insecure_cipher = true", "no insecure ciphers"),
            ("host = h\nciphers = rot13", "ciphers: \"rot13\" is not known here"),
            ("host = h\npass = short", "is it obscured?"),
            ("host = h\nkey_file = /nonexistent", "key_file: open /nonexistent: no such file"),
            ("host = h\nkey_pem = nonsense", "key_pem cannot be read without key_file_pass"),
            ("host = h\nknown_hosts_file = /nonexistent", "known_hosts_file: open /nonexistent: no such file"),
            ("host = h\nknown_hosts_file = /dev/null", "the host h is not in known_hosts_file"),
            ("host = h\nport = 23\nknown_hosts_file = /dev/null", "ssh-keyscan -p 23 h"),
            ("host = h\npubkey = ssh-ed25519 AAAA", "pubkey is no certificate that can be used"),
        ] {
            let error = opened(lines).err().unwrap_or_else(|| panic!("{lines} opens")).to_string();
            assert!(error.contains(part), "{lines}: {error}");
        }
    }

    #[test]
    fn every_key_of_the_contract_means_something_or_does_no_harm() {
        let lines = "host = h\nport = 0\nuser = u\npass = hand3zwvOZRkZqiB45vMRZ-hVFl540A\nchunk_size = 32Ki\nconcurrency = 64\n\
                     set_modtime = true\nshell_type = unix\nmd5sum_command = md5sum\nsha1sum_command = sha1sum\n\
                     disable_hashcheck = true\nkey_use_agent = false\nidle_timeout = 1m\nconnections = 2\nno_check_certificate = true";
        let (settings, transfers) = opened(lines).unwrap();
        assert_eq!((settings.endpoint.port, settings.user.as_str(), settings.ways.len()), (22, "u", 2));
        assert_eq!((transfers.chunk, transfers.reads), (Some(32 << 10), 64));
    }

    #[test]
    fn a_window_of_bytes_bounds_what_is_asked_ahead() {
        let requests = |lines: &str, usual: usize| {
            let transfers = opened(&format!("host = h\n{lines}")).unwrap().1;
            transfers.ahead(usual, transfers.reads).requests
        };
        assert_eq!(requests("", 32 << 10), 64);
        assert_eq!(requests("", 255 << 10), 16);
        assert_eq!(requests("concurrency = 4", 32 << 10), 4);
        assert_eq!(requests("chunk_size = 100M\nconcurrency = 0", 32 << 10), 1);
        assert_eq!(requests("disable_concurrent_reads = true", 32 << 10), 1);
    }

    #[test]
    fn algorithms_can_be_chosen_and_strict_exchange_stays() {
        let (settings, _) =
            opened("host = h\nciphers = aes128-ctr aes256-ctr\nkey_exchange = curve25519-sha256").unwrap();
        let preferred = &settings.config.preferred;
        assert_eq!(preferred.cipher.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["aes128-ctr", "aes256-ctr"]);
        assert!(preferred.kex.contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT));
        let (settings, _) = opened("host = h").unwrap();
        assert!(!settings.config.preferred.key.contains(&Algorithm::Rsa { hash: None }));
    }
}
