//! Runs `hallmark issue-batch`: requests certificates for many devices, a batch at a time.
//!
//! The idempotency key of a request is made of its content, so the repeat of a command that was
//! interrupted gets the certificates that were issued before, and requests the rest.

use super::client::ApiClient;
use super::command::IssueBatch;
use super::failure::Failure;
use super::output::chain;
use super::pem_or_base64;
use super::show::Show;
use aws_lc_rs::digest;
use hallmark_base::files;
use hallmark_pki::enrollment::id::RegistrationId;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest list of devices, in bytes.
const LIST_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Longest request, in bytes; the daemon takes less.
const CSR_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of requests in one batch; the daemon takes a body of 1 MiB.
const BATCH_BYTES: usize = 768 * 1024;
/// Extensions of the files of a folder that are read as requests.
const EXTENSIONS: [&str; 5] = ["csr", "pem", "der", "p10", "req"];
/// How long the daemon may issue nothing for a reason that passes, before the command gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A device of the list.
struct Entry {
    id: String,
    csr: PathBuf,
}

/// A request, as it is sent.
struct Item {
    id: String,
    body: Value,
}

/// The certificates and refusals of this command.
#[derive(Default)]
struct Outcome {
    certificates: Vec<Value>,
    refused: Vec<Value>,
    last_problem: String,
}

pub(super) fn run(client: &ApiClient, show: &Show, command: &IssueBatch) -> Result<(), Failure> {
    let entries = entries(&command.list)?;
    files::make_folder(&command.out, 0o755).map_err(|error| Failure::file(&command.out, &error))?;
    let mut run = Run {
        client,
        command,
        all: entries.len(),
        bar: bar(entries.len()),
        outcome: Outcome::default(),
    };
    let ended = run.issue_all(entries);
    run.bar.finish_and_clear();
    run.show(show)?;
    ended
}

struct Run<'a> {
    client: &'a ApiClient,
    command: &'a IssueBatch,
    all: usize,
    bar: ProgressBar,
    outcome: Outcome,
}

impl Run<'_> {
    fn issue_all(&mut self, entries: VecDeque<Entry>) -> Result<(), Failure> {
        let mut entries = entries;
        let mut again: VecDeque<Item> = VecDeque::new();
        let mut progress = Instant::now();
        loop {
            let batch = self.next_batch(&mut again, &mut entries);
            if batch.is_empty() {
                break;
            }
            let before = self.done();
            let pause = self.send(batch, &mut again)?;
            self.bar.set_position(self.done() as u64);
            if self.done() > before {
                progress = Instant::now();
            } else if progress.elapsed() > PATIENCE {
                return Err(self.stopped(&self.outcome.last_problem.clone()));
            }
            std::thread::sleep(pause);
        }
        match self.outcome.refused.len() {
            0 => Ok(()),
            refused => Err(Failure::Failed(format!(
                "{refused} of {} requests were refused; correct them, and repeat the command",
                self.all
            ))),
        }
    }

    /// Reads as many requests as fit into a batch. A file that is no request is a refusal.
    fn next_batch(
        &mut self,
        again: &mut VecDeque<Item>,
        entries: &mut VecDeque<Entry>,
    ) -> Vec<Item> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < self.command.batch_size as usize && bytes < BATCH_BYTES {
            let item = match (again.pop_front(), entries.pop_front()) {
                (Some(item), entry) => {
                    entry.into_iter().for_each(|it| entries.push_front(it));
                    item
                }
                (None, Some(entry)) => match self.read(&entry) {
                    Ok(item) => item,
                    Err(failure) => {
                        self.refused(&entry.id, &failure.to_json(None));
                        continue;
                    }
                },
                (None, None) => break,
            };
            bytes += item.body["csr"].as_str().map_or(0, str::len);
            batch.push(item);
        }
        batch
    }

    fn read(&self, entry: &Entry) -> Result<Item, Failure> {
        let csr = pem_or_base64(&entry.csr, CSR_BYTES_MAX, "the request")?;
        let profile = &self.command.profile;
        let body = json!({
            "profile": profile, "registration_id": entry.id, "csr": csr,
            "idempotency_key": idempotency_key([profile, &entry.id, &csr]),
        });
        Ok(Item {
            id: entry.id.clone(),
            body,
        })
    }

    /// Sends one batch. Requests that may succeed later go into `again`; returns how long to wait.
    fn send(&mut self, batch: Vec<Item>, again: &mut VecDeque<Item>) -> Result<Duration, Failure> {
        let items: Vec<_> = batch.iter().map(|it| &it.body).collect();
        let posted = self
            .client
            .post("/v1/certificates:batch", &json!({ "items": items }));
        let answer = match posted {
            Ok(answer) => answer,
            Err(Failure::Problem { code, detail }) if code == "too_many_requests_in_flight" => {
                self.outcome.last_problem = detail;
                again.extend(batch);
                return Ok(Duration::from_secs(1));
            }
            Err(Failure::Unreachable(message)) => return Err(self.stopped(&message)),
            Err(failure) => return Err(failure),
        };
        let answers = answer["items"].as_array().map(Vec::as_slice);
        let answers = answers.unwrap_or_default();
        if answers.len() != batch.len() {
            let message = "the answer has another number of items than the request; are the daemon \
                           and this command of the same version?";
            return Err(Failure::Failed(message.into()));
        }
        let mut pause = Duration::ZERO;
        for (item, answer) in batch.into_iter().zip(answers) {
            if answer["issued"].is_object() {
                self.issued(&item.id, &answer["issued"])?;
            } else if let Some(seconds) = answer["retry_after"].as_u64() {
                let detail = answer["problem"]["detail"].as_str();
                self.outcome.last_problem = detail.unwrap_or_default().to_owned();
                pause = pause.max(Duration::from_secs(seconds.min(PATIENCE.as_secs())));
                again.push_back(item);
            } else {
                let failure = Failure::of_problem(&answer["problem"]);
                self.refused(&item.id, &failure.to_json(None));
            }
        }
        Ok(pause)
    }

    fn issued(&mut self, id: &str, issued: &Value) -> Result<(), Failure> {
        let file = self.command.out.join(format!("{id}.pem"));
        let written = files::write(&file, chain(issued).as_bytes());
        written.map_err(|error| {
            let message = format!(
                "{}: {error}; the certificate is issued: repeat the command when the file can be \
                 written",
                file.display()
            );
            Failure::File(message)
        })?;
        let mut shown = json!({ "registration_id": id, "file": file });
        for field in [
            "serial",
            "thumbprint",
            "not_after",
            "pending",
            "dropped_names",
        ] {
            shown[field] = issued[field].clone();
        }
        self.outcome.certificates.push(shown);
        Ok(())
    }

    fn refused(&mut self, id: &str, failure: &Value) {
        let mut shown = failure.clone();
        shown["registration_id"] = id.into();
        self.outcome.refused.push(shown);
    }

    fn done(&self) -> usize {
        self.outcome.certificates.len() + self.outcome.refused.len()
    }

    /// The failure of a command that cannot go on.
    fn stopped(&self, reason: &str) -> Failure {
        let issued = self.outcome.certificates.len();
        // The remedy is this command's.
        let reason = reason.split("; ").next().unwrap_or_default();
        Failure::Unreachable(format!(
            "{issued} of {} certificates are issued, and no more can be now ({reason}); repeat the \
             command: it goes on where it stopped",
            self.all
        ))
    }

    fn show(&self, show: &Show) -> Result<(), Failure> {
        let Outcome {
            certificates,
            refused,
            ..
        } = &self.outcome;
        if show.json {
            return show.record(&json!({
                "requests": self.all, "issued": certificates.len(),
                "certificates": certificates, "refused": refused,
            }));
        }
        if !refused.is_empty() {
            show.table(&json!(refused), &["registration_id", "code", "error"])?;
        }
        show.line(&format!(
            "{} of {} certificates issued, in {}",
            certificates.len(),
            self.all,
            self.command.out.display()
        ))
    }
}

/// The progress, with rate and estimate, if standard error is a terminal.
fn bar(length: usize) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    let template = "{pos} of {len} {wide_bar} {per_sec}, {eta} left";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Returns a key that identifies this request among all of the caller's.
fn idempotency_key(fields: [&str; 3]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for field in fields {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field.as_bytes());
    }
    format!("batch-{}", hex::encode(context.finish()))
}

/// Returns the devices of a list, or of a folder whose files are named by them.
fn entries(list: &Path) -> Result<VecDeque<Entry>, Failure> {
    let entries = if list.is_dir() {
        of_folder(list)?
    } else {
        let text = files::read_text(list, LIST_BYTES_MAX);
        let text = text.map_err(|error| Failure::file(list, &error))?;
        let folder = list.parent().unwrap_or(Path::new(""));
        of_csv(&text, folder).map_err(|why| Failure::File(format!("{}, {why}", list.display())))?
    };
    if entries.is_empty() {
        let message = format!("{}: it names no device; see --help", list.display());
        return Err(Failure::File(message));
    }
    Ok(entries)
}

/// Reads lines of a registration id and the path of its request, which is relative to `folder`.
fn of_csv(text: &str, folder: &Path) -> Result<VecDeque<Entry>, String> {
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    let mut seen = BTreeSet::new();
    let mut entries = VecDeque::new();
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let fields: Vec<_> = record.iter().collect();
        if entries.is_empty() && fields == ["registration_id", "csr"] {
            continue;
        }
        let entry = entry_of(&fields, folder, &mut seen);
        entries.push_back(entry.map_err(|why| {
            let start = record.position().map_or(0, csv::Position::byte);
            format!("line {}: {why}", line_at(text, start))
        })?);
    }
    Ok(entries)
}

fn entry_of(fields: &[&str], folder: &Path, seen: &mut BTreeSet<String>) -> Result<Entry, String> {
    let [id, csr] = *fields else {
        return Err("it has not two fields; write ID,FILE".into());
    };
    if csr.is_empty() {
        return Err("it names no file; write ID,FILE".into());
    }
    check_id(id, seen)?;
    Ok(Entry {
        id: id.to_owned(),
        csr: folder.join(csr),
    })
}

/// Returns the line, from 1, of a record that starts at this byte, behind empty lines and comments.
fn line_at(text: &str, start: u64) -> usize {
    let start = usize::try_from(start).unwrap_or_default().min(text.len());
    let (before, rest) = text.split_at(start);
    let skipped = rest
        .lines()
        .take_while(|it| it.trim().is_empty() || it.starts_with('#'));
    1 + before.matches('\n').count() + skipped.count()
}

fn of_folder(folder: &Path) -> Result<VecDeque<Entry>, Failure> {
    let unreadable = |error| Failure::file(folder, &error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let extension = path.extension().and_then(|it| it.to_str());
        if extension.is_some_and(|it| EXTENSIONS.contains(&it)) {
            paths.push(path);
        }
    }
    paths.sort();
    let mut seen = BTreeSet::new();
    let entries = paths.into_iter().map(|csr| {
        let id = csr
            .file_stem()
            .and_then(|it| it.to_str())
            .unwrap_or_default();
        let checked = check_id(id, &mut seen);
        checked.map_err(|why| Failure::File(format!("{}: {why}", csr.display())))?;
        Ok(Entry {
            id: id.to_owned(),
            csr,
        })
    });
    entries.collect()
}

/// Fails if `id` is no registration id, or names a device a second time: both certificates would
/// have one file.
fn check_id(id: &str, seen: &mut BTreeSet<String>) -> Result<(), String> {
    RegistrationId::parse(id).map_err(|error| format!("{id:?}: {error}"))?;
    if seen.insert(id.to_lowercase()) {
        Ok(())
    } else {
        Err(format!(
            "{id} is named a second time; name each device once"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(text: &str) -> Result<Vec<(String, String)>, String> {
        let entries = of_csv(text, Path::new("/in"))?;
        let shown = |it: Entry| (it.id, it.csr.display().to_string());
        Ok(entries.into_iter().map(shown).collect())
    }

    #[test]
    fn a_list_has_ids_and_paths_below_its_folder() {
        let text =
            "\u{feff}registration_id,csr\r\n# comment\r\npump-1, a.csr\n\"pump-2\",\"/b,c.csr\"\n";
        let read = [("pump-1", "/in/a.csr"), ("pump-2", "/b,c.csr")];
        let read = read.map(|(id, csr)| (id.to_owned(), csr.to_owned()));
        assert_eq!(ids(text).unwrap(), read);
    }

    #[test]
    fn a_line_that_is_no_device_is_named() {
        for (text, line) in [
            ("pump-1,a\npump-2\n", "line 2"),
            ("pump-1,a\r\n\r\n# b\r\npump-2", "line 4"),
            ("pump-1\n", "line 1"),
            ("pump-1,a\n\nPUMP-1,b\n", "line 3"),
            ("../pump,a\n", "line 1"),
            ("pump-1,\n", "line 1"),
            ("pump-1,a,b\n", "line 1"),
        ] {
            let why = ids(text).unwrap_err();
            assert!(why.starts_with(line), "{text:?}: {why}");
        }
    }

    #[test]
    fn another_content_has_another_key() {
        let keys = [["a", "b", "c"], ["ab", "", "c"], ["a", "bc", ""]].map(idempotency_key);
        assert_eq!(BTreeSet::from(keys.clone()).len(), 3);
        assert_eq!(keys[0], idempotency_key(["a", "b", "c"]));
    }

    proptest! {
        /// No text panics, and no name of a file leaves the folder of the certificates.
        #[test]
        fn any_list_is_read_or_refused(text in "([a-z./-]{0,6}[,\"\n ]{0,2}){0,12}") {
            for (id, _) in ids(&text).unwrap_or_default() {
                prop_assert!(RegistrationId::parse(&id).is_ok() && !id.contains('/'));
            }
        }
    }
}
