//! Intents and certificates: steps 3, 7 and 10 of the issuance cycle.

use super::audit::{self, AuditEntry};
use super::certified_key::{self, KeyInTheWay};
use super::client;
use super::stored_name::Stored;
use super::{Moves, REQUESTER_REVOKED, Store, StoreError, generation, leaf, possession};
use crate::enrollment::role::Role;
use crate::x509::revocation::RevocationReason;
use aws_lc_rs::digest;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A leaf: of a device, a station, an operator or a server.
    Leaf,
    /// The certificate of an authority's generation.
    Authority,
    /// A verification certificate for the provisioning service (contract section 11).
    Possession,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Purpose::Leaf => "leaf",
            Purpose::Authority => "authority",
            Purpose::Possession => "possession",
        }
    }
}

/// A caller's name for one request, so that a repeat is not a second request.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The `Idempotency-Key`, unique per caller.
    pub key: String,
    /// SHA-256 of everything that the request said.
    pub request_sha256: [u8; 32],
}

/// What is about to be signed.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The serial number's octets.
    pub serial: Vec<u8>,
    /// The generation that signs.
    pub issuer: i64,
    /// What the signature is for.
    pub purpose: Purpose,
    /// The profile's name.
    pub profile: String,
    /// Registration id, authority name or verification code: the subject's common name.
    pub subject: String,
    /// The bytes to be signed, complete.
    pub tbs: Vec<u8>,
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
    /// What the holder of the leaf will be to this daemon; `None` for all other purposes.
    pub role: Option<Role>,
    /// Who asked.
    pub caller: String,
    /// The client certificate by which the request came, if it came by one.
    pub requester: Option<Requester>,
    /// How a repeat is recognised.
    pub idempotency: Option<Idempotency>,
    /// The certified key: DER SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// Other holders may have a leaf with the same key.
    pub shared_key: bool,
    /// The leaf becomes the device's: its spelling and slots are checked.
    pub is_device: bool,
    /// For a device: from which other profiles it may be moved to this one.
    pub moves: Moves,
    /// Unix seconds.
    pub at: i64,
}

/// The client certificate by which a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    /// SHA-256 of its DER.
    pub sha256: [u8; 32],
    /// [`Store::revocations`] before it was judged: only if that has changed can it be revoked.
    pub revocations: u64,
}

/// Bytes that stand in the store, durable, before a token sees them. Only this module makes the
/// value, and a token signs nothing else: that is promise 1 of the design as a type.
#[derive(Debug)]
pub struct Recorded {
    id: i64,
    tbs: Vec<u8>,
    requester: Option<Requester>,
}

impl Recorded {
    /// For the store's other tables of what is signed.
    pub(super) fn new(id: i64, tbs: Vec<u8>) -> Self {
        Self {
            id,
            tbs,
            requester: None,
        }
    }

    /// The row id: that of the intent, for a certificate.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Exactly the bytes on record.
    pub fn tbs(&self) -> &[u8] {
        &self.tbs
    }
}

/// Why an intent was not recorded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IntentRefusal {
    /// A signature for this subject is under way.
    #[error("a certificate for {0} is being issued at this moment; repeat the request")]
    UnderWay(String),
    /// Step 3: this idempotency key was used before.
    #[error("the idempotency key was used before")]
    Repeated(PriorRequest),
    /// The serial number exists: the random source is broken, or very lucky.
    #[error("the serial number exists already")]
    SerialExists,
    /// The device is known by another spelling, and its common name never changes.
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
        /// The device.
        device: String,
        /// Its profile.
        registered: String,
        /// The profile that was asked for.
        asked: String,
    },
    /// A device asks for itself by another profile than its own.
    #[error(
        "{device} is registered with profile {registered:?} and renews by that alone; ask by that, \
         or have an operator move it to {asked:?} with `hallmark issue --move`"
    )]
    OwnProfile {
        /// The device.
        device: String,
        /// Its profile.
        registered: String,
        /// The profile that was asked for.
        asked: String,
    },
    /// An operator keeps the device out.
    #[error("{0} is blocked and gets no certificate; `hallmark device unblock` lets it back in")]
    Blocked(String),
    /// An operator keeps the device's group out.
    #[error(
        "the group {group}, which lets {device} in, is blocked and its devices get no certificate; \
         `hallmark enrollment unblock --group {group}` lets them back in"
    )]
    GroupBlocked {
        /// The device.
        device: String,
        /// The group.
        group: String,
    },
    /// The key is compromised, or another holder's.
    #[error(transparent)]
    Key(KeyInTheWay),
    /// A roll of this device has not ended; a third certificate has no slot.
    #[error(
        "a roll of this device is under way ({waits_for}); both slots are taken until it ends \
         (`hallmark roll list` shows it)"
    )]
    RollUnderWay {
        /// What the roll waits for.
        waits_for: String,
    },
    /// The generation that should sign a device's leaf does not serve any more.
    #[error("the authority has a new generation since this moment; repeat the request")]
    IssuerReplaced,
    /// The client certificate by which the request came was revoked after it was judged.
    #[error("{REQUESTER_REVOKED}")]
    RequesterRevoked,
    /// The generation that should sign is revoked.
    #[error(
        "the generation that would sign this is revoked, and signs nothing any more; roll its \
         authority, or lift the block that holds it"
    )]
    IssuerRevoked,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What else becomes true when a certificate is recorded.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// Nothing else.
    Alone,
    /// The leaf is this device's current one; its individual enrollments take it into a slot.
    Device {
        /// The device.
        registration_id: String,
        /// The profile it was issued by.
        profile: String,
    },
    /// The generation has its certificate and serves.
    Authority {
        /// The generation's row id.
        generation: i64,
    },
    /// The CA certificate at the provisioning service can be proven.
    Possession {
        /// The CA certificate's row id.
        ca_certificate: i64,
    },
}

/// What recording a certificate brought about.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Provisioning services whose enrollment took the leaf into a slot.
    pub provisioning: Vec<String>,
}

/// An issued certificate, with what it was issued for.
#[derive(Clone, Debug)]
pub struct CertificateRow {
    /// DER.
    pub der: Vec<u8>,
    /// SHA-256 of the DER.
    pub sha256: [u8; 32],
    /// The serial number's octets.
    pub serial: Vec<u8>,
    /// The generation that signed it.
    pub issuer: i64,
    /// The profile's name.
    pub profile: String,
    /// Registration id, or whatever the common name is.
    pub subject: String,
    /// What its holder is to this daemon; only leaves have a role.
    pub role: Option<Role>,
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
    /// Unix seconds; `None` while it is good.
    pub revoked_at: Option<i64>,
    /// Why it is revoked.
    pub revocation_reason: Option<RevocationReason>,
    /// SHA-256 of the request that asked for it, if it came with an idempotency key.
    pub request_sha256: Option<Vec<u8>>,
}

pub(super) const SELECT: &str = "SELECT c.der, c.sha256, i.serial, i.issuer, i.profile, i.subject, \
     i.not_before, i.not_after, c.revoked_at, i.request_sha256, c.revocation_reason, i.role \
     FROM certificate c JOIN intent i ON i.id = c.intent";

/// The answer to an idempotency key.
#[derive(Clone, Debug)]
pub enum PriorRequest {
    /// It was answered with this certificate.
    Issued(Box<CertificateRow>),
    /// It is being worked on.
    UnderWay,
}

impl Store {
    /// Step 3: what became of the request that used this key.
    pub async fn prior_request(
        &self,
        caller: &str,
        idempotency_key: &str,
    ) -> Result<Option<PriorRequest>, StoreError> {
        let (caller, key) = (caller.to_owned(), idempotency_key.to_owned());
        let found = self
            .writer
            .run(move |connection| prior_request(connection, &caller, &key));
        found.await
    }

    /// The same as it stands at this moment, for whoever has to find a key that is free.
    pub fn answered_request(
        &self,
        caller: &str,
        idempotency_key: &str,
    ) -> Result<Option<PriorRequest>, StoreError> {
        self.read(|connection| prior_request(connection, caller, idempotency_key))
    }

    /// Steps 3 and 7: records durably what is about to be signed, unless the same was asked for
    /// before. The value that comes back is the only thing a token accepts.
    pub async fn record_intent(&self, intent: Intent) -> Result<Recorded, IntentRefusal> {
        let tbs = intent.tbs.clone();
        let requester = intent.requester;
        let revocations = self.revocations_counter();
        let recorded = self.writer.run(move |connection| {
            if let Some(requester) = &intent.requester
                && client::is_excluded(connection, requester, revocations.load(Ordering::Acquire))?
            {
                return Ok(Err(IntentRefusal::RequesterRevoked));
            }
            // What was refused has written nothing, and costs its neighbours nothing.
            Ok(insert_intent(connection, &intent))
        });
        Ok(Recorded {
            id: recorded.await??,
            tbs,
            requester,
        })
    }

    /// Step 10: certificate, audit entry and whatever follows from it, in one transaction. Fails
    /// with [`StoreError::RequesterRevoked`] if the client certificate by which the request came
    /// was revoked after it was judged.
    pub async fn record_certificate(
        &self,
        recorded: &Recorded,
        der: &[u8],
        settlement: Settlement,
        entry: AuditEntry,
    ) -> Result<Settled, StoreError> {
        let (intent, der) = (recorded.id, der.to_vec());
        let requester = recorded.requester;
        let revocations = self.revocations_counter();
        let settled = self.writer.run(move |connection| {
            if let Some(requester) = &requester
                && client::is_excluded(connection, requester, revocations.load(Ordering::Acquire))?
            {
                return Err(StoreError::RequesterRevoked);
            }
            // OR FAIL: what fails here is rolled back by the writer, so SQLite need not copy the pages
            // that one statement changes.
            connection
                .prepare_cached("UPDATE OR FAIL intent SET state = 'issued' WHERE id = ?1")?
                .execute([intent])?;
            let sha256 = sha256(&der);
            connection
                .prepare_cached(
                    "INSERT OR FAIL INTO certificate (intent, der, sha256, issued_at)
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![intent, der, sha256, entry.at])?;
            let settled = settle(connection, intent, &sha256, &settlement, &entry)?;
            audit::append(connection, &entry)?;
            Ok(settled)
        });
        settled.await
    }

    /// The certificate with this SHA-256.
    pub fn certificate_by_sha256(
        &self,
        sha256: &[u8; 32],
    ) -> Result<Option<CertificateRow>, StoreError> {
        self.read(|connection| {
            let select = format!("{SELECT} WHERE c.sha256 = ?1");
            Ok(connection
                .prepare_cached(&select)?
                .query_row([sha256], from_row)
                .optional()?)
        })
    }

    /// Returns all certificates with this serial number, by this authority if one is named: a
    /// serial number is unique for its issuer only (RFC 5280 4.1.2.2).
    pub fn certificates_by_serial(
        &self,
        serial: &[u8],
        authority: Option<&str>,
    ) -> Result<Vec<CertificateRow>, StoreError> {
        self.read(|connection| {
            let select = format!(
                "{SELECT} WHERE i.serial = ?1 AND (?2 IS NULL OR i.issuer IN (
                     SELECT id FROM generation WHERE authority = ?2))"
            );
            let mut statement = connection.prepare_cached(&select)?;
            let rows = statement.query_map(params![serial, authority], from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// All certificates of a subject, newest first, at most `limit`.
    pub fn certificates_of(
        &self,
        subject: &str,
        limit: u32,
    ) -> Result<Vec<CertificateRow>, StoreError> {
        self.read(|connection| {
            let select = format!("{SELECT} WHERE i.subject = ?1 ORDER BY i.id DESC LIMIT ?2");
            let mut statement = connection.prepare_cached(&select)?;
            let rows = statement.query_map(params![subject, limit], from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Returns how many intents are open, certificates issued and intents abandoned. Does not count
    /// a certificate again once no intent before it is open: none is ever deleted.
    pub fn issuance_counts(&self) -> Result<(i64, i64, i64), StoreError> {
        let (settled, under_way, abandoned) = self.read(|connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT coalesce((SELECT min(id) - 1 FROM intent WHERE state = 'intended'),
                                     (SELECT max(id) FROM intent), 0),
                            (SELECT count(*) FROM intent WHERE state = 'intended'),
                            (SELECT count(*) FROM intent WHERE state = 'abandoned')",
                )?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
        })?;
        Ok((under_way, self.certificate_count(settled)?, abandoned))
    }

    /// Counts the certificates. No intent up to `settled` is open.
    fn certificate_count(&self, settled: i64) -> Result<i64, StoreError> {
        let counted = self.certificates_counted.lock();
        let mut counted = counted.unwrap_or_else(PoisonError::into_inner);
        // Nothing is recorded between the two counts of one statement. Without a condition SQLite
        // reads an index, which is shorter than the table.
        let sql = match counted.up_to {
            0 => {
                "SELECT (SELECT count(*) FROM certificate),
                        (SELECT count(*) FROM certificate WHERE intent > ?2), ?1"
            }
            _ => {
                "SELECT (SELECT count(*) FROM certificate WHERE intent > ?1),
                        (SELECT count(*) FROM certificate WHERE intent > ?2), ?1"
            }
        };
        let (more, open): (i64, i64) = self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let bounds = params![counted.up_to, settled];
            Ok(statement.query_row(bounds, |row| Ok((row.get(0)?, row.get(1)?)))?)
        })?;
        let certificates = counted.certificates + more;
        if settled > counted.up_to {
            counted.up_to = settled;
            counted.certificates = certificates - open;
        }
        Ok(certificates)
    }
}

/// How many certificates have an intent up to one.
#[derive(Debug, Default)]
pub(super) struct CertificatesCounted {
    up_to: i64,
    certificates: i64,
}

fn insert_intent(connection: &Connection, intent: &Intent) -> Result<i64, IntentRefusal> {
    let idempotency = intent.idempotency.as_ref();
    if let Some(Idempotency { key, .. }) = idempotency
        && let Some(prior) = prior_request(connection, &intent.caller, key)?
    {
        return Err(IntentRefusal::Repeated(prior));
    }
    if intent.is_device
        && intent.purpose == Purpose::Leaf
        && !generation::serves(connection, intent.issuer)?
    {
        return Err(IntentRefusal::IssuerReplaced);
    }
    if let Some(reason) = certified_key::in_the_way(connection, intent)? {
        return Err(IntentRefusal::Key(reason));
    }
    if intent.is_device {
        leaf::admit(connection, intent)?;
    }
    connection
        .prepare_cached(
            "INSERT INTO intent (serial, issuer, purpose, profile, subject, key_sha256, tbs,
                 not_before, not_after, caller, idempotency_key, request_sha256, state,
                 recorded_at, role)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 'intended', ?13, ?14)",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                intent.serial,
                intent.issuer,
                intent.purpose.name(),
                intent.profile,
                intent.subject,
                sha256(&intent.public_key),
                intent.tbs,
                intent.not_before,
                intent.not_after,
                intent.caller,
                idempotency.map(|idempotency| &idempotency.key),
                idempotency.map(|idempotency| &idempotency.request_sha256),
                intent.at,
                intent.role.map(Role::name),
            ])
        })
        .map_err(|error| match StoreError::from(error) {
            StoreError::Conflict(message) => refusal_of(&message, intent.subject.clone()),
            other => other.into(),
        })?;
    Ok(connection.last_insert_rowid())
}

/// Which unique index spoke; SQLite names the columns.
fn refusal_of(message: &str, subject: String) -> IntentRefusal {
    if message.contains("intent.serial") {
        IntentRefusal::SerialExists
    } else if message.contains("intent.subject") {
        IntentRefusal::UnderWay(subject)
    } else if message.contains("a revoked generation signs nothing") {
        IntentRefusal::IssuerRevoked
    } else {
        IntentRefusal::Store(StoreError::Conflict(message.to_owned()))
    }
}

fn settle(
    connection: &Connection,
    intent: i64,
    sha256: &[u8; 32],
    settlement: &Settlement,
    entry: &AuditEntry,
) -> Result<Settled, StoreError> {
    match settlement {
        Settlement::Alone => Ok(Settled::default()),
        Settlement::Device {
            registration_id,
            profile,
        } => {
            leaf::record(connection, registration_id, profile, intent, entry)?;
            let provisioning = leaf::place(connection, registration_id, sha256, entry)?;
            Ok(Settled { provisioning })
        }
        Settlement::Authority { generation } => {
            generation::certify(connection, *generation, intent)?;
            Ok(Settled::default())
        }
        Settlement::Possession { ca_certificate } => {
            possession::prove(connection, *ca_certificate, entry.at)?;
            Ok(Settled::default())
        }
    }
}

fn prior_request(
    connection: &Connection,
    caller: &str,
    idempotency_key: &str,
) -> Result<Option<PriorRequest>, StoreError> {
    let found: Option<(i64, String)> = connection
        .prepare_cached("SELECT id, state FROM intent WHERE caller = ?1 AND idempotency_key = ?2")?
        .query_row([caller, idempotency_key], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    match found {
        None => Ok(None),
        Some((id, state)) if state == "issued" => {
            Ok(by_intent(connection, id)?.map(|row| PriorRequest::Issued(Box::new(row))))
        }
        Some(_) => Ok(Some(PriorRequest::UnderWay)),
    }
}

fn by_intent(connection: &Connection, intent: i64) -> Result<Option<CertificateRow>, StoreError> {
    let select = format!("{SELECT} WHERE c.intent = ?1");
    Ok(connection
        .prepare_cached(&select)?
        .query_row([intent], from_row)
        .optional()?)
}

pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<CertificateRow> {
    Ok(CertificateRow {
        der: row.get(0)?,
        sha256: row.get(1)?,
        serial: row.get(2)?,
        issuer: row.get(3)?,
        profile: row.get(4)?,
        subject: row.get(5)?,
        not_before: row.get(6)?,
        not_after: row.get(7)?,
        revoked_at: row.get(8)?,
        request_sha256: row.get(9)?,
        revocation_reason: row.get::<_, Option<Stored<_>>>(10)?.map(|it| it.0),
        role: row.get::<_, Option<Stored<_>>>(11)?.map(|it| it.0),
    })
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}
