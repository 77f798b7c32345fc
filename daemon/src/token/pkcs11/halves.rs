//! Which objects on a token are the two halves of one key.
//!
//! The private key and the public key on record (SPKI) decide. Public-key objects with the same id
//! only help: anyone can write one without a PIN, and a worker that was killed may have left one.
//! So of several public-key objects the one with the recorded SPKI is the public half, no other one
//! matters, and where objects do not suffice a test signature tells.
//!
//! [`clear_half_made`] is the only function that deletes without a request to delete. Half a key
//! pair is ours, and may go, if all of this is true:
//!
//! 1. It has the id that is about to be used for a new key. The id is 16 random bytes, chosen by us
//!    and recorded in the plan of the key before the token was asked to make it.
//! 2. No key with this id is on record: the caller asks for a key only as long as the plan has
//!    none.
//! 3. It has the label and the kind of the planned key.
//! 4. It is the only object of its class with this id.
//! 5. There is no finished key: no private key with this id makes a signature that verifies with a
//!    public-key object of this id.
//!
//! Nothing was ever certified with such a half, so nothing is lost. A public-key object that does
//! not meet all of this stays where it is, and is remarked on; a private key that does not is
//! refused.

use super::fault::{Class, Fault};
use super::key::{KeyPair, attributes, objects};
use super::mechanism::Mechanisms;
use super::spki::{ec_parameters, spki};
use crate::token::credential::is_credential;
use crate::token::key_proof::{algorithm_of, challenge, verifies};
use crate::token::{KeyReference, KeySpecification};
use crate::x509::key::SignatureAlgorithm;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

/// Most public-key objects that are read for one private key. Anyone can write more of them; the
/// key is then recognised by a signature.
const PUBLIC_HALVES_MAX: usize = 64;

/// Where keys are looked for, and how they sign.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) session: &'a Session,
    pub(super) mechanisms: &'a Mechanisms,
}

impl Look<'_> {
    /// A signature by this private key.
    pub(super) fn sign(
        self,
        private: ObjectHandle,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        let recipe = self.mechanisms.recipe(algorithm)?;
        let input = recipe.input(message);
        let raw = self.session.sign(&recipe.mechanism(), private, &input)?;
        recipe.output(raw)
    }

    /// Whether a test message that `private` signs now verifies with the public key of this SPKI.
    fn signs_for(self, private: ObjectHandle, spki: &[u8]) -> Result<bool, Fault> {
        let Some(algorithm) = algorithm_of(spki) else {
            return Ok(false);
        };
        // SoftHSM answers a key of another kind with CKR_GENERAL_ERROR, like a token that is lost.
        if !is_of_kind(self.session, private, algorithm)? {
            return Ok(false);
        }
        let message = challenge();
        match self.sign(private, algorithm, &message) {
            Ok(signature) => Ok(verifies(spki, algorithm, &message, &signature)),
            Err(fault) if is_about_the_object(&fault) => Ok(false),
            Err(fault) => Err(fault),
        }
    }
}

/// Another try with the same object fails the same way.
fn is_about_the_object(fault: &Fault) -> bool {
    matches!(fault.class, Class::Key | Class::Refused)
}

/// A public-key object.
pub(super) struct PublicHalf {
    object: ObjectHandle,
    spki: Vec<u8>,
}

/// A private key, and the public-key objects that may belong to it.
pub(super) struct Candidate {
    private: ObjectHandle,
    label: String,
    /// Public-key objects are those with its id; those with its label, if it has no id.
    has_id: bool,
    publics: Vec<PublicHalf>,
}

impl Candidate {
    pub(super) fn read(session: &Session, private: ObjectHandle) -> Result<Self, Fault> {
        let own = attributes(session, private, &[AttributeType::Id, AttributeType::Label])?;
        let id = own
            .iter()
            .find(|it| matches!(it, Attribute::Id(id) if !id.is_empty()));
        let label = own.iter().find(|it| matches!(it, Attribute::Label(_)));
        let link = id
            .or(label)
            .ok_or_else(|| Fault::key("a private key has neither id nor label"))?;
        Ok(Self {
            private,
            label: label_in(&own),
            has_id: id.is_some(),
            publics: public_halves(session, link)?,
        })
    }

    /// Whether a public-key object with this SPKI belongs to it.
    pub(super) fn has(&self, spki: &[u8]) -> bool {
        self.publics.iter().any(|it| it.spki == spki)
    }

    /// Whether nothing but its one public-key object has its id.
    fn is_plain(&self) -> bool {
        self.publics.len() == 1
    }

    /// A credential's key signs nothing but its own messages, so it makes no test signature.
    fn may_be_tried(&self) -> bool {
        !is_credential(&self.label)
    }

    /// The pair, by the public key that is on record.
    pub(super) fn pair(&self, spki: &[u8]) -> KeyPair {
        let public = self.publics.iter().find(|it| it.spki == spki);
        KeyPair {
            private: self.private,
            public: public.map(|it| it.object),
            spki: spki.to_vec(),
            algorithm: algorithm_of(spki),
            label: self.label.clone(),
        }
    }

    /// The pair without a record: the public-key object with which a test signature verifies.
    /// `None` if there is none, so the key is not finished.
    pub(super) fn finished(&self, look: Look<'_>) -> Result<Option<KeyPair>, Fault> {
        if !self.may_be_tried() {
            return self.only_pair();
        }
        for public in &self.publics {
            if look.signs_for(self.private, &public.spki)? {
                return Ok(Some(self.pair(&public.spki)));
            }
        }
        Ok(None)
    }

    /// The pair for a list, with a test signature only where several public-key objects have the
    /// id.
    pub(super) fn listed(&self, look: Look<'_>) -> Result<KeyPair, Fault> {
        let pair = match self.is_plain() {
            true => self.only_pair()?,
            false => self.finished(look)?,
        };
        pair.ok_or_else(|| match self.publics.len() {
            0 => Fault::key("its public key is not on the token"),
            others => Fault::key(format!(
                "{others} public keys have its id, and none of them is its own"
            )),
        })
    }

    fn only_pair(&self) -> Result<Option<KeyPair>, Fault> {
        match &self.publics[..] {
            [] => Ok(None),
            [public] => Ok(Some(self.pair(&public.spki))),
            several => Err(Fault::key(format!(
                "{} public keys have its id",
                several.len()
            ))),
        }
    }

    /// What an operator has to know of a key whose public key on record is this one.
    pub(super) fn remark(&self, spki: &[u8]) -> Option<String> {
        let label = &self.label;
        let others = self.publics.iter().filter(|it| it.spki != spki).count();
        if others > 0 && self.has_id {
            return Some(format!(
                "{others} public keys on the token have the id of key {label:?} and are not its own; \
                 the key is used all the same: remove them with the vendor's tool"
            ));
        }
        let missing = !self.has(spki);
        missing.then(|| {
            format!(
                "the public key of {label:?} is not on the token; the one on record is used: restore \
                 it from the authority's certificate with the vendor's tool"
            )
        })
    }
}

/// Of private keys that may be the one with this public key, the one that signs for it.
pub(super) fn the_one_that_signs<'a>(
    look: Look<'_>,
    candidates: impl Iterator<Item = &'a Candidate>,
    spki: &[u8],
) -> Result<Option<&'a Candidate>, Fault> {
    let mut found = None;
    for candidate in candidates {
        if !candidate.may_be_tried() || !look.signs_for(candidate.private, spki)? {
            continue;
        }
        if found.replace(candidate).is_some() {
            return Err(Fault::key("two keys have this public key"));
        }
    }
    Ok(found)
}

/// Of private keys with the id or label of `reference`, the one with its public key.
pub(super) fn chosen<'a>(
    look: Look<'_>,
    candidates: &'a [Candidate],
    reference: &KeyReference,
    by_id: bool,
) -> Result<Option<&'a Candidate>, Fault> {
    let spki = &reference.spki;
    let matching: Vec<&Candidate> = candidates.iter().filter(|it| it.has(spki)).collect();
    match matching[..] {
        [one] if one.is_plain() || !one.may_be_tried() => Ok(Some(one)),
        // Its public key is not on the token, or someone has written over it.
        [] if by_id => the_one_that_signs(look, candidates.iter(), spki),
        [] => Ok(None),
        _ => the_one_that_signs(look, matching.into_iter(), spki),
    }
}

/// Removes what an interrupted generation of the key that is to be made has left; the conditions
/// are at the top of this file. True if something was removed.
pub(super) fn clear_half_made(
    look: Look<'_>,
    specification: &KeySpecification,
) -> Result<bool, Fault> {
    let session = look.session;
    let id = Attribute::Id(specification.id.clone());
    let mut removed = false;
    match objects(session, ObjectClass::PRIVATE_KEY, &id)?[..] {
        [] => {}
        [private] => {
            if Candidate::read(session, private)?.finished(look)?.is_some() {
                let id = hex::encode(&specification.id);
                return Err(Fault::refused(format!("there is a key with id {id}")));
            }
            if !is_ours(session, private, specification)? {
                return Err(in_the_way(specification));
            }
            remove(session, private, "private", specification)?;
            removed = true;
        }
        _ => return Err(in_the_way(specification)),
    }
    let publics = public_objects(session, &id)?;
    match publics[..] {
        [] => {}
        [public] if is_ours(session, public, specification)? => {
            remove(session, public, "public", specification)?;
            removed = true;
        }
        _ => tracing::warn!(
            label = specification.label,
            id = hex::encode(&specification.id),
            objects = publics.len(),
            "public keys with the id of a new key stay: they may be someone else's"
        ),
    }
    Ok(removed)
}

fn remove(
    session: &Session,
    object: ObjectHandle,
    half: &str,
    specification: &KeySpecification,
) -> Result<(), Fault> {
    session.destroy_object(object)?;
    tracing::warn!(
        label = specification.label,
        id = hex::encode(&specification.id),
        half,
        "half-made key removed"
    );
    Ok(())
}

/// Label and kind are those of the planned key; the id is, because the object was found by it.
fn is_ours(
    session: &Session,
    object: ObjectHandle,
    specification: &KeySpecification,
) -> Result<bool, Fault> {
    let own = attributes(session, object, &[AttributeType::Label])?;
    let algorithm = specification.key_type.signature_algorithm();
    Ok(label_in(&own) == specification.label && is_of_kind(session, object, algorithm)?)
}

fn in_the_way(specification: &KeySpecification) -> Fault {
    Fault::refused(format!(
        "private keys with id {} are on the token, and nothing shows that an interrupted generation \
         of key {:?} left them: look at them with the vendor's tool and remove them, then try again",
        hex::encode(&specification.id),
        specification.label
    ))
}

/// Whether a key object is of the kind that signs in `algorithm`. A curve that it does not tell is
/// taken for the right one.
fn is_of_kind(
    session: &Session,
    object: ObjectHandle,
    algorithm: SignatureAlgorithm,
) -> Result<bool, Fault> {
    let wanted = match algorithm {
        SignatureAlgorithm::RsaSha256 => KeyType::RSA,
        SignatureAlgorithm::EcdsaSha256 | SignatureAlgorithm::EcdsaSha384 => KeyType::EC,
        SignatureAlgorithm::Ed25519 => KeyType::EC_EDWARDS,
    };
    let kind = attributes(session, object, &[AttributeType::KeyType])?;
    if !kind.contains(&Attribute::KeyType(wanted)) {
        return Ok(false);
    }
    if wanted == KeyType::RSA {
        return Ok(true);
    }
    let told = attributes(session, object, &[AttributeType::EcParams])?;
    Ok(told.iter().all(|it| match it {
        Attribute::EcParams(curve) => ec_parameters(algorithm).contains(&curve.as_slice()),
        _ => true,
    }))
}

/// Every public-key object to which `link` fits, without a limit: anyone can write them.
fn public_objects(session: &Session, link: &Attribute) -> Result<Vec<ObjectHandle>, Fault> {
    let template = [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::Token(true),
        link.clone(),
    ];
    Ok(session.find_objects(&template)?)
}

/// Public-key objects to which `link` fits, as far as they can be read.
fn public_halves(session: &Session, link: &Attribute) -> Result<Vec<PublicHalf>, Fault> {
    let objects = public_objects(session, link)?;
    let mut halves = Vec::new();
    for object in objects.into_iter().take(PUBLIC_HALVES_MAX) {
        match spki(session, object) {
            Ok(spki) => halves.push(PublicHalf { object, spki }),
            Err(fault) if is_about_the_object(&fault) => {
                tracing::debug!(reason = fault.reason, "a public key is passed over");
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(halves)
}

pub(super) fn label_in(attributes: &[Attribute]) -> String {
    let label = attributes.iter().find_map(|attribute| match attribute {
        Attribute::Label(label) => Some(String::from_utf8_lossy(label).into_owned()),
        _ => None,
    });
    label.unwrap_or_default()
}
