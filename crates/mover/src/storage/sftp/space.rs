//! What lies behind a refusal without words: the protocol has no number for a full disk.

use bytes::Bytes;

use super::ANSWER;
use super::session::{Extension, Session};
use super::wire::{EXTENDED, Fault, Reply, Result, take_offset};
use crate::error::{Cause, Error};

/// A disk with less room than this is full for us.
const LITTLE: u64 = 1 << 20;
const READ_ONLY: u64 = 1;

/// How a file system is, as `statvfs@openssh.com` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Space {
    free: u64,
    read_only: bool,
}

/// Block size, fragment size; blocks: all, free, free for us; files: the same; number, flags, longest name.
fn space(mut body: Bytes) -> Result<Space> {
    let mut numbers = [0; 10];
    for number in &mut numbers {
        *number = take_offset(&mut body)?;
    }
    Ok(Space { free: numbers[4].saturating_mul(numbers[1]), read_only: numbers[9] & READ_ONLY != 0 })
}

/// Names the cause of a refusal to write at a path.
pub(super) async fn explained(session: &Session, path: &[u8], fault: Fault) -> Error {
    if !fault.is_vague() || !session.offers(Extension::Space) {
        return fault.into();
    }
    // A path that is not there says nothing; its directory does.
    let dir = match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) => &b"/"[..],
        Some(at) => &path[..at],
        None => b".",
    };
    let asked = session.ask(ANSWER, EXTENDED, |request| request.text(Extension::Space.name()).text(dir)).await;
    let found = asked.and_then(Reply::extended).and_then(space);
    let error = Error::from(fault);
    match found {
        Ok(space) if space.read_only => {
            Error::new(Cause::ReadOnly, format!("{}: its file system is read-only", error.text))
        }
        Ok(space) if space.free < LITTLE => {
            Error::new(Cause::NoSpace, format!("{}: {} bytes are free on its disk", error.text, space.free))
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sftp::wire::Request;

    #[test]
    fn room_is_what_we_may_use() {
        let tell = |free: u64, flags: u64| {
            let numbers = [512, 4096, 9, 8, free, 7, 6, 5, 4, flags, 255];
            let body = numbers.iter().fold(Request::new(0, 0), |body, number| body.offset(*number));
            space(Bytes::from(body.finish()).slice(9..)).unwrap()
        };
        assert_eq!(tell(3, 2), Space { free: 3 * 4096, read_only: false });
        assert_eq!(tell(0, 3), Space { free: 0, read_only: true });
        assert!(space(Bytes::from_static(b"short")).is_err());
    }
}
