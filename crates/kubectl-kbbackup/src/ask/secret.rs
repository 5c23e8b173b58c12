//! A line that nobody sees.

/// Reads it key by key: a read of whole lines begins again after Ctrl-C, as our handler of signals asks for, and would leave
/// the question standing.
///
/// # Errors
/// `Interrupted` on Ctrl-C or Escape.
#[cfg(unix)]
pub(super) fn read() -> std::io::Result<String> {
    use std::io::{Error, ErrorKind};

    let _hidden = Hidden::new()?;
    let mut line = Vec::new();
    loop {
        let mut key = [0];
        if rustix::io::retry_on_intr(|| rustix::io::read(std::io::stdin(), &mut key))? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        match key[0] {
            b'\r' | b'\n' => {
                return String::from_utf8(line).map_err(|_| Error::new(ErrorKind::InvalidData, "not UTF-8"));
            }
            CTRL_C | ESCAPE => return Err(ErrorKind::Interrupted.into()),
            BACKSPACE | DELETE => {
                // A character may be several bytes.
                while line.pop().is_some_and(|byte| byte & 0xC0 == 0x80) {}
            }
            CTRL_U => line.clear(),
            byte if byte < b' ' => {}
            byte => line.push(byte),
        }
    }
}

#[cfg(not(unix))]
pub(super) fn read() -> std::io::Result<String> {
    dialoguer::console::Term::stderr().read_secure_line()
}

#[cfg(unix)]
const CTRL_C: u8 = 3;
#[cfg(unix)]
const BACKSPACE: u8 = 8;
#[cfg(unix)]
const CTRL_U: u8 = 21;
#[cfg(unix)]
const ESCAPE: u8 = 27;
#[cfg(unix)]
const DELETE: u8 = 127;

/// While it lives, the terminal shows no keys and hands each of them over; afterwards it is as it was.
#[cfg(unix)]
struct Hidden(rustix::termios::Termios);

#[cfg(unix)]
impl Hidden {
    fn new() -> std::io::Result<Self> {
        use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};

        let original = tcgetattr(std::io::stdin())?;
        let mut hidden = original.clone();
        hidden.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(original))
    }
}

#[cfg(unix)]
impl Drop for Hidden {
    fn drop(&mut self) {
        let now = rustix::termios::OptionalActions::Now;
        let _ = rustix::termios::tcsetattr(std::io::stdin(), now, &self.0);
    }
}
