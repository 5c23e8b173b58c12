//! The data from which a log of commands goes on: of which moment it is.

/// As far as the facts at the beginning of a file are looked for, in bytes.
pub(crate) const HEAD: usize = 4096;

/// What the base is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A dump.
    Rdb,
    /// Commands.
    Aof,
}

impl Kind {
    /// By the first bytes of the file.
    pub(crate) fn of(head: &[u8]) -> Self {
        if head.starts_with(b"REDIS") || head.starts_with(b"VALKEY") { Self::Rdb } else { Self::Aof }
    }

    /// As names of files end.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Rdb => "rdb",
            Self::Aof => "aof",
        }
    }

    pub(crate) fn named(suffix: &str) -> Option<Self> {
        [Self::Rdb, Self::Aof].into_iter().find(|kind| kind.suffix() == suffix)
    }
}

/// When it was written, in seconds since the Unix epoch, by its first bytes: not before the moment of which it is. `None`
/// when it does not say.
pub(crate) fn written(head: &[u8]) -> Option<i64> {
    match Kind::of(head) {
        Kind::Rdb => facts(head)?.find(|(name, _)| *name == b"ctime").and_then(|(_, value)| value.number()),
        Kind::Aof => {
            let line = head.split(|byte| *byte == b'\n').next()?;
            std::str::from_utf8(line).ok()?.strip_prefix("#TS:")?.trim_end().parse().ok()
        }
    }
}

/// What stands in front of the data of a dump.
fn facts(head: &[u8]) -> Option<impl Iterator<Item = (&[u8], Text<'_>)>> {
    // A word and the version's digits.
    let mut rest = head.get(9..)?;
    Some(std::iter::from_fn(move || {
        let (0xFA, behind) = rest.split_first().map(|(code, behind)| (*code, behind))? else { return None };
        let (name, behind) = text(behind)?;
        let (value, behind) = text(behind)?;
        rest = behind;
        let Text::Bytes(name) = name else { return None };
        Some((name, value))
    }))
}

/// A text of a dump; one that is a number is written as such.
#[derive(Clone, Copy)]
enum Text<'a> {
    Bytes(&'a [u8]),
    Number(i64),
}

impl Text<'_> {
    fn number(self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        }
    }
}

fn text(bytes: &[u8]) -> Option<(Text<'_>, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let low = usize::from(first & 0x3f);
    let number = |size: usize| {
        let (digits, rest) = rest.split_at_checked(size)?;
        let mut whole = [0; 8];
        whole[..size].copy_from_slice(digits);
        Some((Text::Number(i64::from_le_bytes(whole)), rest))
    };
    match first >> 6 {
        0 => rest.split_at_checked(low).map(|(text, rest)| (Text::Bytes(text), rest)),
        1 => {
            let (second, rest) = rest.split_first()?;
            rest.split_at_checked(low << 8 | usize::from(*second)).map(|(text, rest)| (Text::Bytes(text), rest))
        }
        3 if low < 3 => number(1 << low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(facts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut head = b"REDIS0011".to_vec();
        for (name, value) in facts {
            head.push(0xFA);
            head.push(name.len() as u8);
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(value);
        }
        head.extend_from_slice(&[0xFE, 0, 0xFB, 1, 0]);
        head
    }

    #[test]
    fn a_dump_says_when_it_was_written() {
        let version: (&str, &[u8]) = ("redis-ver", b"\x056.2.1");
        let bits: (&str, &[u8]) = ("redis-bits", &[0xC0, 64]);
        let time: (&str, &[u8]) = ("ctime", &[0xC2, 0x00, 0xF1, 0x53, 0x65]);
        assert_eq!(written(&dump(&[version, bits, time])), Some(1_700_000_000));
        assert_eq!(written(&dump(&[("ctime", b"\x0a4000000000")])), Some(4_000_000_000), "too large for four bytes");
        assert_eq!(written(&dump(&[version, bits])), None);
        let all = dump(&[version, bits, time]);
        for cut in 0..all.len() {
            let told = written(&all[..cut]);
            assert!(told.is_none() || told == Some(1_700_000_000), "{cut}");
        }
        assert_eq!(written(&dump(&[("ctime", &[0xC3, 1, 2])])), None, "compressed texts are not read");
    }

    #[test]
    fn so_do_commands_with_a_note_in_front() {
        assert_eq!(written(b"#TS:1700000000\r\n*2\r\n"), Some(1_700_000_000));
        assert_eq!(written(b"*2\r\n$6\r\nSELECT\r\n"), None);
        assert_eq!((Kind::of(b"VALKEY080"), Kind::of(b"*2\r\n")), (Kind::Rdb, Kind::Aof));
        for kind in [Kind::Rdb, Kind::Aof] {
            assert_eq!(Kind::named(kind.suffix()), Some(kind));
        }
    }
}
