//! Tests `hallmarkd check`, which reports errors before the daemon is started, and changes nothing.

use crate::process::{CommandOutput, until};
use crate::test_env::{HALLMARK, TestEnv};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Asserts that `hallmarkd check` fails and reports all of this.
fn is_wrong(output: &CommandOutput, words: &[&str]) {
    assert_eq!(output.code, Some(1), "{output:?}");
    for word in words {
        assert!(
            output.out.contains(word),
            "not a word of {word:?}: {output:?}"
        );
    }
}

#[test]
fn check_explains_a_configuration_that_cannot_be() {
    let env = TestEnv::new();
    let good = env.configuration();
    let output = env.check();
    assert_eq!(output.code, Some(0), "{output:?}");
    for (said, instead, words) in [
        (
            "[listen]",
            "[listen]\nhtps = true",
            &["hallmark.toml", "htps"][..],
        ),
        (
            "authority = \"line-1\"",
            "authority = \"line-2\"",
            &["line-2", "no such [[authority]]"],
        ),
        (
            "profile = \"server\"",
            "profile = \"station\"",
            &["station", "role \"server\""],
        ),
        (
            "name = \"plant\"",
            "name = \"root\"",
            &["two [[authority]]", "root"],
        ),
        (
            "token = \"factory\"",
            "token = \"other\"",
            &["other", "no such [[token]]"],
        ),
        (
            "verified = [\"root\"]",
            "verified = [\"rot\"]",
            &["rot", "no such [[authority]]"],
        ),
    ] {
        env.configure(&good.replacen(said, instead, 1));
        is_wrong(
            &env.check(),
            &[&["failed          configuration"], words].concat(),
        );
    }
}

#[test]
fn check_says_that_the_token_is_missing() {
    let env = TestEnv::new();
    env.configure(
        &env.configuration()
            .replace("label = \"factory\"", "label = \"elsewhere\""),
    );
    is_wrong(
        &env.check(),
        &["failed          tokens           factory", "elsewhere"],
    );
}

/// A wrong PIN costs one try: `check`, `check` and `serve` remember the refusal.
#[test]
fn check_tries_a_wrong_pin_once() {
    let mut env = TestEnv::new();
    let pin = fs::read_to_string(env.path("pin")).unwrap();
    env.write_secret("pin", "not the pin");
    is_wrong(
        &env.check(),
        &[
            "failed          tokens           factory",
            "parked",
            "the PIN was refused",
        ],
    );
    let parked = || {
        let names = fs::read_dir(env.path("state")).unwrap();
        let mut names = names.map(|it| it.unwrap().path());
        names.find(|path| path.to_string_lossy().contains("park"))
    };
    let park_file = parked().expect("the refusal is remembered");
    // A second try would be remembered with another salt.
    let refusal = fs::read(&park_file).unwrap();
    is_wrong(&env.check(), &["parked"]);
    env.start();
    token_is(&env, "parked");
    assert_eq!(fs::read(&park_file).unwrap(), refusal, "it was tried again");
    env.write_secret("pin", &pin);
    token_is(&env, "ready");
    env.run_ceremony();
}

fn token_is(env: &TestEnv, state: &str) {
    until(state, || {
        let status = env.json(&["status"]);
        (status["tokens"]["factory"]["state"] == state).then_some(())
    });
}

/// The database or the token is another plant's: the chain is whole, and the key is missing.
#[test]
fn check_says_which_authority_has_no_key() {
    let mut env = TestEnv::running();
    env.stop();
    let output = env.check();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(
        output
            .out
            .contains("ok              keys             authority line-1"),
        "{output:?}"
    );

    fs::rename(env.path("tokens"), env.path("tokens.ours")).unwrap();
    fs::create_dir(env.path("tokens")).unwrap();
    env.make_token("factory");
    is_wrong(
        &env.check(),
        &[
            "failed          keys             authority root",
            "failed          keys             authority line-1",
        ],
    );
    fs::remove_dir_all(env.path("tokens")).unwrap();
    fs::rename(env.path("tokens.ours"), env.path("tokens")).unwrap();
}

/// In the database, an authority names an issuer that did not sign it.
#[test]
fn check_says_that_a_chain_does_not_fit() {
    let mut env = TestEnv::running();
    env.stop();
    let honest = env.path("honest.db");
    fs::copy(env.database(), &honest).unwrap();
    let connection = rusqlite::Connection::open(env.database()).unwrap();
    connection
        .execute_batch(
            "UPDATE generation SET parent = (SELECT id FROM generation WHERE authority = 'root')
             WHERE authority = 'line-1'",
        )
        .unwrap();
    drop(connection);
    is_wrong(
        &env.check(),
        &[
            "failed          keys             hierarchy",
            "line-1",
            "its parent's key did not sign it",
        ],
    );
    fs::copy(honest, env.database()).unwrap();
}

/// `[listen] names` and socket paths that would fail later: `check` refuses each, and so does a
/// reload, which changes nothing.
#[test]
fn names_and_sockets_that_cannot_be_are_refused_before_they_matter() {
    let env = TestEnv::running();
    let good = env.configuration();
    let names = |said: &str| {
        let (from, to) = (
            "\"localhost\", \"127.0.0.1\"",
            format!("\"localhost\", {said}"),
        );
        good.replacen(from, &to, 1)
    };
    let many: Vec<String> = (0..32).map(|it| format!("\"a{it}.example\"")).collect();
    let long = env.path(&"s".repeat(108)).display().to_string();
    let mut cases: Vec<(String, &str)> = [
        ("\"plant_7.works.example\"", "underscore"),
        ("\"*.works.example\"", "wildcard"),
        ("\"host.\"", "final dot"),
        ("\"müller.example\"", "xn--"),
        ("\"\"", "is empty"),
        ("\"https://works.example\"", "is a URL"),
        ("\"works.example:8443\"", "without a port"),
        ("\"[::1]\"", "without brackets"),
        ("\"LOCALHOST\"", "twice"),
        (&many.join(", "), "a certificate takes 32"),
    ]
    .map(|(said, reason)| (names(said), reason))
    .into();
    for setting in ["runtime_dir", "state_dir"] {
        let said = format!("{setting} = {long:?}\n{good}");
        let state = format!("state_dir = \"{}/state\"\n", env.path("").display());
        let state = state.replace("//", "/");
        let said = match setting {
            "state_dir" => said.replacen(&state, "", 1),
            _ => said,
        };
        cases.push((said, "bytes and Linux allows 107"));
    }
    let admin = format!("[listen]\nadmin = {long:?}");
    cases.push((
        good.replacen("[listen]", &admin, 1),
        "shorten [listen] admin",
    ));
    for (said, reason) in cases {
        assert_ne!(said, good);
        env.configure(&said);
        is_wrong(&env.check(), &["failed          configuration", reason]);
        let output = env.hallmark(&["reload"]);
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.error.contains(reason), "{reason}: {output:?}");
    }
    env.configure(&good);
    let output = CommandOutput::of(
        Command::new(HALLMARK)
            .args(["status", "--admin-socket"])
            .arg(&long),
    );
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(
        output.error.contains("shorten --admin-socket"),
        "{output:?}"
    );
    env.wait_ready();
}

/// Unusual names that are valid: the listener has a certificate for each of them.
#[test]
fn every_accepted_name_is_in_the_certificate() {
    let env = TestEnv::running();
    let long = format!("{}.{}.works.example", "a".repeat(63), "b".repeat(40));
    let (from, names) = (
        "\"localhost\", \"127.0.0.1\"",
        format!("{long:?}, \"localhost\", \"127.0.0.1\", \"xn--mller-kva.example\", \"::1\""),
    );
    for said in [
        names.as_str(),
        "\"2001:db8::\", \"localhost\", \"127.0.0.1\"",
    ] {
        env.configure(&env.configuration().replacen(from, said, 1));
        assert_eq!(env.check().code, Some(0));
        env.run(&["reload"]);
        let wanted = said.split(',').next().unwrap().trim().trim_matches('"');
        until("the listener has a certificate with the new name", || {
            let pem = fs::read(env.path("state/tls/server.pem")).ok()?;
            let file = env.path("seen.pem");
            fs::write(&file, pem).ok()?;
            let text = CommandOutput::of(
                Command::new("openssl")
                    .args(["x509", "-noout", "-ext", "subjectAltName", "-in"])
                    .arg(&file),
            );
            let shown = wanted.replace("2001:db8::", "2001:DB8:0:0:0:0:0:0");
            text.out.contains(&shown).then_some(())
        });
        assert_eq!(env.stranger().get("/healthz").status, 200);
    }
}

/// Every file below a folder: name, mode, owner, and content.
fn contents(folder: &Path) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(contents(&path));
        }
        let content = metadata.is_file().then(|| fs::read(&path).unwrap());
        let content = content.unwrap_or_default();
        found.insert(path, (metadata.mode(), metadata.uid(), content));
    }
    found
}

/// `check` judges folders, database, backups, keys and secrets, and says what to change.
#[test]
fn check_finds_what_other_users_could_read() {
    let mut env = TestEnv::running();
    env.run(&["backup", "create"]);
    env.stop();
    let output = env.check();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.out.contains("ok              files"), "{output:?}");
    let backup = fs::read_dir(env.path("state/backup")).unwrap().next();
    let backup = backup.unwrap().unwrap().path();
    for (path, bad) in [
        (env.path("state"), 0o755),
        (env.path("state"), 0o710),
        (env.path("state"), 0o1777),
        (env.database(), 0o644),
        (env.database(), 0o660),
        (env.path("state/tls/server.key"), 0o640),
        (backup, 0o604),
        (env.path("pin"), 0o644),
        (env.path("connection-string"), 0o644),
        (env.path("hub-connection-string"), 0o604),
        (env.path("arm-token"), 0o666),
    ] {
        let state = env.path("state");
        fs::set_permissions(&state, Permissions::from_mode(0o711)).unwrap();
        let good = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, Permissions::from_mode(bad)).unwrap();
        let mode = format!("mode {bad:04o}");
        let path_text = path.display().to_string();
        is_wrong(
            &env.check(),
            &["failed          files", &path_text, &mode, "chmod"],
        );
        fs::set_permissions(&path, good).unwrap();
        fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    }
    // The advice must not change the target of a link.
    let planted = env.path("state/tls/planted");
    std::os::unix::fs::symlink(env.path("ceremony.toml"), &planted).unwrap();
    let output = env.check();
    is_wrong(
        &output,
        &["failed          files", "planted is a symbolic link"],
    );
    assert!(!output.out.contains("chmod"), "{output:?}");
    fs::remove_file(planted).unwrap();
    std::os::unix::fs::chown(env.database(), Some(65_534), None).unwrap();
    is_wrong(
        &env.check(),
        &["failed          files", "belongs to user 65534"],
    );
    // SQLite gives its logs to the owner of the database when root opens them.
    for suffix in ["", "-wal", "-shm"] {
        let file = env.path(&format!("state/hallmark.db{suffix}"));
        if file.exists() {
            std::os::unix::fs::chown(file, Some(0), None).unwrap();
        }
    }
    let output = env.check();
    assert_eq!(output.code, Some(0), "{output:?}");
}

/// `check` changes no byte of the state: after a stop, after a crash, and with a database of
/// another version.
#[test]
fn check_changes_nothing() {
    let mut env = TestEnv::running();
    let state = env.path("state");
    let is_left_alone = |env: &TestEnv| {
        let before = contents(&state);
        let output = env.check();
        assert_eq!(contents(&state), before, "{output:?}");
        output
    };
    env.kill();
    until("the worker ends with it", || {
        env.worker().is_none().then_some(())
    });
    let output = is_left_alone(&env);
    assert!(
        output
            .out
            .contains("ok              keys             authority line-1"),
        "{output:?}"
    );
    env.start();
    env.wait_ready();
    env.stop();
    let output = is_left_alone(&env);
    assert!(
        output
            .out
            .contains("ok              keys             authority line-1"),
        "{output:?}"
    );

    let version = |number: i64| {
        let connection = rusqlite::Connection::open(env.database()).unwrap();
        connection
            .pragma_update(None, "user_version", number)
            .unwrap();
        connection
            .pragma_query_value(None, "journal_mode", |_| Ok(()))
            .unwrap();
    };
    version(99);
    is_wrong(
        &is_left_alone(&env),
        &[
            "failed          keys             hierarchy",
            "from a newer version",
        ],
    );
    version(0);
    let output = is_left_alone(&env);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.out.contains("from an earlier version"), "{output:?}");
    version(1);
    fs::write(
        env.path("hallmark.db.kept"),
        fs::read(env.database()).unwrap(),
    )
    .unwrap();
    fs::write(
        env.database(),
        "no database at all, and long enough to be looked at",
    )
    .unwrap();
    is_wrong(
        &is_left_alone(&env),
        &["failed          keys             hierarchy", "damaged"],
    );
    fs::rename(env.path("hallmark.db.kept"), env.database()).unwrap();
}
