//! Tests a ceremony for which several people must come: the PIN of the token is split among them.

use crate::encrypted_backup::identity;
use crate::runbook_text::Runbook;
use crate::test_env::TestEnv;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The runbook, with two of three custodians. Verifies: before they come, and by one share, nothing
/// is signed; the PIN is never written to a disk; the script has the ceremony's digest; with two
/// shares, of which one is encrypted, the authorities are made.
#[test]
fn a_ceremony_needs_two_of_three_custodians() {
    let mut env = TestEnv::new();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let opened = memory.path().join("pin");
    let opened = opened.to_str().unwrap();
    let configuration = env.configuration();
    let on_disk = env.path("pin").display().to_string();
    assert!(configuration.contains(&on_disk), "the PIN's file");
    env.configure(&configuration.replace(&on_disk, opened));
    let (anna, to_anna) = identity(&env, "anna.txt");
    let (boris, to_boris) = identity(&env, "boris.txt");
    fs::create_dir(env.path("shares")).unwrap();
    let pin = fs::read_to_string(env.path("pin")).unwrap();

    let mut page = Runbook::of("A ceremony with custodians");
    let to = [format!("anna={to_anna}"), format!("boris={to_boris}")];
    let own = [("anna=age1…", to[0].as_str()), ("boris=age1…", &to[1])];
    page.line(&own).text(&env);
    page.text(&env);
    assert!(!env.path("pin").exists(), "the runbook removes it");
    let script = page.text(&env);
    let sum = env.path("ceremony.toml");
    let sum = crate::process::CommandOutput::of(std::process::Command::new("sha256sum").arg(sum));
    assert!(script.contains(&sum.out[..64]), "{script}");
    for share in ["anna.share.age", "boris.share.age", "chen.share"] {
        let file = env.path("shares").join(share);
        let bytes = fs::read(&file).unwrap();
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let has = bytes.windows(pin.len()).any(|it| it == pin.as_bytes());
        assert!(!has, "{share} has the PIN");
    }

    let client = env.client();
    let open = |out: &str, rest: &[&str]| {
        client.hallmark(&[&["custodian", "open", "--out", out], rest].concat())
    };
    let (anna, boris) = (anna.to_str().unwrap(), boris.to_str().unwrap());
    let shares = ["anna.share.age", "chen.share"].map(|it| env.path("shares").join(it));
    let [of_anna, of_chen] = shares.each_ref().map(|it| it.to_str().unwrap());
    for (out, rest, words) in [
        (
            opened,
            &[of_chen][..],
            "1 of 2 shares are here; bring 1 more",
        ),
        (
            opened,
            &[of_chen, of_chen],
            "1 of 2 shares are here; bring 1 more",
        ),
        (opened, &[of_anna, of_chen], "`--identity`"),
        (
            opened,
            &[of_anna, of_chen, "--identity", boris],
            "no identity given",
        ),
        (
            "/usr/hallmark-pin",
            &[of_anna, of_chen, "--identity", anna],
            "on a disk",
        ),
    ] {
        let refused = open(out, rest);
        assert_eq!(refused.code, Some(1), "{words}: {refused:?}");
        assert!(refused.error.contains(words), "{words}: {refused:?}");
    }
    env.start();
    let ceremony = env.path("ceremony.toml");
    let ceremony = ["ceremony", "run", ceremony.to_str().unwrap()];
    assert_eq!(env.hallmark(&ceremony).code, Some(1), "there is no PIN");
    env.stop();

    let own = [("/run/hallmark-pin", opened)];
    page.line(&own).text(&env);
    env.start();
    env.run_ceremony();
    page.line(&own).text(&env);
    assert!(!fs::exists(opened).unwrap(), "the runbook removes it");
    let again = open(opened, &[of_anna, of_chen, "--identity", anna]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(fs::read_to_string(opened).unwrap(), pin.trim_end());
}
