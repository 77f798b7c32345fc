//! Reads a secret at a terminal without showing it.
//!
//! Ctrl-C is read here as a character, because a program that it kills leaves a terminal behind
//! that shows nothing of what is typed next. The terminal has its settings back when the reading
//! ends.

use anyhow::{Context, bail};
use hallmark_base::printable;
use rustix::io::{Errno, read};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use secrecy::SecretString;
use std::io::{Write, stdin};
use std::os::fd::{AsFd, BorrowedFd};
use zeroize::Zeroizing;

/// Longest line, in bytes: a bearer token of Entra ID has about 2 KiB.
const BYTES_MAX: usize = 16 * 1024;

const INTERRUPT: u8 = 0x03;
const END_OF_INPUT: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const ERASE_LINE: u8 = 0x15;
const DELETE: u8 = 0x7f;

/// Asks for a secret until one is typed. Fails if the operator interrupts it.
pub(super) fn ask(what: &str) -> anyhow::Result<SecretString> {
    let terminal = stdin();
    loop {
        let line = {
            let hidden = Hidden::begin(terminal.as_fd())
                .context("the terminal cannot be kept from showing what is typed")?;
            printable::err().write_all(format!("{what} (not shown): ").as_bytes())?;
            let line = line(hidden.terminal);
            printable::err().write_all(b"\n")?;
            line?
        };
        if !line.is_empty() {
            let text = std::str::from_utf8(&line).context("it is not UTF-8 text")?;
            return Ok(SecretString::from(text));
        }
    }
}

fn line(terminal: BorrowedFd<'_>) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    // It never grows, so no copy of the secret is left behind.
    let mut line = Zeroizing::new(Vec::with_capacity(BYTES_MAX));
    let mut octet = Zeroizing::new([0]);
    loop {
        match read(terminal, &mut *octet) {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error).context("the terminal cannot be read"),
            Ok(0) => bail!("the terminal was closed before an answer"),
            Ok(_) => {}
        }
        match octet[0] {
            b'\r' | b'\n' => return Ok(line),
            INTERRUPT => bail!("interrupted: run the command again, which asks for this again"),
            END_OF_INPUT if line.is_empty() => bail!("no answer: run the command again"),
            ERASE_LINE => line.clear(),
            BACKSPACE | DELETE => erase_character(&mut line),
            _ if line.len() == BYTES_MAX => bail!("it has more than {BYTES_MAX} bytes"),
            typed => line.push(typed),
        }
    }
}

/// A character of UTF-8 has several octets, of which all but the first begin with the bits 10.
fn erase_character(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|octet| octet & 0xc0 == 0x80) {}
}

/// A terminal that shows nothing. Drop gives it its settings back.
struct Hidden<'a> {
    terminal: BorrowedFd<'a>,
    found: Termios,
}

impl<'a> Hidden<'a> {
    fn begin(terminal: BorrowedFd<'a>) -> rustix::io::Result<Hidden<'a>> {
        let found = tcgetattr(terminal)?;
        let mut hidden = found.clone();
        let shown = LocalModes::ECHO | LocalModes::ECHONL;
        hidden
            .local_modes
            .remove(shown | LocalModes::ICANON | LocalModes::ISIG);
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(Hidden { terminal, found })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone has no settings.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Seek;

    /// Reads these keys.
    fn typed(keys: &[u8]) -> Result<Vec<u8>, String> {
        let mut file: File = tempfile::tempfile().expect("a scratch file");
        file.write_all(keys).expect("writable");
        file.rewind().expect("is a file");
        let line = line(file.as_fd()).map_err(|error| error.to_string())?;
        Ok(line.to_vec())
    }

    #[test]
    fn a_line_is_edited_as_at_a_terminal() {
        for (keys, line) in [
            ("1234\n", "1234"),
            ("1234\r", "1234"),
            ("12x\u{7f}34\n", "1234"),
            ("ä\u{8}€\u{7f}\u{7f}\u{7f}x\n", "x"),
            ("wrong\u{15}1234\n", "1234"),
            ("12\u{4}34\n", "12\u{4}34"),
            ("\n", ""),
        ] {
            assert_eq!(typed(keys.as_bytes()).as_deref(), Ok(line.as_bytes()));
        }
        for (keys, words) in [
            ("12\u{3}34\n", "interrupted"),
            ("\u{4}", "no answer"),
            ("1234", "closed"),
            (&"x".repeat(BYTES_MAX + 1), "more than"),
        ] {
            let refusal = typed(keys.as_bytes()).expect_err(words);
            assert!(refusal.contains(words), "{refusal}");
        }
    }
}
