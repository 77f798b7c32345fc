//! Explains a module that finds no token by its environment: modules return `CKR_GENERAL_ERROR`, or
//! no slot, for a file or folder that is missing, and name neither.

use super::fault::Fault;
use hallmark_base::files;
use hallmark_base::fragment::{self, Fragment, PathKind};
use rustix::fs::{Access, access};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

/// The environment variable that names SoftHSM's configuration.
pub(crate) const SOFTHSM_CONF: &str = "SOFTHSM2_CONF";

/// The line of SoftHSM's configuration that names the folder of its objects.
const TOKEN_FOLDER: &str = "directories.tokendir";

/// The longest configuration of SoftHSM.
const SOFTHSM_CONF_BYTES_MAX: u64 = 64 * 1024;

/// Adds to a fault of starting a module what its environment is, and what is wrong with it.
pub(crate) fn explained(fault: Fault, family: &Fragment, module: &Path) -> Fault {
    let found = Environment(&|name| std::env::var_os(name)).report(family, module);
    let reasons: Vec<String> = [fault.reason].into_iter().chain(found).collect();
    Fault {
        class: fault.class,
        reason: reasons.join("; "),
    }
}

/// Returns the folder that SoftHSM's configuration names for objects; `None` if there is none.
pub(crate) fn softhsm_token_folder(conf: &Path) -> io::Result<Option<PathBuf>> {
    let text = files::read_text(conf, SOFTHSM_CONF_BYTES_MAX)?;
    Ok(text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == TOKEN_FOLDER).then(|| PathBuf::from(value.trim()))
    }))
}

/// The variables of the process.
struct Environment<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    /// Describes the variables of all families that are set, because a module may wrap another one;
    /// those of the own family that are not; and the own family's sockets.
    fn report(&self, family: &Fragment, module: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        for other in fragment::names() {
            let Ok(other) = Fragment::shipped(other) else {
                continue;
            };
            let is_own = *other.modules == *family.modules
                || other.modules.iter().any(|it| it.as_path() == module);
            for (name, kind) in &other.paths {
                match (self.0)(name) {
                    Some(value) => lines.push(state(name, &value, *kind)),
                    None if is_own => lines.push(format!("{name} is not set")),
                    None => {}
                }
            }
            if is_own {
                lines.extend(missing_sockets(&other));
            }
        }
        lines
    }
}

fn missing_sockets(family: &Fragment) -> Vec<String> {
    let missing = family.sockets.iter().filter_map(|socket| {
        let error = reach(socket).err()?;
        Some(format!(
            "{} cannot be used ({error}): start the program that listens there",
            socket.display()
        ))
    });
    missing.collect()
}

/// Describes a variable, and what is wrong with the path that it names.
fn state(name: &str, value: &OsStr, kind: PathKind) -> String {
    let path = Path::new(value);
    let unusable = |error: io::Error| Some(format!(", which cannot be used: {error}"));
    let problem = match kind {
        PathKind::Address => address(value).and_then(|it| reach(&it).err().and_then(unusable)),
        _ if !path.is_absolute() => Some(", which is not an absolute path".to_owned()),
        PathKind::Folder => folder(path).err().and_then(unusable),
        PathKind::File if name == SOFTHSM_CONF => softhsm(path).err(),
        PathKind::File => file(path).err().and_then(unusable),
    };
    format!("{name} is {value:?}{}", problem.unwrap_or_default())
}

/// Returns the path of a p11-kit address; `None` for an address that is not a path.
fn address(value: &OsStr) -> Option<PathBuf> {
    value
        .to_str()?
        .strip_prefix("unix:path=")
        .map(PathBuf::from)
}

fn softhsm(conf: &Path) -> Result<(), String> {
    let tokens = file(conf).and_then(|()| softhsm_token_folder(conf));
    let tokens = tokens.map_err(|error| format!(", which cannot be used: {error}"))?;
    let Some(tokens) = tokens else {
        return Err(format!(", which has no {TOKEN_FOLDER}"));
    };
    folder(&tokens).map_err(|error| {
        format!(
            ", and the folder of its {TOKEN_FOLDER}, {:?}, cannot be used: {error}",
            tokens.display()
        )
    })
}

fn file(path: &Path) -> io::Result<()> {
    if folder(path).is_ok() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    files::open(path).map(drop)
}

fn folder(path: &Path) -> io::Result<()> {
    files::open_folder(path).map(drop)
}

/// Fails if there is no socket, or if this user may not connect. It does not connect: the program
/// behind the socket could hang.
fn reach(socket: &Path) -> io::Result<()> {
    Ok(access(socket, Access::WRITE_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;

    /// Returns the report about SoftHSM with this configuration.
    fn report(environment: &[(&str, &str)]) -> String {
        let set: BTreeMap<&str, &str> = environment.iter().copied().collect();
        let family = Fragment::shipped("softhsm2").expect("it ships");
        let environment = |name: &str| set.get(name).map(OsString::from);
        Environment(&environment)
            .report(&family, Path::new("/nowhere.so"))
            .join("; ")
    }

    #[test]
    fn a_wrong_variable_is_named_with_its_path_and_the_reason() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let conf = |name: &str, text: &str| {
            fs::write(path(name), text).expect("writable");
            path(name)
        };
        fs::create_dir(path("tokens")).expect("writable");
        let line = |folder: &str| format!("directories.tokendir = {folder}\n");
        let good = conf("good.conf", &line(&path("tokens")));
        let away = conf("away.conf", &line(&path("away")));
        let bare = conf("bare.conf", "log.level = INFO\n");
        for (value, words) in [
            (&path("missing.conf"), "cannot be used: No such file"),
            (&path("tokens"), "cannot be used: is a directory"),
            (&"relative.conf".to_owned(), "not an absolute path"),
            (&bare, "which has no directories.tokendir"),
            (&away, "/away\", cannot be used: No such file"),
        ] {
            let report = report(&[(SOFTHSM_CONF, value)]);
            assert!(
                report.starts_with(&format!("SOFTHSM2_CONF is {value:?}, ")),
                "{report}"
            );
            assert!(report.contains(words), "{report}");
        }
        assert_eq!(
            report(&[(SOFTHSM_CONF, &good)]),
            format!("SOFTHSM2_CONF is {good:?}")
        );
        assert_eq!(report(&[]), "SOFTHSM2_CONF is not set");
    }

    #[test]
    fn variables_of_another_family_are_named_only_where_they_are_set() {
        let report = report(&[
            (SOFTHSM_CONF, "/"),
            ("P11_KIT_SERVER_ADDRESS", "unix:path=/no/such.sock"),
            ("NSS_CONFIGDIR", "/no/such"),
        ]);
        assert!(
            report.contains("such.sock\", which cannot be used"),
            "{report}"
        );
        assert!(
            report.contains("NSS_CONFIGDIR is \"/no/such\", which"),
            "{report}"
        );
        assert!(!report.contains("TPM2_PKCS11_STORE"), "{report}");
    }

    #[test]
    fn a_socket_of_the_family_that_is_not_there_is_named() {
        let family = Fragment {
            sockets: vec!["/no/such.socket".into()],
            ..Fragment::unknown_family(Path::new("/nowhere.so"))
        };
        let lines = missing_sockets(&family);
        assert!(
            lines.concat().contains("/no/such.socket cannot be used"),
            "{lines:?}"
        );
    }
}
