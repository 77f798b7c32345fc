//! Tests authorities that limit policies below them: policyConstraints and inhibitAnyPolicy, as
//! OpenSSL reads and applies them.

use crate::authority_roll::start;
use crate::configured::device_profile;
use crate::failover::alarms;
use crate::process::{CommandOutput, until};
use crate::request::{Holder, Request};
use crate::subordinate::{path, sign};
use crate::test_env::TestEnv;
use std::process::Command;

const POLICY: &str = "certificate_policies = [\"1.3.6.1.4.1.32473.1\"]\n";

const BOUND: &str = r#"
name = "bound"
[[authority]]
name = "bound"
issuer = "root"
subject = { common_name = "Example Works Bound" }
validity = "5y"
path_length = 1
certificate_policies = ["1.3.6.1.4.1.32473.1"]
policy_constraints = { require_explicit_policy = 0, inhibit_policy_mapping = 200 }
inhibit_any_policy = 0
"#;

/// Profiles of leaves below the authority, with a policy or without one, and one of subordinates.
fn configuration(env: &TestEnv, policy: &str) -> String {
    env.configuration()
        + "[[authority]]\nname = \"bound\"\ntoken = \"factory\"\n"
        + &device_profile("bound", "bound", "90d")
        + policy
        + "[[subordinate_profile]]\nname = \"with-policy\"\n[subordinate_profile.certificate]\n\
           preset = \"intermediate\"\nvalidity = \"2y\"\n"
        + POLICY
}

fn ceremony(env: &TestEnv) -> CommandOutput {
    let file = path(env, "bound.toml", BOUND);
    env.hallmark(&["ceremony", "run", &file])
}

/// `openssl verify -policy_check`, which applies the policies of a chain.
fn judged(env: &TestEnv, leaf: &Holder) -> CommandOutput {
    env.write("root.pem", &env.authority("root"));
    env.write("between.pem", &leaf.chain[0]);
    env.write("leaf.pem", &leaf.certificate);
    // OpenSSL takes no policy for every policy here, so it has to be named.
    let arguments = "verify -x509_strict -policy_check -policy 1.3.6.1.4.1.32473.1 \
                     -CAfile root.pem -untrusted between.pem leaf.pem";
    let mut command = Command::new("openssl");
    CommandOutput::of(
        command
            .args(arguments.split_whitespace())
            .current_dir(env.path("")),
    )
}

/// The certificates of the authority, as OpenSSL prints the newest.
fn shown(env: &TestEnv) -> String {
    let all = env.authority("bound");
    let newest = all.rfind("-----BEGIN").unwrap();
    env.write("shown.pem", &all[newest..]);
    let mut command = Command::new("openssl");
    command.args("x509 -in shown.pem -noout -text".split(' '));
    let output = CommandOutput::of(command.current_dir(env.path("")));
    assert_eq!(output.code, Some(0), "{output:?}");
    output.out
}

fn is_limited(env: &TestEnv) {
    let shown = shown(env);
    for said in [
        "X509v3 Policy Constraints: critical",
        "Require Explicit Policy:0, Inhibit Policy Mapping:200",
        "X509v3 Inhibit Any Policy: critical",
    ] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
}

/// Verifies: an authority that requires a policy is made, and an alarm warns while a profile below
/// it has none; its certificate has the limits, and so has that of its next generation; OpenSSL
/// accepts a leaf with the policy and refuses one without; a subordinate needs the policy, too.
#[test]
fn an_authority_requires_a_policy_below_it() {
    let env = TestEnv::certifying_elsewhere();
    env.configure(&configuration(&env, ""));
    let env = env.started();
    let made = ceremony(&env);
    assert_eq!(made.code, Some(0), "{made:?}");
    let alarm = "verifiers refuse leaves of bound";
    let raised = alarms(&env);
    assert!(raised.contains(alarm), "{raised}");

    env.configure(&configuration(&env, POLICY));
    env.run(&["reload"]);
    is_limited(&env);
    let again = ceremony(&env);
    assert_eq!(again.code, Some(0), "{again:?}");
    let leaf = env.enlist("bound", "press-1");
    let verdict = judged(&env, &leaf);
    assert_eq!(verdict.code, Some(0), "{verdict:?}");
    assert_eq!(alarms(&env), "[]");

    let csr = path(
        &env,
        "below.csr",
        &Request::named("", "below", Some("Below")).csr,
    );
    let days = ["--authority", "bound", "--days", "365", "--profile"];
    let refused = sign(&env, &csr, &[&days[..], &["intermediate"]].concat());
    assert!(refused.error.contains("authority_limited"), "{refused:?}");
    let signed = sign(&env, &csr, &[&days[..], &["with-policy"]].concat());
    assert_eq!(signed.code, Some(0), "{signed:?}");

    start(&env, "bound", "expiry", &[]);
    until("the next generation serves", || {
        let shown = env.json(&["authority", "show", "bound"]);
        (shown[1]["serving"] == true).then_some(())
    });
    is_limited(&env);

    env.configure(&configuration(&env, ""));
    env.run(&["reload"]);
    let raised = alarms(&env);
    assert!(raised.contains(alarm), "{raised}");
    let leaf = env.enlist("bound", "press-2");
    let verdict = judged(&env, &leaf);
    assert!(verdict.error.contains("no explicit policy"), "{verdict:?}");
}
