//! The authorities as they serve now: certificates, keys and the chains between them.
//!
//! Read from the store at start, after a ceremony and after a revocation; issuance only reads it. A
//! chain that does not verify is refused here, once, and not for every certificate.

mod cross;

use super::issuer::generation::on_record;
use super::{Code, Error};
use crate::enrollment::thumbprint::Thumbprint;
use crate::ids::{GenerationId, GenerationNumber};
use crate::store::{CrlPart, GenerationRow, GenerationState};
use crate::token::KeyReference;
use crate::unix_seconds::UnixSeconds;
use crate::x509::bundle::parse_bundle;
use crate::x509::certificate::Certificate;
use crate::x509::issuer::{Distribution, IssuerFields};
use crate::x509::key::PublicKey;
use crate::x509::lint::IssuerReading;
pub use cross::CrossCertificate;
pub(super) use cross::name as cross_name;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where relying parties find what authorities publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// `http://host`; certificates name nothing without it.
    pub http: Option<String>,
    /// Authorities whose certificates name an OCSP responder.
    pub ocsp: BTreeSet<String>,
}

/// A generation that can sign: its certificate is on record.
#[derive(Debug)]
pub struct Generation {
    /// Its row in the table of generations.
    pub id: GenerationId,
    pub authority: String,
    /// 1 for the first.
    pub number: GenerationNumber,
    /// The generation that signed it; `None` for a self-signed root.
    pub parent: Option<GenerationId>,
    /// The token that holds the key.
    pub token: String,
    /// Where on the token.
    pub key: KeyReference,
    pub public_key: PublicKey,
    pub certificate: Certificate,
    /// The same, as chains have it.
    pub link: Arc<ChainLink>,
    /// The certificates above a generation with an external issuer: its issuer's certificate first,
    /// the last one self-signed.
    pub foreign: Vec<Arc<ChainLink>>,
    /// The same, as the lint reads it.
    pub reading: IssuerReading,
    /// The issuer's fields in a certificate below it.
    pub issuer: IssuerFields,
    /// Where relying parties find its revocation list and its certificate.
    pub distribution: Distribution,
    /// When it was certified, Unix seconds.
    pub certified_at: UnixSeconds,
    /// It signs for its authority now.
    pub serving: bool,
    /// Whether it will, does or did.
    pub state: GenerationState,
    /// When its own certificate was revoked, in Unix seconds.
    pub revoked_at: Option<UnixSeconds>,
}

impl Generation {
    /// Returns true if it is neither revoked nor ended: it publishes lists, and relying parties may
    /// read its chain, whether it still issues or not.
    pub fn is_in_force(&self, now: UnixSeconds) -> bool {
        self.revoked_at.is_none() && now <= self.certificate.not_after()
    }
}

/// A certificate of a chain.
#[derive(Debug)]
pub struct ChainLink {
    pub certificate: Certificate,
    /// The same, as PEM.
    pub pem: String,
    /// The PEM as a JSON string: it stands in every answer, and is escaped once.
    pub pem_json: Box<RawValue>,
}

/// All generations that have a certificate.
#[derive(Debug, Default)]
pub struct Hierarchy {
    generations: BTreeMap<GenerationId, Arc<Generation>>,
    /// Authorities whose first certificate is yet to come from elsewhere.
    waiting: BTreeSet<String>,
    serving: BTreeMap<String, GenerationId>,
    staged: BTreeMap<String, GenerationId>,
    cross: Vec<CrossCertificate>,
    /// The generations that have signed for others.
    in_use: BTreeSet<GenerationId>,
}

impl Hierarchy {
    /// Builds the hierarchy from rows, parents first, and verifies each link. Certificates of its
    /// generations point to what is `published`.
    pub fn load(rows: Vec<GenerationRow>, published: &Published) -> Result<Self, Error> {
        let mut hierarchy = Self::default();
        for row in rows {
            let (Some(spki), Some(der)) = (&row.spki, &row.certificate) else {
                if row.number == GenerationNumber::FIRST && row.request.is_some() {
                    hierarchy.waiting.insert(row.authority);
                }
                continue;
            };
            let mut generation = Generation::read(&row, spki, der, published)?;
            let foreign = generation.foreign.iter().map(|link| &link.certificate);
            let above = generation
                .parent
                .into_iter()
                .flat_map(|id| hierarchy.certificates_above(id));
            // Once for each generation, and not for each certificate.
            let issuer = generation.issuer.with_constraints_of(foreign.chain(above));
            generation.issuer = issuer;
            hierarchy.verify(&generation)?;
            let place = match generation.state {
                GenerationState::Serving => Some(&mut hierarchy.serving),
                GenerationState::Staged => Some(&mut hierarchy.staged),
                _ => None,
            };
            if let Some(place) = place {
                place.insert(generation.authority.clone(), generation.id);
            }
            hierarchy
                .generations
                .insert(generation.id, Arc::new(generation));
        }
        Ok(hierarchy)
    }

    /// The generation by which `authority` signs now.
    pub fn serving(&self, authority: &str) -> Option<&Arc<Generation>> {
        self.generations.get(self.serving.get(authority)?)
    }

    /// The generation that is to be the next of `authority`.
    pub fn staged(&self, authority: &str) -> Option<&Arc<Generation>> {
        self.generations.get(self.staged.get(authority)?)
    }

    /// The authority above `generation`, by name.
    pub fn parent_authority(&self, generation: &Generation) -> Option<&str> {
        let parent = self.generations.get(&generation.parent?)?;
        Some(&parent.authority)
    }

    /// Authorities whose serving generation was signed by the authority `name`, whichever
    /// generation of it.
    pub fn children(&self, name: &str) -> Vec<&Arc<Generation>> {
        let serving = self.serving.values();
        serving
            .filter_map(|id| self.generations.get(id))
            .filter(|it| self.parent_authority(it) == Some(name))
            .collect()
    }

    /// Returns how many authorities serve one below the other below the authority `name`.
    pub fn depth_below(&self, name: &str) -> u8 {
        let depth = |id: &GenerationId| self.upwards(*id).position(|it| it.authority == name);
        let depths = self.serving.values().filter_map(depth);
        u8::try_from(depths.max().unwrap_or(0)).unwrap_or(u8::MAX)
    }

    /// This generation and all below it, whether they serve or not.
    pub fn subtree(&self, id: GenerationId) -> BTreeSet<GenerationId> {
        let mut below = BTreeSet::from([id]);
        // Row ids of children are higher than their parents'.
        for generation in self.generations.values() {
            if generation.parent.is_some_and(|it| below.contains(&it)) {
                below.insert(generation.id);
            }
        }
        below
    }

    /// The generation whose certificate has this SHA-256.
    pub fn with_certificate(&self, thumbprint: Thumbprint) -> Option<&Arc<Generation>> {
        self.generations
            .values()
            .find(|it| it.thumbprint() == thumbprint)
    }

    /// Returns the generation by which `authority` signs now. Fails if it, or one above it, is
    /// revoked: verifiers would reject its signatures.
    pub fn signing(&self, authority: &str) -> Result<&Arc<Generation>, Error> {
        let generation = self.serving(authority).ok_or_else(|| {
            if self.waiting.contains(authority) {
                return super::external::waiting(authority);
            }
            let message = format!("authority {authority} has no key yet");
            Error::later(30, Code::AuthorityAbsent, message)
        })?;
        match self.revoked_above(generation.id) {
            None => Ok(generation),
            Some(revoked) => Err(Error::later(
                60,
                Code::IssuerRevoked,
                format!(
                    "authority {authority} signs nothing: generation {} of {} is revoked; roll \
                     that authority, or lift the block that holds it",
                    revoked.number, revoked.authority
                ),
            )),
        }
    }

    /// Authorities that have a key, and wait for their first certificate from elsewhere.
    pub fn waiting(&self) -> impl Iterator<Item = &str> {
        self.waiting.iter().map(String::as_str)
    }

    /// The first revoked generation from `id` upwards, itself included.
    pub fn revoked_above(&self, id: GenerationId) -> Option<&Arc<Generation>> {
        self.upwards(id).find(|it| it.revoked_at.is_some())
    }

    /// A generation and all above it, up to the root.
    pub fn upwards(&self, id: GenerationId) -> impl Iterator<Item = &Arc<Generation>> {
        std::iter::successors(self.generations.get(&id), |generation| {
            self.generations.get(&generation.parent?)
        })
    }

    /// The certificate of the generation `id` and all above it, with those of issuers elsewhere.
    pub fn certificates_above(&self, id: GenerationId) -> impl Iterator<Item = &Certificate> {
        self.upwards(id).flat_map(|it| {
            let foreign = it.foreign.iter().map(|link| &link.certificate);
            std::iter::once(&it.certificate).chain(foreign)
        })
    }

    /// The path length of an authority that `id` certifies: the wanted one, or the longest that the
    /// certificates from `id` upwards leave (RFC 5280, section 6.1.4). `None` if they leave no room
    /// for an authority.
    pub fn path_length_below(&self, id: GenerationId, wanted: Option<u8>) -> Option<Option<u8>> {
        let mut longest = wanted;
        let mut below = 1;
        for certificate in self.certificates_above(id) {
            if let Some(limit) = certificate.path_length() {
                let left = usize::from(limit).checked_sub(below)?;
                let left = u8::try_from(left).unwrap_or(u8::MAX);
                longest = Some(longest.map_or(left, |it| it.min(left)));
            }
            below += usize::from(!certificate.is_self_issued());
        }
        Some(longest)
    }

    /// A generation by row id.
    pub fn generation(&self, id: GenerationId) -> Option<&Arc<Generation>> {
        self.generations.get(&id)
    }

    /// The generation that is published under `name`: an authority's serving one by the authority's
    /// name, each by [`Generation::name`].
    pub fn published(&self, name: &str) -> Option<&Arc<Generation>> {
        let numbered = || self.iter().find(|generation| generation.name() == name);
        self.serving(name).or_else(numbered)
    }

    /// Whether no ceremony has made an authority yet.
    pub fn is_empty(&self) -> bool {
        self.serving.is_empty()
    }

    /// All of them, parents first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.generations.values()
    }

    /// The certificates from `id` upwards, itself first, up to and including the first whose
    /// authority is in `verified`, or up to the root, wherever that is: what a device has to
    /// present so that the provisioning service finds the certificate it verified (contract section
    /// 10).
    pub fn chain(&self, id: GenerationId, verified: &BTreeSet<String>) -> Vec<&Arc<ChainLink>> {
        let mut chain = Vec::new();
        for generation in self.upwards(id) {
            chain.push(&generation.link);
            if verified.contains(&generation.authority) {
                return chain;
            }
            chain.extend(&generation.foreign);
        }
        chain
    }

    /// The key that signed a generation's certificate, as DER SubjectPublicKeyInfo: its issuer's,
    /// here or elsewhere, or its own.
    pub fn issuer_key<'a>(&'a self, generation: &'a Generation) -> Result<&'a [u8], Error> {
        match (generation.parent, generation.foreign.first()) {
            (Some(parent), _) => match self.generations.get(&parent) {
                Some(parent) => Ok(parent.public_key.spki_der()),
                None => Err(broken(generation, "its parent has no certificate")),
            },
            (None, Some(issuer)) => Ok(issuer.certificate.spki_der()),
            (None, None) => Ok(generation.public_key.spki_der()),
        }
    }

    fn verify(&self, generation: &Generation) -> Result<(), Error> {
        generation
            .certificate
            .verify_issued_by_key_of(self.issuer_key(generation)?)
            .map_err(|_| broken(generation, "its parent's key did not sign it"))?;
        match generation.certificate.public_key() {
            Ok(key) if key == generation.public_key => Ok(()),
            _ => Err(broken(generation, "its certificate carries another key")),
        }
    }
}

impl Generation {
    /// SHA-256 of its certificate.
    pub fn thumbprint(&self) -> Thumbprint {
        Thumbprint::from_bytes(self.certificate.sha256())
    }

    /// The parts of its revocation list: one, or its partitions.
    pub fn crl_parts(&self) -> impl Iterator<Item = CrlPart> {
        let partitions = self.distribution.crl_partitions.as_ref();
        let count = partitions.map_or(1, |it| it.count);
        let generation = self.id;
        (1..=count).map(move |part| CrlPart {
            generation,
            count,
            part,
        })
    }

    /// Whether it signed its own certificate: nothing is above it, here or elsewhere.
    pub fn is_root(&self) -> bool {
        self.parent.is_none() && self.foreign.is_empty()
    }

    /// The name in certificates and file names: the authority and the number.
    pub fn name(&self) -> String {
        format!("{}-{}", self.authority, self.number)
    }

    fn read(
        row: &GenerationRow,
        spki: &[u8],
        der: &[u8],
        published: &Published,
    ) -> Result<Self, Error> {
        let unreadable = |reason: String| {
            Error::stop(
                Code::HierarchyUnreadable,
                format!(
                    "authority {} generation {}: {reason}",
                    row.authority, row.number
                ),
            )
        };
        let public_key =
            PublicKey::from_spki_der(spki).map_err(|error| unreadable(error.to_string()))?;
        let certificate = Certificate::parse(der).map_err(|error| unreadable(error.to_string()))?;
        let issuer = IssuerFields::from_certificate(&certificate)
            .map_err(|error| unreadable(error.to_string()))?;
        let distribution = published.distribution(row);
        let foreign = match &row.above {
            Some(above) => {
                parse_bundle(above.as_bytes()).map_err(|error| unreadable(error.to_string()))?
            }
            None => Vec::new(),
        };
        let foreign = foreign.into_iter().map(ChainLink::new);
        Ok(Self {
            id: row.id,
            authority: row.authority.clone(),
            number: row.number,
            parent: row.parent,
            token: row.token.clone(),
            key: on_record(row).ok_or_else(|| unreadable("it has no key".into()))?,
            public_key,
            link: ChainLink::new(certificate.clone())?,
            foreign: foreign.collect::<Result<_, _>>()?,
            reading: IssuerReading::new(&certificate),
            certificate,
            issuer: issuer.with_distribution(distribution.clone()),
            distribution,
            certified_at: row.certified_at.unwrap_or_default(),
            serving: row.state == GenerationState::Serving,
            state: row.state,
            revoked_at: row.revoked_at,
        })
    }
}

impl ChainLink {
    fn new(certificate: Certificate) -> Result<Arc<Self>, Error> {
        let pem = certificate.to_pem();
        let pem_json = to_raw_value(&pem);
        Ok(Arc::new(Self {
            pem_json: pem_json.map_err(|error| Error::stop(Code::Internal, error.to_string()))?,
            pem,
            certificate,
        }))
    }
}

impl Published {
    /// Each generation has a key and a list of its own, and so addresses of its own. One address of
    /// OCSP is for all generations of an authority: a request names the issuer.
    fn distribution(&self, row: &GenerationRow) -> Distribution {
        let name = format!("{}-{}", row.authority, row.number);
        let base = self.http.as_ref();
        let answers = self.ocsp.contains(&row.authority);
        let partitions = &row.crl_partitions;
        let crl_url = base.map(|base| format!("{base}/crl/{name}.crl"));
        Distribution {
            crl_url: crl_url.filter(|_| partitions.is_none()),
            crl_partitions: partitions.clone(),
            ca_issuers_url: base.map(|base| format!("{base}/ca/{name}.cer")),
            ocsp_url: base
                .filter(|_| answers)
                .map(|base| format!("{base}/ocsp/{}", row.authority)),
        }
    }
}

fn broken(generation: &Generation, reason: &str) -> Error {
    Error::stop(
        Code::HierarchyBroken,
        format!(
            "authority {} generation {}: {reason}; the database does not fit together, restore it \
             from a backup",
            generation.authority, generation.number
        ),
    )
}
