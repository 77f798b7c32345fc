//! Tests two people who agree in the console: the operator asks by a form, the approver pastes a
//! signature, and the operator does what was approved.

use crate::approvals::Guarded;
use crate::console::{Shown, curl, remote};
use crate::est_client::openssl;
use crate::request::Holder;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::fs;

/// The token of the forms of a page.
fn token_in(page: &str) -> String {
    let after = page.split("name=\"token\" value=\"").nth(1);
    after.unwrap().split('"').next().unwrap().to_owned()
}

/// Sends a form of the page above `path`, as a browser does.
fn send(guarded: &Guarded, holder: &Holder, path: &str, fields: &[(&str, &str)]) -> Shown {
    let (page, _) = path.rsplit_once('/').unwrap();
    send_from(guarded, holder, page, path, fields)
}

/// Sends a form of `page` with a client certificate.
fn send_from(
    guarded: &Guarded,
    holder: &Holder,
    page: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> Shown {
    let env = &guarded.env;
    let token = token_in(&remote(env, Some(holder), page).body);
    // `remote` has written them.
    let file = |name: &str| env.path(name).display().to_string();
    let [root, certificate, key] = ["console-root.pem", "console.pem", "console.key"].map(file);
    let url = format!("{}{path}", env.https());
    let mut arguments = vec![
        "--cacert",
        &root,
        "--cert",
        &certificate,
        "--key",
        &key,
        &url,
    ];
    let fields = [fields, &[("token", token.as_str())]].concat();
    let fields = fields.iter().map(|(name, value)| format!("{name}={value}"));
    let fields: Vec<String> = fields.collect();
    for field in &fields {
        arguments.extend(["--data-urlencode", field]);
    }
    curl(&arguments)
}

/// Verifies: a form that needs an approval does nothing and leads to the request; its page offers
/// the asker no approval and the approver no effect; the pasted signature of OpenSSL approves, and
/// the button of the asker starts the roll, once.
#[test]
fn two_people_agree_in_the_console() {
    let guarded = Guarded::new();
    let env = &guarded.env;
    let alice = &guarded.operator;
    let bob = &guarded.approver;
    let roll = [("kind", "authority"), ("name", "line-1")];
    let page = "/console/approvals/1";
    let refused = send_from(&guarded, alice, "/console/rolls", "/console/rolls", &roll);
    assert_eq!(refused.status, 409, "{roll:?}: {refused:?}");
    assert!(refused.body.contains("Another person must approve this"));
    assert!(refused.body.contains(page), "{refused:?}");
    assert_eq!(env.json(&["roll", "list"]), json!([]));

    let of = |holder: &Holder| remote(env, Some(holder), page).body;
    assert!(
        !of(alice).contains("/signature"),
        "the own request is not approved"
    );
    let shown = of(bob);
    for words in [
        "/v1/authorities/line-1/rolls",
        "roll.start",
        "openssl dgst -sha256 -sign",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let document = remote(env, Some(bob), &format!("{page}/document")).body;
    fs::write(env.path("request.txt"), document).unwrap();
    let key = guarded.file_of(bob, "key").display().to_string();
    let path = |name: &str| env.path(name).display().to_string();
    let [request, signature] = ["request.txt", "request.sig"].map(path);
    openssl(&[
        "dgst", "-sha256", "-sign", &key, "-out", &signature, &request,
    ]);
    let pasted = STANDARD.encode(fs::read(&signature).unwrap());
    let own = send(
        &guarded,
        alice,
        &format!("{page}/signature"),
        &[("signature", &pasted)],
    );
    assert_eq!(own.status, 409, "{own:?}");
    assert!(own.body.contains("approval_own"), "{own:?}");
    let approved = send(
        &guarded,
        bob,
        &format!("{page}/signature"),
        &[("signature", &pasted)],
    );
    assert_eq!(approved.status, 303, "{approved:?}");

    assert!(!of(bob).contains("Do it now"));
    let other = send(&guarded, bob, &format!("{page}/done"), &[]);
    assert!(other.body.contains("role_forbidden"), "{other:?}");
    assert!(of(alice).contains("Do it now"));
    let done = send(&guarded, alice, &format!("{page}/done"), &[]);
    assert_eq!(done.status, 303, "{done:?}");
    let rolls = env.json(&["roll", "list"]);
    assert_eq!(rolls[0]["authority"], "line-1", "{rolls}");
    let again = remote(env, Some(alice), page).body;
    assert!(
        again.contains(">used<") && !again.contains("Do it now"),
        "{again}"
    );
    env.wait_in_sync();
}
