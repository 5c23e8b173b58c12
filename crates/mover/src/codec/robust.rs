//! Decoders on what nobody wrote: noise, and streams with something wrong in them. They end, with data or with an error, and
//! neither take memory for what a stream only claims nor go on without end. And round trips, however the input is cut.

use std::io::{self, Read};

use proptest::prelude::*;

use super::crypt::Encryption;
use super::tests::encode_pieces;
use super::{Compression, NAMES};
use crate::testing::cases;

/// One name of each family; the others differ in effort only.
const FAMILIES: &[&str] = &["zstd-fastest", "gzip-best-speed", "deflate-best-speed", "lz4", "s2-default"];
/// Reads no further: a small stream may stand for very many bytes.
const FAR: u64 = 64 << 20;

/// Reads to the end, by small and large steps. Gives the number of bytes.
fn drain(reader: io::Result<Box<dyn Read + Send + '_>>) -> io::Result<u64> {
    let mut reader = reader?.take(FAR);
    let mut buffer = vec![0; 100_000];
    let mut total = 0;
    loop {
        let wanted = if total == 0 { 1 } else { buffer.len() };
        match reader.read(&mut buffer[..wanted])? {
            0 => return Ok(total),
            read => total += read as u64,
        }
    }
}

fn decode<'a>(name: &str, stored: &'a [u8]) -> io::Result<Box<dyn Read + Send + 'a>> {
    Compression::named(name).unwrap().decode(Box::new(stored))
}

fn encoded(name: &str, plain: &[u8]) -> Vec<u8> {
    encode_pieces(plain, &[1000], |next| Compression::named(name).unwrap().encode(next))
}

fn ciphers() -> Vec<Encryption> {
    let identity = age::x25519::Identity::generate();
    let identity = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
    [("AES-128-CFB", "pw"), ("AES-192-CFB", "pw"), ("AES-256-CFB", "pw"), ("age", identity.as_str())]
        .into_iter()
        .map(|(name, key)| Encryption::new(name, key.as_bytes()).unwrap())
        .collect()
}

/// Text, noise and zeros: what compresses and what does not.
fn contents() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..3000),
        (any::<u8>(), 0usize..200_000).prop_map(|(byte, size)| vec![byte; size]),
        "[ a-f]{0,40}".prop_map(|text| text.repeat(50).into_bytes()),
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn every_format_under_every_cipher_gives_back_what_went_in(
        plain in contents(),
        pieces in prop::collection::vec(1usize..70_000, 1..5),
        name in prop::option::of(prop::sample::select(NAMES)),
        cipher in prop::option::of(0usize..4),
        step in 1usize..100_000,
    ) {
        let compression = name.and_then(Compression::named);
        let encryption = cipher.map(|at| ciphers().remove(at));
        let stored = encode_pieces(&plain, &pieces, |mut next| {
            if let Some(encryption) = &encryption {
                next = encryption.encrypt(next).unwrap();
            }
            match compression {
                Some(compression) => compression.encode(next),
                None => next,
            }
        });
        let mut reader: Box<dyn Read + Send + '_> = Box::new(stored.as_slice());
        if let Some(encryption) = &encryption {
            reader = encryption.decrypt(reader).unwrap();
        }
        if let Some(compression) = compression {
            reader = compression.decode(reader).unwrap();
        }
        let mut back = Vec::new();
        let mut buffer = vec![0; step];
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 => break,
                read => back.extend_from_slice(&buffer[..read]),
            }
        }
        prop_assert!(back == plain, "{} bytes in, {} out", plain.len(), back.len());
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn noise_is_refused_or_read_to_its_end(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for name in FAMILIES {
            drop(drain(decode(name, &bytes)));
        }
        for cipher in ciphers() {
            drop(drain(cipher.decrypt(Box::new(bytes.as_slice()))));
        }
        drop(drain(Compression::DETECTED.decode(Box::new(bytes.as_slice()))));
    }

    /// A good start gets a decoder further than noise does.
    #[test]
    fn streams_with_something_wrong_in_them_end(
        plain in contents(),
        family in prop::sample::select(FAMILIES),
        at in any::<prop::sample::Index>(),
        gone in 0usize..20,
        instead in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut stored = encoded(family, &plain);
        let at = at.index(stored.len() + 1);
        let end = (at + gone).min(stored.len());
        let same = stored[at..end] == instead[..];
        stored.splice(at..end, instead);
        let mut read = Vec::new();
        let outcome = decode(family, &stored).and_then(|reader| reader.take(FAR).read_to_end(&mut read));
        // These have a checksum of the content: what is accepted is what was written, though its header may be another.
        if outcome.is_ok() && !same && !stored.is_empty() && ["zstd-fastest", "gzip-best-speed", "lz4"].contains(&family) {
            prop_assert!(read == plain, "{family}: changed at {at}, and accepted");
        }
    }
}

#[test]
fn what_a_stream_claims_is_not_believed() {
    // Windows above half a gigabyte are refused, whatever follows.
    let frame = |window: u8| [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, window][..], &[1, 0, 0]].concat();
    assert!(drain(decode("zstd", &frame(20 << 3))).is_err(), "1 GiB");
    assert_eq!(drain(decode("zstd", &frame(13 << 3))).unwrap(), 0, "8 MiB");
    // A block of LZ4 that claims more than its frame allows; a chunk of S2 that claims 5 MiB of plaintext.
    let mut lz4 = encoded("lz4", b"plain");
    lz4[7..11].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    assert!(drain(decode("lz4", &lz4)).unwrap_err().to_string().contains("too large"));
    let body = [&[0; 4][..], &[0x80, 0x80, 0xc0, 0x02], &[0; 8]].concat();
    let chunk = [b"\xff\x06\x00\x00S2sTwO".as_slice(), &[0, body.len() as u8, 0, 0], &body].concat();
    assert!(drain(decode("s2-default", &chunk)).is_err());
    // Very many bytes from few: they come piece by piece, and nobody holds them.
    for name in FAMILIES {
        let bomb = encoded(name, &vec![0; FAR as usize + 1]);
        assert_eq!(drain(decode(name, &bomb)).unwrap(), FAR, "{name}");
    }
}
