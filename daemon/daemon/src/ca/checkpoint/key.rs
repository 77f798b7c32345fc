//! Makes the key that signs checkpoints, and has the token confirm that it holds it: the record of
//! the key is in the database, which its owner can write.

use crate::ca::issuer::generation::new_key_id;
use crate::ca::{Code, Error, Issuer, crash_point, lock};
use crate::journal::checkpoint::key_label;
use crate::journal::finding::{Finding, FindingKind};
use crate::store::{AuditEntry, AuditKeyRow};
use crate::token::client::LOOKUP_DEADLINE;
use crate::token::{KeyReference, KeySpecification, TokenError};
use crate::x509::key::{KeyType, PublicKey};
use crate::x509::key_pem::public_key_pem;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

/// A key that signs checkpoints, for those who verify them.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AuditKey {
    /// 1, 2, 3 …
    pub number: i64,
    /// The token that holds it.
    pub token: String,
    /// Its label on the token.
    pub label: String,
    /// Hex SHA-256 of its SubjectPublicKeyInfo.
    pub sha256: String,
    /// The public key as PEM.
    pub pem: String,
}

/// The key that signs now.
pub(super) struct SigningKey {
    pub(super) reference: KeyReference,
    pub(super) public_key: PublicKey,
}

impl Issuer {
    /// Returns the keys that have signed checkpoints, the oldest first.
    pub fn audit_keys(&self) -> Result<Vec<AuditKey>, Error> {
        let rows = self.store().audit_keys()?;
        let keys = rows.iter().filter_map(|row| {
            let key = public_key(row)?;
            Some(AuditKey {
                number: row.number,
                token: row.token.clone(),
                label: key_label(row.number),
                sha256: hex::encode(key.sha256()),
                pem: public_key_pem(&key),
            })
        });
        Ok(keys.collect())
    }

    /// Returns the keys whose checkpoints are believed.
    pub(super) fn journal_keys(&self) -> Result<Vec<PublicKey>, Error> {
        let pinned = &self.settings().audit.pinned;
        if !pinned.is_empty() {
            return Ok(pinned.clone());
        }
        let rows = self.store().audit_keys()?;
        Ok(rows.iter().filter_map(public_key).collect())
    }

    /// Returns the key on this token that signs checkpoints; makes it before the first one.
    pub(super) fn signing_key(&self, token: &str) -> Result<SigningKey, Error> {
        let rows = self.store().audit_keys()?;
        let last = rows.len().saturating_sub(1);
        for (index, row) in rows.iter().enumerate() {
            match self.confirm_key(row) {
                // The token of an earlier key may be away.
                Err(error) if index == last || error.code == Code::TokenKey => return Err(error),
                _ => {}
            }
        }
        let newest = rows.into_iter().next_back();
        let row = match newest {
            Some(row) if row.token == token && row.spki.is_some() => row,
            newest => self.make_audit_key(token, newest)?,
        };
        let public_key = public_key(&row)
            .ok_or_else(|| Error::stop(Code::TokenKey, "the audit journal has no usable key"))?;
        Ok(SigningKey {
            reference: reference(&row, &public_key),
            public_key,
        })
    }

    /// Has the token find a key on record, once for each process. A key whose token the
    /// configuration has no more can be pinned alone.
    fn confirm_key(&self, row: &AuditKeyRow) -> Result<(), Error> {
        let Some(public_key) = public_key(row) else {
            return Ok(());
        };
        let Ok(token) = self.token(&row.token) else {
            return Ok(());
        };
        let key = SigningKey {
            reference: reference(row, &public_key),
            public_key,
        };
        let sha256 = key.public_key.sha256();
        if lock(&self.journal().known).confirmed.contains(&sha256) {
            return Ok(());
        }
        let found = token.client.find(&key.reference, LOOKUP_DEADLINE);
        let pinned = &self.settings().audit.pinned;
        let is_pinned = pinned.is_empty() || pinned.contains(&key.public_key);
        let held = found
            .as_ref()
            .is_ok_and(|it| it.spki == key.reference.spki && it.label == key.reference.label);
        if held && is_pinned {
            lock(&self.journal().known).confirmed.insert(sha256);
            return Ok(());
        }
        match found {
            Ok(_) | Err(TokenError::Key { .. }) => {
                let which = if held {
                    "[audit] key names"
                } else {
                    "the token holds"
                };
                let text = format!(
                    "the database has another key for checkpoints than {which} ({})",
                    key.reference.label
                );
                self.note_finding(Finding::new(FindingKind::KeyUnknown, 0, 0, text.clone()));
                Err(Error::stop(Code::TokenKey, text))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the next key, or the planned one that an interrupted run has not recorded.
    fn make_audit_key(
        &self,
        token: &str,
        newest: Option<AuditKeyRow>,
    ) -> Result<AuditKeyRow, Error> {
        let store = self.store();
        let planned = newest.as_ref().filter(|it| it.spki.is_none());
        let row = match planned {
            Some(planned) if planned.token == token => planned.clone(),
            _ => {
                let number = match (planned, &newest) {
                    (Some(planned), _) => planned.number,
                    (None, last) => last.as_ref().map_or(1, |it| it.number + 1),
                };
                let plan = AuditKeyRow {
                    number,
                    token: token.to_owned(),
                    key_type: self.audit_key_type(token)?,
                    key_id: new_key_id()?,
                    spki: None,
                    key_wrapped: None,
                };
                store.plan_audit_key(plan.clone())?;
                plan
            }
        };
        crash_point("audit-key-planned");
        let specification = KeySpecification {
            key_type: row.key_type,
            label: key_label(row.number),
            id: row.key_id.clone(),
        };
        let made = self.make_proven_key(token, &specification)?;
        crash_point("audit-key-made");
        let entry = AuditEntry {
            at: self.now(),
            actor: "hallmarkd".into(),
            action: "audit.key_made",
            subject: specification.label,
            detail: json!({
                "token": token,
                "key": hex::encode(crate::token::spki_sha256(&made.spki)),
            }),
        };
        store.record_audit_key(row.number, made.spki.clone(), made.wrapped.clone(), entry)?;
        Ok(AuditKeyRow {
            spki: Some(made.spki),
            key_wrapped: made.wrapped,
            ..row
        })
    }

    /// P-256, or where the token does not make it, RSA-2048.
    fn audit_key_type(&self, token: &str) -> Result<KeyType, Error> {
        let description = self.token(token)?.client.describe(LOOKUP_DEADLINE)?;
        let makes_p256 = crate::ca::roll::successor::makes(&description, KeyType::P256);
        Ok(if makes_p256 {
            KeyType::P256
        } else {
            KeyType::Rsa2048
        })
    }
}

fn public_key(row: &AuditKeyRow) -> Option<PublicKey> {
    PublicKey::from_spki_der(row.spki.as_ref()?).ok()
}

fn reference(row: &AuditKeyRow, key: &PublicKey) -> KeyReference {
    KeyReference {
        spki: key.spki_der().clone(),
        label: key_label(row.number),
        id: row.key_id.clone(),
        wrapped: row.key_wrapped.clone(),
    }
}
