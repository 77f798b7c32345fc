//! Where the log goes: to the journal with fields and priorities if standard error is the journal's,
//! else to standard error as lines.

use std::fmt::{Debug, Write as _};
use std::io::{IsTerminal, stderr};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Begins to log what `filter` lets through.
pub fn log(filter: Targets) {
    let lines = || {
        fmt::layer()
            .with_writer(stderr)
            .with_ansi(stderr().is_terminal())
    };
    let (journal, lines) = match is_ours() {
        true => (Some(Journal), None),
        false => (None, Some(lines())),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(journal)
        .with(lines)
        .init();
}

/// Whether standard error is a stream of the journal (`systemd.exec(5)`, `$JOURNAL_STREAM`): it may
/// have been redirected since systemd opened it.
pub fn is_ours() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(stderr())
        .is_ok_and(|it| stream.to_str() == Some(&format!("{}:{}", it.st_dev, it.st_ino)))
}

/// Events as journal entries: the message with its fields, as a line has them, and each field by
/// itself, for `journalctl HALLMARK_TOKEN=factory`.
struct Journal;

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut entry = Entry::default();
        event.record(&mut entry);
        let mut fields = vec![
            format!("PRIORITY={}", priority(*metadata.level())),
            format!("MESSAGE={}{}", entry.message, entry.shown),
            format!("TARGET={}", metadata.target()),
        ];
        fields.extend(metadata.file().map(|file| format!("CODE_FILE={file}")));
        fields.extend(metadata.line().map(|line| format!("CODE_LINE={line}")));
        fields.extend(entry.fields);
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        // There is no other place to say that the log is lost.
        let _ = systemd::journal::send(&fields);
    }
}

/// `syslog(3)`.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[derive(Default)]
struct Entry {
    message: String,
    /// ` name=value` of each field.
    shown: String,
    /// `HALLMARK_NAME=value` of each.
    fields: Vec<String>,
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => {
                let _ = write!(self.shown, " {name}={value:?}");
                self.field(name, value);
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => {
                let value = format!("{value:?}");
                let _ = write!(self.shown, " {name}={value}");
                self.field(name, &value);
            }
        }
    }
}

impl Entry {
    /// The journal takes capital letters, digits and `_`.
    fn field(&mut self, name: &str, value: &str) {
        let plain = |it: char| match it.is_ascii_alphanumeric() {
            true => it.to_ascii_uppercase(),
            false => '_',
        };
        let name: String = name.chars().map(plain).collect();
        self.fields.push(format!("HALLMARK_{name}={value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_line_and_its_fields() {
        let mut entry = Entry::default();
        entry.field("log.target", "x");
        assert_eq!(entry.fields, ["HALLMARK_LOG_TARGET=x"]);
        assert_eq!(priority(Level::INFO), 6);
    }
}
