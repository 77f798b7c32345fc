//! Reduces a complete revocation list to what has changed since its base: a delta list (RFC 5280,
//! section 5.2.4).
//!
//! The base and the last delta list are read from their signed bytes, so a delta list has exactly
//! what verifiers of them lack, whatever the way in which a revocation came about.

use super::StoreError;
use super::crl::{CrlDraft, CrlRow};
use crate::x509::crl::{Entry, entries_and_released};
use crate::x509::revocation::RevocationReason;
use crate::x509::serial::SerialNumber;
use std::collections::{BTreeMap, BTreeSet};

impl CrlDraft {
    /// Returns the delta list that makes `base` the list of this draft. `last` is the newest delta
    /// list.
    pub fn since(self, base: &CrlRow, last: Option<&CrlRow>) -> Result<Self, StoreError> {
        let listed = Changes::read(base)?.entries;
        let last = match last.filter(|it| it.base == Some(base.number)) {
            Some(last) => Changes::read(last)?,
            None => Changes::default(),
        };
        let Changes { entries, released } = Changes::since(self.entries, &listed, &last);
        Ok(Self {
            entries,
            released,
            base: Some(base.number),
            ..self
        })
    }
}

/// The entries of a list, and what it removes.
#[derive(Debug, Default)]
struct Changes {
    entries: Vec<Entry>,
    released: Vec<Entry>,
}

impl Changes {
    fn read(list: &CrlRow) -> Result<Self, StoreError> {
        let read = entries_and_released(&list.der);
        let (entries, released) = read.ok_or_else(|| {
            StoreError::Unreadable(format!(
                "revocation list {} is no list of ours",
                list.number
            ))
        })?;
        Ok(Self { entries, released })
    }

    /// A hold is the only entry that ends. Holds that began and ended after the base are named,
    /// too, if a delta list has had them (RFC 5280, section 5.2.4).
    fn since(now: Vec<Entry>, base: &[Entry], last: &Self) -> Self {
        let present: BTreeSet<&SerialNumber> = now.iter().map(|it| &it.serial).collect();
        let is_hold = |it: &&Entry| it.reason == RevocationReason::CertificateHold;
        let holds = base.iter().chain(&last.entries).filter(is_hold);
        let released: BTreeMap<&SerialNumber, &Entry> = holds
            .chain(&last.released)
            .filter(|it| !present.contains(&it.serial))
            .map(|it| (&it.serial, it))
            .collect();
        let released = released.into_values().cloned().collect();
        let before: BTreeMap<&SerialNumber, &Entry> =
            base.iter().map(|it| (&it.serial, it)).collect();
        let is_new = |it: &Entry| before.get(&it.serial) != Some(&it);
        let entries = now.iter().filter(|it| is_new(it)).cloned().collect();
        Self { entries, released }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unix_seconds::UnixSeconds;
    use proptest::prelude::*;

    /// A change of a certificate.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Hold,
        Release,
        Revoke,
    }

    fn apply(now: &mut BTreeMap<u8, RevocationReason>, serial: u8, step: Step) {
        let is_final = now.get(&serial).is_some_and(|it| it.is_final());
        match step {
            _ if is_final => None,
            Step::Hold => now.insert(serial, RevocationReason::CertificateHold),
            Step::Release => now.remove(&serial),
            Step::Revoke => now.insert(serial, RevocationReason::KeyCompromise),
        };
    }

    fn entries(of: &BTreeMap<u8, RevocationReason>) -> Vec<Entry> {
        let entry = |(serial, reason): (&u8, &RevocationReason)| Entry {
            serial: SerialNumber::from_magnitude(&[1, *serial]).unwrap(),
            revoked_at: UnixSeconds::new(7),
            reason: *reason,
        };
        of.iter().map(entry).collect()
    }

    proptest! {
        /// A verifier that combines the base with any later delta list knows what the complete list
        /// of that time says, and one that has seen an earlier delta list learns what has ended.
        #[test]
        fn base_and_delta_list_are_the_complete_list(
            steps in proptest::collection::vec(
                (0_u8..6, prop::sample::select(vec![Step::Hold, Step::Release, Step::Revoke])),
                1..40,
            ),
            base_after in 0_usize..40,
        ) {
            let mut now = BTreeMap::new();
            let (before, after) = steps.split_at(base_after.min(steps.len()));
            before.iter().for_each(|(serial, step)| apply(&mut now, *serial, *step));
            let base = entries(&now);
            let mut last = Changes::default();
            let mut shown = BTreeSet::new();
            for (serial, step) in after {
                apply(&mut now, *serial, *step);
                let complete = entries(&now);
                let delta = Changes::since(complete.clone(), &base, &last);
                let mut combined: BTreeMap<_, _> =
                    base.iter().map(|it| (it.serial.clone(), it.clone())).collect();
                for it in &delta.released {
                    combined.remove(&it.serial);
                }
                for it in &delta.entries {
                    combined.insert(it.serial.clone(), it.clone());
                }
                prop_assert_eq!(combined.into_values().collect::<Vec<_>>(), complete.clone());
                let listed: BTreeSet<_> = complete.iter().map(|it| it.serial.clone()).collect();
                let ended: BTreeSet<_> = shown.difference(&listed).cloned().collect();
                let named: BTreeSet<_> =
                    delta.released.iter().map(|it| it.serial.clone()).collect();
                prop_assert!(named.is_superset(&ended), "{ended:?}, {named:?}");
                shown.extend(listed);
                last = delta;
            }
        }
    }
}
