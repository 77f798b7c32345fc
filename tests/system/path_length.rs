//! Tests rollovers of authorities for which the certificates above leave no path length.

use crate::authority_roll::{comes_to, shown, start};
use crate::elsewhere::Elsewhere;
use crate::external::asked_over;
use crate::process::{CommandOutput, until};
use crate::test_env::TestEnv;

const GATEWAY: &str = r#"
name = "gateway"
[[authority]]
name = "gateway"
external_issuer = true
subject = { common_name = "Gateway 7" }
"#;

const CELL: &str = r#"
name = "cell"
[[authority]]
name = "cell"
issuer = "gateway"
subject = { common_name = "Cell 7" }
validity = "1y"
path_length = 0
"#;

fn ceremony(env: &TestEnv, file: &str) -> CommandOutput {
    let file = env.write("more.toml", file);
    env.hallmark(&["ceremony", "run", file.to_str().unwrap()])
}

fn install(env: &TestEnv, elsewhere: &Elsewhere<'_>, extensions: &str) -> CommandOutput {
    let csr = until("the request is there", || {
        let output = env.hallmark(&["authority", "csr", "gateway"]);
        (output.code == Some(0)).then_some(output.out)
    });
    env.write("gateway.csr", &csr);
    let answer = elsewhere.signs("gateway.csr", extensions, 1800, "root");
    let bundle = env.write("bundle.pem", &answer);
    env.hallmark(&["authority", "install", "gateway", bundle.to_str().unwrap()])
}

/// An authority below a root elsewhere has a certificate without a path length. Its next one, which
/// its issuer has limited to none below, is staged when an authority is made below it. Verifies:
/// once that certificate serves, no rollover of the authority below begins, and the answer says why
/// and what to do; nothing is recorded, and the authority below issues under its old certificate.
#[test]
fn no_rollover_begins_where_no_path_length_is_left() {
    let env = asked_over("\n[policy]\napprove = [\"cut_over\"]\n");
    let elsewhere = Elsewhere::on(&env);
    let made = ceremony(&env, GATEWAY);
    assert_eq!(made.code, Some(0), "{made:?}");
    let installed = install(&env, &elsewhere, "root");
    assert_eq!(installed.code, Some(0), "{installed:?}");
    let roll = start(&env, "gateway", "expiry", &[]);
    let installed = install(&env, &elsewhere, "short");
    assert_eq!(installed.code, Some(0), "{installed:?}");
    until("it waits for an approval", || {
        (shown(&env, &roll)["waits_for_detail"]["code"] == "approval").then_some(())
    });
    let made = ceremony(&env, CELL);
    assert_eq!(made.code, Some(0), "{made:?}");
    env.run(&["roll", "approve", &roll]);
    comes_to(&env, &roll, "draining");

    let rolls = env.count("roll");
    let command = [
        "--json",
        "roll",
        "start",
        "--authority",
        "cell",
        "--reason",
        "expiry",
    ];
    let refused = env.hallmark(&command);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for words in [
        "path_length",
        "no authority fits below gateway",
        "Make an authority below another one",
    ] {
        assert!(refused.error.contains(words), "{words}: {refused:?}");
    }
    assert_eq!(env.count("roll"), rolls);
    assert_eq!(env.count("generation WHERE authority = 'cell'"), 1);
    let leaf = env.enlist("in-cell", "press-1");
    let root = std::fs::read_to_string(env.path("root.pem")).unwrap();
    leaf.is_accepted_by_openssl(&root);
}
