//! Tests renewed certificates of authorities whose issuer is elsewhere: which are refused, and that
//! a rollover is the way where a provisioning service holds the present one.

use crate::elsewhere::Elsewhere;
use crate::external::{asked, ceremony, csr, install};
use crate::process::until;
use crate::test_env::TestEnv;

/// An authority that is certified for 1800 days.
fn certified(env: &TestEnv) -> Elsewhere<'_> {
    let elsewhere = Elsewhere::on(env);
    ceremony(env);
    csr(env);
    let answer = elsewhere.signs("gateway.csr", "below", 1800, "root");
    let output = install(env, &answer);
    assert_eq!(output.code, Some(0), "{output:?}");
    elsewhere
}

/// The digest of the authority's certificate.
fn present(env: &TestEnv) -> String {
    let shown = env.json(&["authority", "show", "gateway"]);
    shown[0]["thumbprint"].as_str().unwrap().to_owned()
}

/// Verifies: a certificate for the same key is refused with its own code, and nothing changes, if
/// it ends no later, if what the authority has signed would not be verified by it, while the
/// authority is blocked, and while a group of the service holds the present one; then it is
/// installed, and neither certificate can be revoked by itself.
#[test]
fn a_renewal_that_does_not_fit_is_not_installed() {
    let env = asked();
    let elsewhere = certified(&env);
    let first = present(&env);
    let sign = |extensions, days| elsewhere.signs("gateway.csr", extensions, days, "root");
    elsewhere.openssl("req -in gateway.csr -noout -pubkey -out gateway.pub");
    elsewhere.openssl(
        "x509 -new -force_pubkey gateway.pub -subj /CN=Gateway-8 -CA root.pem -CAkey root.key \
         -days 2000 -extfile openssl.cnf -extensions below -out named.pem",
    );
    let other_name = elsewhere.read("named.pem") + &elsewhere.read("root.pem");
    let refused = |code: &str, bundle: &str| {
        let output = install(&env, bundle);
        assert_eq!(output.code, Some(1), "{code}: {output:?}");
        assert!(output.error.contains(code), "{code}: {output:?}");
        assert_eq!(present(&env), first, "{code}");
    };
    refused("install_not_later", &sign("below", 1700));
    refused("install_other_name", &other_name);
    refused("install_key_identifier", &sign("other-identifier", 2000));
    refused("install_path_length", &sign("short", 2000));
    refused("install_limits", &sign("servers", 2000));
    refused("authority_not_waiting", &elsewhere.read("root.pem"));

    let good = sign("below", 2000);
    env.run(&["authority", "block", "gateway", "--generation", "1"]);
    refused("issuer_revoked", &good);
    env.run(&["authority", "unblock", "gateway", "--generation", "1"]);
    env.add_group("gateway", "gateway");
    env.wait_in_sync();
    refused("install_enrolled", &good);
    env.run(&["enrollment", "remove", "--group", "gateway"]);
    until("the group is gone", || {
        (env.count("enrollment WHERE name = 'gateway'") == 0).then_some(())
    });

    let output = install(&env, &good);
    assert_eq!(output.code, Some(0), "{output:?}");
    let second = present(&env);
    assert_ne!(second, first);
    for sha256 in [&first, &second] {
        let output = env.hallmark(&["certificate", "revoke", sha256, "--reason", "superseded"]);
        assert!(
            output.error.contains("certificate_of_authority"),
            "{output:?}"
        );
        let shown = env.json(&["certificate", "show", sha256]);
        assert_eq!(shown["subject"], "Gateway 7", "{shown:#}");
    }
}
