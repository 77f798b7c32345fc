//! Counts signatures by what they are over: the worker's own record, which the daemon cannot write.

use serde::{Deserialize, Serialize};

/// The kind of bytes that a signature is over. The worker reads it in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureClass {
    /// A test message, of a client: the worker's own test signatures are in its health.
    Test,
    /// A certificate whose holder certifies none.
    Leaf,
    /// The certificate of an authority.
    Authority,
    /// A revocation list.
    List,
    /// A request for a certificate.
    Request,
    /// An OCSP answer.
    Answer,
    /// An assertion or a code of a credential.
    Assertion,
    /// A checkpoint of the audit journal.
    Checkpoint,
}

impl SignatureClass {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::Test,
        Self::Leaf,
        Self::Authority,
        Self::List,
        Self::Request,
        Self::Answer,
        Self::Assertion,
        Self::Checkpoint,
    ];

    /// Returns its name in journals and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Leaf => "leaf",
            Self::Authority => "authority",
            Self::List => "list",
            Self::Request => "request",
            Self::Answer => "answer",
            Self::Assertion => "assertion",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// The signatures of one key over one class, since the worker's journal began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureCount {
    /// SHA-256 of the SubjectPublicKeyInfo; of a shared secret, that of its label.
    pub key: [u8; 32],
    pub label: String,
    pub class: SignatureClass,
    pub made: u64,
    /// The sum of the SHA-256 of all signed messages, big-endian, modulo 2^256. It does not depend
    /// on their order, so a reader who has the messages computes it again.
    pub digest_sum: [u8; 32],
}

/// The worker's own counts of the signatures of its token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureCounts {
    /// When the journal began; zero if the worker keeps none.
    pub since_unix_ms: u64,
    /// How many workers have ended without writing their last counts. Each may have lost those of
    /// its last second.
    pub unclean_ends: u64,
    /// How many requests were refused, since the journal began.
    pub refused: u64,
    pub counts: Vec<SignatureCount>,
}

/// Adds a digest to a sum of digests, modulo 2^256.
pub fn add_digest(sum: &mut [u8; 32], digest: &[u8; 32]) {
    let mut carry = 0;
    for (octet, added) in sum.iter_mut().zip(digest).rev() {
        let whole = u16::from(*octet) + u16::from(*added) + carry;
        carry = whole >> 8;
        *octet = whole.to_be_bytes()[1];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_carry_passes_through_and_is_dropped_at_the_end() {
        let mut sum = [0xff; 32];
        let mut one = [0; 32];
        one[31] = 1;
        add_digest(&mut sum, &one);
        assert_eq!(sum, [0; 32]);
        let mut sum = [0; 32];
        sum[31] = 0xff;
        add_digest(&mut sum, &one);
        assert_eq!((sum[30], sum[31]), (1, 0));
    }

    proptest! {
        #[test]
        fn the_order_does_not_matter(
            mut digests in prop::collection::vec(any::<[u8; 32]>(), 0..9),
        ) {
            let sum = |digests: &[[u8; 32]]| {
                let mut sum = [0; 32];
                digests.iter().for_each(|it| add_digest(&mut sum, it));
                sum
            };
            let forward = sum(&digests);
            digests.reverse();
            prop_assert_eq!(forward, sum(&digests));
        }
    }
}
