//! Plans from the answers what setup will write, store and start, before anything changes.
//!
//! The plan reads no file and asks no question. It holds the origin of each secret and never a
//! secret.

use super::answers::{Answers, CredentialStore, Enrollment, TPM_DEVICE, TokenKind};
use super::document::{authorities, ceremony, configuration};
use std::path::{Path, PathBuf};

/// The file of the configuration.
pub const CONFIGURATION: &str = "/etc/hallmark/hallmark.toml";
/// The ceremony file.
pub const CEREMONY: &str = "/etc/hallmark/ceremony.toml";
/// The default folder of the ceremony's transcript. It belongs to root, and a purge keeps it.
const TRANSCRIPT: &str = "/var/lib/hallmark-ceremony";
/// The folder of the workers' state.
pub(super) const TOKEN_STATE: &str = "/var/lib/hallmark-token";
/// The daemon's admin socket.
pub(super) const ADMIN_SOCKET: &str = "/run/hallmark/admin.sock";
/// The folder of units' drop-ins.
const UNITS: &str = "/etc/systemd/system";
/// The folder of the package's drop-ins with the sandboxes of workers.
const SANDBOXES: &str = "/usr/share/hallmark/sandboxes";

/// The credentials of the provisioning service's planes.
pub(super) const DPS_CREDENTIAL: &str = "dps-connection-string";
pub(super) const ARM_CREDENTIAL: &str = "arm-token";
pub(super) const HUB_CREDENTIAL: &str = "hub-connection-string";

/// All changes that setup makes on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Files, in the order in which they are written.
    pub files: Vec<PlannedFile>,
    /// Symbolic links: path and target.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// The SoftHSM token, if setup makes one.
    pub new_token: Option<NewToken>,
    pub token: String,
    pub credentials: Vec<PlannedCredential>,
    /// The store of the secrets.
    pub store: CredentialStore,
    /// Units that are enabled and started.
    pub units: Vec<String>,
    /// The authorities that the ceremony makes.
    pub authorities: Vec<String>,
    /// The folder of the ceremony's transcript.
    pub transcript: PathBuf,
    /// The group to enroll, with the name of its authority.
    pub group: Option<String>,
}

/// A planned file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    pub path: PathBuf,
    pub text: String,
}

/// A SoftHSM token to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    pub label: String,
    /// The file for `SOFTHSM2_CONF`.
    pub configuration: PathBuf,
    /// The token's folder, which belongs to the workers' user.
    pub folder: PathBuf,
}

/// A secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCredential {
    pub name: String,
    /// The question to the operator.
    pub what: String,
    pub origin: Origin,
    /// The unit that receives it from systemd.
    pub receiver: SecretReceiver,
}

/// The receiver of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretReceiver {
    Worker,
    Daemon,
    /// No unit: the secret is kept for emergencies.
    NoUnit,
}

/// The origin of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file that was written when the token was made.
    NewToken(PathBuf),
    /// Random text, made at the time of storing.
    Random,
    File(PathBuf),
    /// The operator types it.
    Typed,
}

/// Plans. The error names the missing answer.
pub fn plan(answers: &Answers, store: CredentialStore) -> Result<Plan, String> {
    let token = &answers.token.name;
    let credentials = credentials(answers);
    let loads = |receiver| loads(&credentials, receiver, store);
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
        (worker.as_str(), loads(SecretReceiver::Worker)),
        ("hallmarkd.service.d", loads(SecretReceiver::Daemon)),
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
            format!("{UNITS}/{worker}/20-sandbox.conf").into(),
            format!("{SANDBOXES}/{sandbox}.conf").into(),
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

/// Returns the file in `/etc`: a worker must not be able to choose another token for itself.
pub(super) fn softhsm_configuration(token: &str) -> PathBuf {
    format!("/etc/hallmark/softhsm2-{token}.conf").into()
}

/// Returns the credentials of the token, then those of the provisioning service.
fn credentials(answers: &Answers) -> Vec<PlannedCredential> {
    let token = &answers.token;
    let of_token = |what: &str| format!("{what} of token {}", token.name);
    let credential = |name: &str, what: &str, origin, receiver| PlannedCredential {
        name: name.to_owned(),
        what: what.to_owned(),
        origin,
        receiver,
    };
    let folder = Path::new(TOKEN_STATE).join(&token.name);
    let (what, origin) = match token.kind {
        TokenKind::Softhsm => ("the PIN", Origin::NewToken(folder.join("pin"))),
        TokenKind::Tpm => ("the secret", Origin::Random),
        TokenKind::Pkcs11 => ("the PIN", given(&token.pin_file)),
    };
    let name = token_credential(answers);
    let what = of_token(what);
    let mut all = vec![credential(&name, &what, origin, SecretReceiver::Worker)];
    if token.kind == TokenKind::Softhsm {
        let name = format!("{}-so-pin", token.name);
        let what = of_token("the SO PIN");
        let origin = Origin::NewToken(folder.join("so-pin"));
        all.push(credential(&name, &what, origin, SecretReceiver::NoUnit));
    }
    let Some(service) = &answers.provisioning else {
        return all;
    };
    let mut plane = |wanted: bool, name, what, file| {
        if wanted {
            all.push(credential(name, what, given(file), SecretReceiver::Daemon));
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

/// Returns the name of the token's credential.
pub(super) fn token_credential(answers: &Answers) -> String {
    let what = match answers.token.kind {
        TokenKind::Tpm => "secret",
        TokenKind::Softhsm | TokenKind::Pkcs11 => "pin",
    };
    format!("{}-{what}", answers.token.name)
}

/// Returns the lines of a drop-in that pass credentials.
fn loads(
    credentials: &[PlannedCredential],
    receiver: SecretReceiver,
    store: CredentialStore,
) -> String {
    let key = match store {
        CredentialStore::Encrypted => "LoadCredentialEncrypted",
        CredentialStore::Plain => "LoadCredential",
    };
    let handed = credentials.iter().filter(|it| it.receiver == receiver);
    let lines = handed.map(|it| format!("{key}={}\n", it.name));
    format!("[Service]\n{}", lines.collect::<String>())
}

/// Returns the lines of a drop-in that replace the first TPM, which the sandbox's drop-in names.
fn other_device(answers: &Answers) -> Result<Option<String>, String> {
    let device = answers.token.tpm_device()?;
    Ok((device != TPM_DEVICE).then(|| {
        format!(
            "[Service]\nDeviceAllow=\nDeviceAllow={device} rw\nBindPaths=\nBindPaths={device}\n"
        )
    }))
}

/// Returns the addresses on which systemd listens, so that a restart refuses no connection.
fn listens(answers: &Answers) -> String {
    let http = answers.listen.http.map(|it| it.to_string());
    let addresses = [ADMIN_SOCKET.to_owned(), answers.listen.https.to_string()];
    let lines = addresses.into_iter().chain(http);
    let lines = lines.map(|address| format!("ListenStream={address}\n"));
    format!("[Socket]\nListenStream=\n{}", lines.collect::<String>())
}
