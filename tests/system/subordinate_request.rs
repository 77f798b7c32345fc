//! Tests requests for certificates of authorities elsewhere: refused, or certified as the profile
//! says.

use crate::caller::{Answer, Caller};
use crate::process::CommandOutput;
use crate::request::Request;
use crate::roles::OPERATOR;
use crate::subordinate::{path, sign, text};
use crate::test_env::TestEnv;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// Profiles of the factory, beside the presets.
const PROFILES: &str = r#"
[[subordinate_profile]]
name = "partner"
authority = "plant"
[subordinate_profile.certificate]
preset = "intermediate"
validity = "2y"
certificate_policies = ["1.3.6.1.4.1.32473.1"]
[subordinate_profile.name_constraints]
permitted = { dns = ["partner.example"] }
[[authority]]
name = "rsa"
token = "factory"
"#;

const RSA: &str = r#"
name = "rsa"
[[authority]]
name = "rsa"
issuer = "root"
key_type = "rsa2048"
subject = { common_name = "Example Works RSA" }
validity = "8y"
path_length = 1
"#;

fn profile_of(env: &TestEnv, pem: &str) -> String {
    env.write("shown.pem", pem);
    let mut command = Command::new("openssl");
    command.args("x509 -in shown.pem -noout -text".split(' '));
    let output = CommandOutput::of(command.current_dir(env.path("")));
    assert_eq!(output.code, Some(0), "{output:?}");
    output.out
}

/// A folder of requests by OpenSSL.
pub(crate) struct Requests<'a>(pub(crate) &'a TestEnv);

impl Requests<'_> {
    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace());
        let output = CommandOutput::of(command.current_dir(self.0.path("")));
        assert_eq!(output.code, Some(0), "{arguments}: {output:?}");
    }

    /// A request with a key of its own.
    pub(crate) fn make(&self, name: &str, key: &str, more: &str) -> String {
        self.openssl(&format!(
            "req -new -newkey {key} -nodes -keyout {name}.key -out {name}.csr {more}"
        ));
        let csr = self.0.path(&format!("{name}.csr"));
        csr.to_str().unwrap().to_owned()
    }
}

pub(crate) const P384: &str = "ec -pkeyopt ec_paramgen_curve:P-384";
const P256: &str = "ec -pkeyopt ec_paramgen_curve:P-256";

fn with_profiles() -> TestEnv {
    let env = TestEnv::certifying_elsewhere();
    env.configure(&(env.configuration() + PROFILES + &OPERATOR.toml()));
    let env = env.started();
    let file = env.write("rsa.toml", RSA);
    env.run(&["ceremony", "run", file.to_str().unwrap()]);
    env
}

/// Verifies: each request that does not fit is refused with its own code, is audited and leaves
/// nothing behind; the key of a subordinate is certified for no other holder, and no other holder's
/// for one; what the profile has no place for is left out and listed.
#[test]
fn a_request_that_does_not_fit_is_refused() {
    let env = with_profiles();
    let requests = Requests(&env);
    let plain = requests.make("plain", P384, "-subj /O=Partner/CN=Partner-1");
    let of_leaf = Request::device("press-1");
    let leaf_csr = path(&env, "leaf.csr", &of_leaf.csr);
    let as_leaf = [
        "issue",
        "--profile",
        "device",
        "--id",
        "press-1",
        "--csr",
        &leaf_csr,
    ];
    env.run(&as_leaf);
    let before = env.count("intent");
    let refusals = env.count("audit WHERE action = 'certificate.refused'");
    let plant = ["plant", "intermediate", "365"];
    let with = |name: &str, more: &str| {
        let subject = "-subj /CN=Partner-2";
        requests.make(name, P384, &format!("{subject} {more}"))
    };
    env.write(
        "own.cnf",
        "[req]\ndistinguished_name = name\nprompt = no\nstring_mask = utf8only\n\
        [name]\nC = DE\nO = EXAMPLE  works\nCN = Example Works Line 1\n",
    );
    let mut cases = vec![
        (
            "csr_conflicts_profile",
            with("leaf-shape", "-addext basicConstraints=CA:FALSE"),
            plant,
        ),
        (
            "csr_conflicts_profile",
            with(
                "longer",
                "-addext basicConstraints=critical,CA:TRUE,pathlen:1",
            ),
            plant,
        ),
        (
            "csr_conflicts_profile",
            with(
                "more-usage",
                "-addext keyUsage=keyCertSign,digitalSignature",
            ),
            plant,
        ),
        (
            "csr_weak_key",
            requests.make("weak", "rsa:1024", "-subj /CN=Weak"),
            plant,
        ),
        (
            "csr_bad_name",
            requests.make("nameless", P384, "-subj /"),
            plant,
        ),
        ("csr_malformed", path(&env, "none.csr", "no request"), plant),
        (
            "subject_of_authority",
            requests.make("ours", P384, "-config own.cnf"),
            plant,
        ),
        ("key_in_use", leaf_csr.clone(), plant),
    ];
    for (code, authority, profile, days) in [
        ("days_out_of_range", "plant", "intermediate", "0"),
        ("days_out_of_range", "plant", "intermediate", "3653"),
        ("outlives_issuer", "plant", "intermediate", ""),
        ("authority_limited", "line-1", "intermediate", "365"),
        ("authority_unknown", "line-9", "intermediate", "365"),
        ("profile_unknown", "plant", "root", "365"),
        ("profile_unknown", "plant", "device", "365"),
        ("profile_unknown", "root", "partner", "365"),
        (
            "device_registry_refuses",
            "plant",
            "adr-intermediate",
            "365",
        ),
        ("device_registry_refuses", "rsa", "adr-intermediate", "400"),
    ] {
        cases.push((code, plain.clone(), [authority, profile, days]));
    }
    let rsa = requests.make("rsa", "rsa:2048", "-subj /CN=Registry");
    cases.push((
        "key_type_forbidden",
        rsa,
        ["plant", "adr-intermediate", "400"],
    ));
    for (code, csr, [authority, profile, days]) in &cases {
        let mut more = vec!["--authority", authority, "--profile", profile];
        if !days.is_empty() {
            more.extend(["--days", days]);
        }
        let output = sign(&env, csr, &more);
        assert_eq!(output.code, Some(1), "{code}: {output:?}");
        assert!(output.error.contains(code), "{code} {csr}: {output:?}");
    }
    let named = [
        "--authority",
        "plant",
        "--profile",
        "partner",
        "--common-name",
        "Partner-9",
    ];
    let output = sign(&env, &plain, &named);
    assert!(output.error.contains("csr_other_common_name"), "{output:?}");
    assert_eq!(env.count("intent"), before);
    let refused = env.count("audit WHERE action = 'certificate.refused'") - refusals;
    assert_eq!(usize::try_from(refused).unwrap(), cases.len() + 1);

    let asks_more = "-subj /O=Partner/CN=Partner-3 -addext extendedKeyUsage=clientAuth \
                     -addext 1.2.3.4=ASN1:NULL -addext subjectAltName=DNS:partner.example \
                     -addext basicConstraints=critical,CA:TRUE,pathlen:0";
    let partner = requests.make("partner", P256, asks_more);
    let output = sign(
        &env,
        &partner,
        &["--authority", "plant", "--profile", "partner"],
    );
    assert_eq!(output.code, Some(0), "{output:?}");
    let answer: Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!(answer["dropped_names"], json!(["DNS:partner.example"]));
    assert_eq!(
        answer["dropped_extensions"],
        json!(["id-ce-extKeyUsage", "1.2.3.4"])
    );
    let shown = profile_of(&env, text(&answer["certificate"]));
    for said in [
        "CA:TRUE, pathlen:0",
        "DNS:partner.example",
        "Policy: 1.3.6.1.4.1.32473.1",
        "CRL Sign",
        "O = Partner, CN = Partner-3",
    ] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
    assert!(!shown.contains("1.2.3.4"), "{shown}");
    // Its key is that of an authority.
    let leaf = [
        "issue",
        "--profile",
        "device",
        "--id",
        "Partner-3",
        "--csr",
        &partner,
    ];
    let output = env.hallmark(&leaf);
    assert!(output.error.contains("key_in_use"), "{output:?}");
    // Its subject has one key, and its key one subject.
    for other in ["/CN=Partner-4", "/O=Other/CN=partner-3"] {
        requests.openssl(&format!(
            "req -new -key partner.key -subj {other} -out renamed.csr"
        ));
        let renamed = env.path("renamed.csr");
        let usual = ["--authority", "plant", "--profile", "partner"];
        let output = sign(&env, renamed.to_str().unwrap(), &usual);
        assert!(output.error.contains("key_in_use"), "{other}: {output:?}");
    }
    // cACompromise is for authorities.
    let serial = env.json(&["device", "show", "press-1"])["serial"].clone();
    let command = [
        "certificate",
        "revoke",
        text(&serial),
        "--reason",
        "cACompromise",
    ];
    let output = env.hallmark(&command);
    assert!(output.error.contains("reason_invalid"), "{output:?}");
    registry_is_served(&env, &requests);
    an_operator_repeats(&env, &requests);
}

/// An Azure Device Registry asks with the extensions of its how-to.
fn registry_is_served(env: &TestEnv, requests: &Requests<'_>) {
    let asks = "-subj /CN=adr-namespace-ica -addext \
                keyUsage=critical,digitalSignature,keyCertSign,cRLSign -addext \
                basicConstraints=critical,CA:TRUE,pathlen:0";
    let csr = requests.make("registry", P384, asks);
    let output = sign(
        env,
        &csr,
        &["--authority", "plant", "--profile", "adr-intermediate"],
    );
    assert_eq!(output.code, Some(0), "{output:?}");
    let answer: Value = serde_json::from_str(&output.out).unwrap();
    let shown = profile_of(env, text(&answer["certificate"]));
    let usage = "Digital Signature, Certificate Sign, CRL Sign";
    assert!(
        shown.contains(usage) && shown.contains("pathlen:0"),
        "{shown}"
    );
    assert!(shown.contains("X509v3 CRL Distribution Points"), "{shown}");
    env.write("registry.pem", text(&answer["certificate"]));
    env.write("above.pem", &env.authority("plant"));
    env.write("root.pem", &env.authority("root"));
    requests.openssl("verify -x509_strict -CAfile root.pem -untrusted above.pem registry.pem");
}

/// A certificate on hold is no past one: its key gets no other certificate, and another key needs
/// the operator's word.
fn a_hold_is_not_renewed(env: &TestEnv, requests: &Requests<'_>, serial: &str) {
    env.run(&["certificate", "hold", serial]);
    let usual = ["--authority", "plant", "--profile", "partner"];
    let same = env.path("remote.csr");
    let output = sign(env, same.to_str().unwrap(), &usual);
    assert!(output.error.contains("subordinate_on_hold"), "{output:?}");
    let next = requests.make("next", P384, "-subj /CN=Remote-1");
    let output = sign(env, &next, &usual);
    assert!(output.error.contains("subordinate_other_key"), "{output:?}");
    env.run(&["certificate", "release", serial]);
}

/// Over HTTPS an operator needs an idempotency key, and gets one certificate for it.
fn an_operator_repeats(env: &TestEnv, requests: &Requests<'_>) {
    let csr = requests.make("remote", P384, "-subj /CN=Remote-1");
    let csr = fs::read_to_string(csr).unwrap();
    let body = json!({ "profile": "partner", "csr": csr });
    let post = |caller: &Caller, key: Option<&str>, body: &Value| {
        let mut post = caller
            .post_to("/v1/authorities/plant/subordinates")
            .json(body);
        if let Some(key) = key {
            post = post.header("idempotency-key", key);
        }
        Answer::read(post.send().unwrap()).unwrap()
    };
    let operator = env.caller(&env.enlist("operator", "operator-1"));
    let bare = post(&operator, None, &body);
    assert_eq!(
        (bare.status, bare.code()),
        (400, "idempotency_key_required")
    );
    let [once, again] = [(); 2].map(|()| post(&operator, Some("sub-1"), &body));
    assert_eq!((once.status, again.status), (201, 201), "{again:?}");
    assert_eq!(once.body, again.body);
    assert_eq!(env.count("intent WHERE subject = 'Remote-1'"), 1);
    let mut other = body.clone();
    other["common_name"] = json!("Remote-9");
    let unexpected = post(&operator, Some("sub-1"), &other);
    assert_eq!(unexpected.code(), "csr_other_common_name");
    // A repeat says again what is renewed, also after the former certificate was revoked.
    let renewal = post(&operator, Some("sub-3"), &body);
    assert_eq!(renewal.body["renews"], once.body["serial"], "{renewal:?}");
    let serial = text(&once.body["serial"]);
    env.run(&["certificate", "revoke", serial, "--reason", "superseded"]);
    let again = post(&operator, Some("sub-3"), &body);
    assert_eq!(again.body, renewal.body);
    a_hold_is_not_renewed(env, requests, text(&renewal.body["serial"]));
    let other = json!({ "profile": "partner", "csr": csr, "days": 30 });
    let reused = post(&operator, Some("sub-1"), &other);
    assert_eq!(
        (reused.status, reused.code()),
        (409, "idempotency_key_reused")
    );
    let refused = post(&env.station(), Some("sub-2"), &body);
    assert_eq!((refused.status, refused.code()), (403, "role_forbidden"));
}
