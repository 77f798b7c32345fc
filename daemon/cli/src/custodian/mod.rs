//! Splits the PIN of a token among custodians, and opens it in the memory of one machine.
//!
//! A ceremony then needs several people at one machine, and none of them has the PIN. No daemon is
//! needed. The file with the PIN lies in memory (tmpfs), never on a disk.

mod script;
mod share;

use hallmark_base::encryption::{Identities, Recipients};
use hallmark_base::files;
use rustix::fs::statfs;
use secrecy::{ExposeSecret, SecretString};
use share::{SHARE_BYTES_MAX, ShareFile};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::Read;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

pub(crate) use script::{Plan, script};

/// The longest PIN in a file, as for tokens.
const PIN_BYTES_MAX: u64 = 1024;
/// How a file of age begins.
const AGE: &[u8] = b"age-encryption.org/";
/// `f_type` of tmpfs and ramfs (statfs(2)).
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// A custodian, and the recipient that the share is encrypted to.
#[derive(Clone, Debug)]
pub struct Custodian {
    name: String,
    recipient: Option<Recipients>,
}

impl std::str::FromStr for Custodian {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, recipient) = text
            .split_once('=')
            .map_or((text, None), |(name, it)| (name, Some(it)));
        let fits = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
        if !(1..=64).contains(&name.len()) || !name.chars().all(fits) || name.starts_with('.') {
            return Err(format!(
                "{name:?} is no name: take 1 to 64 letters, digits and - _ ., and no . before them"
            ));
        }
        let recipient = recipient.map(|it| Recipients::try_from(vec![it.to_owned()]));
        Ok(Self {
            name: name.to_owned(),
            recipient: recipient.transpose()?,
        })
    }
}

impl Custodian {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// A share that was written.
pub(crate) struct Written {
    pub(crate) custodian: String,
    pub(crate) file: PathBuf,
    pub(crate) is_encrypted: bool,
}

/// Splits the PIN in a file among custodians; any `threshold` of their shares open it. All shares
/// are made before one is written, and a file that exists is not replaced.
pub(crate) fn split(
    pin: &Path,
    custodians: &[Custodian],
    threshold: u8,
    folder: &Path,
) -> Result<Vec<Written>, String> {
    let names: Vec<String> = custodians.iter().map(|it| it.name.clone()).collect();
    if names.iter().collect::<BTreeSet<_>>().len() < names.len() {
        return Err("a custodian is named twice; give each person one share".into());
    }
    let pin = files::secret_line(pin, PIN_BYTES_MAX).map_err(|error| about(pin, &error))?;
    let shares = share::split(&pin, &names, threshold)?;
    let mut written = Vec::new();
    for (share, custodian) in shares.iter().zip(custodians) {
        written.push(write(share, custodian, folder)?);
    }
    Ok(written)
}

fn write(share: &ShareFile, custodian: &Custodian, folder: &Path) -> Result<Written, String> {
    let text = serde_json::to_vec_pretty(share).map_err(|error| error.to_string())?;
    let mut text = Zeroizing::new(text);
    text.push(b'\n');
    let is_encrypted = custodian.recipient.is_some();
    let extension = if is_encrypted { "share.age" } else { "share" };
    let file = folder.join(format!("{}.{extension}", custodian.name));
    let written = match &custodian.recipient {
        Some(recipient) => recipient.encrypt(&mut &**text, &file),
        None => files::create_new(&file, 0o600).and_then(|mut it| {
            std::io::Write::write_all(&mut it, &text)?;
            it.sync_all()
        }),
    };
    written.map_err(|error| about(&file, &error))?;
    Ok(Written {
        custodian: custodian.name.clone(),
        file,
        is_encrypted,
    })
}

/// Opens the PIN by `shares` into a new file `out`, which only its owner can read. Returns the
/// names of the custodians.
pub(crate) fn open(
    shares: &[PathBuf],
    identities: &[PathBuf],
    out: &Path,
) -> Result<Vec<String>, String> {
    is_in_memory(out)?;
    let identities = identities.iter().map(|it| Identities::read(it));
    let identities: Vec<Identities> = identities.collect::<Result<_, _>>()?;
    let shares = shares.iter().map(|it| read(it, &identities));
    let shares: Vec<ShareFile> = shares.collect::<Result<_, _>>()?;
    let pin: SecretString = share::open(&shares)?;
    let written = files::create_new(out, 0o600)
        .and_then(|mut file| std::io::Write::write_all(&mut file, pin.expose_secret().as_bytes()));
    written.map_err(|error| about(out, &error))?;
    Ok(shares.iter().map(|it| it.custodian.clone()).collect())
}

fn read(file: &Path, identities: &[Identities]) -> Result<ShareFile, String> {
    let wrong = |error: &dyn Display| about(file, error);
    let bytes = files::read(file, SHARE_BYTES_MAX).map_err(|error| wrong(&error))?;
    let bytes = Zeroizing::new(bytes);
    if !bytes.starts_with(AGE) {
        return share::parse(&bytes).map_err(|error| wrong(&error));
    }
    let encrypted = files::open(file).map_err(|error| wrong(&error))?;
    let mut reasons = vec!["it is encrypted; name its custodian's `--identity`".to_owned()];
    for identity in identities {
        let encrypted = encrypted.try_clone().map_err(|error| wrong(&error))?;
        let decrypted = std::io::Seek::rewind(&mut &encrypted).map_err(|it| it.to_string());
        match decrypted.and_then(|()| identity.decrypt(&encrypted)) {
            Ok(share) => {
                let mut text = Zeroizing::new(Vec::new());
                let read = share.take(SHARE_BYTES_MAX).read_to_end(&mut text);
                read.map_err(|error| wrong(&error))?;
                return share::parse(&text).map_err(|error| wrong(&error));
            }
            Err(reason) => reasons.push(reason),
        }
    }
    Err(wrong(&reasons.last().cloned().unwrap_or_default()))
}

/// Refuses a folder on a disk: what is deleted there may be read afterwards.
fn is_in_memory(out: &Path) -> Result<(), String> {
    let folder = out.parent().filter(|it| !it.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let found = statfs(folder).map_err(|error| about(folder, &error))?;
    if IN_MEMORY.contains(&found.f_type) {
        return Ok(());
    }
    let error = "it is on a disk, where a deleted PIN can be found again; name a file below /run \
                 or /dev/shm";
    Err(about(out, &error))
}

fn about(path: &Path, error: &dyn Display) -> String {
    format!("{}: {error}", path.display())
}
