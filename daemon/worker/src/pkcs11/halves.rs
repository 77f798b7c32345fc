//! Decides which objects on a token are the two halves of one key.
//!
//! The private key and the recorded public key (SPKI) decide. Public-key objects with the same id
//! are only hints: anyone can write one without a PIN, and a killed worker may have left one. So of
//! several public-key objects the one with the recorded SPKI is the public half, and the others do
//! not matter. Where objects do not suffice, a test signature decides.
//!
//! [`clear_half_made`] is the only function that deletes without a request to delete. Half a key
//! pair is ours, and may be deleted, if all of this is true:
//!
//! 1. It has the id that the new key is to get. We chose the id, 16 random bytes, and recorded it
//!    in the plan of the key before the token was asked to make the key.
//! 2. No key with this id is recorded: the caller asks for a key only while the plan has none.
//! 3. It has the label and the type of the planned key.
//! 4. It is the only object of its class with this id.
//! 5. There is no finished key: no private key with this id makes a signature that verifies with a
//!    public-key object of this id.
//!
//! No certificate was ever issued for such a half, so nothing is lost. A public-key object that
//! fails a condition is kept and reported; a private key that fails one makes the generation fail.

use super::backend::is_user;
use super::fault::{Class, Fault};
use super::key::{KeyPair, attributes, objects};
use super::mechanism::Mechanisms;
use super::raw::TokenReader;
use super::signature_login::{SignatureLogin, needs};
use super::spki::{ec_parameters, spki};
use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use hallmark_pki::der_bytes::Der;
use hallmark_pki::x509::key::SignatureAlgorithm;
use hallmark_protocol::credential::is_credential;
use hallmark_protocol::key_proof::{algorithm_of, challenge, verifies};
use hallmark_protocol::{KeyReference, KeySpecification};

/// Most public-key objects that are read for one private key. Anyone can write more of them; then a
/// signature identifies the key.
const PUBLIC_HALVES_MAX: usize = 64;

/// A session, and the mechanisms with which its keys sign.
#[derive(Clone, Copy)]
pub(super) struct SigningSession<'a> {
    pub(super) session: &'a Session,
    pub(super) mechanisms: &'a Mechanisms,
    pub(super) reader: &'a TokenReader,
    pub(super) login: &'a SignatureLogin,
}

/// A private key on the token.
#[derive(Clone, Copy, Debug)]
pub(super) struct PrivateKey {
    pub(super) object: ObjectHandle,
    /// `CKA_ALWAYS_AUTHENTICATE`: each signature needs a login (PKCS#11 3.0, section 4.9).
    always_authenticate: bool,
}

impl PrivateKey {
    /// Reads what a key needs for a signature.
    pub(super) fn new(session: &Session, object: ObjectHandle) -> Result<Self, Fault> {
        let read = attributes(session, object, &[AttributeType::AlwaysAuthenticate])?;
        Ok(Self::of(object, &read))
    }

    fn of(object: ObjectHandle, read: &[Attribute]) -> Self {
        Self {
            object,
            always_authenticate: read.contains(&Attribute::AlwaysAuthenticate(true)),
        }
    }
}

impl SigningSession<'_> {
    /// Signs with this private key.
    pub(super) fn sign(
        self,
        private: PrivateKey,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        let recipe = self.mechanisms.recipe(algorithm)?;
        let input = recipe.input(message);
        let mechanism = recipe.mechanism();
        if private.always_authenticate {
            return recipe.output(self.sign_after_login(&mechanism, private.object, &input)?);
        }
        match self.session.sign(&mechanism, private.object, &input) {
            // A key that needs a login for each signature, and does not show the attribute.
            Err(Error::Pkcs11(RvError::UserNotLoggedIn, Function::Sign))
                if is_user(self.session)? =>
            {
                recipe.output(self.sign_after_login(&mechanism, private.object, &input)?)
            }
            raw => recipe.output(raw?),
        }
    }

    /// Signs with a key that needs a login for each signature.
    fn sign_after_login(
        self,
        mechanism: &Mechanism<'_>,
        private: ObjectHandle,
        input: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        self.session.sign_init(mechanism, private)?;
        self.login.log_in(self.session)?;
        match self.reader.sign_begun(self.session, input) {
            // The second table of p11-kit's client is another client.
            Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => {
                Err(Fault::key(needs("this module does not support it")))
            }
            signature => Ok(signature?),
        }
    }

    /// Returns true if a test signature by `private` verifies with the public key of this SPKI.
    fn signs_for(self, private: PrivateKey, spki: &[u8]) -> Result<bool, Fault> {
        let Some(algorithm) = algorithm_of(spki) else {
            return Ok(false);
        };
        // SoftHSM returns CKR_GENERAL_ERROR for a key of another type, as for a lost token.
        if !is_of_kind(self.session, private.object, algorithm)? {
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

/// Returns true if a retry with the same object would fail in the same way.
fn is_about_the_object(fault: &Fault) -> bool {
    matches!(fault.class, Class::Key | Class::Refused)
}

/// A public-key object and its SPKI.
pub(super) struct PublicHalf {
    object: ObjectHandle,
    spki: Der,
}

/// A private key, and the public-key objects that may belong to it.
pub(super) struct Candidate {
    private: PrivateKey,
    label: String,
    /// True if `publics` are the objects with its id; false if they are those with its label.
    has_id: bool,
    publics: Vec<PublicHalf>,
}

impl Candidate {
    pub(super) fn read(session: &Session, private: ObjectHandle) -> Result<Self, Fault> {
        let wanted = [
            AttributeType::Id,
            AttributeType::Label,
            AttributeType::AlwaysAuthenticate,
        ];
        let own = attributes(session, private, &wanted)?;
        let id = own
            .iter()
            .find(|it| matches!(it, Attribute::Id(id) if !id.is_empty()));
        let label = own.iter().find(|it| matches!(it, Attribute::Label(_)));
        let link = id
            .or(label)
            .ok_or_else(|| Fault::key("a private key has neither id nor label"))?;
        Ok(Self {
            private: PrivateKey::of(private, &own),
            label: label_in(&own),
            has_id: id.is_some(),
            publics: public_halves(session, link)?,
        })
    }

    /// Returns true if a public-key object with this SPKI belongs to it.
    pub(super) fn has(&self, spki: &[u8]) -> bool {
        self.publics.iter().any(|it| *it.spki == *spki)
    }

    /// Returns true if exactly one public-key object has its id.
    fn is_plain(&self) -> bool {
        self.publics.len() == 1
    }

    /// Returns true if it may make a test signature. A credential's key must sign only assertions.
    fn may_be_tried(&self) -> bool {
        !is_credential(&self.label)
    }

    /// Returns the pair with the recorded public key.
    pub(super) fn pair(&self, spki: &[u8]) -> KeyPair {
        let public = self.publics.iter().find(|it| *it.spki == *spki);
        KeyPair {
            private: self.private,
            public: public.map(|it| it.object),
            spki: spki.into(),
            algorithm: algorithm_of(spki),
            label: self.label.clone(),
        }
    }

    /// Returns the pair without a record: the public-key object with which a test signature
    /// verifies. Returns `None` if there is none, so that the key is not finished.
    pub(super) fn finished(&self, signing: SigningSession<'_>) -> Result<Option<KeyPair>, Fault> {
        if !self.may_be_tried() {
            return self.only_pair();
        }
        for public in &self.publics {
            if signing.signs_for(self.private, &public.spki)? {
                return Ok(Some(self.pair(&public.spki)));
            }
        }
        Ok(None)
    }

    /// Returns the pair for an inventory. Makes a test signature only if several public-key objects
    /// have the id.
    pub(super) fn listed(&self, signing: SigningSession<'_>) -> Result<KeyPair, Fault> {
        let pair = if self.is_plain() {
            self.only_pair()?
        } else {
            self.finished(signing)?
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

    /// Returns what an operator must know about the objects of the key with this recorded SPKI.
    pub(super) fn remark(&self, spki: &[u8]) -> Option<String> {
        let label = &self.label;
        let others = self.publics.iter().filter(|it| *it.spki != *spki).count();
        if others > 0 && self.has_id {
            return Some(format!(
                "{others} public keys on the token have the id of key {label:?} and are not its \
                 own; the key is still used: remove them with the vendor's tool"
            ));
        }
        let missing = !self.has(spki);
        missing.then(|| {
            format!(
                "the public key of {label:?} is not on the token; the recorded one is used: \
                 restore it from the authority's certificate with the vendor's tool"
            )
        })
    }
}

/// Returns the private key that signs for this public key.
pub(super) fn the_one_that_signs<'a>(
    signing: SigningSession<'_>,
    candidates: impl Iterator<Item = &'a Candidate>,
    spki: &[u8],
) -> Result<Option<&'a Candidate>, Fault> {
    let mut found = None;
    for candidate in candidates {
        if !candidate.may_be_tried() || !signing.signs_for(candidate.private, spki)? {
            continue;
        }
        if found.replace(candidate).is_some() {
            return Err(Fault::key("two keys have this public key"));
        }
    }
    Ok(found)
}

/// Returns the private key, of those with the id or label of `reference`, that has its public key.
pub(super) fn chosen<'a>(
    signing: SigningSession<'_>,
    candidates: &'a [Candidate],
    reference: &KeyReference,
    by_id: bool,
) -> Result<Option<&'a Candidate>, Fault> {
    let spki = &reference.spki;
    let matching: Vec<&Candidate> = candidates.iter().filter(|it| it.has(spki)).collect();
    match matching[..] {
        [one] if one.is_plain() || !one.may_be_tried() => Ok(Some(one)),
        // Its public key is not on the token, or another program has overwritten it.
        [] if by_id => the_one_that_signs(signing, candidates.iter(), spki),
        [] => Ok(None),
        _ => the_one_that_signs(signing, matching.into_iter(), spki),
    }
}

/// Deletes what an interrupted generation of the planned key has left, under the conditions at the
/// top of this file. Returns true if an object was deleted.
pub(super) fn clear_half_made(
    signing: SigningSession<'_>,
    specification: &KeySpecification,
) -> Result<bool, Fault> {
    let session = signing.session;
    let id = Attribute::Id(specification.id.clone());
    let mut removed = false;
    match objects(session, ObjectClass::PRIVATE_KEY, &id)?[..] {
        [] => {}
        [private] => {
            if Candidate::read(session, private)?
                .finished(signing)?
                .is_some()
            {
                let id = hex::encode(&specification.id);
                return Err(Fault::refused(format!("there is a key with id {id}")));
            }
            if !is_ours(session, private, specification)? {
                return Err(foreign_key_object(specification));
            }
            remove(session, private, "private", specification)?;
            removed = true;
        }
        _ => return Err(foreign_key_object(specification)),
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
            "keeping public keys with the id of a new key: they may belong to another program"
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
        "removed half-made key"
    );
    Ok(())
}

/// Returns true if label and type are those of the planned key. The object was found by the id.
fn is_ours(
    session: &Session,
    object: ObjectHandle,
    specification: &KeySpecification,
) -> Result<bool, Fault> {
    let own = attributes(session, object, &[AttributeType::Label])?;
    let algorithm = specification.key_type.signature_algorithm();
    let is_planned = is_of_kind(session, object, algorithm)? || has_empty_curve(session, object)?;
    Ok(label_in(&own) == specification.label && is_planned)
}

/// Returns true if the curve is there and empty. SoftHSM stores a private key so before it stores
/// its value: a kill in between leaves an object that signs nothing.
fn has_empty_curve(session: &Session, object: ObjectHandle) -> Result<bool, Fault> {
    let parameters = attributes(session, object, &[AttributeType::EcParams])?;
    Ok(parameters.contains(&Attribute::EcParams(Vec::new())))
}

fn foreign_key_object(specification: &KeySpecification) -> Fault {
    Fault::refused(format!(
        "private keys with id {} are on the token, and nothing shows that an interrupted \
         generation of key {:?} left them: inspect and remove them with the vendor's tool, then \
         try again",
        hex::encode(&specification.id),
        specification.label
    ))
}

/// Returns true if a key object is of the type that signs in `algorithm`. An object without a curve
/// attribute counts as having the right one.
fn is_of_kind(
    session: &Session,
    object: ObjectHandle,
    algorithm: SignatureAlgorithm,
) -> Result<bool, Fault> {
    let wanted = match algorithm {
        SignatureAlgorithm::RsaSha256 => KeyType::RSA,
        SignatureAlgorithm::EcdsaSha256
        | SignatureAlgorithm::EcdsaSha384
        | SignatureAlgorithm::EcdsaSha512 => KeyType::EC,
        SignatureAlgorithm::Ed25519 => KeyType::EC_EDWARDS,
    };
    let kind = attributes(session, object, &[AttributeType::KeyType])?;
    if !kind.contains(&Attribute::KeyType(wanted)) {
        return Ok(false);
    }
    if wanted == KeyType::RSA {
        return Ok(true);
    }
    let parameters = attributes(session, object, &[AttributeType::EcParams])?;
    Ok(parameters.iter().all(|it| match it {
        Attribute::EcParams(curve) => ec_parameters(algorithm).contains(&curve.as_slice()),
        _ => true,
    }))
}

/// Returns every public-key object with the attribute `link`. There is no limit: anyone can write
/// such objects.
fn public_objects(session: &Session, link: &Attribute) -> Result<Vec<ObjectHandle>, Fault> {
    let template = [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::Token(true),
        link.clone(),
    ];
    Ok(session.find_objects(&template)?)
}

/// Returns the readable public-key objects with the attribute `link`.
fn public_halves(session: &Session, link: &Attribute) -> Result<Vec<PublicHalf>, Fault> {
    let objects = public_objects(session, link)?;
    let mut halves = Vec::new();
    for object in objects.into_iter().take(PUBLIC_HALVES_MAX) {
        match spki(session, object) {
            Ok(spki) => halves.push(PublicHalf { object, spki }),
            Err(fault) if is_about_the_object(&fault) => {
                tracing::debug!(reason = fault.reason, "skipping unreadable public key");
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
