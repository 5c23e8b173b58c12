//! Compression formats: which names there are, how each is written and read.

mod age_format;
mod age_payload;
pub(crate) mod crypt;
mod deflate;
mod detect;
mod lz4;
mod pgzip;
#[cfg(test)]
mod robust;
mod s2;
mod zstandard;

use std::io::{self, Read, Write};

use bytes::Bytes;

/// Names for `-z` and `-d`, in the order in which mistakes list them.
pub(crate) const NAMES: &[&str] = &[
    "deflate-best-compression",
    "deflate-best-speed",
    "deflate-default",
    "gzip",
    "gzip-best-compression",
    "gzip-best-speed",
    "lz4",
    "pgzip",
    "pgzip-best-compression",
    "pgzip-best-speed",
    "s2-better",
    "s2-default",
    "s2-parallel-4",
    "s2-parallel-8",
    "zstd",
    "zstd-best-compression",
    "zstd-better-compression",
    "zstd-fastest",
];

/// One link of the chain that a push writes through.
pub(crate) trait Stage: Write + Send {
    /// Takes a buffer over; copies unless the stage can pass it on.
    fn take(&mut self, bytes: Bytes) -> io::Result<()> {
        self.write_all(&bytes)
    }

    /// Writes what is left and finishes the links behind.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A link that borrows its behaviour from the box.
pub(crate) type Link = Box<dyn Stage>;

/// A compression by one of [`NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compression {
    family: Family,
    effort: Effort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Zstd,
    Gzip,
    Deflate,
    Lz4,
    S2,
    /// Whatever the stream begins as; for reading only.
    Detected,
}

/// How hard an encoder tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    Fastest,
    Usual,
    Better,
    Best,
}

impl Compression {
    /// Reads every format that shows itself, and gives any other stream unchanged.
    pub(crate) const DETECTED: Self = Self { family: Family::Detected, effort: Effort::Usual };

    /// A compression by its name; `None` when there is none. Command lines are checked against [`NAMES`] before.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (family, rest) = name.split_once('-').unwrap_or((name, ""));
        let family = match family {
            "zstd" => Family::Zstd,
            "gzip" | "pgzip" => Family::Gzip,
            "deflate" => Family::Deflate,
            "lz4" => Family::Lz4,
            "s2" => Family::S2,
            _ => return None,
        };
        let effort = match rest {
            "fastest" | "best-speed" => Effort::Fastest,
            "better" | "better-compression" => Effort::Better,
            "best-compression" => Effort::Best,
            _ => Effort::Usual,
        };
        Some(Self { family, effort })
    }

    /// Puts an encoder in front of a link.
    pub(crate) fn encode(self, next: Link) -> Link {
        match self.family {
            Family::Zstd => Box::new(zstandard::Encoder::new(next, self.effort)),
            Family::Gzip => deflate::gzip(next, self.effort),
            Family::Deflate => deflate::raw(next, self.effort),
            Family::Lz4 => Box::new(lz4::Encoder::new(next)),
            Family::S2 => Box::new(s2::Encoder::new(next)),
            Family::Detected => next,
        }
    }

    /// Puts a decoder behind a reader. Its errors begin with the contract's words.
    pub(crate) fn decode<'a>(self, input: Box<dyn Read + Send + 'a>) -> io::Result<Box<dyn Read + Send + 'a>> {
        match self.family {
            Family::Zstd => zstandard::decoder(input),
            Family::Gzip => Ok(deflate::read_gzip(input)),
            Family::Deflate => Ok(deflate::read_raw(input)),
            Family::Lz4 => Ok(Box::new(Checked::new(lz4::Decoder::new(input)))),
            Family::S2 => Ok(Box::new(Checked::new(s2::Decoder::new(input)))),
            Family::Detected => detect::decoder(input),
        }
    }
}

/// A decoder's complaint in the contract's words.
fn damaged(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("decompression error: {why}"))
}

/// Translates a decoder's errors; errors of the input below pass unchanged.
pub(crate) struct Checked<R> {
    inner: R,
}

impl<R: Read> Checked<R> {
    fn new(inner: R) -> Self {
        Self { inner }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            io::ErrorKind::UnexpectedEof => damaged("unexpected EOF"),
            _ if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<crate::error::Error>) => error,
            _ if error.to_string().starts_with("decompression error: ") => error,
            _ => damaged(error),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A link that keeps what it gets.
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stage for Kept {
        fn finish(self: Box<Self>) -> io::Result<()> {
            Ok(())
        }
    }

    /// What comes out of a link when `plain` is written to it in pieces.
    pub(crate) fn encode(plain: &[u8], link: impl FnOnce(Link) -> Link) -> Vec<u8> {
        encode_pieces(plain, &[1000], link)
    }

    /// The same in pieces of these sizes, over and over.
    pub(crate) fn encode_pieces(mut plain: &[u8], sizes: &[usize], link: impl FnOnce(Link) -> Link) -> Vec<u8> {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let mut link = link(Box::new(Kept(kept.clone())));
        for size in sizes.iter().cycle() {
            let (piece, rest) = plain.split_at((*size).min(plain.len()));
            link.write_all(piece).unwrap();
            plain = rest;
            if plain.is_empty() {
                break;
            }
        }
        link.finish().unwrap();
        let stored = kept.lock().unwrap();
        stored.clone()
    }

    pub(crate) fn collect(mut reader: impl Read) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn every_name_is_known() {
        for name in NAMES {
            assert!(Compression::named(name).is_some(), "{name}");
        }
        assert!(Compression::named("bad").is_none());
        assert!(NAMES.is_sorted());
    }
}
