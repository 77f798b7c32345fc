//! Takes excluded certificates out of the slots of an enrollment.

use super::refusal::{Reason, Refusal};
use super::slots::{SlotName, Slots};
use super::thumbprint::Thumbprint;

/// The slots and the status that an exclusion leaves to an enrollment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// The slots without the excluded certificates, or unchanged if they hold nothing else.
    pub slots: Slots,
    /// Whether the enrollment may be enabled: not while it holds excluded certificates.
    pub enabled: bool,
}

impl Slots {
    /// Takes excluded certificates out of their slots; `replacement` takes the place of one.
    ///
    /// This is the only transition that takes the serving certificate out of its slot unobserved:
    /// an exclusion waits for nothing. The service knows no enrollment without a certificate. So
    /// slots that hold neither a good certificate nor a replacement stay as they are, and their
    /// enrollment must be disabled.
    pub fn exclude(
        self,
        excluded: &[Thumbprint],
        replacement: Option<Thumbprint>,
    ) -> Result<Remaining, Refusal> {
        let held = SlotName::BOTH.map(|slot| (slot, self.in_slot(slot)));
        let is_excluded = |it: &Thumbprint| excluded.contains(it);
        if !self.held().iter().any(is_excluded) {
            return Err(self.refuse(Reason::NotThere));
        }
        if let Some((slot, _)) = held
            .into_iter()
            .find(|(_, it)| it.is_some() && *it == replacement)
        {
            return Err(self.refuse(Reason::AlreadyThere { slot }));
        }
        let good = held
            .into_iter()
            .find_map(|(slot, it)| Some((slot, it.filter(|it| !is_excluded(it))?)));
        let slots = match (good, replacement) {
            (None, None) => {
                return Ok(Remaining {
                    slots: self,
                    enabled: false,
                });
            }
            (None, Some(certificate)) => Slots::Serving {
                slot: self.slot_of_serving(),
                certificate,
            },
            (Some((slot, certificate)), None) => Slots::Serving { slot, certificate },
            (Some((slot, serving)), Some(next)) => Slots::Staged {
                slot,
                serving,
                next,
            },
        };
        Ok(Remaining {
            slots,
            enabled: true,
        })
    }

    /// Returns the certificates in the named slots.
    pub fn in_slots(&self, names: &[SlotName]) -> Vec<Thumbprint> {
        let held = names.iter().filter_map(|name| self.in_slot(*name));
        held.collect()
    }

    fn slot_of_serving(&self) -> SlotName {
        match *self {
            Slots::Empty => SlotName::Primary,
            Slots::Serving { slot, .. }
            | Slots::Staged { slot, .. }
            | Slots::Draining { slot, .. } => slot,
        }
    }
}
