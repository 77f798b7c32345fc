//! Checks whether an authority can have a successor, before its rollover starts.
//!
//! A rollover waits for what comes by itself or by an operator's step elsewhere: a token, the end
//! of a block, a certificate by an issuer elsewhere. A successor that can never be made is refused
//! at once, with what to do instead. After a compromise the exclusion comes first, so there the
//! same is reported; a successor that only lacks the kind of key that was asked for is made all the
//! same.

use super::super::hierarchy::{Generation, Hierarchy};
use super::super::issuer::generation::Shape;
use super::super::{Code, Error};
use super::Rollovers;
use super::evidence::AuthorityDetail;
use crate::enrollment::roll::RollReason;
use crate::store::{RollRow, RollSubject};
use crate::token::TokenDescription;
use crate::unix_seconds::UnixSeconds;
use crate::x509::key::KeyType;
use crate::x509::profile::VALIDITY_SECONDS_MAX;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long the start of a rollover waits for a token to describe itself.
const DESCRIBE_DEADLINE: Duration = Duration::from_secs(2);

/// How long before its issuer the successor of a compromised authority ends, in seconds.
const END_MARGIN_SECONDS: i64 = 60;

impl Rollovers {
    /// Fails if the next generation of the authority of `old` can never be made as `detail` asks.
    pub(super) fn check_successor(
        &self,
        old: &Generation,
        detail: &AuthorityDetail,
        reason: RollReason,
    ) -> Result<(), Error> {
        self.check_key_type(old, detail)?;
        self.check_certificate(old, detail, reason)
    }

    /// Fails if the next certificate can never be made.
    pub(super) fn check_certificate(
        &self,
        old: &Generation,
        detail: &AuthorityDetail,
        reason: RollReason,
    ) -> Result<(), Error> {
        if !old.foreign.is_empty() {
            return Ok(());
        }
        let hierarchy = self.issuer.hierarchy();
        let above = hierarchy.parent_authority(old);
        let signer = above.map(|it| hierarchy.signing(it)).transpose()?;
        let shape = self.next_shape(&hierarchy, old, signer.map(AsRef::as_ref), detail, reason)?;
        let tried = self
            .issuer
            .try_shape(&shape, old, signer.map(AsRef::as_ref));
        tried.map_err(|error| match (error.code, above) {
            (Code::OutlivesIssuer, Some(above)) => outlives(old, above),
            _ => error,
        })
    }

    /// The contents of the next certificate. After a compromise it ends before its issuer does: the
    /// line is down until it is certified.
    pub(super) fn next_shape(
        &self,
        hierarchy: &Hierarchy,
        old: &Generation,
        signer: Option<&Generation>,
        detail: &AuthorityDetail,
        reason: RollReason,
    ) -> Result<Shape, Error> {
        let mut shape = Shape::like(old)?;
        shape.validity = detail.validity.unwrap_or(shape.validity);
        if shape.validity > VALIDITY_SECONDS_MAX {
            let message = "a certificate is valid for at most 50y: say a shorter --validity";
            return Err(Error::invalid(Code::ValidityOutOfRange, message));
        }
        let Some(signer) = signer else {
            return Ok(shape);
        };
        if reason == RollReason::Compromise {
            shape.validity = shape.validity.min(left(signer, self.issuer.now()));
        }
        shape.path_length = hierarchy
            .path_length_below(signer.id, shape.path_length)
            .ok_or_else(|| no_room_below(signer))?;
        Ok(shape)
    }

    /// Returns the kind of the next key. After a compromise the line is down until there is a
    /// successor, so it is like the old one if the token does not make the kind that was asked for.
    pub(super) fn next_key_type(
        &self,
        old: &Generation,
        detail: &AuthorityDetail,
        reason: RollReason,
    ) -> Result<KeyType, Error> {
        let own = old.public_key.key_type();
        let asked = detail.key_type.unwrap_or(own);
        if reason == RollReason::Expiry || asked == own {
            return Ok(asked);
        }
        let token = self.issuer.token_of(&old.authority)?;
        let token = self
            .issuer
            .token(token)?
            .client
            .describe(DESCRIBE_DEADLINE)?;
        Ok(if makes(&token, asked) { asked } else { own })
    }

    /// A token that does not answer now is waited for.
    fn check_key_type(&self, old: &Generation, detail: &AuthorityDetail) -> Result<(), Error> {
        let name = self.issuer.token_of(&old.authority)?;
        let client = &self.issuer.token(name)?.client;
        let key_type = detail.key_type.unwrap_or(old.public_key.key_type());
        match client.describe(DESCRIBE_DEADLINE) {
            Ok(token) if !makes(&token, key_type) => {
                let message = format!(
                    "token {name} makes no {key_type} keys: say another --key-type, or give \
                     authority {} another token in the configuration",
                    old.authority
                );
                Err(Error::invalid(Code::KeyTypeForbidden, message))
            }
            _ => Ok(()),
        }
    }

    /// Returns why the successors of compromised authorities cannot be made, and what to do. The
    /// rolls go on by themselves once that is done.
    pub fn obstacles(&self, rolls: &[RollRow]) -> Result<Vec<String>, Error> {
        let begun: BTreeSet<&str> = rolls.iter().map(|it| it.subject.name()).collect();
        let mut obstacles = Vec::new();
        for roll in rolls {
            let RollSubject::Authority { old_generation, .. } = roll.subject else {
                continue;
            };
            let hierarchy = self.issuer.hierarchy();
            let Some(old) = hierarchy.generation(old_generation).cloned() else {
                continue;
            };
            let above = hierarchy.parent_authority(&old);
            // The authority above gets a successor first.
            if above.is_some_and(|it| begun.contains(it)) {
                continue;
            }
            let detail = AuthorityDetail::of(roll)?;
            if let Err(error) = self.check_key_type(&old, &detail)
                && detail.key_type.is_some()
            {
                obstacles.push(format!(
                    "authority {} is excluded, and its successor has a {} key as before: {}",
                    old.authority,
                    old.public_key.key_type(),
                    error.message
                ));
            }
            let like_the_old = AuthorityDetail {
                key_type: None,
                ..detail
            };
            if let Err(error) = self.check_successor(&old, &like_the_old, roll.reason) {
                obstacles.push(format!(
                    "authority {} is excluded, and gets no successor yet: {}",
                    old.authority, error.message
                ));
            }
        }
        Ok(obstacles)
    }
}

/// How long a certificate by `signer` can be valid from now on, in seconds.
fn left(signer: &Generation, now: UnixSeconds) -> u64 {
    let left = signer.certificate.not_after().seconds_since(now) - END_MARGIN_SECONDS;
    // If nothing is left, the refusal says so.
    u64::try_from(left).unwrap_or(0).max(1)
}

fn outlives(old: &Generation, above: &str) -> Error {
    let message = format!(
        "the next certificate of {} would outlive that of {above}, which signs it: roll {above} \
         first (that rolls those below, too), or say a shorter --validity",
        old.authority
    );
    Error::invalid(Code::OutlivesIssuer, message)
}

fn no_room_below(signer: &Generation) -> Error {
    let message = format!(
        "no authority fits below {} (until {}): the path length of its certificate, or of one \
         above it, is used up. Make an authority below another one by a ceremony, and move the \
         profiles and groups to it",
        signer.authority,
        signer.certificate.not_after()
    );
    Error::invalid(Code::PathLength, message)
}

/// Whether the token has what makes such keys. A TPM lists algorithms, and no key sizes.
pub(in crate::ca) fn makes(token: &TokenDescription, key_type: KeyType) -> bool {
    let lists = |name: &str| token.mechanisms.iter().any(|it| it == name);
    let is_pkcs11 = token.mechanisms.iter().any(|it| it.starts_with("CKM_"));
    match key_type {
        KeyType::Ed25519 => is_pkcs11 && lists("CKM_EC_EDWARDS_KEY_PAIR_GEN"),
        KeyType::P521 => is_pkcs11 && lists("CKM_EC_KEY_PAIR_GEN"),
        KeyType::P256 | KeyType::P384 => !is_pkcs11 || lists("CKM_EC_KEY_PAIR_GEN"),
        KeyType::Rsa4096 => is_pkcs11 && lists("CKM_RSA_PKCS_KEY_PAIR_GEN"),
        KeyType::Rsa2048 | KeyType::Rsa3072 => !is_pkcs11 || lists("CKM_RSA_PKCS_KEY_PAIR_GEN"),
    }
}
