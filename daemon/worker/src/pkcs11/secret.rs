//! Imports shared secrets into the token, and computes HMACs with them.
//!
//! A secret is found by its label alone; two secrets with one label are refused.

use super::fault::Fault;
use super::key::{attributes, objects};
use super::mechanism::Mechanisms;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use secrecy::{ExposeSecret, SecretSlice};
use zeroize::Zeroize;

/// Finds the secret with this label.
pub(super) fn find(session: &Session, label: &str) -> Result<Option<ObjectHandle>, Fault> {
    let hint = Attribute::Label(label.as_bytes().to_vec());
    match objects(session, ObjectClass::SECRET_KEY, &hint)?[..] {
        [] => Ok(None),
        [secret] => Ok(Some(secret)),
        ref several => Err(Fault::key(format!(
            "{} secrets share its label",
            several.len()
        ))),
    }
}

/// Imports a secret. The caller has checked that no secret has the label.
///
/// Deletes the secret at once if the token would export it: the operator would wrongly believe it
/// to be safe.
pub(super) fn import(
    session: &Session,
    mechanisms: &Mechanisms,
    label: &str,
    secret: &SecretSlice<u8>,
) -> Result<(), Fault> {
    mechanisms.hmac()?;
    let mut template = template(label, secret);
    let created = session.create_object(&template);
    for attribute in &mut template {
        if let Attribute::Value(value) = attribute {
            value.zeroize();
        }
    }
    let secret = created?;
    if !stays_inside(session, secret)? {
        session.destroy_object(secret)?;
        return Err(Fault::refused(
            "it would export the secret: keep it in a file",
        ));
    }
    Ok(())
}

fn template(label: &str, secret: &SecretSlice<u8>) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Value(secret.expose_secret().to_vec()),
    ]
}

/// Reads back that the secret is sensitive and not extractable. A missing attribute counts as bad.
fn stays_inside(session: &Session, secret: ObjectHandle) -> Result<bool, Fault> {
    let wanted = [AttributeType::Sensitive, AttributeType::Extractable];
    let read = attributes(session, secret, &wanted)?;
    Ok(read.contains(&Attribute::Sensitive(true)) && read.contains(&Attribute::Extractable(false)))
}

/// Computes HMAC-SHA256 over `message`.
pub(super) fn hmac_sha256(
    session: &Session,
    mechanisms: &Mechanisms,
    secret: ObjectHandle,
    message: &[u8],
) -> Result<Vec<u8>, Fault> {
    let mechanism: Mechanism<'_> = mechanisms.hmac()?;
    Ok(session.sign(&mechanism, secret, message)?)
}
