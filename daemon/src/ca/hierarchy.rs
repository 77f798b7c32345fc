//! The authorities as they serve now: certificates, keys and the chains between them.
//!
//! Read from the store at start and after a ceremony; issuance only reads it. A chain that does not
//! verify is refused here, once, and not for every certificate.

use super::Error;
use crate::store::GenerationRow;
use crate::token::KeyReference;
use crate::x509::certificate::Certificate;
use crate::x509::issuer::Issuer;
use crate::x509::key::PublicKey;
use crate::x509::lint::IssuerReading;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A generation that can sign: its certificate is on record.
#[derive(Debug)]
pub struct Generation {
    /// Row id.
    pub id: i64,
    /// The authority's name.
    pub authority: String,
    /// 1 for the first.
    pub number: i64,
    /// The generation that signed it; `None` for a self-signed root.
    pub parent: Option<i64>,
    /// The token that holds the key.
    pub token: String,
    /// Where on the token.
    pub key: KeyReference,
    /// Its public half.
    pub public_key: PublicKey,
    /// Its certificate.
    pub certificate: Certificate,
    /// The same, as PEM.
    pub pem: String,
    /// The PEM as a JSON string: it stands in every answer, and is escaped once.
    pub pem_json: Box<RawValue>,
    /// The same, as the lint reads it.
    pub reading: IssuerReading,
    /// What a certificate below it says of it.
    pub issuer: Issuer,
    /// It signs for its authority now.
    pub serving: bool,
}

/// All generations that have a certificate.
#[derive(Debug, Default)]
pub struct Hierarchy {
    generations: BTreeMap<i64, Arc<Generation>>,
    serving: BTreeMap<String, i64>,
}

impl Hierarchy {
    /// Builds the hierarchy from rows, parents first, and verifies each link.
    pub fn load(rows: Vec<GenerationRow>) -> Result<Self, Error> {
        let mut hierarchy = Self::default();
        for row in rows {
            let (Some(spki), Some(der)) = (&row.spki, &row.certificate) else {
                continue;
            };
            let generation = Generation::read(&row, spki, der)?;
            hierarchy.verify(&generation)?;
            if generation.serving {
                hierarchy
                    .serving
                    .insert(generation.authority.clone(), generation.id);
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

    /// A generation by row id.
    pub fn generation(&self, id: i64) -> Option<&Arc<Generation>> {
        self.generations.get(&id)
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
    /// authority is in `verified`, or up to the root: what a device has to present so that the
    /// provisioning service finds the certificate it verified (contract section 10).
    pub fn chain(&self, id: i64, verified: &BTreeSet<String>) -> Vec<&Arc<Generation>> {
        let mut chain = Vec::new();
        let mut next = Some(id);
        while let Some(generation) = next.and_then(|id| self.generations.get(&id)) {
            chain.push(generation);
            let reached = verified.contains(&generation.authority);
            next = if reached { None } else { generation.parent };
        }
        chain
    }

    fn verify(&self, generation: &Generation) -> Result<(), Error> {
        let signer = match generation.parent {
            None => &generation.public_key,
            Some(parent) => match self.generations.get(&parent) {
                Some(parent) => &parent.public_key,
                None => return Err(broken(generation, "its parent has no certificate")),
            },
        };
        generation
            .certificate
            .verify_issued_by(signer)
            .map_err(|_| broken(generation, "its parent's key did not sign it"))?;
        match generation.certificate.public_key() {
            Ok(key) if key == generation.public_key => Ok(()),
            _ => Err(broken(generation, "its certificate carries another key")),
        }
    }
}

impl Generation {
    fn read(row: &GenerationRow, spki: &[u8], der: &[u8]) -> Result<Self, Error> {
        let unreadable = |reason: String| {
            Error::stop(
                "hierarchy_unreadable",
                format!(
                    "authority {} generation {}: {reason}",
                    row.authority, row.number
                ),
            )
        };
        let public_key =
            PublicKey::from_spki_der(spki).map_err(|error| unreadable(error.to_string()))?;
        let certificate = Certificate::parse(der).map_err(|error| unreadable(error.to_string()))?;
        let issuer = Issuer::from_certificate(&certificate)
            .map_err(|error| unreadable(error.to_string()))?;
        let pem = certificate.to_pem();
        Ok(Self {
            id: row.id,
            authority: row.authority.clone(),
            number: row.number,
            parent: row.parent,
            token: row.token.clone(),
            key: KeyReference {
                spki_sha256: public_key.sha256(),
                label: row.key_label.clone(),
                id: row.key_id.clone(),
            },
            public_key,
            pem_json: to_raw_value(&pem).map_err(|error| unreadable(error.to_string()))?,
            pem,
            reading: IssuerReading::new(&certificate),
            certificate,
            issuer,
            serving: row.serving,
        })
    }
}

fn broken(generation: &Generation, reason: &str) -> Error {
    Error::stop(
        "hierarchy_broken",
        format!(
            "authority {} generation {}: {reason}; the database does not fit together, restore it \
             from a backup",
            generation.authority, generation.number
        ),
    )
}
