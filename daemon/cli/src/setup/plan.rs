//! From answers to files: what setup will write, store and start, decided before anything is
//! touched.
//!
//! Pure: it reads no file and asks nobody. It never holds a secret, only where each comes from.

use super::answers::{Answers, CredentialStore, Enrollment, TPM_DEVICE, TokenKind};
use super::document::{authorities, ceremony, configuration};
use std::path::{Path, PathBuf};

/// The configuration.
pub const CONFIGURATION: &str = "/etc/hallmark/hallmark.toml";
/// What the ceremony makes.
pub const CEREMONY: &str = "/etc/hallmark/ceremony.toml";
/// Where the ceremony's transcript goes unless somebody says: root's, and left by a purge.
const TRANSCRIPT: &str = "/var/lib/hallmark-ceremony";
/// The workers' state.
pub(super) const TOKEN_STATE: &str = "/var/lib/hallmark-token";
/// The socket over which `hallmark` asks.
pub(super) const ADMIN_SOCKET: &str = "/run/hallmark/admin.sock";
/// Where drop-ins of units go.
const UNITS: &str = "/etc/systemd/system";
/// The drop-ins of token families, as the package brings them.
const FAMILIES: &str = "/usr/share/hallmark/token-families";

/// The credentials of the provisioning service's planes.
pub(super) const DPS_CREDENTIAL: &str = "dps-connection-string";
pub(super) const ARM_CREDENTIAL: &str = "arm-token";
pub(super) const HUB_CREDENTIAL: &str = "hub-connection-string";

/// Everything that setup does to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Files, in the order in which they are written.
    pub files: Vec<PlannedFile>,
    /// Symbolic links: where, and to what.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// The token, where setup makes it: its configuration of SoftHSM, and its folder.
    pub new_token: Option<NewToken>,
    /// The token's name.
    pub token: String,
    /// Secrets.
    pub credentials: Vec<PlannedCredential>,
    /// How they are kept.
    pub store: CredentialStore,
    /// Units that are enabled and started.
    pub units: Vec<String>,
    /// The authorities that the ceremony makes.
    pub authorities: Vec<String>,
    /// Where the ceremony's transcript goes.
    pub transcript: PathBuf,
    /// The group that is enrolled, and its authority.
    pub group: Option<String>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// Where.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// A SoftHSM token to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// Its label.
    pub label: String,
    /// What `SOFTHSM2_CONF` names.
    pub configuration: PathBuf,
    /// Its folder, the workers' own.
    pub folder: PathBuf,
}

/// One secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCredential {
    /// The credential's name.
    pub name: String,
    /// What somebody is asked for.
    pub what: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Whom systemd hands it to.
    pub holder: Holder,
}

/// Who gets a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The token's worker.
    Worker,
    /// The daemon.
    Daemon,
    /// Nobody: it is kept for a bad day.
    Nobody,
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was made with the token, in this file of the token's folder.
    NewToken(PathBuf),
    /// Random text, made when it is stored.
    Random,
    /// A file of the operator's.
    File(PathBuf),
    /// Somebody types it.
    Typed,
}

/// Plans; the refusal says which answer is missing.
pub fn plan(answers: &Answers, store: CredentialStore) -> Result<Plan, String> {
    let token = &answers.token.name;
    let credentials = credentials(answers);
    let loads = |holder| loads(&credentials, holder, store);
    let mut files = vec![file(CONFIGURATION, configuration(answers))];
    files.push(file(CEREMONY, ceremony(answers)));
    let new_token = (answers.token.kind == TokenKind::Softhsm).then(|| NewToken {
        label: token.clone(),
        configuration: softhsm_configuration(token),
        folder: Path::new(TOKEN_STATE).join(token),
    });
    if let Some(new) = &new_token {
        let text = format!(
            "directories.tokendir = {}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n\
             slots.removable = false\n",
            new.folder.display()
        );
        let path = new.configuration.clone();
        files.push(PlannedFile { path, text });
    }
    let worker = format!("hallmark-token@{token}.service.d");
    for (folder, text) in [
        (worker.as_str(), loads(Holder::Worker)),
        ("hallmarkd.service.d", loads(Holder::Daemon)),
        ("hallmarkd.socket.d", listens(answers)),
    ] {
        files.push(file(&format!("{UNITS}/{folder}/10-setup.conf"), text));
    }
    if let Some(text) = other_device(answers)? {
        files.push(file(&format!("{UNITS}/{worker}/30-device.conf"), text));
    }
    let sandbox = answers.token.sandbox()?.name();
    Ok(Plan {
        files,
        links: vec![(
            format!("{UNITS}/{worker}/20-family.conf").into(),
            format!("{FAMILIES}/{sandbox}.conf").into(),
        )],
        new_token,
        token: token.clone(),
        credentials,
        store,
        units: vec![
            format!("hallmark-token@{token}.socket"),
            "hallmarkd.socket".into(),
            "hallmarkd.service".into(),
            "hallmark-backup.timer".into(),
        ],
        authorities: authorities(answers),
        transcript: answers.transcript.clone().unwrap_or(TRANSCRIPT.into()),
        group: (answers.enrollment == Enrollment::Group)
            .then(|| answers.issuing_authority().to_owned()),
    })
}

fn file(path: &str, text: String) -> PlannedFile {
    PlannedFile {
        path: path.into(),
        text,
    }
}

/// In `/etc`, not with the token: a worker must not be able to lead itself to another one.
pub(super) fn softhsm_configuration(token: &str) -> PathBuf {
    format!("/etc/hallmark/softhsm2-{token}.conf").into()
}

/// The token's, then those of the provisioning service.
fn credentials(answers: &Answers) -> Vec<PlannedCredential> {
    let token = &answers.token;
    let of_token = |what: &str| format!("{what} of token {}", token.name);
    let credential = |name: &str, what: &str, origin, holder| PlannedCredential {
        name: name.to_owned(),
        what: what.to_owned(),
        origin,
        holder,
    };
    let folder = Path::new(TOKEN_STATE).join(&token.name);
    let (what, origin) = match token.kind {
        TokenKind::Softhsm => ("the PIN", Origin::NewToken(folder.join("pin"))),
        TokenKind::Tpm => ("the secret", Origin::Random),
        TokenKind::Pkcs11 => ("the PIN", given(&token.pin_file)),
    };
    let (name, what) = (token_credential(answers), of_token(what));
    let mut all = vec![credential(&name, &what, origin, Holder::Worker)];
    if token.kind == TokenKind::Softhsm {
        let (name, what) = (format!("{}-so-pin", token.name), of_token("the SO PIN"));
        let origin = Origin::NewToken(folder.join("so-pin"));
        all.push(credential(&name, &what, origin, Holder::Nobody));
    }
    let Some(service) = &answers.provisioning else {
        return all;
    };
    let mut plane = |wanted: bool, name, what, file| {
        if wanted {
            all.push(credential(name, what, given(file), Holder::Daemon));
        }
    };
    let what = "the connection string of the provisioning service";
    plane(true, DPS_CREDENTIAL, what, &service.connection_string_file);
    let by_arm = answers.verifies_by_arm();
    let what = "the bearer token for Azure Resource Manager";
    plane(by_arm, ARM_CREDENTIAL, what, &service.arm_token_file);
    let hub = service.hub_endpoint.is_some();
    let what = "the connection string of the hub";
    plane(
        hub,
        HUB_CREDENTIAL,
        what,
        &service.hub_connection_string_file,
    );
    all
}

fn given(file: &Option<PathBuf>) -> Origin {
    file.clone().map_or(Origin::Typed, Origin::File)
}

/// What the credential of the token is called.
pub(super) fn token_credential(answers: &Answers) -> String {
    let what = match answers.token.kind {
        TokenKind::Tpm => "secret",
        TokenKind::Softhsm | TokenKind::Pkcs11 => "pin",
    };
    format!("{}-{what}", answers.token.name)
}

/// The part of a drop-in that hands credentials over.
fn loads(credentials: &[PlannedCredential], holder: Holder, store: CredentialStore) -> String {
    let key = match store {
        CredentialStore::Encrypted => "LoadCredentialEncrypted",
        CredentialStore::Plain => "LoadCredential",
    };
    let handed = credentials.iter().filter(|it| it.holder == holder);
    let lines = handed.map(|it| format!("{key}={}\n", it.name));
    format!("[Service]\n{}", lines.collect::<String>())
}

/// In the place of the first TPM, which the family's drop-in knows.
fn other_device(answers: &Answers) -> Result<Option<String>, String> {
    let device = answers.token.tpm_device()?;
    Ok((device != TPM_DEVICE).then(|| {
        format!(
            "[Service]\nDeviceAllow=\nDeviceAllow={device} rw\nBindPaths=\nBindPaths={device}\n"
        )
    }))
}

/// The addresses that systemd holds, so that a restart refuses nobody.
fn listens(answers: &Answers) -> String {
    let http = answers.listen.http.map(|it| it.to_string());
    let addresses = [ADMIN_SOCKET.to_owned(), answers.listen.https.to_string()];
    let lines = addresses.into_iter().chain(http);
    let lines = lines.map(|address| format!("ListenStream={address}\n"));
    format!("[Socket]\nListenStream=\n{}", lines.collect::<String>())
}
