//! Models the primary and secondary slot of an enrollment as a persisted state.
//!
//! | state | holds | may go to |
//! |---|---|---|
//! | `Empty` | nothing | `Serving` |
//! | `Serving` | one slot, one certificate | `Staged` |
//! | `Staged` | serving, and next in the other slot | `Draining` by cut-over, `Serving` by abort |
//! | `Draining` | serving (the new), and retiring | `Serving` by retire, `Staged` by a renewal |
//!
//! From any state but `Empty`, a compromise has certificates leave their slots at once
//! ([`Slots::exclude`]). [`Slots::stage_third`] renews a device whose slots are both taken.
//!
//! A transition consumes the state and returns the next one, or a [`Refusal`] with the state and
//! the reason. A serving certificate must never leave its slot before its successor was observed at
//! the service, unless it is compromised, or its device was observed with the older one only. A
//! certificate must never move to the other slot, because no document says that the service
//! supports that. A stored state must never cause a panic.

use super::refusal::{Reason, Refusal};
use super::thumbprint::Thumbprint;
use crate::unix_seconds::UnixSeconds;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// One of the two places of a certificate in an enrollment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SlotName {
    Primary,
    Secondary,
}

impl SlotName {
    /// Both slots in the order of DPS.
    pub const BOTH: [SlotName; 2] = [SlotName::Primary, SlotName::Secondary];

    /// Returns the other slot, which receives the next certificate.
    pub fn other(self) -> SlotName {
        match self {
            SlotName::Primary => SlotName::Secondary,
            SlotName::Secondary => SlotName::Primary,
        }
    }

    /// Returns the name in a DPS record.
    pub fn as_str(self) -> &'static str {
        match self {
            SlotName::Primary => "primary",
            SlotName::Secondary => "secondary",
        }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The content of both slots of an enrollment.
///
/// `slot` is always the slot of the serving certificate; the other one follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    remote = "Self",
    tag = "state",
    rename_all = "snake_case",
    deny_unknown_fields
)]
pub enum Slots {
    /// No certificate, so the enrollment does not exist.
    Empty,
    /// One certificate, in one slot.
    Serving {
        /// The slot of the certificate.
        slot: SlotName,
        /// The certificate that devices use.
        certificate: Thumbprint,
    },
    /// The next certificate is desired in the other slot, and no device uses it yet.
    Staged {
        /// The slot of the serving certificate.
        slot: SlotName,
        /// The certificate that devices use.
        serving: Thumbprint,
        /// The certificate that they will use.
        next: Thumbprint,
    },
    /// The next certificate serves; the old one stays until no device can need it.
    Draining {
        /// The slot of the serving (new) certificate.
        slot: SlotName,
        /// The certificate that devices use from now on.
        serving: Thumbprint,
        /// The certificate that some devices may still use.
        retiring: Thumbprint,
    },
}

/// The evidence for a cut-over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutOverEvidence {
    /// The primary slot, read from the service after the next certificate was sent.
    pub observed_primary: Option<Thumbprint>,
    /// The secondary slot, read at the same moment.
    pub observed_secondary: Option<Thumbprint>,
    /// Whether a device was observed to register under the next certificate.
    pub canary: CanaryVerdict,
}

/// The result of registering a leaf of our own under the next generation, as a device would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryVerdict {
    /// The slots hold leaves and no authority, so there is nothing to test.
    NotNeeded,
    /// The test has not run, or has not ended.
    Pending,
    /// The service assigned the device to a hub.
    Passed,
    /// The service refused the device, for this reason.
    Failed(String),
}

/// The evidence that the old certificate is no longer needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetireEvidence {
    /// The certificate has expired; `notAfter` itself still belongs to the validity (RFC 5280,
    /// 4.1.2.5).
    Expired {
        now: UnixSeconds,
        /// End of the retiring certificate's validity.
        retiring_not_after: UnixSeconds,
    },
    /// The hub was read for each device, and names the new certificate.
    DevicesProven {
        /// The number of devices without this evidence.
        unproven: u64,
        /// Whether policy allows a removal before the expiry.
        early_retirement_allowed: bool,
    },
}

impl Slots {
    /// `Empty` to `Serving`: the first certificate, in the primary slot.
    pub fn serve(self, certificate: Thumbprint) -> Result<Slots, Refusal> {
        match self {
            Slots::Empty => Ok(Slots::Serving {
                slot: SlotName::Primary,
                certificate,
            }),
            _ => Err(self.refuse_state("serve")),
        }
    }

    /// `Serving` to `Staged`: the next certificate, in the free slot.
    pub fn stage(self, next: Thumbprint) -> Result<Slots, Refusal> {
        match self {
            Slots::Serving { slot, certificate } if certificate == next => {
                Err(self.refuse(Reason::AlreadyThere { slot }))
            }
            Slots::Serving { slot, certificate } => Ok(Slots::Staged {
                slot,
                serving: certificate,
                next,
            }),
            _ => Err(self.refuse_state("stage")),
        }
    }

    /// `Staged` to `Draining`: the next certificate serves, once it is certain that it can.
    pub fn cut_over(self, evidence: &CutOverEvidence) -> Result<Slots, Refusal> {
        let Slots::Staged {
            slot,
            serving,
            next,
        } = self
        else {
            return Err(self.refuse_state("cut over"));
        };
        if let Some(reason) = self.not_ready(evidence) {
            return Err(self.refuse(reason));
        }
        Ok(Slots::Draining {
            slot: slot.other(),
            serving: next,
            retiring: serving,
        })
    }

    /// Returns why `evidence` does not show that both certificates are accepted.
    fn not_ready(&self, evidence: &CutOverEvidence) -> Option<Reason> {
        let observed = (evidence.observed_primary, evidence.observed_secondary);
        let (primary, secondary) = self.wanted();
        if observed.0 != primary {
            let slot = SlotName::Primary;
            return Some(Reason::NotObserved { slot });
        }
        if observed.1 != secondary {
            let slot = SlotName::Secondary;
            return Some(Reason::NotObserved { slot });
        }
        match &evidence.canary {
            CanaryVerdict::NotNeeded | CanaryVerdict::Passed => None,
            CanaryVerdict::Pending => Some(Reason::CanaryPending),
            CanaryVerdict::Failed(reason) => Some(Reason::CanaryFailed(reason.clone())),
        }
    }

    /// `Staged` back to `Serving`: the next certificate is dropped.
    ///
    /// For leaves, the caller must ensure that the device still has its old leaf.
    pub fn abort(self) -> Result<Slots, Refusal> {
        match self {
            Slots::Staged { slot, serving, .. } => Ok(Slots::Serving {
                slot,
                certificate: serving,
            }),
            _ => Err(self.refuse_state("abort")),
        }
    }

    /// `Draining` to `Serving`: the old certificate leaves its slot.
    pub fn retire(self, evidence: &RetireEvidence) -> Result<Slots, Refusal> {
        let Slots::Draining { slot, serving, .. } = self else {
            return Err(self.refuse_state("retire"));
        };
        match evidence.objection() {
            Some(reason) => Err(self.refuse(reason)),
            None => Ok(Slots::Serving {
                slot,
                certificate: serving,
            }),
        }
    }

    /// Returns the certificates in both slots.
    pub fn held(&self) -> Vec<Thumbprint> {
        SlotName::BOTH
            .into_iter()
            .filter_map(|slot| self.in_slot(slot))
            .collect()
    }

    /// Returns the desired content of `slot`.
    pub fn in_slot(&self, slot: SlotName) -> Option<Thumbprint> {
        match *self {
            Slots::Empty => None,
            Slots::Serving {
                slot: held,
                certificate,
            } => (slot == held).then_some(certificate),
            Slots::Staged {
                slot: held,
                serving,
                next: other,
            }
            | Slots::Draining {
                slot: held,
                serving,
                retiring: other,
            } => Some(if slot == held { serving } else { other }),
        }
    }

    /// Returns the desired content of the primary and the secondary slot.
    pub fn wanted(&self) -> (Option<Thumbprint>, Option<Thumbprint>) {
        (
            self.in_slot(SlotName::Primary),
            self.in_slot(SlotName::Secondary),
        )
    }

    /// Returns the certificate that devices use now.
    pub fn serving(&self) -> Option<Thumbprint> {
        match *self {
            Slots::Empty => None,
            Slots::Serving { certificate, .. } => Some(certificate),
            Slots::Staged { serving, .. } | Slots::Draining { serving, .. } => Some(serving),
        }
    }

    /// Returns the name of the state, as stored and shown.
    pub fn state(&self) -> &'static str {
        match self {
            Slots::Empty => "empty",
            Slots::Serving { .. } => "serving",
            Slots::Staged { .. } => "staged",
            Slots::Draining { .. } => "draining",
        }
    }

    pub(super) fn refuse_state(self, transition: &'static str) -> Refusal {
        let state = self.state();
        self.refuse(Reason::State { transition, state })
    }

    pub(super) fn refuse(self, reason: Reason) -> Refusal {
        Refusal {
            slots: self,
            reason,
        }
    }
}

impl RetireEvidence {
    /// Returns why this does not suffice.
    pub(super) fn objection(&self) -> Option<Reason> {
        match *self {
            RetireEvidence::Expired {
                now,
                retiring_not_after: until,
            } => (now <= until).then_some(Reason::NotExpired { until }),
            RetireEvidence::DevicesProven {
                early_retirement_allowed: false,
                ..
            } => Some(Reason::EarlyRetirementForbidden),
            RetireEvidence::DevicesProven { unproven, .. } => {
                (unproven > 0).then_some(Reason::DevicesUnproven { unproven })
            }
        }
    }
}

// `remote = "Self"` makes the derived functions inherent ones, so that reading can check what the
// type cannot express: that two certificates differ.
impl Serialize for Slots {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Slots::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for Slots {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let slots = Slots::deserialize(from)?;
        match slots.wanted() {
            (Some(primary), Some(secondary)) if primary == secondary => Err(D::Error::custom(
                "stored slots hold the same certificate twice",
            )),
            _ => Ok(slots),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_code::Code;

    fn certificate(name: &str) -> Thumbprint {
        Thumbprint::of(name.as_bytes())
    }

    fn staged() -> Slots {
        let slots = Slots::Empty.serve(certificate("old")).unwrap();
        slots.stage(certificate("new")).unwrap()
    }

    fn both_observed(canary: CanaryVerdict) -> CutOverEvidence {
        CutOverEvidence {
            observed_primary: Some(certificate("old")),
            observed_secondary: Some(certificate("new")),
            canary,
        }
    }

    #[test]
    fn the_stored_form_is_stable() {
        let hex = certificate("old");
        let stored = serde_json::to_string(&Slots::Empty.serve(hex).unwrap()).unwrap();
        let expected = format!(r#"{{"state":"serving","slot":"primary","certificate":"{hex}"}}"#);
        assert_eq!(stored, expected);
    }

    #[test]
    fn damaged_stored_forms_are_refused() {
        let hex = certificate("old");
        for stored in [
            "{}".to_owned(),
            r#"{"state":"unheard_of"}"#.to_owned(),
            r#"{"state":"serving","slot":"primary","certificate":"12"}"#.to_owned(),
            format!(r#"{{"state":"serving","slot":"third","certificate":"{hex}"}}"#),
            format!(r#"{{"state":"staged","slot":"primary","serving":"{hex}","next":"{hex}"}}"#),
        ] {
            assert!(serde_json::from_str::<Slots>(&stored).is_err(), "{stored}");
        }
    }

    #[test]
    fn the_same_certificate_cannot_be_staged() {
        let serving = Slots::Empty.serve(certificate("old")).unwrap();
        let refusal = serving.clone().stage(certificate("old")).unwrap_err();
        assert_eq!(refusal.code(), Code::SlotsCertificateAlreadyThere);
        assert_eq!(refusal.slots, serving);
    }

    #[test]
    fn no_cut_over_before_the_service_holds_both() {
        let mut evidence = both_observed(CanaryVerdict::NotNeeded);
        evidence.observed_secondary = None;
        let refusal = staged().cut_over(&evidence).unwrap_err();
        assert_eq!(refusal.code(), Code::SlotsNotObserved);
    }

    #[test]
    fn no_cut_over_before_the_canary_passed() {
        for (canary, code) in [
            (CanaryVerdict::Pending, Code::SlotsCanaryPending),
            (CanaryVerdict::Failed("401".into()), Code::SlotsCanaryFailed),
        ] {
            let refusal = staged().cut_over(&both_observed(canary)).unwrap_err();
            assert_eq!(refusal.code(), code);
        }
        assert!(
            staged()
                .cut_over(&both_observed(CanaryVerdict::Passed))
                .is_ok()
        );
    }

    #[test]
    fn the_last_second_of_validity_is_still_valid() {
        let not_after = UnixSeconds::default();
        let at = |now| RetireEvidence::Expired {
            now,
            retiring_not_after: not_after,
        };
        let evidence = both_observed(CanaryVerdict::NotNeeded);
        let draining = staged().cut_over(&evidence).unwrap();
        let refusal = draining.clone().retire(&at(not_after)).unwrap_err();
        assert_eq!(refusal.code(), Code::SlotsNotExpired);
        let retired = draining.retire(&at(not_after + 1)).unwrap();
        assert_eq!(retired.wanted(), (None, Some(certificate("new"))));
    }

    #[test]
    fn early_retirement_needs_every_device_and_policy() {
        let evidence = both_observed(CanaryVerdict::NotNeeded);
        let draining = staged().cut_over(&evidence).unwrap();
        for (unproven, allowed, code) in [
            (0, false, Code::SlotsEarlyRetirementForbidden),
            (1, true, Code::SlotsDevicesUnproven),
        ] {
            let refusal = draining.clone().retire(&RetireEvidence::DevicesProven {
                unproven,
                early_retirement_allowed: allowed,
            });
            assert_eq!(refusal.unwrap_err().code(), code);
        }
    }
}
