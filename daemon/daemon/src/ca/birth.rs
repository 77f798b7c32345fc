//! Birth certificates: a device requests its first leaf with the certificate that its manufacturer
//! gave it (IDevID, IEEE 802.1AR; RFC 7030, section 3.3.2).
//!
//! A `[[birth]]` of the configuration names the manufacturer's trust anchors and CRL files, where a
//! certificate names its device, and what the device may have. The path is validated by rustls'
//! verifier, with its rules for client certificates. CRL files are read again when they change. A
//! certificate on the path without a CRL, or with one that is overdue, is refused.

use super::authorize::Caller;
use super::issuer::client::unauthenticated;
use super::profile::{IssuanceProfile, Role};
use super::{Code, Error, Issuer, lock};
use crate::enrollment::id::RegistrationId;
use crate::enrollment::pattern::NamePattern;
use crate::files;
use crate::store::{BirthGrant, Grant};
use crate::x509::bundle;
use crate::x509::certificate::Certificate;
use crate::x509::idevid::{self, HardwareType, IDEVID_BYTES_MAX, NamePlace};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, RootCertStore};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The largest file of anchors, in bytes.
const ANCHOR_BYTES_MAX: u64 = 256 * 1024;
/// The largest CRL file, in bytes.
const CRL_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most `[[birth]]`, and the most CRL files of one.
const ENTRIES_MAX: usize = 64;
/// The most certificates that a client may send above its own.
const ABOVE_MAX: usize = 8;

/// A `[[birth]]` of the configuration.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BirthTable {
    /// The name of the manufacturer in the journal.
    pub name: String,
    /// PEM with the manufacturer's trust anchors.
    anchors: PathBuf,
    /// CRLs of the manufacturer, PEM or DER. Without any, revocation is not checked.
    #[serde(default)]
    crls: Vec<PathBuf>,
    /// Whether a certificate is accepted whose CRL should have been replaced.
    #[serde(default)]
    overdue_crl: OverdueCrl,
    /// The member of the certificate that becomes the registration id.
    id_from: IdFrom,
    /// hwType of `san.hardware_module`.
    hardware_type: Option<String>,
    /// Comes before the value in the registration id.
    #[serde(default)]
    id_prefix: String,
    /// Patterns of the registration ids that devices may have here.
    ids: Option<Vec<String>>,
    /// The profile of the leaf.
    profile: String,
    /// How many leaves one device gets by its birth certificate.
    #[serde(default = "once")]
    times: NonZeroU16,
    /// The provisioning service that gets an individual enrollment of the device.
    enroll: Option<String>,
}

fn once() -> NonZeroU16 {
    NonZeroU16::MIN
}

/// Whether a certificate is accepted whose CRL should have been replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OverdueCrl {
    #[default]
    Refuse,
    Accept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
enum IdFrom {
    #[serde(rename = "subject.serial_number")]
    SerialNumber,
    #[serde(rename = "subject.common_name")]
    CommonName,
    #[serde(rename = "san.dns")]
    Dns,
    #[serde(rename = "san.uri")]
    Uri,
    #[serde(rename = "san.hardware_module")]
    HardwareModule,
}

/// All `[[birth]]` tables.
#[derive(Clone, Debug, Default)]
pub struct BirthPolicy(Arc<Vec<Birth>>);

/// A `[[birth]]`, checked.
struct Birth {
    table: BirthTable,
    place: NamePlace,
    ids: Vec<NamePattern>,
    anchors: Arc<RootCertStore>,
    /// The verifier with the CRLs as they were last read.
    verifier: Mutex<Option<Verifier>>,
}

impl fmt::Debug for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table.fmt(f)
    }
}

struct Verifier {
    files: Vec<FileVersion>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// The properties that differ in a changed file: device, inode, size and times of change.
type FileVersion = (u64, u64, u64, i64, i64, i64);

impl BirthPolicy {
    /// Reads the tables with their anchors. Fails with the reason in words.
    pub fn new(tables: Vec<BirthTable>) -> Result<Self, String> {
        if tables.len() > ENTRIES_MAX {
            return Err(format!("there are more than {ENTRIES_MAX} [[birth]]"));
        }
        let births = tables.into_iter().map(|table| {
            let name = table.name.clone();
            Birth::new(table).map_err(|problem| format!("birth {name:?}: {problem}"))
        });
        Ok(Self(Arc::new(births.collect::<Result<_, _>>()?)))
    }

    /// Returns true if no certificate of a manufacturer is accepted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns why the tables contradict profiles or provisioning services, if they do.
    pub fn check(
        &self,
        profiles: &BTreeMap<String, IssuanceProfile>,
        is_service: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        for Birth { table, .. } in self.0.iter() {
            let BirthTable {
                name,
                profile,
                enroll,
                ..
            } = table;
            if profiles
                .get(profile)
                .is_none_or(|it| it.role != Role::Device)
            {
                return Err(format!(
                    "birth {name:?} has profile {profile:?}; name a [[profile]] with role = \
                     \"device\""
                ));
            }
            if let Some(service) = enroll.as_ref().filter(|it| !is_service(it)) {
                return Err(format!(
                    "birth {name:?} enrolls at {service:?}, and there is no such [[provisioning]]"
                ));
            }
        }
        Ok(())
    }
}

impl Birth {
    fn new(table: BirthTable) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=64).contains(&table.name.len()) || !table.name.bytes().all(plain) {
            return Err("give it a name of 1 to 64 letters, digits and - _ .".into());
        }
        if table.crls.len() > ENTRIES_MAX {
            return Err(format!("`crls` has more than {ENTRIES_MAX} files"));
        }
        let ids = table.ids.clone().unwrap_or_else(|| vec!["*".into()]);
        let ids = ids
            .iter()
            .map(|it| NamePattern::parse(it).map_err(|it| it.to_string()));
        Ok(Self {
            place: place(&table)?,
            ids: ids.collect::<Result<_, _>>()?,
            anchors: Arc::new(anchors(&table.anchors)?),
            verifier: Mutex::default(),
            table,
        })
    }

    /// Returns the verifier with the CRL files as they are now.
    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let versions = self.table.crls.iter().map(|it| version(it));
        let files = versions.collect::<Result<Vec<_>, _>>()?;
        let mut known = lock(&self.verifier);
        if let Some(known) = known.as_ref().filter(|it| it.files == files) {
            return Ok(Arc::clone(&known.verifier));
        }
        let mut crls = Vec::new();
        for path in &self.table.crls {
            crls.extend(read_crls(path)?);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let anchors = Arc::clone(&self.anchors);
        let builder = WebPkiClientVerifier::builder_with_provider(anchors, provider);
        let builder = builder.with_crls(crls);
        let builder = match self.table.overdue_crl {
            OverdueCrl::Refuse => builder.enforce_revocation_expiration(),
            OverdueCrl::Accept => builder,
        };
        let verifier = builder.build().map_err(|error| error.to_string())?;
        *known = Some(Verifier {
            files,
            verifier: Arc::clone(&verifier),
        });
        Ok(verifier)
    }

    /// Validates the path of a certificate. `None` if it does not end at the anchors of this table.
    fn validate(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<Result<(), Error>> {
        let name = &self.table.name;
        let verifier = match self.verifier() {
            Ok(verifier) => verifier,
            Err(problem) => {
                let message = format!(
                    "the CRL files of birth {name:?} cannot be used: {problem}; have an operator \
                     replace them"
                );
                return Some(Err(Error::forbidden(Code::BirthCrlUnusable, message)));
            }
        };
        let refused = match verifier.verify_client_cert(leaf, above, now) {
            Ok(_) => return Some(Ok(())),
            Err(rustls::Error::InvalidCertificate(refused)) => refused,
            Err(_) => return None,
        };
        let (code, why) = match refused {
            CertificateError::Revoked => (Code::BirthRevoked, "it is revoked by its manufacturer"),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                (Code::BirthExpired, "it or a certificate above it has ended")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                Code::BirthExpired,
                "it or a certificate above it is not valid yet",
            ),
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => (
                Code::BirthCrlUnusable,
                "a CRL for its path is overdue; have an operator replace the file",
            ),
            CertificateError::UnknownRevocationStatus => (
                Code::BirthCrlUnusable,
                "no CRL covers a certificate on its path; have an operator add the file",
            ),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
                Code::BirthNotForClients,
                "its extended key usage lacks client authentication",
            ),
            // Of another manufacturer, or of none.
            _ => return None,
        };
        let message = format!(
            "the client certificate is none of this daemon's, and as a birth certificate of \
             {name:?} it is refused: {why}"
        );
        // Only an operator can mend the files.
        Some(Err(match code {
            Code::BirthCrlUnusable => Error::forbidden(code, message),
            _ => unauthenticated(code, message),
        }))
    }

    /// Returns the registration id of the device that a certificate names.
    fn registration_id(&self, leaf: &[u8]) -> Result<String, Error> {
        let name = &self.table.name;
        let refused = |why: String| {
            let message =
                format!("the birth certificate gives no registration id by birth {name:?}: {why}");
            Error::forbidden(Code::BirthIdInvalid, message)
        };
        let value = self
            .place
            .read(leaf)
            .map_err(|it| refused(it.to_string()))?;
        let id = format!("{}{value}", self.table.id_prefix);
        let id = RegistrationId::parse(&id).map_err(|it| refused(it.to_string()))?;
        super::roll::canary::refuse_reserved(id.as_str())?;
        if !self.ids.iter().any(|it| it.covers(id.as_str())) {
            return Err(refused(format!("{:?} is not among its `ids`", id.as_str())));
        }
        Ok(id.as_str().to_owned())
    }
}

impl Issuer {
    /// Names the device whose birth certificate a client presented, with the certificates that it
    /// sent above it. The first `[[birth]]` whose anchors and `ids` fit decides.
    pub fn identify_by_birth(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
    ) -> Result<Option<Caller>, Error> {
        if leaf.len() > IDEVID_BYTES_MAX || above.len() > ABOVE_MAX {
            return Ok(None);
        }
        // The clock must be believed: dates of certificates and CRLs are compared with it.
        let now = u64::try_from(self.signing_time()?.get()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let mut refused = None;
        for birth in self.births().0.iter() {
            let judged = match birth.validate(leaf, above, now) {
                None => continue,
                Some(Err(error)) => Err(error),
                Some(Ok(())) => birth.registration_id(leaf),
            };
            match judged {
                Ok(id) => return Ok(Some(granted(birth, id, leaf))),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(None), Err)
    }
}

fn granted(birth: &Birth, id: String, leaf: &[u8]) -> Caller {
    // It may have a form that only certificates of ours must not have.
    let (serial, issuer) = match Certificate::parse(leaf) {
        Ok(read) => (read.serial().to_string(), read.issuer()),
        Err(_) => idevid::serial_and_issuer(leaf).unwrap_or_default(),
    };
    let BirthTable {
        name,
        profile,
        times,
        enroll,
        ..
    } = &birth.table;
    Caller::Granted {
        profile: profile.clone(),
        grant: Grant::Birth(Arc::new(BirthGrant {
            birth: name.clone(),
            registration_id: id.clone(),
            times: i64::from(times.get()),
            serial,
            issuer,
            enroll: enroll.clone(),
        })),
        name: id,
    }
}

fn place(table: &BirthTable) -> Result<NamePlace, String> {
    let hardware_type = table.hardware_type.as_deref();
    Ok(match (table.id_from, hardware_type) {
        (IdFrom::HardwareModule, Some(dotted)) => {
            let of = HardwareType::parse(dotted);
            NamePlace::HardwareModule(of.ok_or_else(|| {
                format!(
                    "hardware_type {dotted:?} is no object identifier such as 1.3.6.1.4.1.99999.1"
                )
            })?)
        }
        (IdFrom::HardwareModule, None) => {
            return Err(
                "san.hardware_module needs hardware_type: serial numbers are unique among modules \
                 of one type"
                    .into(),
            );
        }
        (_, Some(_)) => return Err("hardware_type is for san.hardware_module; remove it".into()),
        (IdFrom::SerialNumber, None) => NamePlace::SerialNumber,
        (IdFrom::CommonName, None) => NamePlace::CommonName,
        (IdFrom::Dns, None) => NamePlace::Dns,
        (IdFrom::Uri, None) => NamePlace::Uri,
    })
}

fn anchors(path: &Path) -> Result<RootCertStore, String> {
    let of_file = |problem: String| format!("anchors {path:?}: {problem}");
    let bytes = files::read(path, ANCHOR_BYTES_MAX).map_err(|it| of_file(it.to_string()))?;
    let anchors = bundle::parse_bundle(&bytes).map_err(|it| of_file(it.to_string()))?;
    let mut store = RootCertStore::empty();
    for anchor in anchors {
        let der = CertificateDer::from(anchor.der().to_vec());
        store.add(der).map_err(|it| of_file(it.to_string()))?;
    }
    if store.is_empty() {
        return Err(of_file("it holds no certificate".into()));
    }
    Ok(store)
}

fn version(path: &Path) -> Result<FileVersion, String> {
    let of = path
        .metadata()
        .map_err(|error| format!("{path:?}: {error}"))?;
    Ok((
        of.dev(),
        of.ino(),
        of.len(),
        of.mtime(),
        of.mtime_nsec(),
        of.ctime_nsec(),
    ))
}

fn read_crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let of_file = |problem: String| format!("{path:?}: {problem}");
    let bytes = files::read(path, CRL_BYTES_MAX).map_err(|it| of_file(it.to_string()))?;
    if !bytes.starts_with(b"-----") && !bytes.windows(10).any(|it| it == b"-----BEGIN") {
        return Ok(vec![CertificateRevocationListDer::from(bytes)]);
    }
    let crls = CertificateRevocationListDer::pem_slice_iter(&bytes);
    let crls: Vec<_> = crls
        .collect::<Result<_, _>>()
        .map_err(|it| of_file(it.to_string()))?;
    if crls.is_empty() {
        return Err(of_file("it holds no CRL".into()));
    }
    Ok(crls)
}
