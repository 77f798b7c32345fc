//! Finds keys on the token, makes them, and reads their attributes back.
//!
//! [`super::halves`] decides which objects belong together: a key whose public half is not known
//! must never sign. Only [`destroy`] deletes.

use super::fault::{Class, Fault};
use super::halves::{Candidate, PrivateKey, SigningSession, chosen, label_in};
use super::mechanism::Mechanisms;
use super::spki::{ED_25519, P_256, P_384, P_521, spki};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use hallmark_pki::der_bytes::Der;
use hallmark_pki::x509::key::{KeyType, SignatureAlgorithm};
use hallmark_protocol::inventory::{Inventory, KEYS_DESCRIBED_MAX};
use hallmark_protocol::key_proof::algorithm_of;
use hallmark_protocol::{KeyDescription, KeyReference, KeySpecification};

/// Most keys with one id or label. More are refused.
const CANDIDATES_MAX: usize = 64;

/// Both halves of a key pair on the token.
#[derive(Clone, Debug)]
pub(super) struct KeyPair {
    pub(super) private: PrivateKey,
    /// `None` if it is not on the token and a signature has identified the private key.
    pub(super) public: Option<ObjectHandle>,
    pub(super) spki: Der,
    /// The algorithm in which it signs; `None` for a type of key that we do not use.
    pub(super) algorithm: Option<SignatureAlgorithm>,
    /// `CKA_LABEL` of the private half, which shows whether it is a credential's.
    pub(super) label: String,
}

/// The result of a search.
pub(super) struct Found {
    pub(super) pair: KeyPair,
    /// The remark about its objects, for the operator.
    pub(super) remark: Option<String>,
}

/// Finds the key that `reference` names: by `CKA_ID`, else by label; its public key must match.
pub(super) fn find(
    signing: SigningSession<'_>,
    reference: &KeyReference,
) -> Result<Option<Found>, Fault> {
    let label = Attribute::Label(reference.label.clone().into_bytes());
    for hint in id_of(reference).into_iter().chain([label]) {
        let candidates = candidates(signing.session, &hint)?;
        let by_id = matches!(hint, Attribute::Id(_));
        if let Some(candidate) = chosen(signing, &candidates, reference, by_id)? {
            return Ok(Some(Found {
                pair: candidate.pair(&reference.spki),
                remark: candidate.remark(&reference.spki),
            }));
        }
    }
    Ok(None)
}

/// Returns what an operator must know about the objects of a key in use. Makes no signature.
pub(super) fn remark(session: &Session, reference: &KeyReference) -> Result<Option<String>, Fault> {
    let Some(id) = id_of(reference) else {
        return Ok(None);
    };
    let candidates = candidates(session, &id)?;
    let own = candidates.iter().find(|it| it.has(&reference.spki));
    let own = own.or(candidates.first());
    Ok(own.and_then(|candidate| candidate.remark(&reference.spki)))
}

fn id_of(reference: &KeyReference) -> Option<Attribute> {
    (!reference.id.is_empty()).then(|| Attribute::Id(reference.id.clone()))
}

/// Finds the finished key with this `CKA_ID`. Fails if there are two.
pub(super) fn find_by_id(signing: SigningSession<'_>, id: &[u8]) -> Result<Option<KeyPair>, Fault> {
    let candidates = candidates(signing.session, &Attribute::Id(id.to_vec()))?;
    match &candidates[..] {
        [] => Ok(None),
        [candidate] => candidate.finished(signing),
        several => Err(Fault::key(format!(
            "{} keys have id {}",
            several.len(),
            hex::encode(id)
        ))),
    }
}

/// Returns every private key with the attribute `hint`, and the public-key objects that may belong
/// to it.
fn candidates(session: &Session, hint: &Attribute) -> Result<Vec<Candidate>, Fault> {
    let privates = objects(session, ObjectClass::PRIVATE_KEY, hint)?;
    let read = privates
        .into_iter()
        .map(|private| Candidate::read(session, private));
    read.collect()
}

/// Adds all private keys of the token to `inventory`; an unusable key with the reason.
pub(super) fn list(signing: SigningSession<'_>, inventory: &mut Inventory) -> Result<(), Fault> {
    let session = signing.session;
    let every = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Token(true),
    ];
    let privates = session.find_objects(&every)?;
    inventory.not_looked_at = privates.len().saturating_sub(KEYS_DESCRIBED_MAX);
    for private in privates.into_iter().take(KEYS_DESCRIBED_MAX) {
        match listed(signing, private) {
            Ok(key) => inventory.keys.push(key),
            Err(fault) if matches!(fault.class, Class::Key | Class::Refused) => {
                let own = attributes(session, private, &[AttributeType::Label])?;
                let line = format!("{:?}: {}", label_in(&own), fault.reason);
                inventory.unusable.push(line);
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

fn listed(signing: SigningSession<'_>, private: ObjectHandle) -> Result<KeyDescription, Fault> {
    let pair = Candidate::read(signing.session, private)?.listed(signing)?;
    describe(signing.session, &pair)
}

/// Returns every object of `class` with the attribute `hint`.
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

/// Makes a key pair. The caller has checked that no key has the id.
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
    let spki = spki(session, public)?;
    Ok(KeyPair {
        private: PrivateKey::new(session, private)?,
        public: Some(public),
        algorithm: algorithm_of(&spki),
        spki,
        label: specification.label.clone(),
    })
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
        KeyType::P521 => template.push(Attribute::EcParams(P_521.to_vec())),
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

/// Returns the template of a private key that signs and never leaves the token.
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

/// Returns the attributes that forbid every other use of the key.
fn no_other_purpose(key_type: KeyType) -> Vec<Attribute> {
    match key_type {
        KeyType::P256 | KeyType::P384 | KeyType::P521 | KeyType::Ed25519 => {
            vec![Attribute::Derive(false)]
        }
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => {
            vec![Attribute::Decrypt(false), Attribute::Unwrap(false)]
        }
    }
}

/// Reads back the attributes of a key. A missing attribute counts as bad.
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
    for attribute in attributes(session, pair.private.object, &wanted)? {
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

/// Deletes both halves, the private one first, so that a failure leaves no usable key.
pub(super) fn destroy(session: &Session, pair: &KeyPair) -> Result<(), Fault> {
    session.destroy_object(pair.private.object)?;
    match pair.public {
        Some(public) => Ok(session.destroy_object(public)?),
        None => Ok(()),
    }
}

/// Reads attributes. An attribute that the token does not return is missing from the result.
pub(super) fn attributes(
    session: &Session,
    object: ObjectHandle,
    wanted: &[AttributeType],
) -> Result<Vec<Attribute>, Fault> {
    Ok(session.get_attributes(object, wanted)?)
}
