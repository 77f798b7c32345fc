//! Runs `hallmark issue-batch`: requests certificates for many devices, a batch at a time.
//!
//! The idempotency key of a request is made of its content, so the repeat of a command that was
//! interrupted gets the certificates that were issued before, and requests the rest. A certificate
//! that was written has a line in [`results`], and is not asked for again. One batch is in memory
//! at a time, and of each other entry some bytes.

mod list;
mod results;

use super::client::ApiClient;
use super::command::IssueBatch;
use super::failure::Failure;
use super::output::chain;
use super::progress::Progress;
use super::show::Show;
use aws_lc_rs::digest;
use hallmark_base::files;
use list::{Entry, List};
use results::Results;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes of requests in one batch; the daemon takes a body of 1 MiB.
const BATCH_BYTES: usize = 768 * 1024;
/// Refusals that are listed at the end; the others are counted.
const REFUSED_LISTED_MAX: usize = 1_000;
/// How long the daemon may issue nothing for a reason that passes, before the command gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request, as it is sent.
struct Item {
    id: String,
    body: Value,
}

/// The certificates and refusals of this command.
#[derive(Default)]
struct Outcome {
    issued: usize,
    refused: usize,
    /// With `--json`.
    certificates: Vec<Value>,
    /// The first ones.
    refusals: Vec<Value>,
    last_problem: String,
}

pub(super) fn run(client: &ApiClient, show: &Show, command: &IssueBatch) -> Result<(), Failure> {
    let all = List::check(&command.list)?;
    let unwritable = |error| Failure::file(&command.out, &error);
    files::make_folder(&command.out, 0o755).map_err(unwritable)?;
    let mut run = Run {
        client,
        command,
        all,
        keeps_certificates: show.json,
        results: Results::open(&command.out, show.json).map_err(unwritable)?,
        progress: Progress::new("issue-batch"),
        outcome: Outcome::default(),
    };
    let ended = List::open(&command.list).and_then(|entries| run.issue_all(entries));
    run.progress.end();
    run.show(show)?;
    ended
}

struct Run<'a> {
    client: &'a ApiClient,
    command: &'a IssueBatch,
    all: usize,
    keeps_certificates: bool,
    results: Results,
    progress: Progress,
    outcome: Outcome,
}

impl Run<'_> {
    fn issue_all(&mut self, mut entries: List) -> Result<(), Failure> {
        let mut again: VecDeque<Item> = VecDeque::new();
        let mut progress = Instant::now();
        loop {
            let batch = self.next_batch(&mut again, &mut entries)?;
            if batch.is_empty() {
                break;
            }
            let before = self.done();
            let pause = self.send(batch, &mut again)?;
            self.progress.at(self.done() as u64, self.all as u64);
            if self.done() > before {
                progress = Instant::now();
            } else if progress.elapsed() > PATIENCE {
                return Err(self.stopped(&self.outcome.last_problem.clone()));
            }
            std::thread::sleep(pause);
        }
        match self.outcome.refused {
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
        entries: &mut List,
    ) -> Result<Vec<Item>, Failure> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < self.command.batch_size as usize && bytes < BATCH_BYTES {
            let item = match again.pop_front() {
                Some(item) => Some(item),
                None => match entries.next() {
                    Some(entry) => self.read(entry?),
                    None => break,
                },
            };
            let Some(item) = item else { continue };
            bytes += item.body["csr"].as_str().map_or(0, str::len);
            batch.push(item);
        }
        Ok(batch)
    }

    /// Returns `None` if the certificate was written before, or the request is refused.
    fn read(&mut self, entry: Entry) -> Option<Item> {
        let id = entry.id.clone();
        let csr = match entry.request() {
            Ok(csr) => csr,
            Err(failure) => {
                self.refused(&id, &failure.to_json(None));
                return None;
            }
        };
        let profile = &self.command.profile;
        let idempotency_key = idempotency_key([profile, &id, &csr]);
        let file = self.command.out.join(format!("{id}.pem"));
        if let Some(written) = self.results.of(&idempotency_key)
            && file.exists()
        {
            self.outcome.certificates.extend(written.map(shown));
            self.outcome.issued += 1;
            return None;
        }
        let body = json!({
            "profile": profile, "registration_id": id, "csr": csr,
            "idempotency_key": idempotency_key,
        });
        Some(Item { id, body })
    }

    /// Sends one batch. Requests that may succeed later go into `again`; returns how long to wait.
    fn send(&mut self, batch: Vec<Item>, again: &mut VecDeque<Item>) -> Result<Duration, Failure> {
        let items: Vec<_> = batch.iter().map(|it| &it.body).collect();
        let posted = self
            .client
            .post("/v1/certificates:batch", &json!({ "items": items }));
        let answer = match posted {
            Ok(answer) => answer,
            Err(Failure::Busy { code, detail }) if code == "too_many_requests_in_flight" => {
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
                self.issued(&item, &answer["issued"])?;
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

    fn issued(&mut self, item: &Item, issued: &Value) -> Result<(), Failure> {
        let file = self.command.out.join(format!("{}.pem", item.id));
        let mut record = json!({ "registration_id": item.id, "file": file });
        for field in [
            "serial",
            "thumbprint",
            "not_after",
            "pending",
            "dropped_names",
        ] {
            record[field] = issued[field].clone();
        }
        record["idempotency_key"] = item.body["idempotency_key"].clone();
        // The line comes after the file, so it never says more than is there.
        let written = files::write(&file, chain(issued).as_bytes());
        let written = written.and_then(|()| self.results.add(&record));
        written.map_err(|error| {
            let message = format!(
                "{}: {error}; the certificate is issued: repeat the command when the file can be \
                 written",
                file.display()
            );
            Failure::File(message)
        })?;
        self.outcome.issued += 1;
        if self.keeps_certificates {
            self.outcome.certificates.push(shown(&record));
        }
        Ok(())
    }

    fn refused(&mut self, id: &str, failure: &Value) {
        self.outcome.refused += 1;
        if self.keeps_certificates || self.outcome.refusals.len() < REFUSED_LISTED_MAX {
            let mut shown = failure.clone();
            shown["registration_id"] = id.into();
            self.outcome.refusals.push(shown);
        }
    }

    fn done(&self) -> usize {
        self.outcome.issued + self.outcome.refused
    }

    /// The failure of a command that cannot go on.
    fn stopped(&self, reason: &str) -> Failure {
        let issued = self.outcome.issued;
        // The remedy is this command's.
        let reason = reason.split("; ").next().unwrap_or_default();
        Failure::Unreachable(format!(
            "{issued} of {} certificates are issued, and no more can be now ({reason}); repeat the \
             command: it goes on where it stopped",
            self.all
        ))
    }

    fn show(&self, show: &Show) -> Result<(), Failure> {
        let outcome = &self.outcome;
        if show.json {
            return show.record(&json!({
                "requests": self.all, "issued": outcome.issued,
                "certificates": outcome.certificates, "refused": outcome.refusals,
            }));
        }
        if outcome.refused > 0 {
            let refusals = json!(outcome.refusals);
            show.table(&refusals, &["registration_id", "code", "error"])?;
        }
        if outcome.refused > outcome.refusals.len() {
            let more = outcome.refused - outcome.refusals.len();
            show.line(&format!("{more} more were refused"))?;
        }
        show.line(&format!(
            "{} of {} certificates issued, in {}",
            outcome.issued,
            self.all,
            self.command.out.display()
        ))
    }
}

/// Returns the line of a certificate as it is shown.
fn shown(record: &Value) -> Value {
    let mut shown = record.clone();
    if let Some(members) = shown.as_object_mut() {
        members.remove("idempotency_key");
    }
    shown
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn another_content_has_another_key() {
        let keys = [["a", "b", "c"], ["ab", "", "c"], ["a", "bc", ""]].map(idempotency_key);
        assert_eq!(BTreeSet::from(keys.clone()).len(), 3);
        assert_eq!(keys[0], idempotency_key(["a", "b", "c"]));
    }
}
