//! Lists and shows tokens for the operator. It changes nothing.

use super::{Code, ConfiguredToken, Error, Issuer};
use crate::store::GenerationRow;
use crate::token::client::LOOKUP_DEADLINE;
use crate::token::credential::is_credential;
use crate::token::inventory::Inventory;
use crate::token::key_proof::TEST_KEY_LABEL;
use crate::token::probe::{ModuleListing, Probe, SlotListing};
use crate::token::{KeyDescription, TokenDescription, TokenError, spki_sha256};
use crate::x509::key::{KeyType, PublicKey};
use crate::x509::ocsp::is_responder_label;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long the keys of a token may take to be listed.
const INVENTORY_DEADLINE: Duration = Duration::from_secs(60);

/// One slot of a module, and whose token is in it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct VisibleSlot {
    pub family: String,
    pub module: String,
    /// The slot's number, good until the next start; none if the module could not be asked.
    pub slot: Option<u64>,
    pub label: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// Its manufacturer and model.
    pub model: Option<String>,
    /// Its name in the configuration, if it has one.
    pub token: Option<String>,
    /// How it is, if it is configured.
    pub state: Option<&'static str>,
    /// The state of login and PIN, or the reason why it is unknown.
    pub remarks: String,
}

/// The answer for `hallmark token show`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TokenReport {
    /// Its name in the configuration.
    pub name: String,
    pub family: String,
    /// The token's description of itself, with its mechanisms.
    #[serde(flatten)]
    pub description: TokenDescription,
    /// The state of login and PIN.
    pub remarks: Vec<String>,
    /// The shortest PIN and the longest, in bytes.
    pub pin_bytes: (u64, u64),
    pub sessions: usize,
    /// Sessions that the worker has open, if the token reports them.
    pub sessions_open: Option<u64>,
    /// The most that it may open, if there is a limit.
    pub sessions_max: Option<u64>,
    pub keys: Vec<TokenKey>,
    /// Private keys that cannot be used, each with the reason.
    pub unusable: Vec<String>,
    /// How many private keys were not read.
    pub not_looked_at: usize,
}

/// A key on a token.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TokenKey {
    pub label: String,
    pub id: String,
    /// Its kind, if it is one of ours.
    pub key_type: Option<KeyType>,
    /// The purpose of the key.
    pub purpose: String,
    /// Hex SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: String,
    pub sensitive: bool,
    pub extractable: bool,
    pub never_extractable: bool,
    pub local: bool,
    /// Test signatures that are on record.
    pub proofs: i64,
}

/// Lists tokens and reports on them, without changing anything.
pub struct Tokens {
    issuer: Arc<Issuer>,
    probes: Vec<Probe>,
    /// One listing at a time: each costs a process for each module.
    listing: Arc<Mutex<()>>,
}

impl Tokens {
    pub(super) fn new(issuer: Arc<Issuer>, probes: Vec<Probe>, listing: Arc<Mutex<()>>) -> Self {
        Self {
            issuer,
            probes,
            listing,
        }
    }

    /// Lists the slots and tokens of every module, without login. Each module is asked in a process
    /// of its own.
    pub fn list_slots(&self) -> Result<Vec<VisibleSlot>, Error> {
        let _alone = self.listing.try_lock().map_err(|_| {
            Error::later(
                1,
                Code::LookUnderWay,
                "another command lists the modules; repeat it later",
            )
        })?;
        let mut rows: Vec<VisibleSlot> = std::thread::scope(|scope| {
            let asked: Vec<_> = self
                .probes
                .iter()
                .map(|probe| (probe, scope.spawn(|| probe.ask())))
                .collect();
            asked
                .into_iter()
                .flat_map(|(probe, answer)| match answer.join() {
                    Ok(Ok(module)) => self.rows(probe, module),
                    Ok(Err(error)) => vec![VisibleSlot::unknown(probe, format!("{error:#}"))],
                    Err(_) => vec![VisibleSlot::unknown(probe, "it could not be asked".into())],
                })
                .collect()
        });
        for (name, token) in self.issuer.tokens() {
            if !rows.iter().any(|row| row.token.as_ref() == Some(name)) {
                rows.push(VisibleSlot::unseen(name, token));
            }
        }
        Ok(rows)
    }

    fn rows(&self, probe: &Probe, module: ModuleListing) -> Vec<VisibleSlot> {
        module
            .slots
            .into_iter()
            .map(|slot| self.row(probe, slot))
            .collect()
    }

    fn row(&self, probe: &Probe, slot: SlotListing) -> VisibleSlot {
        let empty = VisibleSlot::unknown(probe, slot.problem.unwrap_or_else(|| "no token".into()));
        let Some(token) = slot.token else {
            return VisibleSlot {
                slot: Some(slot.slot),
                ..empty
            };
        };
        let configured = self.issuer.tokens().iter().find(|(_, configured)| {
            // A module in front of another one shows the same token.
            let is_its_family = configured.traits.family == probe.family;
            is_its_family
                && token.initialized
                && configured.traits.is_at(&token.label, &token.serial)
        });
        let mut remarks = token.remarks;
        if !token.initialized {
            remarks.insert(0, "not initialised".into());
        }
        VisibleSlot {
            slot: Some(slot.slot),
            label: Some(token.label),
            serial: Some(token.serial),
            model: Some(format!("{} {}", token.manufacturer, token.model)),
            token: configured.map(|(name, _)| name.clone()),
            state: configured.map(|(_, it)| it.client.health().state.name()),
            remarks: remarks.join(", "),
            ..empty
        }
    }

    /// Describes the token `name` and its objects.
    pub fn report(&self, name: &str) -> Result<TokenReport, Error> {
        let token = self.issuer.known_token(name)?;
        let description = token.client.describe(LOOKUP_DEADLINE)?;
        let inventory = match token.client.inventory(INVENTORY_DEADLINE) {
            Err(TokenError::Refused { reason, .. }) => Inventory {
                unusable: vec![reason],
                ..Inventory::default()
            },
            result => result?,
        };
        let mut report = TokenReport::new(
            name,
            token,
            description,
            inventory,
            &self.issuer.store().generations()?,
        );
        // Also those that were made a moment ago.
        self.issuer.record_key_uses(true)?;
        let proofs = self.issuer.store().key_proofs(name)?;
        for key in &mut report.keys {
            key.proofs = proofs.get(&key.spki_sha256).copied().unwrap_or_default();
        }
        Ok(report)
    }
}

impl VisibleSlot {
    fn unknown(probe: &Probe, remarks: String) -> Self {
        Self {
            family: probe.family.clone(),
            module: probe.module.display().to_string(),
            slot: None,
            label: None,
            serial: None,
            model: None,
            token: None,
            state: None,
            remarks,
        }
    }

    /// A configured token that no module shows.
    fn unseen(name: &str, token: &ConfiguredToken) -> Self {
        let health = token.client.health();
        Self {
            family: token.traits.family.clone(),
            module: "-".into(),
            slot: None,
            label: None,
            serial: None,
            model: None,
            token: Some(name.to_owned()),
            state: Some(health.state.name()),
            remarks: health.reason,
        }
    }
}

impl TokenReport {
    fn new(
        name: &str,
        token: &ConfiguredToken,
        description: TokenDescription,
        inventory: Inventory,
        generations: &[GenerationRow],
    ) -> Self {
        let ours: Vec<_> = generations.iter().filter(|it| it.token == name).collect();
        let keys = inventory.keys.iter();
        Self {
            name: name.to_owned(),
            family: token.traits.family.clone(),
            description,
            remarks: inventory.remarks,
            pin_bytes: inventory.pin_bytes,
            sessions: token.traits.sessions,
            sessions_open: inventory.sessions_open,
            sessions_max: inventory.sessions_max,
            keys: keys.map(|key| TokenKey::new(key, &ours)).collect(),
            unusable: inventory.unusable,
            not_looked_at: inventory.not_looked_at,
        }
    }
}

impl TokenKey {
    fn new(key: &KeyDescription, generations: &[&GenerationRow]) -> Self {
        let public_key = PublicKey::from_spki_der(&key.spki).ok();
        let owner = generations.iter().find(|it| match &it.spki {
            Some(spki) => *spki == key.spki,
            // Its key is made just now, or was when the daemon ended: the next try takes it.
            None => it.key_id == key.id,
        });
        Self {
            label: key.label.clone(),
            id: hex::encode(&key.id),
            key_type: public_key.map(|it| it.key_type()),
            purpose: match owner {
                Some(row) => format!(
                    "{} generation {} ({})",
                    row.authority,
                    row.number,
                    row.state.name()
                ),
                None if is_credential(&key.label) => "credential".into(),
                None if is_responder_label(&key.label) => "OCSP responder".into(),
                None if key.label == TEST_KEY_LABEL => "left behind by a check or bench".into(),
                None => "none of ours".into(),
            },
            spki_sha256: hex::encode(spki_sha256(&key.spki)),
            sensitive: key.sensitive,
            extractable: key.extractable,
            never_extractable: key.never_extractable,
            local: key.local,
            proofs: 0,
        }
    }
}
