//! Tests actions that need the approval of a second person: nothing is done without it, and a
//! signature of another, an own, a used, an expired, an altered or a planted one does nothing.

use crate::caller::Answer;
use crate::configured::Profile;
use crate::est_client::EstClient;
use crate::invariants;
use crate::process::CommandOutput;
use crate::request::{Holder, Request};
use crate::roles::OPERATOR;
use crate::test_env::{CEREMONY, TestEnv};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hallmarkd::ca::approval::Action;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use time::Duration;

/// Profiles whose holders act, beside those of all tests.
const DEPUTY: Profile<'_> = Profile {
    name: "deputy",
    more: "",
    role: "operator",
    ..OPERATOR
};

/// Every action needs an approval.
fn table() -> String {
    let names = Action::ALL.iter().map(|it| format!("{:?}", it.name()));
    let names = names.collect::<Vec<_>>().join(", ");
    format!("\n[approval]\nactions = [{names}]\nvalid_for = \"1h\"\n")
}

/// A daemon with an operator and an approver, where every action needs an approval.
pub(crate) struct Guarded {
    pub(crate) env: TestEnv,
    pub(crate) operator: Holder,
    pub(crate) approver: Holder,
    /// Another operator.
    deputy: Holder,
}

impl Guarded {
    pub(crate) fn new() -> Self {
        Self::over(TestEnv::new())
    }

    /// The first holders get their certificates before the rule stands.
    fn over(env: TestEnv) -> Self {
        let base = env.configuration();
        let base = base.replacen("[listen]", "[listen]\nest_profile = \"device\"", 1);
        let free = base + &OPERATOR.toml() + &DEPUTY.toml();
        env.configure(&free);
        let env = env.started();
        let guarded = Self {
            operator: env.enlist("operator", "alice"),
            approver: env.enlist("approver", "bob"),
            deputy: env.enlist("deputy", "carol"),
            env,
        };
        guarded.env.configure(&(free + &table()));
        guarded.env.run(&["reload"]);
        guarded
    }

    /// The command `hallmark approve` with the key of `holder`.
    pub(crate) fn approve_as(&self, holder: &Holder, id: i64) -> CommandOutput {
        let key = self.file_of(holder, "key");
        let certificate = self.file_of(holder, "pem");
        let (id, key, certificate) = (id.to_string(), key.display(), certificate.display());
        let (key, certificate) = (key.to_string(), certificate.to_string());
        let with = ["--yes", "--key", &key, "--certificate", &certificate];
        self.env
            .hallmark(&[&["--json", "approve", &id], &with[..]].concat())
    }

    pub(crate) fn file_of(&self, holder: &Holder, kind: &str) -> PathBuf {
        let name = format!("{}.{kind}", holder.id);
        let text = if kind == "key" {
            &holder.key
        } else {
            &holder.certificate
        };
        self.env.write_secret(&name, text);
        self.env.path(&name)
    }

    pub(crate) fn approve(&self, id: i64) {
        let output = self.approve_as(&self.approver, id);
        assert_eq!(output.code, Some(0), "{output:?}");
    }

    /// Sends a request over the admin socket, and returns its status and its answer.
    pub(crate) fn ask(&self, asked: &Asked, approval: Option<i64>) -> (u16, Value) {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--unix-socket"]);
        command.arg(self.env.path(self.env.admin));
        command.args(["--request", asked.method, "--write-out", "\n%{http_code}"]);
        command
            .arg("--header")
            .arg("content-type: application/json");
        if let Some(id) = approval {
            command
                .arg("--header")
                .arg(format!("hallmark-approval: {id}"));
        }
        let body = self.env.write("body", &asked.body);
        command
            .arg("--data-binary")
            .arg(format!("@{}", body.display()));
        let output = CommandOutput::of(command.arg(format!("http://localhost{}", asked.path)));
        assert_eq!(output.code, Some(0), "{output:?}");
        let (body, status) = output.out.rsplit_once('\n').unwrap();
        // The last of the lines that report steps.
        let last = body.trim_end().rsplit('\n').next().unwrap();
        let answer = serde_json::from_str(last).unwrap_or_default();
        (status.parse().unwrap(), answer)
    }

    /// Asks without an approval, and returns the number of the request that waits.
    pub(crate) fn waits(&self, asked: &Asked) -> i64 {
        let (status, answer) = self.ask(asked, None);
        assert_eq!(
            (status, &answer["code"]),
            (409, &json!("approval_required")),
            "{answer}"
        );
        answer["approval"]["id"].as_i64().unwrap()
    }

    fn refused(&self, asked: &Asked, id: i64, code: &str) {
        let (status, answer) = self.ask(asked, Some(id));
        assert_eq!((status, &answer["code"]), (409, &json!(code)), "{answer}");
    }

    /// Changes the database as its owner could.
    fn change(&self, sql: &str) {
        let raw = Connection::open(self.env.database()).unwrap();
        raw.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        assert_eq!(raw.execute(sql, []).unwrap(), 1, "{sql}");
    }
}

/// A request of an operator.
pub(crate) struct Asked {
    method: &'static str,
    path: String,
    body: String,
}

pub(crate) fn post(path: &str, body: &Value) -> Asked {
    Asked {
        method: "POST",
        path: path.into(),
        body: body.to_string(),
    }
}

pub(crate) fn backup() -> Asked {
    post("/v1/backups", &json!({}))
}

/// A request for each action, and the status and code of its answer once it is approved: some name
/// what does not exist, and are refused by their handlers then.
fn example(action: Action) -> (Asked, u16, &'static str) {
    let roll = |reason: &str| post("/v1/authorities/none/rolls", &json!({ "reason": reason }));
    match action {
        Action::AuthorityCreate => {
            let ceremony = Asked {
                body: CEREMONY.into(),
                ..post("/v1/ceremonies", &Value::Null)
            };
            (ceremony, 200, "")
        }
        Action::AuthorityInstall => {
            let body = json!({ "certificates": "none" });
            let code = "authority_not_waiting";
            (post("/v1/authorities/root/certificate", &body), 409, code)
        }
        Action::AuthoritySign => {
            let body = json!({ "profile": "none", "csr": "none" });
            let code = "csr_malformed";
            (post("/v1/authorities/root/subordinates", &body), 400, code)
        }
        Action::BackupCreate => (backup(), 200, ""),
        Action::ClockAccept => (post("/v1/clock/accept", &json!({})), 200, ""),
        Action::CompromiseAuthority => (roll("compromise"), 404, "authority_unknown"),
        Action::GuardOverride => {
            let body = json!({ "override": "a test" });
            (post("/v1/rolls/999/abort", &body), 404, "not_found")
        }
        Action::RoleChange => {
            let body = Request::new("approver", "mallory").body();
            (post("/v1/certificates", &body), 201, "")
        }
        Action::RollApprove => (post("/v1/rolls/999/approve", &json!({})), 404, "not_found"),
        Action::RollStart => (roll("expiry"), 404, "authority_unknown"),
    }
}

/// Verifies, for each action: without an approval nothing happens but a request; the same request
/// again is the same; an approval is for these bytes alone, works once, and is in the journal with
/// its request.
#[test]
fn each_action_is_done_once_with_the_approval_of_another_person() {
    let guarded = Guarded::new();
    let env = &guarded.env;
    for action in Action::ALL {
        let (asked, status, code) = example(*action);
        let entries = || {
            env.count(
                "audit WHERE action NOT LIKE 'approval.%'
                       AND action NOT IN ('key.used', 'certificate.refused')",
            )
        };
        let before = entries();
        let id = guarded.waits(&asked);
        assert_eq!(guarded.waits(&asked), id, "{action}: the same request");
        guarded.refused(&asked, id, "approval_required");
        let shown = env.json(&["approval", "show", &id.to_string()]);
        assert_eq!(shown["action"], action.name(), "{shown}");
        assert_eq!(entries(), before, "{action}: nothing is done");

        guarded.approve(id);
        let other = Asked {
            path: format!("{}?other=1", asked.path),
            ..example(*action).0
        };
        guarded.refused(&other, id, "approval_differs");
        assert_eq!(entries(), before, "{action}: nothing is done");
        let (answered, answer) = guarded.ask(&asked, Some(id));
        assert_eq!(answered, status, "{action}: {answer}");
        assert_eq!(
            answer["code"].as_str().unwrap_or_default(),
            code,
            "{action}"
        );
        guarded.refused(&asked, id, "approval_used");
        let used = format!("audit WHERE action = 'approval.used' AND subject = '{id}'");
        assert_eq!(env.count(&used), 1, "{action}");
    }
    assert_eq!(env.count("audit WHERE action = 'backup.created'"), 1);
    assert_eq!(env.count("audit WHERE action = 'clock.accepted'"), 1);
}

/// Verifies: the caller's own signature, that of a caller of the same name, and that of a role that
/// does not approve are refused; a request of a local user needs a certificate; a rejected request
/// is not approved any more.
#[test]
fn only_another_person_with_the_right_role_approves() {
    let guarded = Guarded::new();
    let env = &guarded.env;
    let operator = env.caller(&guarded.operator);
    let asked = || {
        let post = operator.post_to("/v1/clock/accept").json(&json!({}));
        Answer::read(post.send().unwrap()).unwrap()
    };
    let answer = asked();
    assert_eq!(answer.code(), "approval_required", "{answer:?}");
    let id = answer.body["approval"]["id"].as_i64().unwrap();

    let station = env.enlist("station", "station-1");
    for (holder, code) in [
        (&guarded.operator, "approval_own"),
        (&station, "approver_refused"),
    ] {
        let output = guarded.approve_as(holder, id);
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.out.contains(code), "{code}: {output:?}");
    }
    let foreign = Holder {
        key: Request::new("approver", "bob").key,
        ..guarded.approver.clone()
    };
    let output = guarded.approve_as(&foreign, id);
    assert!(output.out.contains("approval_signature"), "{output:?}");

    guarded.approve(id);
    let by = |holder: &Holder| {
        let caller = env.caller(holder);
        let post = caller.post_to("/v1/clock/accept").json(&json!({}));
        let post = post.header("hallmark-approval", id);
        Answer::read(post.send().unwrap()).unwrap()
    };
    assert_eq!(by(&guarded.approver).code(), "role_forbidden");
    assert_eq!(by(&guarded.operator).status, 200);

    let id = guarded.waits(&backup());
    env.run(&["approval", "reject", &id.to_string()]);
    let output = guarded.approve_as(&guarded.approver, id);
    assert!(output.out.contains("approval_decided"), "{output:?}");
    guarded.refused(&backup(), id, "approval_rejected");
}

/// Verifies: an approval of an approver who was revoked since, and one of a request that has ended,
/// do nothing.
#[test]
fn an_approval_ends_with_its_request_and_with_its_approver() {
    let env = TestEnv::new().with_a_movable_clock();
    let guarded = Guarded::over(env);
    let env = &guarded.env;
    let id = guarded.waits(&backup());
    guarded.approve(id);
    env.passes(Duration::hours(2));
    guarded.refused(&backup(), id, "approval_expired");

    let id = guarded.waits(&backup());
    guarded.approve(id);
    let serial = &guarded.approver.serial;
    env.run(&[
        "certificate",
        "revoke",
        serial,
        "--reason",
        "key-compromise",
    ]);
    guarded.refused(&backup(), id, "approver_refused");
    assert_eq!(env.count("audit WHERE action = 'backup.created'"), 0);
}

/// The owner of the database changes rows. Verifies: an altered document, an altered end, a planted
/// signature and a used approval whose use was erased do nothing.
#[test]
fn the_database_alone_forges_no_approval() {
    let guarded = Guarded::new();
    let env = &guarded.env;
    let changed = |sql: &str, code: &str| {
        let id = guarded.waits(&backup());
        guarded.approve(id);
        guarded.change(&format!("UPDATE approval SET {sql} WHERE id = {id}"));
        let (status, answer) = guarded.ask(&backup(), Some(id));
        assert_eq!(answer["code"], code, "{sql}: {status} {answer}");
        env.run(&["approval", "reject", &id.to_string()]);
    };
    changed(
        "document = replace(document, 'backups', 'others')",
        "approval_differs",
    );
    changed("expires_at = expires_at + 86400", "approval_differs");
    let later = "datetime(expires_at + 1, 'unixepoch')";
    let text = format!("strftime('%Y-%m-%dT%H:%M:%SZ', {later})");
    let before = "strftime('%Y-%m-%dT%H:%M:%SZ', expires_at, 'unixepoch')";
    changed(
        &format!("document = replace(document, {before}, {text}), expires_at = expires_at + 1"),
        "approval_signature",
    );
    changed("signature = zeroblob(70)", "approval_signature");
    let deputy = &guarded.deputy.thumbprint;
    changed(&format!("certificate = x'{deputy}'"), "approval_signature");

    let id = guarded.waits(&backup());
    guarded.approve(id);
    assert_eq!(guarded.ask(&backup(), Some(id)).0, 200);
    guarded.change(&format!(
        "UPDATE approval SET used_at = NULL WHERE id = {id}"
    ));
    guarded.refused(&backup(), id, "approval_used");
    assert_eq!(env.count("audit WHERE action = 'backup.created'"), 1);
}

/// Verifies: no way of issuing makes an operator, approver or auditor without an approval, and
/// devices, stations and the own renewal of an operator need none.
#[test]
fn a_role_that_acts_is_given_by_two_people() {
    let guarded = Guarded::new();
    let env = &guarded.env;
    let operator = env.caller(&guarded.operator);
    let ask = |path: &str, body: &Value| {
        let post = operator.post_to(path).json(body);
        let post = post.header("idempotency-key", "a-test-of-roles");
        Answer::read(post.send().unwrap()).unwrap()
    };
    for profile in ["operator", "deputy", "approver", "auditor"] {
        let request = Request::new(profile, "mallory");
        let answer = ask("/v1/certificates", &request.body());
        assert_eq!(answer.code(), "approval_required", "{profile}: {answer:?}");
        let mut item = request.body();
        item["idempotency_key"] = "one".into();
        let device = Request::device("press-1").body();
        let answer = ask(
            "/v1/certificates:batch",
            &json!({ "items": [device, item] }),
        );
        assert_eq!(answer.code(), "approval_required", "{profile}: {answer:?}");
        let est = EstClient::of(env, &guarded.operator);
        for operation in ["simpleenroll", "simplereenroll", "serverkeygen"] {
            let csr = STANDARD.encode(crate::request::der(&request.csr));
            let answer = est.post(&format!("{profile}/{operation}"), csr.as_bytes());
            assert_eq!(answer.code(), "approval_required", "{profile} {operation}");
        }
    }
    let est = EstClient::of(env, &guarded.operator);
    let csr = STANDARD.encode(crate::request::der(
        &Request::new("operator", "mallory").csr,
    ));
    let answer = est.post("/simplereenroll", csr.as_bytes());
    assert_eq!(
        answer.code(),
        "approval_required",
        "an empty label: {answer:?}"
    );
    assert_eq!(
        env.count("certificate c JOIN intent i ON i.id = c.intent WHERE i.subject = 'mallory'"),
        0
    );
    let est = EstClient::of(env, &guarded.operator);
    let csr = STANDARD.encode(crate::request::der(&Request::device("press-2").csr));
    let answer = est.post("simpleenroll", csr.as_bytes());
    assert_eq!(answer.status, "200", "a device without a label: {answer:?}");
    operator.obtain(&Request::device("press-1"));
    operator.obtain(&Request::new("station", "station-1"));
    operator.obtain(&Request::new("operator", "alice"));
    let store = invariants::open(&env.database());
    let waiting = invariants::count(&store, "approval WHERE approved_by IS NULL");
    assert!(waiting > 0, "the requests wait");
}
