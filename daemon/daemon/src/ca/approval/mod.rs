//! Has a second person approve what policy names, by a signature that the database cannot forge.
//!
//! The request of a caller is written as a document ([`document`]); an approver signs it with the
//! key of their own certificate. When the caller asks again, the document is written again from
//! what is asked *then*, and the signature is verified over that: of the request on record only
//! nonce and times are read. The approver's certificate must be good at that moment, as for any
//! caller: `Issuer::identify` judges it, so a row in the database makes no approver.
//!
//! An approval is used up in a transaction of its own before the effect. A crash in between leaves
//! a used approval and no effect. The journal's entry has document, certificate and signature, so
//! an export of the journal proves the approval without the daemon.

pub mod action;
pub mod document;
mod signature;

pub use action::Action;
pub use document::{AskedAction, Terms};

use super::authorize::{Approve, Authorized, Caller};
use super::profile::Role;
use super::{Code, Error, Issuer};
use crate::ids::ApprovalId;
use crate::store::{ApprovalRow, ApprovalState, AuditEntry, NewApproval, Signed};
use crate::x509::certificate::Certificate;
use crate::x509::key::PublicKey;
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use document::{differing, signed_bytes, signed_sha256};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The longest document, in bytes: an approver reads it.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// The longest signature: RSA with 4096 bits, in bytes.
const SIGNATURE_BYTES_MAX: usize = 512;

/// Which actions need an approval, and how long a request for one stands.
#[derive(Clone, Debug, Default)]
pub struct ApprovalPolicy {
    pub actions: BTreeSet<Action>,
    /// In seconds.
    pub valid_seconds: i64,
}

/// Whether an action may go on.
#[derive(Debug)]
pub enum Admission {
    /// It is approved, and the approval is used up.
    Approved,
    /// The request waits for an approval.
    Waits(Box<ApprovalRow>),
}

/// Keeps requests for approvals, judges signatures and uses approvals up.
pub struct Approvals {
    issuer: Arc<Issuer>,
    policy: ApprovalPolicy,
}

/// The holder of a certificate that may approve.
struct Approver {
    /// Role and name.
    caller: String,
    /// Its common name.
    name: String,
    certificate: Certificate,
}

impl Approvals {
    pub(super) fn new(issuer: Arc<Issuer>, policy: ApprovalPolicy) -> Self {
        Self { issuer, policy }
    }

    /// Returns the first of `actions` that needs an approval.
    pub fn guarded(&self, actions: &[Action]) -> Option<Action> {
        let mut actions = actions.iter().copied();
        actions.find(|it| self.policy.actions.contains(it))
    }

    /// Whether nothing needs an approval.
    pub fn is_empty(&self) -> bool {
        self.policy.actions.is_empty()
    }

    /// Lets an action go on by an approval, which is used up; or records that it waits for one.
    pub fn admit(&self, asked: &AskedAction, by: Option<ApprovalId>) -> Result<Admission, Error> {
        let Some(id) = by else {
            return Ok(Admission::Waits(Box::new(self.request(asked)?)));
        };
        let row = self.issuer.store().approval(id)?;
        match row.state(self.issuer.now()) {
            ApprovalState::Rejected => Err(Error::conflict(
                Code::ApprovalRejected,
                format!(
                    "request {id} was rejected by {}; ask for another one by the command without \
                     --approval",
                    row.rejected_by.unwrap_or_default()
                ),
            )),
            ApprovalState::Used => Err(Error::conflict(
                Code::ApprovalUsed,
                format!("approval {id} was used; ask for another one"),
            )),
            ApprovalState::Expired => Err(expired(&row)),
            ApprovalState::Waiting | ApprovalState::Approved => self.take(asked, row),
        }
    }

    fn request(&self, asked: &AskedAction) -> Result<ApprovalRow, Error> {
        let now = self.issuer.now();
        let mut nonce = [0; 16];
        rand::fill(&mut nonce).map_err(|_| {
            Error::stop(Code::RandomSource, "the random source of the machine fails")
        })?;
        let terms = Terms {
            asked_at: now,
            expires_at: now.saturating_add(self.policy.valid_seconds),
            nonce: hex::encode(nonce),
        };
        let document = asked.document(&terms);
        if document.len() > DOCUMENT_BYTES_MAX {
            let message = format!(
                "the request has {} bytes, and one that needs an approval may have \
                 {DOCUMENT_BYTES_MAX}; send several",
                document.len()
            );
            return Err(Error::invalid(Code::ApprovalInvalid, message));
        }
        let sha256 = signed_sha256(&document);
        let entry = AuditEntry {
            at: now,
            actor: asked.asked_by.clone(),
            action: "approval.requested",
            subject: String::new(),
            detail: json!({
                "action": asked.action.name(), "sha256": hex::encode(sha256), "document": document,
            }),
        };
        let new = NewApproval {
            action: asked.action.name(),
            asked_by: asked.asked_by.clone(),
            asked_at: now,
            expires_at: terms.expires_at,
            nonce: terms.nonce,
            content_sha256: asked.content_sha256(),
            document,
            sha256,
        };
        Ok(self.issuer.store().request_approval(new, entry)?)
    }

    /// Verifies an approval for what is asked now, and uses it up.
    fn take(&self, asked: &AskedAction, row: ApprovalRow) -> Result<Admission, Error> {
        let id = row.id;
        let terms = Terms {
            asked_at: row.asked_at,
            expires_at: row.expires_at,
            nonce: row.nonce.clone(),
        };
        let document = asked.document(&terms);
        if document != row.document {
            let message = format!(
                "request {id} is for something else: {} differ; repeat the command as it was, or \
                 ask for another approval",
                differing(&document, &row.document).join(", ")
            );
            return Err(Error::conflict(Code::ApprovalDiffers, message));
        }
        let Some(signed) = &row.signed else {
            return Ok(Admission::Waits(Box::new(row)));
        };
        let approver = self.approver_on_record(&signed.certificate)?;
        approver.refuse_own(&asked.asked_by)?;
        approver.refuse_forged(&document, &signed.signature)?;
        let entry = AuditEntry {
            at: self.issuer.now(),
            actor: asked.asked_by.clone(),
            action: "approval.used",
            subject: id.to_string(),
            detail: approver.proof(&row, &signed.signature),
        };
        let sha256 = signed_sha256(&document);
        self.issuer.store().use_approval(id, sha256, entry)?;
        Ok(Admission::Approved)
    }

    /// Records the signature of an approver over the document of a request. Without a certificate
    /// it is that of the caller.
    pub fn approve(
        &self,
        permission: &Authorized<Approve>,
        id: ApprovalId,
        certificate: Option<&[u8]>,
        signature: Vec<u8>,
    ) -> Result<ApprovalRow, Error> {
        let row = self.issuer.store().approval(id)?;
        let now = self.issuer.now();
        if row.state(now) == ApprovalState::Expired {
            return Err(expired(&row));
        }
        let approver = match certificate {
            Some(der) => self.approver(der)?,
            None => {
                let own = permission.caller().requester().ok_or_else(|| {
                    let message = "name the certificate of the approver (--certificate FILE): a \
                                   local user has none";
                    Error::invalid(Code::ApprovalInvalid, message)
                })?;
                self.approver_on_record(&own.sha256)?
            }
        };
        approver.refuse_own(&row.asked_by)?;
        approver.refuse_forged(&row.document, &signature)?;
        let entry = AuditEntry {
            at: now,
            actor: approver.caller.clone(),
            action: "approval.given",
            subject: id.to_string(),
            detail: approver.proof(&row, &signature),
        };
        let signed = Signed {
            by: approver.caller,
            certificate: approver.certificate.sha256(),
            signature,
        };
        Ok(self.issuer.store().approve(id, signed, entry)?)
    }

    /// Rejects a request. Its own caller may, too.
    pub fn reject(
        &self,
        permission: &Authorized<Approve>,
        id: ApprovalId,
    ) -> Result<ApprovalRow, Error> {
        let row = self.issuer.store().approval(id)?;
        let entry = AuditEntry {
            at: self.issuer.now(),
            actor: permission.caller().to_string(),
            action: "approval.rejected",
            subject: id.to_string(),
            detail: json!({ "action": row.action, "sha256": hex::encode(row.sha256) }),
        };
        Ok(self.issuer.store().reject_approval(id, entry)?)
    }

    /// Returns the requests that wait for an approval, the newest first.
    pub fn waiting(&self) -> Result<Vec<ApprovalRow>, Error> {
        /// As many as may wait, and some that were decided since.
        const LOOKED_AT_MAX: u32 = 200;
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.issuer.now();
        let mut rows = self.issuer.store().approvals(None, LOOKED_AT_MAX)?;
        rows.retain(|it| it.state(now) == ApprovalState::Waiting);
        Ok(rows)
    }

    fn approver_on_record(&self, sha256: &[u8; 32]) -> Result<Approver, Error> {
        let row = self.issuer.store().certificate_by_sha256(sha256)?;
        let row = row.ok_or_else(|| refused("its certificate is not on record"))?;
        self.approver(&row.der)
    }

    /// Judges a certificate as that of a caller.
    fn approver(&self, der: &[u8]) -> Result<Approver, Error> {
        let found = self.issuer.find_client(der)?;
        let caller = self
            .issuer
            .identify(found)
            .map_err(|it| refused(&it.message))?;
        let may_approve = matches!(
            caller,
            Caller::Certificate {
                role: Role::Operator | Role::Approver,
                ..
            }
        );
        let written = caller.to_string();
        match caller {
            Caller::Certificate { name, .. } if may_approve => Ok(Approver {
                caller: written,
                name,
                certificate: Certificate::parse(der).map_err(|it| refused(&it.to_string()))?,
            }),
            _ => Err(refused(&format!(
                "{written} may not approve; an operator or approver may"
            ))),
        }
    }
}

impl Approver {
    /// Refuses the approval of what the same person has asked for, in whatever role.
    fn refuse_own(&self, asked_by: &str) -> Result<(), Error> {
        let asker = asked_by.split_once(' ').map_or(asked_by, |(_, name)| name);
        if !asker.eq_ignore_ascii_case(&self.name) {
            return Ok(());
        }
        let message = format!(
            "{asked_by} has asked for this, and {} has the same name; have another person approve \
             it",
            self.caller
        );
        Err(Error::conflict(Code::ApprovalOwn, message))
    }

    fn refuse_forged(&self, document: &str, signature: &[u8]) -> Result<(), Error> {
        let key = PublicKey::from_spki_der(self.certificate.spki_der());
        let key = key.map_err(|it| refused(&it.to_string()))?;
        let is_short = signature.len() <= SIGNATURE_BYTES_MAX;
        if is_short && signature::verifies(&key, &signed_bytes(document), signature) {
            return Ok(());
        }
        let message = format!(
            "the signature is not by the key of {} over this document; sign what `hallmark \
             approval show ID --file FILE` writes, with the key of that certificate",
            self.caller
        );
        Err(Error::invalid(Code::ApprovalSignature, message))
    }

    /// Returns the members of an entry that prove the approval without the daemon.
    fn proof(&self, row: &ApprovalRow, signature: &[u8]) -> Value {
        json!({
            "action": row.action,
            "asked_by": row.asked_by,
            "approved_by": self.caller,
            "sha256": hex::encode(signed_sha256(&row.document)),
            "document": row.document,
            "serial": self.certificate.serial().to_string(),
            "certificate": STANDARD.encode(self.certificate.der()),
            "signature": STANDARD.encode(signature),
        })
    }
}

fn expired(row: &ApprovalRow) -> Error {
    let message = format!(
        "request {} has ended at {}; ask for another one by the command without --approval",
        row.id, row.expires_at
    );
    Error::conflict(Code::ApprovalExpired, message)
}

fn refused(why: &str) -> Error {
    let message = format!("the approver's certificate is not accepted: {why}");
    Error::conflict(Code::ApproverRefused, message)
}
