//! Tests authorities that were adopted with keys of other kinds: RSA above, Ed25519 below. Each is
//! rolled for expiry to a key of the same kind, and OpenSSL accepts leaves below both generations.

use crate::authority_roll::{begun, comes_to, start};
use crate::device::is_assigned;
use crate::old_authority::{MADE_HERE, make};
use crate::process::until;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use std::fs;

/// A root with an RSA key and an intermediate with an Ed25519 key, both imported into the token.
fn begun_with_rsa_and_ed25519() -> TestEnv {
    let env = TestEnv::new();
    let kinds = ["RSA -pkeyopt rsa_keygen_bits:3072", "ED25519"];
    make(&env, "/O=Works", kinds);
    let [root, plant] = ["root.pem", "plant.pem"].map(|it| env.path(it));
    env.write(
        "ceremony.toml",
        &format!(
            "name = \"takeover\"\n[[authority]]\nname = \"root\"\nkey = \"pkcs11:id=%01\"\n\
             certificate = {root:?}\n[[authority]]\nname = \"plant\"\nissuer = \"root\"\n\
             key = \"pkcs11:id=%02\"\ncertificate = {plant:?}\n{MADE_HERE}"
        ),
    );
    begun(env)
}

fn issue(env: &TestEnv, id: &str) -> Holder {
    let request = Request::device(id);
    until("a leaf is issued", || env.try_to_issue(&request))
}

/// Verifies: both are adopted, issue, and are rolled for expiry; the successor has a key of the
/// same kind, and DPS and OpenSSL accept leaves below each generation.
#[test]
fn adopted_keys_of_other_kinds_are_rolled_to_the_same_kind() {
    let env = begun_with_rsa_and_ed25519();
    let root = fs::read_to_string(env.path("root.pem")).unwrap();
    let old = issue(&env, "press-1");
    env.wait_in_sync();
    old.is_accepted_by_openssl(&root);
    is_assigned(&env.emulator, &old);
    for (authority, kind) in [("plant", "ed25519"), ("root", "rsa3072")] {
        let roll = start(&env, authority, "expiry", &[]);
        comes_to(&env, &roll, "draining");
        env.wait_in_sync();
        let generations = env.json(&["authority", "show", authority]);
        for generation in generations.as_array().unwrap() {
            assert_eq!(generation["key_type"], kind, "{generation}");
        }
        let new = issue(&env, &format!("press-below-{authority}"));
        env.wait_in_sync();
        new.is_accepted_by_openssl(&env.authority("root"));
        is_assigned(&env.emulator, &new);
    }
    is_assigned(&env.emulator, &old);
    old.is_accepted_by_openssl(&root);
}
