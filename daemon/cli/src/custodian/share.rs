//! Splits the PIN of a token into shares, and joins enough of them.
//!
//! A random key is split by Shamir's scheme, and the PIN is encrypted under that key (AES-256-GCM),
//! once, in every share. So a share of another set and a changed one are found, and fewer shares
//! than the threshold allow no guess at a short PIN: nothing in them depends on the PIN alone.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use blahaj::{Share, Sharks};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use zeroize::{Zeroize, Zeroizing};

/// The most custodians.
pub(super) const CUSTODIANS_MAX: usize = 32;
/// The largest share, in bytes.
pub(super) const SHARE_BYTES_MAX: u64 = 16 * 1024;
/// The version of this format.
const VERSION: u8 = 1;
/// Octets of the key that is split.
const KEY_BYTES: usize = 32;

/// A share as it is written: a JSON object in a file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareFile {
    /// The version of the format.
    pub(super) hallmark_share: u8,
    /// Hex; the same in all shares that were made together.
    pub(super) set: String,
    pub(super) custodian: String,
    /// How many shares open the PIN.
    pub(super) threshold: u8,
    /// How many there are.
    pub(super) shares: u8,
    /// Base64 of the share of the key. A secret.
    share: String,
    /// Base64 of the PIN, encrypted under the key, after its nonce.
    pin: String,
}

impl Drop for ShareFile {
    fn drop(&mut self) {
        self.share.zeroize();
    }
}

/// Splits `pin` among `custodians`. Any `threshold` of the shares open it.
pub(super) fn split(
    pin: &SecretString,
    custodians: &[String],
    threshold: u8,
) -> Result<Vec<ShareFile>, String> {
    let number = u8::try_from(custodians.len()).unwrap_or(u8::MAX);
    if custodians.len() > CUSTODIANS_MAX || !(2..=number).contains(&threshold) {
        return Err(format!(
            "{threshold} of {number} is no threshold: it is 2 or more, and at most the number of \
             custodians, who are at most {CUSTODIANS_MAX}"
        ));
    }
    let mut set = [0; 16];
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let failed = |_| "the machine gives no random numbers".to_owned();
    rand::fill(&mut set).map_err(failed)?;
    rand::fill(&mut *key).map_err(failed)?;
    let set = hex::encode(set);
    let mut sealed = pin.expose_secret().as_bytes().to_vec();
    let nonce = sealing(&key)
        .seal_in_place_append_tag(Aad::from(set.as_bytes()), &mut sealed)
        .map_err(failed)?;
    let pin = BASE64.encode([&nonce.as_ref()[..], &sealed].concat());
    let shares = Sharks(threshold).dealer(&*key).zip(custodians);
    let shares = shares.map(|(share, custodian)| ShareFile {
        hallmark_share: VERSION,
        set: set.clone(),
        custodian: custodian.clone(),
        threshold,
        shares: number,
        share: BASE64.encode(Zeroizing::new(Vec::from(&share))),
        pin: pin.clone(),
    });
    Ok(shares.collect())
}

/// Reads a share. The error has nothing of its content.
pub(super) fn parse(bytes: &[u8]) -> Result<ShareFile, String> {
    let share: ShareFile = serde_json::from_slice(bytes)
        .map_err(|_| "it is no share as `hallmark custodian split` writes it".to_owned())?;
    if share.hallmark_share != VERSION {
        return Err("a newer version of Hallmark wrote it; use that one".into());
    }
    Ok(share)
}

/// Opens the PIN by shares of one set.
pub(super) fn open(shares: &[ShareFile]) -> Result<SecretString, String> {
    let Some(first) = shares.first() else {
        return Err("there is no share".into());
    };
    let ShareFile { set, threshold, .. } = first;
    let changed = || {
        "the shares do not fit together: one was changed; try with the share of another custodian"
            .to_owned()
    };
    let is_of_set = |it: &ShareFile| it.set == *set && it.threshold == *threshold;
    if let Some(other) = shares.iter().find(|it| !is_of_set(it)) {
        return Err(format!(
            "the shares of {} and {} were not made together; bring shares of one set",
            first.custodian, other.custodian
        ));
    }
    let mut points = Vec::new();
    let mut distinct = BTreeSet::new();
    for share in shares {
        let bytes = Zeroizing::new(BASE64.decode(&share.share).map_err(|_| changed())?);
        if bytes.len() != KEY_BYTES + 1 || share.pin != first.pin {
            return Err(changed());
        }
        distinct.insert(bytes[0]);
        points.push(Share::try_from(bytes.as_slice()).map_err(|_| changed())?);
    }
    if distinct.len() < usize::from(*threshold) {
        return Err(format!(
            "{} of {threshold} shares are here; bring {} more",
            distinct.len(),
            usize::from(*threshold) - distinct.len()
        ));
    }
    let key = Zeroizing::new(Sharks(*threshold).recover(&points).map_err(|_| changed())?);
    let key: &[u8; KEY_BYTES] = key.as_slice().try_into().map_err(|_| changed())?;
    let sealed = BASE64.decode(&first.pin).map_err(|_| changed())?;
    let (nonce, sealed) = sealed
        .split_first_chunk::<NONCE_LEN>()
        .ok_or_else(changed)?;
    let mut opened = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::from(nonce);
    let pin = sealing(key)
        .open_in_place(nonce, Aad::from(set.as_bytes()), &mut opened)
        .map_err(|_| changed())?;
    let pin = std::str::from_utf8(pin).map_err(|_| changed())?;
    Ok(SecretString::from(pin))
}

fn sealing(key: &[u8; KEY_BYTES]) -> RandomizedNonceKey {
    RandomizedNonceKey::new(&AES_256_GCM, key).expect("the key has the cipher's length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pin() -> SecretString {
        SecretString::from("8421-a")
    }

    fn shares(number: usize, threshold: u8) -> Vec<ShareFile> {
        let names: Vec<_> = (1..=number).map(|it| format!("custodian-{it}")).collect();
        split(&pin(), &names, threshold).expect("splits")
    }

    #[test]
    fn each_choice_of_three_of_five_opens_and_two_do_not() {
        let all = shares(5, 3);
        for left_out in 0..5 {
            for other in (0..5).filter(|it| *it != left_out) {
                let numbers = (0..5).filter(|it| ![left_out, other].contains(it));
                let chosen: Vec<_> = numbers.map(|it| all[it].clone()).collect();
                let opened = open(&chosen).expect("three open it");
                assert_eq!(opened.expose_secret(), pin().expose_secret());
                let refused = open(&chosen[..2]).expect_err("two do not");
                assert!(
                    refused.contains("2 of 3") && refused.contains("1 more"),
                    "{refused}"
                );
                let twice = [chosen[0].clone(), chosen[1].clone(), chosen[1].clone()];
                assert!(open(&twice).is_err(), "one share twice is one share");
            }
        }
        assert!(open(&all).is_ok(), "all five open it");
    }

    #[test]
    fn shares_of_two_sets_and_changed_ones_are_refused_in_words() {
        let (one, other) = (shares(3, 2), shares(3, 2));
        let mixed = open(&[one[0].clone(), other[1].clone()]);
        let refused = mixed.expect_err("two sets");
        assert!(refused.contains("custodian-1 and custodian-2"), "{refused}");
        let mut changed = one[1].clone();
        let mut bytes = BASE64.decode(&changed.share).expect("base64");
        bytes[5] ^= 1;
        changed.share = BASE64.encode(bytes);
        let refused = open(&[one[0].clone(), changed]).expect_err("changed");
        assert!(refused.contains("one was changed"), "{refused}");
        for (number, threshold) in [(3, 1), (3, 4), (33, 2)] {
            let names = vec!["name".to_owned(); number];
            assert!(
                split(&pin(), &names, threshold).is_err(),
                "{threshold} of {number}"
            );
        }
    }

    proptest! {
        /// A share with one changed octet is refused or opens the same PIN, and never another one.
        #[test]
        fn a_changed_octet_opens_no_other_pin(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let all = shares(3, 2);
            let mut bytes = serde_json::to_vec(&all[0]).expect("JSON");
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let opened = parse(&bytes).and_then(|share| {
                let shares = [share, all[1].clone()];
                open(&shares)
            });
            if let Ok(opened) = opened {
                let pin = pin();
                prop_assert_eq!(opened.expose_secret(), pin.expose_secret());
            }
        }

        #[test]
        fn other_bytes_are_no_share(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            prop_assert!(parse(&bytes).is_err());
        }
    }
}
