//! Defines intents, the exact bytes to be signed, and the reasons for which one is refused.

use super::certificate::CertificateRow;
use super::certified_key::KeyRefusal;
use super::grant::Grant;
use super::{REQUESTER_REVOKED, StoreError, UnixSeconds};
use crate::der_bytes::Der;
use crate::enrollment::role::Role;
use crate::ids::{GenerationId, IntentId};
use std::collections::BTreeSet;

/// The purpose of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A leaf: of a device, a station, an operator or a server.
    Leaf,
    /// The certificate of an authority's generation.
    Authority,
    /// The certificate of an authority elsewhere, whose key is not here.
    Subordinate,
    /// The certificate of one generation of a root by another one.
    Cross,
    /// A verification certificate for the provisioning service (docs/dps-contract.md, section 11).
    Possession,
}

impl Purpose {
    pub(super) fn name(self) -> &'static str {
        match self {
            Purpose::Leaf => "leaf",
            Purpose::Authority => "authority",
            Purpose::Subordinate => "subordinate",
            Purpose::Cross => "cross",
            Purpose::Possession => "possession",
        }
    }
}

/// A caller's key for one request, by which a repeat is recognized.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The `Idempotency-Key`, unique per caller.
    pub key: String,
    /// SHA-256 of its content: profile, name and CSR.
    pub request_sha256: [u8; 32],
}

/// A signature to record before it is made.
#[derive(Clone, Debug)]
pub struct Intent {
    pub serial: Vec<u8>,
    /// The generation that signs.
    pub issuer: GenerationId,
    /// The purpose of the signature.
    pub purpose: Purpose,
    pub profile: String,
    /// Registration id, authority name or verification code: the subject's common name.
    pub subject: String,
    /// The complete bytes to be signed.
    pub tbs: Der,
    /// When its validity begins.
    pub not_before: UnixSeconds,
    pub not_after: UnixSeconds,
    /// The role of the leaf's holder; `None` for all other purposes.
    pub role: Option<Role>,
    pub caller: String,
    /// The caller's client certificate, if it has one.
    pub requester: Option<Requester>,
    /// How a repeat is recognized.
    pub idempotency: Option<Idempotency>,
    /// The SubjectPublicKeyInfo of the certified key.
    pub public_key: Der,
    /// Other holders may have a leaf with the same key.
    pub shared_key: bool,
    /// The leaf is for a device, whose spelling and slots are checked.
    pub is_device: bool,
    /// The other profiles from which a device may be moved to this one.
    pub moves: Moves,
    /// By what a device without a valid leaf requests this one.
    pub grant: Option<Grant>,
    pub at: UnixSeconds,
}

/// The profiles from which a registered device may be moved to the requested one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moves {
    Never,
    /// From none; the device requests its own leaf.
    NotByItself,
    /// From every profile but these.
    NotFrom(BTreeSet<String>),
}

/// The client certificate of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    /// SHA-256 of its DER.
    pub sha256: [u8; 32],
    /// The value of [`Store::revocations`](super::Store::revocations) when the caller was
    /// authorized. While it has not changed, the certificate cannot have been revoked.
    pub revocations: u64,
}

/// Bytes that were recorded durably before a token gets them. Only the store makes this value, and
/// a token signs nothing else: promise 1 of the design as a type.
#[derive(Debug)]
pub struct Recorded<Id = IntentId> {
    id: Id,
    tbs: Der,
    requester: Option<Requester>,
    grant: Option<Grant>,
}

impl Recorded {
    pub(super) fn of_intent(
        id: IntentId,
        tbs: Der,
        requester: Option<Requester>,
        grant: Option<Grant>,
    ) -> Self {
        Self {
            id,
            tbs,
            requester,
            grant,
        }
    }

    pub(super) fn grant(&self) -> Option<Grant> {
        self.grant.clone()
    }
}

impl<Id: Copy> Recorded<Id> {
    /// For bytes of the other tables: requests and revocation lists.
    pub(super) fn new(id: Id, tbs: Der) -> Self {
        Self {
            id,
            tbs,
            requester: None,
            grant: None,
        }
    }

    pub(super) fn requester(&self) -> Option<Requester> {
        self.requester
    }

    /// Returns the row id; for a request that of its generation.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Returns the recorded bytes.
    pub fn tbs(&self) -> &[u8] {
        &self.tbs
    }
}

/// Why an intent was not recorded: its request is refused, or the store failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IntentError {
    /// An intent for this subject is open.
    #[error("a certificate for {0} is being issued at this moment; repeat the request")]
    UnderWay(String),
    /// This idempotency key was used before.
    #[error("the idempotency key was used before")]
    Repeated(PriorRequest),
    /// The serial number exists: the random source is faulty.
    #[error("the serial number exists already")]
    SerialExists,
    /// The device is on record in another spelling, and its common name never changes.
    #[error("the device is registered as {known:?}; ask for exactly that registration id")]
    Spelling {
        /// The spelling on record.
        known: String,
    },
    /// The device is registered with another profile, and the caller may not move it.
    #[error(
        "{device} is registered with profile {registered:?}; ask by that, or allow its move to \
         {asked:?}: `may_move` in the [[station]], `hallmark issue --move` by an operator"
    )]
    Moves {
        device: String,
        registered: String,
        asked: String,
    },
    /// A device requests its own leaf by another profile than the registered one.
    #[error(
        "{device} is registered with profile {registered:?} and renews by that alone; ask by that, \
         or have an operator move it to {asked:?} with `hallmark issue --move`"
    )]
    OwnProfile {
        device: String,
        registered: String,
        asked: String,
    },
    /// The device is blocked.
    #[error(
        "{0} is blocked and gets no certificate; lift the block with `hallmark device unblock`"
    )]
    Blocked(String),
    /// The device's group is blocked.
    #[error(
        "the group {group}, which admits {device}, is blocked and its devices get no certificate; \
         lift the block with `hallmark enrollment unblock --group {group}`"
    )]
    GroupBlocked { device: String, group: String },
    /// The key is compromised or belongs to another holder.
    #[error(transparent)]
    Key(KeyRefusal),
    /// A roll of this device is open, and a third certificate has no slot.
    #[error(
        "a roll of this device is under way ({waits_for}); both slots are taken until it ends \
         (`hallmark roll list` shows it)"
    )]
    RollUnderWay {
        /// The event that the roll waits for.
        waits_for: String,
    },
    /// The issuing generation of a device's leaf does not serve any more.
    #[error("the authority has a new generation since this moment; repeat the request")]
    IssuerReplaced,
    /// The caller's client certificate was revoked after the caller was authorized.
    #[error("{REQUESTER_REVOKED}")]
    RequesterRevoked,
    /// The ended leaf has renewed itself before.
    #[error(
        "this certificate has renewed itself after its end once, and does so no second time; have \
         a station or an operator request the next one with a new key"
    )]
    LateRenewalUsed,
    /// The device has a newer leaf than the ended one.
    #[error(
        "{0} has a newer certificate than this one, which has ended; present the newer one, or \
         have a station or an operator request the next one with a new key"
    )]
    LateRenewalSuperseded(String),
    /// The one-time credential has given its certificate.
    #[error(
        "this one-time credential was used for a certificate; have a station or an operator make \
         another one"
    )]
    CredentialUsed,
    /// The one-time credential was revoked after the caller was identified.
    #[error("this one-time credential was revoked; have a station or an operator make another one")]
    CredentialRevoked,
    /// The birth certificate has given as many certificates as it may.
    #[error(
        "{device} has had {times} certificates by its birth certificate, as many as `times` in its \
         [[birth]] allows; have a station or an operator request the next one"
    )]
    BirthUsed { device: String, times: i64 },
    /// The device's newest leaf is revoked or on hold.
    #[error(
        "the newest certificate of {0} is revoked or on hold, so the device gets no other by \
         itself; have a station or an operator request the next one"
    )]
    NewestRevoked(String),
    /// The issuing generation is revoked.
    #[error(
        "the generation that would sign this is revoked, and signs nothing any more; roll its \
         authority, or lift the block that holds it"
    )]
    IssuerRevoked,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The outcome of an earlier request with the same idempotency key.
#[derive(Clone, Debug)]
pub enum PriorRequest {
    /// This certificate was issued.
    Issued(Box<CertificateRow>),
    /// Its intent is open.
    UnderWay,
}
