//! Tests what caches and clients are answered about revocation lists and CA certificates, with curl
//! as the client, over HTTP and HTTPS.

use crate::process::{CommandOutput, until};
use crate::request::Request;
use crate::test_env::TestEnv;
use std::fs;
use std::path::Path;
use std::process::Command;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

/// The head of an answer.
struct Head {
    status: u16,
    /// Names in small letters.
    fields: Vec<(String, String)>,
}

impl Head {
    fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(known, _)| known == name);
        &found
            .unwrap_or_else(|| panic!("no {name}: {:?}", self.fields))
            .1
    }

    fn max_age(&self) -> i64 {
        let rule = self.field("cache-control");
        let age = rule.strip_prefix("public, max-age=").unwrap();
        age.parse().unwrap()
    }

    /// A date of RFC 9110 5.6.7, in Unix seconds.
    fn date(&self, name: &str) -> i64 {
        let date = OffsetDateTime::parse(self.field(name), &Rfc2822);
        date.unwrap().unix_timestamp()
    }
}

/// Runs curl in `folder`; the body goes to `body` there, if there is one.
fn curl(folder: &Path, arguments: &[&str], url: &str) -> Head {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--insecure", "--noproxy", "*"]);
    command.args(["--dump-header", "-", "--output", "body"]);
    command.args(arguments).arg(url).current_dir(folder);
    let output = CommandOutput::of(&mut command);
    assert_eq!(output.code, Some(0), "{arguments:?} {url}: {output:?}");
    let mut lines = output.out.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let fields = lines.filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_lowercase(), value.to_owned()))
    });
    Head {
        status: status.parse().unwrap(),
        fields: fields.collect(),
    }
}

fn next_update(folder: &Path) -> i64 {
    let der = fs::read(folder.join("body")).unwrap();
    let (_, list) = CertificateRevocationList::from_der(&der).unwrap();
    list.next_update().unwrap().timestamp()
}

/// A client that keeps the entity tag or the date transfers a list once, and again when something
/// was revoked. A cache drops its copy shortly before the next list is due.
#[test]
fn a_list_is_transferred_again_only_after_a_revocation() {
    let env = TestEnv::running();
    let device = env.station().obtain(&Request::device("press-1"));
    let status = env.json(&["status"]);
    let plain = format!("http://{}", status["http"].as_str().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bases = [plain, env.https()];
    let mut seen = Vec::new();
    for (number, base) in bases.iter().enumerate() {
        let (list, tag) = (format!("{base}/crl/line-1-1.crl"), format!("tag-{number}"));
        let first = curl(folder, &["--etag-save", &tag], &list);
        assert_eq!(first.status, 200, "{:?}", first.fields);
        let left = first.date("expires") - first.date("date");
        assert!(left.abs_diff(first.max_age()) <= 1, "{:?}", first.fields);
        // The next list is due a day later, long before this one ends.
        let kept = first.date("expires") - first.date("last-modified");
        assert_eq!(kept, 86_400);
        assert!(next_update(folder) - first.date("expires") > 300);
        let serving = curl(folder, &[], &format!("{base}/crl/line-1.crl"));
        assert_eq!(serving.max_age(), 3_600);
        let date = first.field("last-modified").to_owned();
        for known in [vec!["--etag-compare", &tag], vec!["--time-cond", &date]] {
            let again = curl(folder, &known, &list);
            assert_eq!(again.status, 304, "{known:?}: {:?}", again.fields);
            for field in ["etag", "last-modified", "cache-control", "expires"] {
                again.field(field);
            }
            assert_eq!(again.field("etag"), first.field("etag"));
        }
        // A tag counts before a date (RFC 9110 13.2.2), and another date is another list.
        let contrary = ["--header", "if-none-match: \"other\"", "--time-cond", &date];
        assert_eq!(curl(folder, &contrary, &list).status, 200);
        let later = ["--time-cond", "Fri, 31 Dec 2100 00:00:00 GMT"];
        assert_eq!(curl(folder, &later, &list).status, 200);
        let bad = ["--header", "if-modified-since: yesterday"];
        assert_eq!(curl(folder, &bad, &list).status, 200);
        let head = curl(folder, &["--head"], &list);
        assert_eq!(
            (head.status, head.field("etag")),
            (200, first.field("etag"))
        );

        let certificate = format!("{base}/ca/line-1-1.cer");
        let first_certificate = curl(folder, &["--etag-save", &tag], &certificate);
        assert_eq!(first_certificate.max_age(), 3_600);
        first_certificate.date("expires");
        let again = curl(folder, &["--etag-compare", &tag], &certificate);
        assert_eq!(again.status, 304);
        curl(folder, &["--etag-save", &tag], &list);
        seen.push((list, tag, first.date("last-modified")));
    }
    env.run(&[
        "certificate",
        "revoke",
        &device.serial,
        "--reason",
        "superseded",
    ]);
    for (list, tag, date) in &seen {
        let changed = until("the next list is transferred", || {
            let asked = curl(folder, &["--etag-compare", tag], list);
            (asked.status == 200).then_some(asked)
        });
        assert!(changed.date("last-modified") >= *date);
        assert_eq!(curl(folder, &["--etag-compare", tag], list).status, 200);
    }
}
