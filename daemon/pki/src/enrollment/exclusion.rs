//! What a compromise leaves of the slots: the compromised certificates leave at once.
//!
//! Nobody is waited for: a compromised certificate is shut out first, and its device is let back in
//! second. So this is the one transition that may take what serves out of its slot unobserved.

use super::refusal::{Reason, Refusal};
use super::slots::{SlotName, Slots};
use super::thumbprint::Thumbprint;

/// What a compromise leaves of an enrollment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutOut {
    /// The slots without the compromised certificates, or unchanged if nothing else is there to hold.
    pub slots: Slots,
    /// Whether the enrollment may let anybody in: not while it holds compromised certificates.
    pub enabled: bool,
}

impl Slots {
    /// Compromised certificates leave their slots at once, and `replacement` takes the place of one.
    ///
    /// The service knows no enrollment without a certificate: where neither a good one nor a
    /// replacement is at hand, the slots stay as they are and the enrollment must be disabled.
    pub fn shut_out(
        self,
        compromised: &[Thumbprint],
        replacement: Option<Thumbprint>,
    ) -> Result<ShutOut, Refusal> {
        let held = SlotName::BOTH.map(|slot| (slot, self.in_slot(slot)));
        let is_compromised = |it: &Thumbprint| compromised.contains(it);
        if !held
            .iter()
            .any(|(_, it)| it.as_ref().is_some_and(is_compromised))
        {
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
            .find_map(|(slot, it)| Some((slot, it.filter(|it| !is_compromised(it))?)));
        let slots = match (good, replacement) {
            (None, None) => {
                return Ok(ShutOut {
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
        Ok(ShutOut {
            slots,
            enabled: true,
        })
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
