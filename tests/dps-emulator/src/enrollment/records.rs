//! The entries of one kind, and which certificate is in which of them.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::draft::Draft;
use super::{Attestation, Kind};
use crate::{dates, etag, ids};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) fields: Map<String, Value>,
    pub(crate) attestation: Attestation,
    pub(crate) etag: String,
    created: String,
    updated: String,
}

impl Record {
    /// The record as every answer shows it, but for `registrationState`.
    pub(crate) fn shown(&self, kind: Kind) -> Map<String, Value> {
        let mut shown = self.fields.clone();
        shown.insert(kind.id_member().to_owned(), json!(self.id));
        shown.insert(
            "attestation".to_owned(),
            self.attestation.shown(self.sent_attestation()),
        );
        shown.insert("etag".to_owned(), json!(format!("\"{}\"", self.etag)));
        shown.insert("createdDateTimeUtc".to_owned(), json!(self.created));
        shown.insert("lastUpdatedDateTimeUtc".to_owned(), json!(self.updated));
        shown
    }

    /// The attestation with its secrets.
    pub(crate) fn mechanism(&self) -> Value {
        self.attestation.mechanism(self.sent_attestation())
    }

    /// Whether devices may come in through this entry.
    pub(crate) fn is_enabled(&self) -> bool {
        self.text("provisioningStatus") != Some("disabled")
    }

    /// A member that holds a text.
    pub(crate) fn text(&self, member: &str) -> Option<&str> {
        self.fields.get(member)?.as_str()
    }

    fn sent_attestation(&self) -> &Value {
        self.fields.get("attestation").unwrap_or(&Value::Null)
    }
}

/// All entries of one kind, by key.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, Record>")]
pub(crate) struct Records {
    #[serde(flatten)]
    by_key: BTreeMap<String, Record>,
    /// SHA-256 thumbprint → keys of the entries that hold the certificate. Rebuilt when loaded.
    #[serde(skip)]
    holders: HashMap<String, Vec<String>>,
}

impl From<BTreeMap<String, Record>> for Records {
    fn from(by_key: BTreeMap<String, Record>) -> Self {
        let mut records = Self::default();
        for (key, record) in by_key {
            records.insert(key, record);
        }
        records
    }
}

impl Records {
    /// The entry of this id, in whatever case.
    pub(crate) fn find(&self, id: &str) -> Option<&Record> {
        self.by_key.get(&ids::key(id))
    }

    /// Entries whose key is greater than `after`, in order of their keys.
    pub(crate) fn after<'a>(
        &'a self,
        after: &str,
    ) -> impl Iterator<Item = (&'a String, &'a Record)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let bounds = (Excluded(after.to_owned()), Unbounded);
        self.by_key.range(bounds)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.by_key.values()
    }

    /// Ids of entries that hold this certificate in a slot.
    pub(crate) fn holders<'a>(
        &'a self,
        sha256: &str,
    ) -> impl Iterator<Item = &'a Record> + use<'a> {
        let keys = self.holders.get(sha256).into_iter().flatten();
        keys.filter_map(|key| self.by_key.get(key))
    }

    /// Store a draft over what is there. The creation date stays, the ETag is new.
    pub(crate) fn put(&mut self, draft: Draft, now: OffsetDateTime) -> &Record {
        let key = ids::key(&draft.id);
        let old = self.remove(&key);
        let now = dates::seven_digits(now);
        let (id, created) = match old {
            Some(old) => (old.id, old.created),
            None => (draft.id, now.clone()),
        };
        let record = Record {
            id,
            fields: without_certificates(draft.fields, &draft.attestation),
            attestation: draft.attestation,
            etag: etag::fresh(),
            created,
            updated: now,
        };
        self.insert(key.clone(), record);
        &self.by_key[&key]
    }

    /// Take an entry out.
    pub(crate) fn remove(&mut self, id: &str) -> Option<Record> {
        let key = ids::key(id);
        let record = self.by_key.remove(&key)?;
        for certificate in record.attestation.certificates() {
            self.release(&certificate.sha256(), &key);
        }
        Some(record)
    }

    fn release(&mut self, sha256: &str, key: &str) {
        let Some(keys) = self.holders.get_mut(sha256) else {
            return;
        };
        keys.retain(|held| held != key);
        if keys.is_empty() {
            self.holders.remove(sha256);
        }
    }

    fn insert(&mut self, key: String, record: Record) {
        for certificate in record.attestation.certificates() {
            let keys = self.holders.entry(certificate.sha256()).or_default();
            keys.push(key.clone());
        }
        self.by_key.insert(key, record);
    }
}

/// Certificates and keys live in the attestation only; the members around them are kept as sent.
fn without_certificates(
    mut fields: Map<String, Value>,
    attestation: &Attestation,
) -> Map<String, Value> {
    if let Some(sent) = fields.get_mut("attestation") {
        *sent = attestation.shown(sent);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Certificate;
    use crate::enrollment::attestation::Slots;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    /// A few certificates, made once: keys are slow.
    static CERTIFICATES: LazyLock<Vec<Certificate>> = LazyLock::new(|| {
        let names = ["a", "b", "c"].map(|name| vec![name.to_owned()]);
        let made = names.map(|names| rcgen::generate_simple_self_signed(names).unwrap());
        made.iter()
            .map(|made| Certificate::from_der(made.cert.der()).unwrap())
            .collect()
    });

    #[derive(Clone, Debug)]
    enum Step {
        Put(usize, Option<usize>, Option<usize>),
        Remove(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let slot = || prop::option::of(0..3usize);
        let put = (0..4usize, slot(), slot()).prop_map(|(id, one, two)| Step::Put(id, one, two));
        prop::collection::vec(
            prop_oneof![3 => put, 1 => (0..4usize).prop_map(Step::Remove)],
            0..30,
        )
    }

    fn draft(id: usize, primary: Option<usize>, secondary: Option<usize>) -> Draft {
        let pick = |index: Option<usize>| index.map(|index| CERTIFICATES[index].clone());
        Draft {
            // Written in another case each time: it is the same entry.
            id: if primary.is_some() {
                format!("ID-{id}")
            } else {
                format!("id-{id}")
            },
            fields: Map::new(),
            attestation: Attestation::Client(Slots {
                primary: pick(primary),
                secondary: pick(secondary),
            }),
        }
    }

    proptest! {
        /// Whatever is put and removed: `holders` knows exactly the entries with that certificate,
        /// in this world and in one that was saved and loaded.
        #[test]
        fn the_index_agrees_with_the_records(steps in steps()) {
            let mut records = Records::default();
            for step in steps {
                match step {
                    Step::Put(id, one, two) => {
                        records.put(draft(id, one, two), OffsetDateTime::UNIX_EPOCH);
                    }
                    Step::Remove(id) => drop(records.remove(&format!("iD-{id}"))),
                }
            }
            let saved = serde_json::to_string(&records).unwrap();
            let loaded: Records = serde_json::from_str(&saved).unwrap();
            for records in [&records, &loaded] {
                for certificate in CERTIFICATES.iter() {
                    let holds = |record: &&Record| {
                        record.attestation.certificates().any(|own| own == certificate)
                    };
                    let expected = records.iter().filter(holds).map(|own| &own.id);
                    let mut expected: Vec<_> = expected.collect();
                    let sha256 = certificate.sha256();
                    let mut found: Vec<_> = records.holders(&sha256).map(|own| &own.id).collect();
                    found.sort();
                    found.dedup();
                    expected.sort();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
