//! Keys on the token: found, made, read back.
//!
//! A private key's public half is the public-key object with the same `CKA_ID` (without one: with
//! the same label). Where that is ambiguous the key is refused: signing with a key of which we do
//! not know the public half is what must never happen. Nothing here deletes anything but
//! [`destroy`].

use super::fault::{Class, Fault};
use super::mechanism::Mechanisms;
use super::spki::{ED_25519, P_256, P_384, spki};
use crate::token::inventory::{Inventory, KEYS_DESCRIBED_MAX};
use crate::token::proof::algorithm_of;
use crate::token::{KeyDescription, KeyReference, KeySpecification, spki_sha256};
use crate::x509::key::{KeyType, SignatureAlgorithm};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

/// Most keys that are looked at for one hint. More of them under one label is a refusal.
const CANDIDATES_MAX: usize = 64;

/// Both halves of a key pair on the token.
#[derive(Clone, Debug)]
pub(super) struct KeyPair {
    pub(super) private: ObjectHandle,
    pub(super) public: ObjectHandle,
    /// DER SubjectPublicKeyInfo.
    pub(super) spki: Vec<u8>,
    /// In which it signs; `None` for a kind of key that we do not use.
    pub(super) algorithm: Option<SignatureAlgorithm>,
    /// `CKA_LABEL` of the private half, which says what it is for.
    pub(super) label: String,
}

impl KeyPair {
    fn new(
        session: &Session,
        private: ObjectHandle,
        public: ObjectHandle,
        own: &[Attribute],
    ) -> Result<Self, Fault> {
        let spki = spki(session, public)?;
        let algorithm = algorithm_of(&spki);
        let label = own.iter().find_map(|attribute| match attribute {
            Attribute::Label(label) => Some(String::from_utf8_lossy(label).into_owned()),
            _ => None,
        });
        Ok(KeyPair {
            private,
            public,
            spki,
            algorithm,
            label: label.unwrap_or_default(),
        })
    }
}

/// The key that `reference` names: by `CKA_ID`, else by label, bound by the SHA-256 of its SPKI.
pub(super) fn find(session: &Session, reference: &KeyReference) -> Result<Option<KeyPair>, Fault> {
    let id = Attribute::Id(reference.id.clone());
    let label = Attribute::Label(reference.label.clone().into_bytes());
    let hints = [(!reference.id.is_empty()).then_some(id), Some(label)];
    for hint in hints.into_iter().flatten() {
        let mut pairs = pairs_with(session, &hint)?;
        pairs.retain(|pair| spki_sha256(&pair.spki) == reference.spki_sha256);
        if pairs.len() > 1 {
            return Err(Fault::key(format!(
                "{} keys have this public key",
                pairs.len()
            )));
        }
        if let Some(pair) = pairs.pop() {
            return Ok(Some(pair));
        }
    }
    Ok(None)
}

/// The key with this `CKA_ID`, if there is one. Two are refused.
pub(super) fn find_by_id(session: &Session, id: &[u8]) -> Result<Option<KeyPair>, Fault> {
    let mut pairs = pairs_with(session, &Attribute::Id(id.to_vec()))?;
    if pairs.len() > 1 {
        return Err(Fault::key(format!(
            "{} keys have id {}",
            pairs.len(),
            hex::encode(id)
        )));
    }
    Ok(pairs.pop())
}

/// Every private key to which `hint` fits, with its public half.
fn pairs_with(session: &Session, hint: &Attribute) -> Result<Vec<KeyPair>, Fault> {
    let mut pairs = Vec::new();
    for private in objects(session, ObjectClass::PRIVATE_KEY, hint)? {
        match pair_of(session, private)? {
            Some(pair) => pairs.push(pair),
            None => tracing::debug!(?hint, "a private key without public key is passed over"),
        }
    }
    Ok(pairs)
}

/// The pair whose private half this is, if its public half is on the token.
fn pair_of(session: &Session, private: ObjectHandle) -> Result<Option<KeyPair>, Fault> {
    let own = attributes(session, private, &[AttributeType::Id, AttributeType::Label])?;
    let link = own
        .iter()
        .find(|attribute| matches!(attribute, Attribute::Id(id) if !id.is_empty()))
        .or_else(|| {
            own.iter()
                .find(|attribute| matches!(attribute, Attribute::Label(_)))
        })
        .ok_or_else(|| Fault::key("a private key has neither id nor label"))?;
    let publics = objects(session, ObjectClass::PUBLIC_KEY, link)?;
    match publics[..] {
        [] => Ok(None),
        [public] => KeyPair::new(session, private, public, &own).map(Some),
        _ => Err(Fault::key(format!(
            "{} public keys for one key",
            publics.len()
        ))),
    }
}

/// All private keys of the token, for `inventory`. One that cannot be used keeps no other from
/// being listed.
pub(super) fn list(session: &Session, inventory: &mut Inventory) -> Result<(), Fault> {
    let every = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Token(true),
    ];
    let privates = session.find_objects(&every)?;
    inventory.not_looked_at = privates.len().saturating_sub(KEYS_DESCRIBED_MAX);
    for private in privates.into_iter().take(KEYS_DESCRIBED_MAX) {
        let reason = match pair_of(session, private) {
            Ok(Some(pair)) => match describe(session, &pair) {
                Ok(key) => {
                    inventory.keys.push(key);
                    continue;
                }
                Err(fault) => fault,
            },
            Ok(None) => Fault::key("its public key is not on the token"),
            Err(fault) => fault,
        };
        if !matches!(reason.class, Class::Key | Class::Refused) {
            return Err(reason);
        }
        let label = match attributes(session, private, &[AttributeType::Label])?.pop() {
            Some(Attribute::Label(label)) => String::from_utf8_lossy(&label).into_owned(),
            _ => String::new(),
        };
        inventory
            .unusable
            .push(format!("{label:?}: {}", reason.reason));
    }
    Ok(())
}

/// Every object of `class` to which `hint` fits.
pub(super) fn objects(
    session: &Session,
    class: ObjectClass,
    hint: &Attribute,
) -> Result<Vec<ObjectHandle>, Fault> {
    let template = [
        Attribute::Class(class),
        Attribute::Token(true),
        hint.clone(),
    ];
    let found = session.find_objects(&template)?;
    if found.len() > CANDIDATES_MAX {
        return Err(Fault::key(format!(
            "{} objects share its id or label",
            found.len()
        )));
    }
    Ok(found)
}

/// Makes a key pair. The caller has seen that the id is free.
pub(super) fn generate(
    session: &Session,
    mechanisms: &Mechanisms,
    specification: &KeySpecification,
    takes_purposes: bool,
) -> Result<KeyPair, Fault> {
    let mechanism = mechanisms.generation(specification.key_type)?;
    let mut private_half = private_template(specification);
    if takes_purposes {
        private_half.extend(no_other_purpose(specification.key_type));
    }
    let public_half = public_template(specification);
    let (public, private) = session.generate_key_pair(&mechanism, &public_half, &private_half)?;
    let own = [Attribute::Label(specification.label.clone().into_bytes())];
    KeyPair::new(session, private, public, &own)
}

fn public_template(specification: &KeySpecification) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::Label(specification.label.clone().into_bytes()),
        Attribute::Id(specification.id.clone()),
    ];
    match specification.key_type {
        KeyType::P256 => template.push(Attribute::EcParams(P_256.to_vec())),
        KeyType::P384 => template.push(Attribute::EcParams(P_384.to_vec())),
        KeyType::Ed25519 => template.push(Attribute::EcParams(ED_25519.to_vec())),
        KeyType::Rsa2048 => template.extend(rsa_parameters(2048)),
        KeyType::Rsa3072 => template.extend(rsa_parameters(3072)),
        KeyType::Rsa4096 => template.extend(rsa_parameters(4096)),
    }
    template
}

fn rsa_parameters(modulus_bits: u64) -> [Attribute; 2] {
    const F4: [u8; 3] = [1, 0, 1];
    [
        Attribute::ModulusBits(modulus_bits.into()),
        Attribute::PublicExponent(F4.to_vec()),
    ]
}

/// A key that signs and never leaves.
fn private_template(specification: &KeySpecification) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Label(specification.label.clone().into_bytes()),
        Attribute::Id(specification.id.clone()),
    ]
}

/// And does nothing else.
fn no_other_purpose(key_type: KeyType) -> Vec<Attribute> {
    match key_type {
        KeyType::P256 | KeyType::P384 | KeyType::Ed25519 => vec![Attribute::Derive(false)],
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => {
            vec![Attribute::Decrypt(false), Attribute::Unwrap(false)]
        }
    }
}

/// Reads back what the token says of a key. What it does not say counts as bad.
pub(super) fn describe(session: &Session, pair: &KeyPair) -> Result<KeyDescription, Fault> {
    let mut description = KeyDescription {
        spki: pair.spki.clone(),
        label: String::new(),
        id: Vec::new(),
        sensitive: false,
        extractable: true,
        never_extractable: false,
        local: false,
        wrapped: None,
    };
    let wanted = [
        AttributeType::Label,
        AttributeType::Id,
        AttributeType::Sensitive,
        AttributeType::Extractable,
        AttributeType::NeverExtractable,
        AttributeType::Local,
    ];
    for attribute in attributes(session, pair.private, &wanted)? {
        match attribute {
            Attribute::Label(label) => description.label = String::from_utf8_lossy(&label).into(),
            Attribute::Id(id) => description.id = id,
            Attribute::Sensitive(value) => description.sensitive = value,
            Attribute::Extractable(value) => description.extractable = value,
            Attribute::NeverExtractable(value) => description.never_extractable = value,
            Attribute::Local(value) => description.local = value,
            _ => {}
        }
    }
    Ok(description)
}

/// `C_DestroyObject` of both halves; the private one first, so that a failure leaves no usable key
/// of which nothing is known.
pub(super) fn destroy(session: &Session, pair: &KeyPair) -> Result<(), Fault> {
    session.destroy_object(pair.private)?;
    Ok(session.destroy_object(pair.public)?)
}

/// Attributes that the token gives; the others are missing from the answer.
pub(super) fn attributes(
    session: &Session,
    object: ObjectHandle,
    wanted: &[AttributeType],
) -> Result<Vec<Attribute>, Fault> {
    Ok(session.get_attributes(object, wanted)?)
}
