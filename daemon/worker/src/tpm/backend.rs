//! Connects a worker to its TPM, checks which TPM it is, and logs in.

use super::TpmToken;
use super::authorization::Authorization;
use super::device::{Device, FoundKey};
use super::fault::{Class, Fault};
use super::identity::{self, TpmIdentity};
use super::lockout::Lockout;
use crate::backend::{Backend, PinTries, TokenIdentity};
use hallmark_base::files;
use hallmark_pki::x509::key::{KeyType, SignatureAlgorithm};
use hallmark_protocol::configuration::{TokenSettings, TpmSettings};
use hallmark_protocol::operation::Token;
use hallmark_protocol::{KeyReference, KeySpecification, TokenDescription, TokenError, key_proof};
use secrecy::SecretString;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tss_esapi::constants::PropertyTag;

/// How often an idle TPM is checked: whether it answers and is the same, and its lockout.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// One TPM, from connection to disconnection.
pub(crate) struct TpmBackend {
    settings: TokenSettings,
    tpm: TpmSettings,
    identity_file: PathBuf,
    /// Held to exclude other workers from a TPM without a resource manager.
    lock: Option<File>,
    present: Option<Present>,
}

/// The TPM while it is connected.
struct Present {
    device: Arc<Mutex<Device>>,
    known: Option<TpmIdentity>,
    description: TokenDescription,
}

impl TpmBackend {
    /// Makes a backend that stores the TPM's identity in `identity_file`. It does not connect yet.
    pub(crate) fn new(settings: TokenSettings, tpm: TpmSettings, identity_file: PathBuf) -> Self {
        Self {
            settings,
            tpm,
            identity_file,
            lock: None,
            present: None,
        }
    }

    fn error(&self, operation: &str) -> impl Fn(Fault) -> TokenError {
        let token = self.settings.name.clone();
        let operation = operation.to_owned();
        move |fault| fault.into_error(&token, &operation, "")
    }

    fn bring_up(&mut self) -> Result<Present, Fault> {
        // First the lock: to open a device without resource manager flushes leftovers of killed
        // workers, and a worker that is alive would lose its objects.
        self.claim()?;
        let known = TpmIdentity::read(&self.identity_file)?;
        let primary = known.as_ref().map(|known| &known.primary[..]);
        let admitted = |primary: &[u8]| self.check_identity(primary, known.as_ref());
        let tcti = &self.tpm.tcti;
        let handle = self.tpm.primary_handle;
        let mut device = Device::open(tcti, handle, primary, admitted)?;
        let description = describe(&mut device, &self.settings.label, &self.tpm)?;
        Ok(Present {
            device: Arc::new(Mutex::new(device)),
            known,
            description,
        })
    }

    /// Takes the lock of a TPM without a resource manager: a second worker would flush the first
    /// worker's objects.
    fn claim(&mut self) -> Result<(), Fault> {
        if self.tpm.tcti.is_managed() || self.lock.is_some() {
            return Ok(());
        }
        let path = identity::lock_file(&self.identity_file);
        let unusable = |error| Fault::device(format!("{}: {error}", path.display()));
        let folder = path.parent().unwrap_or(&path);
        let file = files::make_folder(folder, 0o700).and_then(|()| files::open_lock(&path));
        let file = file.map_err(unusable)?;
        if file.try_lock().is_err() {
            return Err(Fault::device(
                "another worker uses this TPM, which has no resource manager: stop the daemon \
                 first, or connect through /dev/tpmrm0 or tpm2-abrmd",
            ));
        }
        self.lock = Some(file);
        Ok(())
    }

    /// Refuses a TPM that was cleared or exchanged since the last time.
    fn check_identity(&self, primary: &[u8], known: Option<&TpmIdentity>) -> Result<(), Fault> {
        let now = identity::serial(primary);
        // Treated as a refused PIN: the token parks, and no recovery is tried, since none could
        // bring keys of another TPM back.
        let parked = |reason| {
            Err(Fault {
                class: Class::Pin,
                reason,
            })
        };
        if let Some(serial) = self.settings.serial.as_ref().filter(|it| **it != now) {
            return parked(format!(
                "this TPM has serial {now}, and the configuration says {serial}: it is another \
                 one, or it was cleared, and its earlier keys are gone for good"
            ));
        }
        match known.map(|known| identity::serial(&known.primary)) {
            Some(before) if before != now => parked(format!(
                "the TPM was cleared or exchanged: it had serial {before} and has {now}. The keys \
                 made on it are gone for good; reinstall the old TPM, or roll their authorities \
                 to another token. To use it as it is, for new keys, remove {}",
                self.identity_file.display()
            )),
            _ => Ok(()),
        }
    }

    fn present(&self) -> Result<&Present, Fault> {
        let present = self.present.as_ref();
        present.ok_or_else(|| Fault::device("it is not connected"))
    }

    /// Logs in: a credential is right if the proof key signs with it.
    fn enter(&mut self, credential: &SecretString) -> Result<(), Fault> {
        let authorization = Authorization::new(credential)?;
        let path = self.identity_file.clone();
        let present = self.present.as_mut();
        let present = present.ok_or_else(|| Fault::device("it is not connected"))?;
        let mut device = lock(&present.device);
        device.authorize(Some(authorization));
        let known = match &present.known {
            Some(known) => known.clone(),
            None => make_identity(&mut device)?,
        };
        prove(&mut device, &known)?;
        // Written after the proof, so that a wrong credential is never the one that is remembered.
        if present.known.is_none() {
            known.write(&path)?;
            present.known = Some(known);
        }
        Ok(())
    }
}

impl Backend for TpmBackend {
    fn start(&mut self) -> Result<TokenIdentity, TokenError> {
        self.stop();
        let present = self.bring_up().map_err(self.error("connect"))?;
        let identity = TokenIdentity {
            label: present.description.label.clone(),
            serial: present.description.serial.clone(),
        };
        self.present = Some(present);
        Ok(identity)
    }

    /// Returns `Enough`: keys are exempt from lockout, so a wrong value cannot lock the TPM.
    fn pin_tries(&mut self) -> Result<PinTries, TokenError> {
        Ok(PinTries::Enough)
    }

    fn log_in(&mut self, pin: &SecretString) -> Result<(), TokenError> {
        let entered = self.enter(pin);
        entered.map_err(self.error("log in"))
    }

    fn log_out(&mut self) {
        if let Some(present) = &self.present {
            lock(&present.device).authorize(None);
        }
    }

    fn open(&mut self) -> Result<Box<dyn Token>, TokenError> {
        let present = self.present().map_err(self.error("open"))?;
        Ok(Box::new(TpmToken {
            name: self.settings.name.clone(),
            device: Arc::clone(&present.device),
            description: present.description.clone(),
        }))
    }

    fn check_interval(&self) -> Option<Duration> {
        Some(CHECK_INTERVAL)
    }

    fn remark(&mut self) -> Result<Option<String>, TokenError> {
        let read = self.present().and_then(|present| {
            // Making an RSA key may take minutes; that request has a deadline of its own.
            let Ok(mut device) = present.device.try_lock() else {
                return Ok(None);
            };
            device.check()?;
            Lockout::read(&mut device)
        });
        let lockout = read.map_err(self.error("read its state"))?;
        Ok(lockout.map(Lockout::remark))
    }

    fn stop(&mut self) {
        self.present = None;
    }
}

pub(super) fn lock(device: &Mutex<Device>) -> MutexGuard<'_, Device> {
    device
        .lock()
        .expect("no thread panics while it holds the TPM")
}

/// Makes the key that proves the credential.
fn make_identity(device: &mut Device) -> Result<TpmIdentity, Fault> {
    let mut id = vec![0; 16];
    aws_lc_rs::rand::fill(&mut id).expect("aws-lc's generator has passed its self-test");
    let (FoundKey { key, .. }, wrapped) = device.create(&KeySpecification {
        key_type: KeyType::P256,
        label: identity::LABEL.to_owned(),
        id: id.clone(),
    })?;
    Ok(TpmIdentity {
        primary: device.primary_name().to_vec(),
        proof: KeyReference {
            spki: key.spki,
            label: identity::LABEL.to_owned(),
            id,
            wrapped: Some(wrapped),
        },
    })
}

fn prove(device: &mut Device, known: &TpmIdentity) -> Result<(), Fault> {
    let message = key_proof::challenge();
    let algorithm = SignatureAlgorithm::EcdsaSha256;
    let signature = device.sign_unguarded(&known.proof, algorithm, &message)?;
    if !key_proof::verifies(&known.proof.spki, algorithm, &message, &signature) {
        return Err(Fault::device("a test signature does not verify"));
    }
    Ok(())
}

fn describe(
    device: &mut Device,
    label: &str,
    tpm: &TpmSettings,
) -> Result<TokenDescription, Fault> {
    let mut property = |tag| device.property(tag);
    let model = [
        PropertyTag::VendorString1,
        PropertyTag::VendorString2,
        PropertyTag::VendorString3,
        PropertyTag::VendorString4,
    ]
    .map(|tag| property(tag).map_or(String::new(), text));
    let manufacturer = text(property(PropertyTag::Manufacturer)?);
    let high = property(PropertyTag::FirmwareVersion1)?;
    let low = property(PropertyTag::FirmwareVersion2)?;
    let revision = property(PropertyTag::Revision)?;
    Ok(TokenDescription {
        label: label.to_owned(),
        serial: identity::serial(device.primary_name()),
        manufacturer,
        model: model.concat().trim().to_owned(),
        firmware: format!("{high:08x}.{low:08x}"),
        interface: format!(
            "TPM 2.0 revision {}.{:02} at {}",
            revision / 100,
            revision % 100,
            tpm.tcti
        ),
        mechanisms: device.algorithms()?,
    })
}

/// Decodes four characters in a property, most significant byte first, padded with zeros.
fn text(property: u32) -> String {
    let bytes = property.to_be_bytes();
    let shown = bytes
        .iter()
        .filter(|byte| byte.is_ascii_graphic() || **byte == b' ');
    shown.map(|byte| char::from(*byte)).collect()
}
