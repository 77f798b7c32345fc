//! Runs `hallmark ceremony`: ceremony files, and the folder that is carried between a daemon and
//! its offline root.

use super::client::{ApiClient, StepsBody};
use super::command::{CeremonyCommand, SignTransfer};
use super::failure::Failure;
use super::output::Output;
use super::show::{self, Show};
use super::{read, steps};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hallmark_base::files;
use hallmark_pki::x509::transfer::{
    self, ANSWERS_FILE, Answers, FILE_BYTES_MAX, Files, REQUESTS_FILE, Requests,
    TRANSCRIPT_BYTES_MAX, Transcript, TransferRefusal, check_files, sha256,
};
use serde_json::{Map, Value, json};
use std::io;
use std::path::Path;

pub(super) fn run(
    client: &ApiClient,
    show: &Show,
    command: &CeremonyCommand,
) -> Result<(), Failure> {
    match command {
        CeremonyCommand::Run { file, transcript } => {
            run_file(client, show, file, transcript.as_deref())
        }
        CeremonyCommand::Request { folder } => {
            make(folder)?;
            let written = client.post("/v1/transfers/requests", &json!({}))?;
            write(show, folder, &written)
        }
        CeremonyCommand::Show { folder } => show_folder(show, folder),
        CeremonyCommand::Sign(order) => sign(client, show, order),
        CeremonyCommand::Install { folder, sha256 } => install(client, show, folder, sha256),
    }
}

fn run_file(
    client: &ApiClient,
    show: &Show,
    file: &Path,
    folder: Option<&Path>,
) -> Result<(), Failure> {
    let ceremony = read(file)?;
    if let Some(folder) = folder {
        make(folder)?;
    }
    let transcript = |name| folder.map(|folder| folder.join(name));
    let [as_text, as_json] = ["transcript.txt", "transcript.json"].map(transcript);
    let as_text = Output::prepare(as_text.as_deref())?;
    let as_json = Output::prepare(as_json.as_deref())?;
    let outcome = steps(
        client,
        "ceremony",
        "/v1/ceremonies",
        StepsBody::Text(ceremony),
    )?;
    let text = outcome["text"].as_str().unwrap_or_default();
    if show.json {
        show.record(&outcome["transcript"])?;
    } else {
        show.text(text)?;
    }
    as_text.write(text)?;
    as_json.write(&format!("{:#}\n", outcome["transcript"]))
}

fn make(folder: &Path) -> Result<(), Failure> {
    files::make_folder(folder, 0o755).map_err(|error| Failure::file(folder, &error))
}

fn sign(client: &ApiClient, show: &Show, order: &SignTransfer) -> Result<(), Failure> {
    let folder = &order.folder;
    make(folder)?;
    let carried = carried::<Requests>(folder, REQUESTS_FILE)?;
    if carried.is_none() && order.sha256.is_some() {
        let message = "the folder has no requests.json; name the folder that was carried, or \
                       leave out --sha256 to sign revocation lists alone";
        return Err(Failure::Usage(message.into()));
    }
    if carried.is_some() && order.sha256.is_none() {
        let message = "the folder has requests: give --sha256, the SHA-256 that is printed on \
                       their page; `hallmark ceremony show FOLDER` shows what they ask for";
        return Err(Failure::Usage(message.into()));
    }
    // Nothing is signed that could not be written afterwards.
    Output::prepare(Some(&folder.join(ANSWERS_FILE)))?;
    let requests = carried.as_ref().map(|it| it.text.as_str());
    let body = json!({
        "authority": order.authority, "profile": order.profile, "days": order.days,
        "rekey": order.rekey, "requests": requests, "requests_sha256": order.sha256,
        "files": carried.as_ref().map_or_else(Map::new, Carried::to_json),
    });
    let outcome = steps(
        client,
        "ceremony",
        "/v1/transfers/answers",
        StepsBody::Json(body),
    )?;
    write(show, folder, &outcome["written"])
}

fn install(client: &ApiClient, show: &Show, folder: &Path, sha256: &str) -> Result<(), Failure> {
    let Some(carried) = carried::<Answers>(folder, ANSWERS_FILE)? else {
        let error = io::Error::new(
            io::ErrorKind::NotFound,
            "it is not there: `hallmark ceremony sign` writes it at the offline root",
        );
        return Err(Failure::file(&folder.join(ANSWERS_FILE), &error));
    };
    let body = json!({
        "answers": carried.text, "answers_sha256": sha256, "files": carried.to_json(),
    });
    let installed = client.post("/v1/transfers/installations", &body)?;
    write(show, folder, &installed)?;
    let problems = installed["problems"].as_array().into_iter().flatten();
    for problem in problems.filter(|_| !show.json) {
        show.line(problem.as_str().unwrap_or_default())?;
    }
    match &installed["receipt"] {
        Value::Object(_) if !show.json => show::receipt(show, &installed["receipt"]),
        _ => Ok(()),
    }
}

/// Writes the files, then the transcript and its page: a transcript has all of its files.
fn write(show: &Show, folder: &Path, written: &Value) -> Result<(), Failure> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for file in written["files"].as_array().into_iter().flatten() {
        let content = STANDARD.decode(text(&file["base64"])).unwrap_or_default();
        put(&folder.join(text(&file["name"])), &content)?;
    }
    let transcript = text(&written["file"]);
    let page = text(&written["text"]);
    put(
        &folder.join(&transcript),
        text(&written["transcript"]).as_bytes(),
    )?;
    let stem = transcript.trim_end_matches(".json");
    put(&folder.join(format!("{stem}.txt")), page.as_bytes())?;
    if show.json {
        show.record(written)
    } else {
        show.text(&page)
    }
}

fn put(path: &Path, content: &[u8]) -> Result<(), Failure> {
    // Another machine wrote the folder, and may have left a link in it.
    files::check_regular(path)
        .and_then(|()| files::write(path, content))
        .map_err(|error| Failure::file(path, &error))
}

/// A transcript and the files that it names, as they are in the folder.
struct Carried<T> {
    text: String,
    transcript: T,
    files: Files,
}

impl<T> Carried<T> {
    fn to_json(&self) -> Map<String, Value> {
        let encoded = |content: &Vec<u8>| Value::String(STANDARD.encode(content));
        let files = self
            .files
            .iter()
            .map(|(name, it)| (name.clone(), encoded(it)));
        files.collect()
    }
}

/// Reads a transcript and its files; `None` if the folder has no such transcript. Files that are
/// missing are left out: the check of the digests names them.
fn carried<T: Transcript>(folder: &Path, name: &str) -> Result<Option<Carried<T>>, Failure> {
    let path = folder.join(name);
    let bytes_max = u64::try_from(TRANSCRIPT_BYTES_MAX).unwrap_or(u64::MAX);
    let text = files::check_regular(&path).and_then(|()| files::read_text(&path, bytes_max));
    let text = match text {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder.is_dir() => {
            return Ok(None);
        }
        Err(error) => return Err(Failure::file(&path, &error)),
    };
    let transcript: T = transfer::read(&text).map_err(|refusal| refused(&refusal))?;
    let mut read = Files::new();
    for (file, _) in transcript.files() {
        let path = folder.join(file);
        let bytes_max = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX);
        let content = files::check_regular(&path).and_then(|()| files::read(&path, bytes_max));
        match content {
            Ok(content) => drop(read.insert(file.to_owned(), content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::file(&path, &error)),
        }
    }
    Ok(Some(Carried {
        text,
        transcript,
        files: read,
    }))
}

fn refused(refusal: &TransferRefusal) -> Failure {
    Failure::Problem {
        code: refusal.code().name().to_owned(),
        detail: refusal.to_string(),
        approval: None,
    }
}

/// Shows what the folder holds, once each file is that of its transcript.
fn show_folder(show: &Show, folder: &Path) -> Result<(), Failure> {
    let requests = carried::<Requests>(folder, REQUESTS_FILE)?;
    let answers = carried::<Answers>(folder, ANSWERS_FILE)?;
    let mut shown = Map::new();
    if let Some(it) = &requests {
        check_files(&it.transcript, &it.files).map_err(|refusal| refused(&refusal))?;
        for request in &it.transcript.requests {
            request
                .csr(&it.files)
                .map_err(|refusal| refused(&refusal))?;
        }
        shown.insert("requests".into(), of(it, json!(it.transcript)));
    }
    if let Some(it) = &answers {
        check_files(&it.transcript, &it.files).map_err(|refusal| refused(&refusal))?;
        for answer in &it.transcript.certificates {
            answer
                .certificate(&it.files)
                .map_err(|refusal| refused(&refusal))?;
        }
        shown.insert("answers".into(), of(it, json!(it.transcript)));
    }
    if shown.is_empty() {
        let error = io::Error::new(
            io::ErrorKind::NotFound,
            "it has neither requests.json nor answers.json; name the folder that was carried",
        );
        return Err(Failure::file(folder, &error));
    }
    show.record(&Value::Object(shown))
}

/// The transcript, and the SHA-256 to compare with the page of its origin.
fn of<T>(carried: &Carried<T>, mut transcript: Value) -> Value {
    transcript["sha256"] = json!(sha256(carried.text.as_bytes()));
    transcript
}
