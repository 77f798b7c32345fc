//! Places a third certificate while both slots of an enrollment are taken.
//!
//! The certificate that its device was observed to use keeps its slot, so a renewal never waits for
//! the end of a certificate, and never takes away the one that its device depends on.

use super::refusal::{Reason, Refusal};
use super::slots::Slots;
use super::thumbprint::Thumbprint;

impl Slots {
    /// `Draining` to `Staged`: `next` takes the slot of the older certificate. If the device was
    /// observed with the older one, and never with the newer one, `next` takes the slot of the
    /// newer one. `in_use` lists the certificates that the device was observed to use.
    pub fn stage_third(self, next: Thumbprint, in_use: &[Thumbprint]) -> Result<Slots, Refusal> {
        let Slots::Draining {
            slot,
            serving,
            retiring,
        } = self
        else {
            return Err(self.refuse_state("stage a third certificate"));
        };
        if next == serving || next == retiring {
            let slot = if next == serving { slot } else { slot.other() };
            return Err(self.refuse(Reason::AlreadyThere { slot }));
        }
        let keeps_older = in_use.contains(&retiring) && !in_use.contains(&serving);
        Ok(if keeps_older {
            Slots::Staged {
                slot: slot.other(),
                serving: retiring,
                next,
            }
        } else {
            Slots::Staged {
                slot,
                serving,
                next,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots::SlotName;
    use super::*;
    use crate::error_code::Code;

    fn certificate(name: &str) -> Thumbprint {
        Thumbprint::of(name.as_bytes())
    }

    fn draining() -> Slots {
        Slots::Draining {
            slot: SlotName::Secondary,
            serving: certificate("newer"),
            retiring: certificate("older"),
        }
    }

    #[test]
    fn the_certificate_in_use_keeps_its_slot() {
        let [older, newer, third] = ["older", "newer", "third"].map(certificate);
        for (in_use, wanted) in [
            (vec![], (Some(third), Some(newer))),
            (vec![newer], (Some(third), Some(newer))),
            (vec![older, newer], (Some(third), Some(newer))),
            (vec![certificate("other")], (Some(third), Some(newer))),
            (vec![older], (Some(older), Some(third))),
        ] {
            let slots = draining().stage_third(third, &in_use).unwrap();
            assert_eq!(slots.wanted(), wanted, "{in_use:?}");
            assert_eq!(slots.state(), "staged");
        }
    }

    #[test]
    fn a_certificate_in_a_slot_is_no_third_one() {
        for held in ["older", "newer"] {
            let refusal = draining().stage_third(certificate(held), &[]).unwrap_err();
            assert_eq!(refusal.code(), Code::SlotsCertificateAlreadyThere);
        }
        let serving = Slots::Empty.serve(certificate("newer")).unwrap();
        assert!(serving.stage_third(certificate("third"), &[]).is_err());
    }
}
