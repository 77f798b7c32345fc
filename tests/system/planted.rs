//! Tests programs that root runs over folders of the daemon's user and of the worker's. These users
//! have planted symbolic links, dangling links, hard links and FIFOs at the names that the programs
//! open. No file of root is changed, handed over or copied to where they read it, and no program
//! waits.

use crate::process::CommandOutput;
use crate::request::Request;
use crate::test_env::{HALLMARK, HALLMARKD, MODULE, TestEnv};
use hallmarkd::ca::backup::compact;
use hallmarkd::unix_seconds::UnixSeconds;
use rustix::fs::{CWD, Mode, mkfifoat};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Users of the machine, by numbers without a name.
const DAEMON: u32 = 61_234;
const WORKER: u32 = 61_235;
/// Content that only root may read.
const VICTIM: &str = "root's own\n";
/// SQLite's logs of the database and of what a restore prepares.
const OF_RESTORE: [&str; 9] = [
    "lock",
    "hallmark.db",
    "hallmark.db-wal",
    "hallmark.db-shm",
    "hallmark.db-journal",
    "hallmark.db.restored",
    "hallmark.db.restored-wal",
    "hallmark.db.restored-shm",
    "hallmark.db.restored-journal",
];
/// A worker's own files.
const OF_WORKER: [&str; 4] = [
    "token-factory.login.lock",
    "token-factory.parked",
    "token-factory.parked.new",
    "token-factory.lock",
];

#[derive(Clone, Copy, Debug)]
enum Plant {
    Link,
    Dangling,
    HardLink,
    Fifo,
}

const PLANTS: [Plant; 4] = [Plant::Link, Plant::Dangling, Plant::HardLink, Plant::Fifo];

struct Scene {
    env: TestEnv,
    /// The name of a backup in `state/backup`; a copy of it is root's, in `kept`.
    backup: String,
}

impl Scene {
    /// A state folder of the daemon's user, with a database and a backup; a folder of the worker's
    /// user with the token. Copies of both are kept.
    fn set() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this story is about root"
        );
        let env = TestEnv::new();
        let folder = env.path("token-state").display().to_string();
        env.configure(&format!(
            "token_state_dir = {folder:?}\n{}",
            env.configuration()
        ));
        let mut env = env.started();
        env.station().obtain(&Request::device("press-1"));
        let made: serde_json::Value = env.json(&["backup", "create"]);
        let file = PathBuf::from(made["file"].as_str().unwrap());
        env.stop();
        for name in ["kept", "roots", "saved"] {
            fs::create_dir(env.path(name)).unwrap();
        }
        for extension in ["db", "json"] {
            let from = file.with_extension(extension);
            fs::copy(&from, env.path("kept").join(from.file_name().unwrap())).unwrap();
        }
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        // Users reach their folders, and see no others.
        fs::set_permissions(env.path(""), Permissions::from_mode(0o711)).unwrap();
        for (name, user) in [
            ("state", DAEMON),
            ("token-state", WORKER),
            ("tokens", WORKER),
        ] {
            let owner = format!("{user}:{user}");
            does(
                Command::new("chown")
                    .arg("-R")
                    .arg(owner)
                    .arg(env.path(name)),
            );
            let to = env.path("saved").join(name);
            does(Command::new("cp").arg("-a").arg(env.path(name)).arg(to));
        }
        fs::write(env.path("roots/victim"), VICTIM).unwrap();
        fs::set_permissions(env.path("roots/victim"), Permissions::from_mode(0o600)).unwrap();
        Self { env, backup: name }
    }

    /// Restores everything, without plants.
    fn reset(&self) {
        for name in ["state", "token-state", "tokens"] {
            fs::remove_dir_all(self.env.path(name)).unwrap();
            let from = self.env.path("saved").join(name);
            does(
                Command::new("cp")
                    .arg("-a")
                    .arg(from)
                    .arg(self.env.path(name)),
            );
        }
        let _ = fs::remove_file(self.env.path("entra.pem"));
    }

    /// Plants at `name` in the environment's folder, in place of what is there.
    fn plant(&self, name: &str, plant: Plant) {
        let (path, victim) = (self.env.path(name), self.env.path("roots/victim"));
        let _ = fs::remove_file(&path);
        let user = fs::metadata(path.parent().unwrap()).unwrap().uid();
        match plant {
            Plant::Link => symlink(victim, &path).unwrap(),
            Plant::Dangling => symlink(self.env.path("roots/new"), &path).unwrap(),
            Plant::HardLink => return fs::hard_link(victim, &path).unwrap(),
            Plant::Fifo => mkfifoat(CWD, &path, Mode::from_raw_mode(0o666)).unwrap(),
        }
        lchown(&path, Some(user), Some(user)).unwrap();
    }

    /// Asserts that root's files are unchanged, and that no user got a copy of them.
    fn is_untouched(&self, what: &str) {
        let victim = self.env.path("roots/victim");
        let found = fs::metadata(&victim).unwrap();
        let is = (found.uid(), found.gid(), found.mode() & 0o7777);
        assert_eq!(is, (0, 0, 0o600), "{what}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), VICTIM, "{what}");
        assert!(
            !self.env.path("roots/new").exists(),
            "{what}: a file was made"
        );
        for folder in ["state", "token-state", "tokens"] {
            self.holds_no_copy(&self.env.path(folder), what);
        }
    }

    fn holds_no_copy(&self, folder: &Path, what: &str) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            if found.is_dir() {
                self.holds_no_copy(&path, what);
            } else if found.is_file() && found.nlink() == 1 {
                let text = fs::read(&path).unwrap();
                let copied = text.windows(VICTIM.len()).any(|it| it == VICTIM.as_bytes());
                assert!(!copied, "{what}: {} has a copy", path.display());
            }
        }
    }

    /// Runs a program as root; it must end by itself.
    fn run(&self, program: &str, arguments: &[&str]) -> CommandOutput {
        let mut command = Command::new("timeout");
        command.arg("60").arg(program).args(arguments);
        command.env_remove("CREDENTIALS_DIRECTORY");
        command.env("SOFTHSM2_CONF", self.env.path("softhsm2.conf"));
        let output = CommandOutput::of(&mut command);
        assert_ne!(output.code, Some(124), "{arguments:?} waits: {output:?}");
        output
    }

    /// Runs a program with each of `plants` at each of `names` in turn.
    fn try_each(&self, names: &[String], plants: &[Plant], run: &dyn Fn() -> CommandOutput) {
        for name in names {
            for plant in plants {
                self.reset();
                self.plant(name, *plant);
                let output = run();
                let what = format!("{plant:?} at {name}: {output:?}");
                self.is_untouched(&what);
                let said = output.error.len() + output.out.len();
                assert!(output.code == Some(0) || said > 0, "{what}");
            }
        }
        self.reset();
    }

    fn restore(&self) -> CommandOutput {
        self.restore_from(&self.env.path("kept").join(&self.backup))
    }

    fn restore_from(&self, file: &Path) -> CommandOutput {
        let configuration = self.env.path("hallmark.toml");
        let rest = [text(file), "--config", text(&configuration), "--yes"];
        self.run(HALLMARK, &[&["backup", "restore"][..], &rest].concat())
    }

    fn verify(&self) -> CommandOutput {
        let file = self.env.path("state/backup").join(&self.backup);
        self.run(HALLMARK, &["backup", "verify", text(&file)])
    }

    fn check(&self) -> CommandOutput {
        let configuration = self.env.path("hallmark.toml");
        self.run(HALLMARKD, &["check", "--config", text(&configuration)])
    }

    fn with_token(&self, program: &str, rest: [&str; 2]) -> CommandOutput {
        let configuration = self.env.path("hallmark.toml");
        let label = ["--token", "factory", "--label", "dps-1"];
        let config = ["--config", text(&configuration)];
        self.run(
            HALLMARKD,
            &[&[program][..], &config, &label, &rest].concat(),
        )
    }

    fn import_secret(&self) -> CommandOutput {
        let file = self.env.path("connection-string");
        self.with_token("import-secret", ["--file", text(&file)])
    }

    fn make_credential_key(&self) -> CommandOutput {
        let _ = fs::remove_file(self.env.path("entra.pem"));
        let out = self.env.path("entra.pem");
        self.with_token("make-credential-key", ["--out", text(&out)])
    }

    fn init_token(&self) -> CommandOutput {
        let (pin, so_pin) = (self.env.path("tokens/pin"), self.env.path("tokens/so-pin"));
        self.run(
            HALLMARKD,
            &[
                "init-token",
                "--module",
                MODULE,
                "--label",
                "second",
                "--pin-file",
                text(&pin),
                "--so-pin-file",
                text(&so_pin),
            ],
        )
    }

    /// Files of SoftHSM's token, below the environment's folder.
    fn of_softhsm(&self) -> Vec<String> {
        let token = fs::read_dir(self.env.path("tokens"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let token = token.file_name().into_string().unwrap();
        let files = fs::read_dir(self.env.path("tokens").join(&token)).unwrap();
        let names = files.map(|it| it.unwrap().file_name().into_string().unwrap());
        names.map(|name| format!("tokens/{token}/{name}")).collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn does(command: &mut Command) {
    let output = CommandOutput::of(command);
    assert_eq!(output.code, Some(0), "{command:?}: {output:?}");
}

fn below(folder: &str, names: &[&str]) -> Vec<String> {
    names.iter().map(|it| format!("{folder}/{it}")).collect()
}

fn all_belong_to(folder: &Path, user: u32) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!(found.uid(), user, "{}", path.display());
        if found.is_dir() {
            all_belong_to(&path, user);
        }
    }
}

/// Without plants every program does its work as root, and the users' files stay theirs.
#[test]
fn root_works_in_other_users_folders_with_their_rights() {
    let scene = Scene::set();
    let programs: [(&str, &dyn Fn() -> CommandOutput); 6] = [
        ("verify", &|| scene.verify()),
        ("restore", &|| scene.restore()),
        ("check", &|| scene.check()),
        ("import-secret", &|| scene.import_secret()),
        ("init-token", &|| scene.init_token()),
        ("make-credential-key", &|| {
            scene.reset();
            scene.make_credential_key()
        }),
    ];
    for (name, run) in programs {
        let output = run();
        assert_eq!(output.code, Some(0), "{name}: {output:?}");
        all_belong_to(&scene.env.path("state"), DAEMON);
        for folder in ["token-state", "tokens"] {
            all_belong_to(&scene.env.path(folder), WORKER);
        }
    }
}

#[test]
fn a_restore_follows_no_link() {
    let scene = Scene::set();
    scene.try_each(&below("state", &OF_RESTORE), &PLANTS, &|| scene.restore());
}

/// A restore follows no link at the backup of the daemon's user, nor in a folder on the way.
#[test]
fn a_backup_in_another_users_folder_is_no_link() {
    let scene = Scene::set();
    let stem = Path::new(&scene.backup).file_stem().unwrap();
    let named = |it: &str| format!("state/backup/{}.{it}", stem.display());
    let names = ["db", "json", "db-wal", "db-journal"].map(named);
    scene.try_each(&names, &PLANTS, &|| scene.verify());
    scene.try_each(&names[..2], &PLANTS, &|| {
        let file = scene.env.path("state/backup").join(&scene.backup);
        scene.restore_from(&file)
    });
    let folder = scene.env.path("state/backup");
    fs::rename(&folder, scene.env.path("roots/backup")).unwrap();
    symlink(scene.env.path("roots/backup"), &folder).unwrap();
    lchown(&folder, Some(DAEMON), Some(DAEMON)).unwrap();
    let output = scene.verify();
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.error.contains("symbolic link"), "{output:?}");
}

#[test]
fn a_worker_that_root_starts_follows_no_link() {
    let scene = Scene::set();
    let names = below("token-state", &OF_WORKER);
    scene.try_each(&names[..2], &PLANTS, &|| scene.check());
    scene.try_each(&names[2..], &[Plant::Link], &|| scene.check());
}

#[test]
fn commands_for_keys_and_the_database_follow_no_link() {
    let scene = Scene::set();
    let lock = below("token-state", &OF_WORKER[..1]);
    scene.try_each(&lock, &[Plant::Link], &|| scene.import_secret());
    scene.try_each(&lock, &[Plant::Link], &|| scene.make_credential_key());
    let database = below("state", &OF_RESTORE[..5]);
    scene.try_each(&database, &[Plant::Link], &|| scene.check());
    scene.try_each(&database[4..], &[Plant::Fifo], &|| scene.check());
    let pins = below("tokens", &["pin", "so-pin"]);
    scene.try_each(&pins, &PLANTS, &|| scene.init_token());
}

/// A module opens any path: links are at all of its files at once.
#[test]
fn a_module_that_root_loads_follows_no_link() {
    let scene = Scene::set();
    let tries: [(Plant, &dyn Fn() -> CommandOutput); 3] = [
        (Plant::Link, &|| scene.check()),
        (Plant::HardLink, &|| scene.import_secret()),
        (Plant::Link, &|| scene.init_token()),
    ];
    for (plant, run) in tries {
        for name in scene.of_softhsm() {
            scene.plant(&name, plant);
        }
        let output = run();
        scene.is_untouched(&format!("{plant:?}: {output:?}"));
        scene.reset();
    }
}

/// A backup is copied into a folder that another user can write, where links wait at its names.
#[test]
fn a_backup_that_root_copies_elsewhere_follows_no_link() {
    let env = TestEnv::running();
    let (elsewhere, victim) = (env.path("elsewhere"), env.path("victim"));
    fs::create_dir(&elsewhere).unwrap();
    chown(&elsewhere, Some(DAEMON), Some(DAEMON)).unwrap();
    fs::write(&victim, VICTIM).unwrap();
    let now = SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs()
        .cast_signed();
    for at in now..now + 120 {
        for extension in ["db", "json", "db.new", "json.new"] {
            let name = format!("hallmark-{}.{extension}", compact(UnixSeconds::new(at)));
            let link = elsewhere.join(name);
            symlink(&victim, &link).unwrap();
            lchown(&link, Some(DAEMON), Some(DAEMON)).unwrap();
        }
    }
    let output = env.hallmark(&["backup", "create", "--to", text(&elsewhere)]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), VICTIM);
    let files = fs::read_dir(&elsewhere)
        .unwrap()
        .map(|it| it.unwrap().path());
    let files = files.filter(|it| fs::symlink_metadata(it).unwrap().is_file());
    assert_eq!(files.count(), 2, "the copy and its manifest are files");
}
