//! Keeps four kinds of keys apart, by their labels: those of authorities, of credentials, of OCSP
//! responders and of the audit journal. None signs what another kind signs.

use crate::credential::is_credential;
use crate::key_proof::{TEST_KEY_LABEL, is_challenge};
use hallmark_pki::journal::checkpoint::{is_audit_label, is_checkpoint};
use hallmark_pki::x509::ocsp::{is_answer, is_responder_label};

/// The purpose of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureUse {
    /// A certificate, a list, a request, or a test message.
    Certificate,
    /// A client assertion of a credential.
    Assertion,
    /// An OCSP answer.
    Answer,
    /// A checkpoint of the audit journal.
    Checkpoint,
}

impl SignatureUse {
    /// Returns why a key with this label, as the token has it, signs no such message.
    pub fn objection(self, label: &str, message: &[u8]) -> Option<&'static str> {
        let of_credential = is_credential(label);
        let of_responder = is_responder_label(label);
        match self {
            _ if of_credential && self != Self::Assertion => {
                Some("it is a credential's: it signs assertions only")
            }
            Self::Certificate if label == TEST_KEY_LABEL && !is_challenge(message) => {
                Some("it is a test key: it signs test messages only")
            }
            _ if is_audit_label(label) || self == Self::Checkpoint => {
                self.journal_objection(label, message)
            }
            Self::Assertion if !of_credential => Some("it is not a credential's"),
            Self::Certificate if of_responder && !is_challenge(message) => {
                Some("it is a responder's: it signs OCSP answers only")
            }
            Self::Answer if !of_responder => Some("it is not a responder's"),
            Self::Answer if !is_answer(message) => Some("it signs OCSP answers only"),
            _ => None,
        }
    }

    /// The same where the key, the message or both are of the audit journal.
    fn journal_objection(self, label: &str, message: &[u8]) -> Option<&'static str> {
        match self {
            Self::Checkpoint if !is_audit_label(label) => Some("it is not the audit journal's"),
            Self::Checkpoint if is_checkpoint(message) => None,
            Self::Certificate if is_challenge(message) => None,
            _ => Some("it is the audit journal's: it signs checkpoints only"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential;
    use crate::key_proof::challenge;
    use SignatureUse::{Answer, Assertion, Certificate, Checkpoint};
    use hallmark_pki::journal::checkpoint;
    use hallmark_pki::unix_seconds::UnixSeconds;
    use hallmark_pki::x509::ocsp::key_label;

    fn checkpoint() -> Vec<u8> {
        let checkpoint = checkpoint::Checkpoint {
            journal: [1; 32],
            number: 1,
            sequence: 7,
            hash: [2; 32],
            at: UnixSeconds::new(1_767_225_600),
            schema: [3; 32],
            accepted: None,
            state: checkpoint::State::Open,
        };
        checkpoint.encode()
    }

    #[test]
    fn each_key_signs_its_own_kind_alone() {
        let credential = credential::label("dps").expect("is a name");
        let responder = key_label("line-1-1");
        // `ResponseData` by the key's digest, at 2026-01-01, without certificates.
        let by_key = [&[0xa2, 0x16, 0x04, 0x14][..], &[7; 20]].concat();
        let answer = [
            &[0x30, 43][..],
            &by_key,
            b"\x18\x0f20260101000000Z",
            &[0x30, 0],
        ]
        .concat();
        let certificate = [0x30, 0x03, 0x02, 0x01, 0x05];
        for (label, own, message) in [
            ("hallmark line-1 1", Certificate, &certificate[..]),
            (&credential, Assertion, b"e30.e30"),
            (&responder, Answer, &answer),
            (&checkpoint::key_label(1), Checkpoint, &checkpoint()),
        ] {
            for other in [Certificate, Assertion, Answer, Checkpoint] {
                let objection = other.objection(label, message);
                assert_eq!(objection.is_none(), other == own, "{label} {other:?}");
            }
        }
        assert_eq!(Certificate.objection(&responder, &challenge()), None);
        assert_eq!(Certificate.objection(TEST_KEY_LABEL, &challenge()), None);
        assert!(
            Certificate
                .objection(TEST_KEY_LABEL, &certificate)
                .is_some()
        );
        assert!(Answer.objection(&responder, &certificate).is_some());
        assert!(Answer.objection(&responder, &challenge()).is_some());
        let journal = checkpoint::key_label(1);
        assert_eq!(Certificate.objection(&journal, &challenge()), None);
        for message in [&certificate[..], &answer, &challenge(), b"e30.e30"] {
            assert!(Checkpoint.objection(&journal, message).is_some());
        }
    }
}
