//! Sends the log to systemd's journal, with fields and priorities, or as lines to standard error.
//!
//! The journal is used if standard error is connected to it. Every message and field passes through
//! `printable::line`, so an event is one line in both.

use crate::printable::line;
use crate::trace;
use std::fmt::{self, Debug, Write as _};
use std::io::{IsTerminal, stderr};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::{MakeExt, RecordFields};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatFields, Writer, debug_fn};
use tracing_subscriber::fmt::{MakeWriter, layer as line_layer};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts the log with this filter.
pub fn log(filter: Targets) {
    let ours = is_ours();
    let lines = || as_lines(stderr, stderr().is_terminal());
    tracing_subscriber::registry()
        .with(filter)
        .with(ours.then_some(Journal))
        .with((!ours).then(lines))
        .init();
}

/// Returns the layer that writes events as lines.
fn as_lines<S, W>(writer: W, colours: bool) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    let fields = debug_fn(|writer, field, value| {
        let text = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", line(&text)),
            name => write!(writer, "{name}={}", line(&text)),
        }
    });
    line_layer()
        .fmt_fields(WithTrace(fields.delimited(" ")))
        .with_writer(writer)
        .with_ansi(colours)
}

/// Adds the id of the trace, if the work of this thread is a part of one.
struct WithTrace<F>(F);

impl<'writer, F: for<'a> FormatFields<'a>> FormatFields<'writer> for WithTrace<F> {
    fn format_fields<R: RecordFields>(&self, mut to: Writer<'writer>, fields: R) -> fmt::Result {
        self.0.format_fields(to.by_ref(), fields)?;
        match trace::current() {
            Some(trace) => write!(to, " trace_id={}", trace.trace_id()),
            None => Ok(()),
        }
    }
}

/// Returns true if standard error is a stream of the journal (`systemd.exec(5)`,
/// `$JOURNAL_STREAM`). It may have been redirected since systemd opened it.
pub fn is_ours() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(stderr())
        .is_ok_and(|it| stream.to_str() == Some(&format!("{}:{}", it.st_dev, it.st_ino)))
}

/// The layer that writes events as journal entries: the message with its fields, and each field by
/// itself, for `journalctl HALLMARK_TOKEN=factory`.
struct Journal;

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut entry = Entry::default();
        event.record(&mut entry);
        if let Some(trace) = trace::current() {
            entry.add("trace_id", &trace.trace_id().to_string());
        }
        let mut fields = vec![
            format!("PRIORITY={}", priority(*metadata.level())),
            format!("MESSAGE={}{}", entry.message, entry.shown),
            format!("TARGET={}", metadata.target()),
        ];
        fields.extend(metadata.file().map(|file| format!("CODE_FILE={file}")));
        fields.extend(metadata.line().map(|line| format!("CODE_LINE={line}")));
        fields.extend(entry.fields);
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        // A lost log entry cannot be reported elsewhere.
        let _ = systemd::journal::send(&fields);
    }
}

/// Returns the priority of `syslog(3)`.
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
    /// Each field as ` name=value`.
    shown: String,
    /// Each field as `HALLMARK_NAME=value`.
    fields: Vec<String>,
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = line(value).into_owned(),
            name => {
                let _ = write!(self.shown, " {name}={}", line(&format!("{value:?}")));
                self.field(name, value);
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = line(&format!("{value:?}")).into_owned(),
            name => self.add(name, &format!("{value:?}")),
        }
    }
}

impl Entry {
    fn add(&mut self, name: &str, value: &str) {
        let _ = write!(self.shown, " {name}={}", line(value));
        self.field(name, value);
    }

    /// Returns a field name of capital letters, digits and `_`, which the journal requires.
    fn field(&mut self, name: &str, value: &str) {
        let plain = |it: char| Some(it).filter(char::is_ascii_alphanumeric).unwrap_or('_');
        let name: String = name.chars().map(plain).collect();
        let name = name.to_ascii_uppercase();
        self.fields.push(format!("HALLMARK_{name}={}", line(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn an_entry_has_the_line_and_its_fields() {
        let mut entry = Entry::default();
        entry.field("log.target", "x");
        assert_eq!(entry.fields, ["HALLMARK_LOG_TARGET=x"]);
        assert_eq!(priority(Level::INFO), 6);
    }

    /// A forged line in each member of an event, by each way to record it.
    fn forged() {
        let forged = "x\n1970-01-01 ERROR forged \u{1b}[2J\u{202e}";
        tracing::warn!(
            text = forged,
            shown = %forged,
            debugged = ?Some(forged),
            "refused {forged}",
        );
    }

    #[test]
    fn a_line_of_the_log_is_one_line() {
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        let layer = as_lines(Written(Arc::clone(&text)), false);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, forged);
        let text = String::from_utf8(text.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(line(text.trim_end()), text.trim_end());
        assert!(
            text.contains("refused x\\n1970") && text.contains("shown=x\\n1970"),
            "{text}"
        );
    }

    #[test]
    fn an_entry_of_the_journal_is_one_line() {
        struct Kept(Arc<Mutex<Entry>>);
        impl<S: Subscriber> Layer<S> for Kept {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                event.record(&mut *self.0.lock().unwrap());
            }
        }
        let entry = Arc::default();
        let subscriber = tracing_subscriber::registry().with(Kept(Arc::clone(&entry)));
        tracing::subscriber::with_default(subscriber, forged);
        let entry = entry.lock().unwrap();
        let all = [
            &[entry.message.clone(), entry.shown.clone()],
            &entry.fields[..],
        ]
        .concat();
        assert_eq!(all.len(), 5, "{all:?}");
        for text in all {
            assert_eq!(line(&text), text);
        }
    }

    #[derive(Clone)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }
}
