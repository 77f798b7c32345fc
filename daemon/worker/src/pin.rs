//! Reads the PIN from its credential file, and never tries a refused PIN twice.
//!
//! A refused PIN is recorded across restarts in a park file, as a slow salted hash: a supervisor
//! that restarts the worker must not use up the token's tries. The same PIN is tried again only
//! after the content of the credential file has changed or the park file was removed. After two
//! refusals in a row only removing it helps: tokens lock after three, and not every token reports
//! its last try. A worker that is killed between the token's refusal and the writing of the park
//! file may cost one more try; the token's own flag, where it has one, protects the last.
//!
//! A PIN is never logged, never in an error, never on a command line or in an environment.

use crate::backend::TokenIdentity;
use aws_lc_rs::pbkdf2;
use hallmark_base::files;
use hallmark_base::files::atomic;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// Longest PIN file. PKCS#11 has no limit; tokens take up to 255 bytes.
pub(crate) const PIN_FILE_BYTES_MAX: u64 = 512;

const PARK_FILE_BYTES_MAX: u64 = 16 * 1024;

/// PBKDF2 rounds for the refused PIN, which slow down a search by a thief of the park file.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(300_000).expect("is not zero");

/// Most PINs that are tried in a row, even if the credential changes each time.
const REFUSALS_MAX: u32 = 2;

/// Fewest rounds accepted when a park file is read.
const ITERATIONS_MIN: u32 = 200_000;

/// Most rounds accepted when a park file is read: more would delay the worker.
const ITERATIONS_MAX: u32 = 10_000_000;

/// Why there is no PIN to try.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinError {
    /// The credential cannot be used. `reason` contains no byte of it.
    #[error("credential {path}: {reason}")]
    Credential { path: PathBuf, reason: String },
    /// The token has refused the PIN in the credential before.
    #[error(
        "the PIN was refused ({reason}); correct {credential}, or remove {park_file} to try it \
         again"
    )]
    Refused {
        reason: String,
        credential: PathBuf,
        park_file: PathBuf,
    },
    /// One more wrong PIN may lock the token.
    #[error(
        "{REFUSALS_MAX} PINs were refused in a row ({reason}), and one more may lock the token: \
         correct {credential}, try it with the vendor's tool, then remove {park_file}"
    )]
    RefusedAgain {
        reason: String,
        credential: PathBuf,
        park_file: PathBuf,
    },
}

/// Reads a PIN. A line end after it is not part of it.
pub(crate) fn read_pin(path: &Path) -> Result<SecretString, PinError> {
    files::secret_line(path, PIN_FILE_BYTES_MAX).map_err(|error| PinError::Credential {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Decides whether the PIN may be tried, before each login.
pub(crate) struct PinGuard {
    credential: PathBuf,
    /// The PIN, if it was read before the process gave up the right to read it.
    held: Option<SecretString>,
    park_file: PathBuf,
    known: Option<Refusal>,
}

/// A refusal that this process has seen. It saves the slow hash, and replaces a park file that
/// could not be written.
struct Refusal {
    pin: SecretString,
    reason: String,
    /// Refusals in a row.
    refusals: u32,
    /// Content of the park file; `None` if there is none.
    park: Option<Vec<u8>>,
}

impl Refusal {
    fn is_of(&self, pin: &SecretString) -> bool {
        self.pin.expose_secret() == pin.expose_secret()
    }

    /// Returns true if this PIN must not be tried either.
    fn forbids(&self, pin: &SecretString) -> bool {
        self.is_of(pin) || self.refusals >= REFUSALS_MAX
    }
}

#[derive(Serialize, Deserialize)]
struct ParkRecord {
    token_label: String,
    token_serial: String,
    /// The token's return code.
    reason: String,
    /// Refusals in a row, this one included.
    refusals: u32,
    iterations: u32,
    salt: String,
    verifier: String,
}

impl PinGuard {
    /// Makes a guard of the PIN in `credential` that records refusals in `park_file`.
    pub(crate) fn new(credential: PathBuf, park_file: PathBuf) -> Self {
        PinGuard {
            credential,
            held: None,
            park_file,
            known: None,
        }
    }

    /// Uses the PIN `held`, if there is one, in place of the credential file.
    pub(crate) fn holding(self, held: Option<SecretString>) -> Self {
        PinGuard { held, ..self }
    }

    /// Returns the error for a PIN that must not be tried for this reason.
    pub(crate) fn unusable(&self, reason: String) -> PinError {
        PinError::Credential {
            path: self.credential.clone(),
            reason,
        }
    }

    fn read(&self) -> Result<SecretString, PinError> {
        match &self.held {
            Some(pin) => Ok(pin.clone()),
            None => read_pin(&self.credential),
        }
    }

    /// Keeps other processes that serve this token (`hallmarkd check`) from logging in until the
    /// returned file is dropped: two processes must not read the same park file and then try one
    /// PIN each. Returns `None` where no lock can be made; no park file can be made there either.
    pub(crate) fn alone(&self) -> Option<File> {
        let lock = files::open_lock(&self.park_file.with_extension("login.lock")).ok()?;
        lock.lock().ok()?;
        Some(lock)
    }

    /// Returns the PIN to try on this token, or why none may be tried.
    pub(crate) fn pin(&mut self, token: &TokenIdentity) -> Result<SecretString, PinError> {
        let pin = self.read()?;
        if let Some(known) = self.known.as_ref().filter(|known| known.forbids(&pin))
            && self.still_holds(known)
        {
            return Err(refused(known, &self.credential, &self.park_file));
        }
        let unreadable = || PinError::Refused {
            reason: "earlier; the park file cannot be read".into(),
            credential: self.credential.clone(),
            park_file: self.park_file.clone(),
        };
        let park = match files::read_ours(&self.park_file, PARK_FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(pin),
            park => park.map_err(|_| unreadable())?,
        };
        let Ok(record) = serde_json::from_slice::<ParkRecord>(&park) else {
            return Err(unreadable());
        };
        if record.forbids(token, &pin) {
            let known = self.known.insert(Refusal {
                pin,
                reason: record.reason,
                refusals: record.refusals,
                park: Some(park),
            });
            return Err(refused(known, &self.credential, &self.park_file));
        }
        Ok(pin)
    }

    /// Returns true if credential or park file have changed since the refusal so that a PIN may be
    /// tried; `None` if this process has seen no refusal.
    pub(crate) fn has_changed(&self) -> Option<bool> {
        let known = self.known.as_ref()?;
        let is_forbidden = self.read().is_ok_and(|pin| known.forbids(&pin));
        Some(!is_forbidden || !self.still_holds(known))
    }

    /// Returns false if the park file was changed or removed since the refusal.
    fn still_holds(&self, known: &Refusal) -> bool {
        known.park.is_none()
            || known.park == files::read_ours(&self.park_file, PARK_FILE_BYTES_MAX).ok()
    }

    /// Records that `token` refused `pin`: in this process, and, unless the park file cannot be
    /// written, for the next one. Returns the refusal as an error.
    pub(crate) fn remember_refused(
        &mut self,
        token: &TokenIdentity,
        pin: SecretString,
        reason: String,
    ) -> PinError {
        let refusals = self.refusals_of(token).saturating_add(1);
        let park = ParkRecord::new(token, &pin, &reason, refusals).write(&self.park_file);
        if let Err(error) = &park {
            tracing::error!(%error, path = %self.park_file.display(), "cannot write park file");
        }
        let known = self.known.insert(Refusal {
            pin,
            reason,
            refusals,
            park: park.ok(),
        });
        refused(known, &self.credential, &self.park_file)
    }

    /// Returns how many PINs this token has refused in a row, as far as is known.
    fn refusals_of(&self, token: &TokenIdentity) -> u32 {
        let unwritten = self.known.as_ref().filter(|known| known.park.is_none());
        let record = files::read_ours(&self.park_file, PARK_FILE_BYTES_MAX).ok();
        let record = record.and_then(|park| serde_json::from_slice::<ParkRecord>(&park).ok());
        let written = record.filter(|record| record.is_of(token));
        let counts = [
            unwritten.map(|known| known.refusals),
            written.map(|record| record.refusals),
        ];
        counts.into_iter().flatten().max().unwrap_or(0)
    }

    /// Removes the record of a refusal, after the token has accepted a PIN.
    pub(crate) fn forget_refused(&mut self) {
        self.known = None;
        if let Err(error) = atomic::remove(&self.park_file) {
            tracing::warn!(%error, path = %self.park_file.display(), "cannot remove park file");
        }
    }
}

/// Returns the refusal as an error that names the remedies.
fn refused(known: &Refusal, credential: &Path, park_file: &Path) -> PinError {
    let reason = known.reason.clone();
    let credential = credential.to_owned();
    let park_file = park_file.to_owned();
    if known.refusals < REFUSALS_MAX {
        PinError::Refused {
            reason,
            credential,
            park_file,
        }
    } else {
        PinError::RefusedAgain {
            reason,
            credential,
            park_file,
        }
    }
}

impl ParkRecord {
    fn new(token: &TokenIdentity, pin: &SecretString, reason: &str, refusals: u32) -> Self {
        let mut salt = [0; 16];
        aws_lc_rs::rand::fill(&mut salt).expect("aws-lc's generator has passed its self-test");
        let mut verifier = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            ITERATIONS,
            &salted(&salt, token),
            pin.expose_secret().as_bytes(),
            &mut verifier,
        );
        ParkRecord {
            token_label: token.label.clone(),
            token_serial: token.serial.clone(),
            reason: reason.to_owned(),
            refusals,
            iterations: ITERATIONS.get(),
            salt: hex::encode(salt),
            verifier: hex::encode(verifier),
        }
    }

    /// Writes the record, and returns what was written. Makes the folder, because `hallmarkd check`
    /// may run before the daemon has made its state folder.
    fn write(&self, path: &Path) -> io::Result<Vec<u8>> {
        if let Some(folder) = path.parent() {
            files::make_folder(folder, 0o700)?;
        }
        let content = serde_json::to_vec_pretty(self)?;
        atomic::write(path, &content, 0o600)?;
        Ok(content)
    }

    /// Returns true if `pin` must not be tried on `token`.
    fn forbids(&self, token: &TokenIdentity, pin: &SecretString) -> bool {
        self.is_of(token) && (self.refusals >= REFUSALS_MAX || self.matches(token, pin))
    }

    /// Returns true if the record is about `token`. Another token under the same name has its own
    /// tries.
    fn is_of(&self, token: &TokenIdentity) -> bool {
        (&self.token_label, &self.token_serial) == (&token.label, &token.serial)
    }

    /// Returns true if `pin` is the refused one. A record with invalid values refuses every PIN.
    fn matches(&self, token: &TokenIdentity, pin: &SecretString) -> bool {
        let iterations = NonZeroU32::new(self.iterations)
            .filter(|count| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&count.get()));
        let (Some(iterations), Ok(salt), Ok(verifier)) = (
            iterations,
            hex::decode(&self.salt),
            hex::decode(&self.verifier),
        ) else {
            return true;
        };
        pbkdf2::verify(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salted(&salt, token),
            pin.expose_secret().as_bytes(),
            &verifier,
        )
        .is_ok()
    }
}

fn salted(salt: &[u8], token: &TokenIdentity) -> Vec<u8> {
    [salt, token.label.as_bytes(), &[0], token.serial.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    struct Scene {
        folder: tempfile::TempDir,
        token: TokenIdentity,
    }

    impl Scene {
        fn with_pin(pin: &str) -> Self {
            let folder = tempfile::tempdir().expect("a scratch folder");
            let token = TokenIdentity {
                label: "factory".into(),
                serial: "01".into(),
            };
            let scene = Scene { folder, token };
            scene.write_pin(pin);
            scene
        }

        fn write_pin(&self, pin: &str) {
            atomic::write(&self.folder.path().join("pin"), pin.as_bytes(), 0o600)
                .expect("writable");
        }

        fn guard(&self) -> PinGuard {
            let path = self.folder.path();
            PinGuard::new(path.join("pin"), path.join("factory.parked"))
        }

        fn refuse(&self) -> PinGuard {
            let mut guard = self.guard();
            let pin = guard.pin(&self.token).expect("never tried");
            guard.remember_refused(&self.token, pin, "PinIncorrect".into());
            guard
        }
    }

    #[test]
    fn a_refused_pin_is_not_tried_again_even_by_the_next_process() {
        let scene = Scene::with_pin("not hex 1234\n");
        assert_eq!(scene.refuse().has_changed(), Some(false));
        let error = scene.guard().pin(&scene.token).expect_err("parked");
        assert!(error.to_string().contains("PinIncorrect"), "{error}");
        let park = fs::read_to_string(scene.folder.path().join("factory.parked")).expect("written");
        assert!(!park.contains("not hex"), "{park}");
    }

    #[test]
    fn a_corrected_pin_a_removed_park_file_and_another_token_each_allow_a_try() {
        let scene = Scene::with_pin("1234");
        let guard = scene.refuse();
        scene.write_pin("5678");
        assert_eq!(guard.has_changed(), Some(true));
        assert!(scene.guard().pin(&scene.token).is_ok());

        scene.write_pin("1234");
        assert_eq!(guard.has_changed(), Some(false));
        let other = TokenIdentity {
            serial: "02".into(),
            ..scene.token.clone()
        };
        assert!(scene.guard().pin(&other).is_ok());

        fs::remove_file(scene.folder.path().join("factory.parked")).expect("is there");
        assert_eq!(guard.has_changed(), Some(true));
        assert!(scene.guard().pin(&scene.token).is_ok());
    }

    #[test]
    fn after_two_refusals_in_a_row_no_other_pin_is_tried_until_the_park_file_is_gone() {
        let scene = Scene::with_pin("1234");
        scene.refuse();
        scene.write_pin("5678");
        let guard = scene.refuse();
        scene.write_pin("9999");
        assert_eq!(guard.has_changed(), Some(false));
        let error = scene.guard().pin(&scene.token).expect_err("a third");
        assert!(matches!(error, PinError::RefusedAgain { .. }), "{error}");
        fs::remove_file(scene.folder.path().join("factory.parked")).expect("is there");
        assert_eq!(guard.has_changed(), Some(true));
        assert!(scene.guard().pin(&scene.token).is_ok());
    }

    #[test]
    fn a_refusal_that_cannot_be_written_still_holds_in_this_process() {
        let scene = Scene::with_pin("1234");
        let mut guard = scene.guard();
        guard.park_file = scene.folder.path().join("missing/factory.parked");
        let pin = guard.pin(&scene.token).expect("never tried");
        guard.remember_refused(&scene.token, pin, "PinIncorrect".into());
        assert_eq!(guard.has_changed(), Some(false));
        assert!(guard.pin(&scene.token).is_err());
        scene.write_pin("5678");
        assert_eq!(guard.has_changed(), Some(true));
        assert!(guard.pin(&scene.token).is_ok());
    }

    #[test]
    fn an_invalid_park_file_refuses_every_pin() {
        let scene = Scene::with_pin("1234");
        scene.refuse();
        fs::write(scene.folder.path().join("factory.parked"), "{").expect("writable");
        assert!(scene.guard().pin(&scene.token).is_err());
    }

    #[test]
    fn errors_about_unusable_credentials_contain_no_byte_of_them() {
        for (content, reason) in [("", "empty"), ("first one\nsecond one", "several lines")] {
            let scene = Scene::with_pin(content);
            let error = scene
                .guard()
                .pin(&scene.token)
                .expect_err("unusable")
                .to_string();
            assert!(
                error.contains(reason) && !error.contains("second one"),
                "{error}"
            );
        }
        let scene = Scene::with_pin("1234");
        let pin = scene.folder.path().join("pin");
        fs::set_permissions(pin, fs::Permissions::from_mode(0o644)).expect("ours");
        assert!(scene.guard().pin(&scene.token).is_err());
    }
}
