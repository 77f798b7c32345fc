//! Calls the TPM library: one connection to a TPM, with its primary key.
//!
//! A TPM has three slots for transient objects, which all programs share without a resource
//! manager. This module uses at most two: one for the primary key, unless it is persistent, and one
//! for the key used last, which stays loaded until another key is needed. Another program may have
//! flushed our objects, and its object may have their handle: an object is read before it is
//! flushed. Authorization is by password, so there are no session objects, no saved contexts and no
//! context gap.
//!
//! `Esys_TR_FromTPMPublic` crashes with a password session, and other commands that need none fail
//! with it. So the context has a session only during the commands that need one.

use super::authorization::Authorization;
use super::fault::{Class, Fault, failed, tpm_code};
use super::leftovers;
use super::primary;
use super::template::{self, SigningKey};
use super::wrapped::WrappedKey;
use crate::encoding::ecdsa_signature;
use aws_lc_rs::digest::{self, SHA256, SHA384};
use hallmark_pki::x509::key::SignatureAlgorithm;
use hallmark_protocol::tcti::Tcti;
use hallmark_protocol::{KeyReference, KeySpecification};
use std::str::FromStr;
use tss_esapi::Context;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::constants::{CapabilityType, PropertyTag, StartupType};
use tss_esapi::handles::{KeyHandle, ObjectHandle, TpmHandle};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    CapabilityData, Digest, HashcheckTicket, Private, Public, Signature, SignatureScheme,
};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::traits::{Marshall, UnMarshall};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

/// Most keys that are recorded as refused: more than an operator has.
const REFUSED_MAX: usize = 64;

/// A connected TPM with its primary key.
pub(super) struct Device {
    context: Context,
    /// A resource manager gives us handles that no other program uses.
    is_managed: bool,
    primary: KeyHandle,
    primary_name: Vec<u8>,
    authorization: Option<Authorization>,
    loaded: Option<LoadedKey>,
    /// Keys whose authorization value the TPM has refused; it is not tried again.
    refused: Vec<KeyReference>,
}

/// The key that was used last.
struct LoadedKey {
    wrapped: Vec<u8>,
    handle: KeyHandle,
    name: Vec<u8>,
    found: FoundKey,
}

/// A key of this TPM.
#[derive(Clone)]
pub(super) struct FoundKey {
    pub(super) key: SigningKey,
    pub(super) label: String,
    pub(super) id: Vec<u8>,
}

impl Device {
    /// Connects, and finds or makes the primary key.
    ///
    /// `primary_handle` is the key's persistent handle. `known_primary` is the name that the key
    /// had the last time; without a resource manager, objects that an earlier worker has left are
    /// flushed. `admitted` checks the name of the primary key before the TPM is changed.
    pub(super) fn open(
        tcti: &Tcti,
        primary_handle: Option<u32>,
        known_primary: Option<&[u8]>,
        admitted: impl Fn(&[u8]) -> Result<(), Fault>,
    ) -> Result<Self, Fault> {
        let settings = TctiNameConf::from_str(&tcti.to_string()).map_err(failed("TCTI"))?;
        let mut context = Context::new(settings).map_err(failed("connect"))?;
        start_up(&mut context)?;
        if let Some(name) = known_primary.filter(|_| !tcti.is_managed()) {
            leftovers::flush(&mut context, name)?;
        }
        let (mut primary, mut primary_name) =
            primary::find_or_make(&mut context, primary_handle, &admitted)?;
        if !tcti.is_managed() && known_primary != Some(&primary_name) {
            if primary_handle.is_none() {
                // The new primary key would be flushed as a leftover, so it is made again.
                flush(&mut context, primary.into())?;
            }
            leftovers::flush(&mut context, &primary_name)?;
            (primary, primary_name) =
                primary::find_or_make(&mut context, primary_handle, &admitted)?;
        }
        Ok(Self {
            context,
            is_managed: tcti.is_managed(),
            primary,
            primary_name,
            authorization: None,
            loaded: None,
            refused: Vec::new(),
        })
    }

    /// Returns the name of the primary key, which changes with a clear and with the TPM.
    pub(super) fn primary_name(&self) -> &[u8] {
        &self.primary_name
    }

    /// Sets what authorization values are derived with, or removes it.
    pub(super) fn authorize(&mut self, authorization: Option<Authorization>) {
        self.authorization = authorization;
        self.refused.clear();
        // A loaded key keeps the authorization value that it was loaded with.
        if let Err(fault) = self.unload() {
            tracing::debug!(reason = fault.reason, "cannot unload key");
        }
    }

    /// Reads a property of the TPM.
    pub(super) fn property(&mut self, tag: PropertyTag) -> Result<u32, Fault> {
        property(&mut self.context, tag)
    }

    /// Returns the names of the algorithms that the TPM lists.
    pub(super) fn algorithms(&mut self) -> Result<Vec<String>, Fault> {
        let data = self
            .context
            .get_capability(CapabilityType::Algorithms, 0, u32::from(u8::MAX));
        match data.map_err(failed("TPM2_GetCapability"))? {
            (CapabilityData::Algorithms(algorithms), _) => Ok(algorithms
                .iter()
                .map(|it| format!("{:?}", it.algorithm_identifier()))
                .collect()),
            _ => Err(Fault::device(
                "the TPM lists something else than algorithms",
            )),
        }
    }

    /// Checks that the TPM answers and still has our primary key.
    pub(super) fn check(&mut self) -> Result<(), Fault> {
        is_at(&mut self.context, self.primary, &self.primary_name)
    }

    /// Makes a key. The TPM does not keep it: the returned record is the only copy.
    pub(super) fn create(
        &mut self,
        specification: &KeySpecification,
    ) -> Result<(FoundKey, Vec<u8>), Fault> {
        let template = template::signing(specification.key_type)?;
        let label = specification.label.as_str();
        let id = &specification.id[..];
        let auth = self.authorization()?.of_key(label, id);
        let primary = self.primary;
        let created = with_password(&mut self.context, |context| {
            context.create(primary, template, Some(auth), None, None, None)
        });
        let created = created.map_err(failed("TPM2_Create"))?;
        let public = created
            .out_public
            .marshall()
            .map_err(failed("public area"))?;
        let private = created.out_private.value();
        let wrapped = WrappedKey::new((label, id), &self.primary_name, (&public, private));
        let wrapped = wrapped.to_bytes()?;
        let loaded = self.load(&wrapped)?;
        Ok((loaded.found.clone(), wrapped))
    }

    /// Loads the key in `reference`, by which the TPM checks that it has made the key.
    pub(super) fn find(&mut self, reference: &KeyReference) -> Result<FoundKey, Fault> {
        Ok(self.loaded(reference)?.found.clone())
    }

    /// Signs. A key whose authorization value was refused is not used again before the next login.
    pub(super) fn sign(
        &mut self,
        reference: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        if self.refused.contains(reference) {
            return Err(refused_key());
        }
        match self.sign_unguarded(reference, algorithm, message) {
            Err(Fault {
                class: Class::Pin, ..
            }) => {
                self.check_loaded()?;
                if self.refused.len() < REFUSED_MAX {
                    self.refused.push(reference.clone());
                }
                Err(refused_key())
            }
            outcome => outcome,
        }
    }

    /// Signs even if the key's authorization value was refused before.
    pub(super) fn sign_unguarded(
        &mut self,
        reference: &KeyReference,
        algorithm: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        let loaded = self.loaded(reference)?;
        if loaded.found.key.algorithm != algorithm {
            return Err(Fault::key(format!("it does not sign in {algorithm:?}")));
        }
        let handle = loaded.handle;
        let digest = digest_of(algorithm, message)?;
        let ticket = no_ticket()?;
        let signature = with_password(&mut self.context, |context| {
            context.sign(handle, digest, SignatureScheme::Null, ticket)
        });
        encoded(signature.map_err(failed("TPM2_Sign"))?)
    }

    /// Flushes the loaded key.
    pub(super) fn unload(&mut self) -> Result<(), Fault> {
        let Some(loaded) = self.loaded.take() else {
            return Ok(());
        };
        if !self.is_managed {
            let at = is_at(&mut self.context, loaded.handle, &loaded.name);
            at.inspect_err(|_| forget(&mut self.context, loaded.handle))?;
        }
        flush(&mut self.context, loaded.handle.into())
    }

    /// Checks that the loaded key's handle still belongs to our key.
    fn check_loaded(&mut self) -> Result<(), Fault> {
        match &self.loaded {
            Some(loaded) => is_at(&mut self.context, loaded.handle, &loaded.name),
            None => Ok(()),
        }
    }

    fn authorization(&self) -> Result<&Authorization, Fault> {
        let authorization = self.authorization.as_ref();
        authorization.ok_or_else(|| Fault::device("it is not logged in"))
    }

    /// Returns the key in `reference`. Loads it unless it is loaded already.
    fn loaded(&mut self, reference: &KeyReference) -> Result<&LoadedKey, Fault> {
        let wrapped = reference.wrapped.as_deref().ok_or_else(|| {
            Fault::key("a TPM keeps no keys, and the record does not contain the key")
        })?;
        if self
            .loaded
            .as_ref()
            .is_none_or(|loaded| loaded.wrapped != wrapped)
        {
            self.load(wrapped)?;
        }
        let loaded = self.loaded.as_ref();
        loaded
            .filter(|loaded| loaded.found.key.spki == reference.spki)
            .ok_or_else(|| Fault::key("its record contains a key with another public half"))
    }

    /// Loads a key in place of the loaded one.
    fn load(&mut self, record: &[u8]) -> Result<&LoadedKey, Fault> {
        let wrapped = WrappedKey::parse(record)?;
        let auth = self.authorization()?.of_key(&wrapped.label, &wrapped.id);
        if wrapped.primary != self.primary_name {
            return Err(gone_for_good());
        }
        let unreadable = |_| Fault::key("its record cannot be read: restore the database");
        let public = Public::unmarshall(&wrapped.public).map_err(unreadable)?;
        let private = Private::try_from(&wrapped.private[..]).map_err(unreadable)?;
        let key = SigningKey::of(&public)?;
        self.unload()?;
        let primary = self.primary;
        let handle = with_password(&mut self.context, |context| {
            context.load(primary, private, public)
        });
        let handle = handle.map_err(|error| match tpm_code(&error) {
            Some(Tss2ResponseCodeKind::Integrity | Tss2ResponseCodeKind::Sensitive) => {
                gone_for_good()
            }
            _ => failed("TPM2_Load")(error),
        })?;
        let name = self.context.tr_get_name(handle.into());
        let name = name.map_err(failed("Esys_TR_GetName"))?.value().to_vec();
        let set = self.context.tr_set_auth(handle.into(), auth);
        let label = wrapped.label;
        let id = wrapped.id;
        let loaded = self.loaded.insert(LoadedKey {
            wrapped: record.to_vec(),
            handle,
            name,
            found: FoundKey { key, label, id },
        });
        set.map_err(failed("Esys_TR_SetAuth")).map(|()| &*loaded)
    }
}

impl Drop for Device {
    /// Flushes our objects if they are still loaded.
    fn drop(&mut self) {
        // A TPM that cannot be reached loses its transient objects by itself.
        let _ = self.unload();
        if !self.is_managed && self.check().is_err() {
            forget(&mut self.context, self.primary);
        }
    }
}

/// Checks that the object of `handle` has this name.
fn is_at(context: &mut Context, handle: KeyHandle, name: &[u8]) -> Result<(), Fault> {
    let read = context.read_public(handle);
    let (_, found, _) = read.map_err(failed("TPM2_ReadPublic"))?;
    if found.value() != name {
        return Err(Fault::device("another program's object has its handle"));
    }
    Ok(())
}

/// Removes an object from the library without flushing it, so that the end of the context does not
/// flush it either. The library returns an error although it does so.
pub(super) fn forget(context: &mut Context, handle: KeyHandle) {
    let _ = context.tr_close(&mut handle.into());
}

fn gone_for_good() -> Fault {
    Fault::key(
        "the TPM that made it was cleared, or this is another TPM: the key is gone for good. Roll \
         the authority to a new generation, or reinstall the old TPM",
    )
}

fn refused_key() -> Fault {
    Fault::key(
        "the TPM refuses its authorization value: it was made under another credential, or its \
         label or id on record was altered. Restore the credential of that time",
    )
}

pub(super) fn with_password<T>(
    context: &mut Context,
    command: impl FnOnce(&mut Context) -> T,
) -> T {
    context.execute_with_session(Some(AuthSession::Password), command)
}

/// Sends `TPM2_Startup` if no firmware has: to a software TPM that was just started.
fn start_up(context: &mut Context) -> Result<(), Fault> {
    let asked = context.get_capability(
        CapabilityType::TpmProperties,
        PropertyTag::Permanent.into(),
        1,
    );
    match asked {
        Ok(_) => Ok(()),
        Err(error) if tpm_code(&error) == Some(Tss2ResponseCodeKind::Initialize) => context
            .startup(StartupType::Clear)
            .map_err(failed("TPM2_Startup")),
        Err(error) => Err(failed("TPM2_GetCapability")(error)),
    }
}

fn property(context: &mut Context, tag: PropertyTag) -> Result<u32, Fault> {
    let data = context.get_capability(CapabilityType::TpmProperties, tag.into(), 1);
    match data.map_err(failed("TPM2_GetCapability"))? {
        (CapabilityData::TpmProperties(properties), _) => properties
            .find(tag)
            .map(|it| it.value())
            .ok_or_else(|| Fault::device(format!("the TPM does not report its {tag:?}"))),
        _ => Err(Fault::device(
            "the TPM reports something else than its properties",
        )),
    }
}

/// Lists the handles in use, from `first` on.
pub(super) fn handles(
    context: &mut Context,
    first: u32,
    count_max: u32,
) -> Result<Vec<TpmHandle>, Fault> {
    let listed = context.get_capability(CapabilityType::Handles, first, count_max);
    match listed.map_err(failed("TPM2_GetCapability"))? {
        (CapabilityData::Handles(handles), _) => Ok(handles.into_inner()),
        _ => Err(Fault::device("the TPM lists something else than handles")),
    }
}

pub(super) fn flush(context: &mut Context, object: ObjectHandle) -> Result<(), Fault> {
    context
        .flush_context(object)
        .map_err(failed("TPM2_FlushContext"))
}

fn digest_of(algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Digest, Fault> {
    let digest = match algorithm {
        SignatureAlgorithm::EcdsaSha384 => digest::digest(&SHA384, message),
        _ => digest::digest(&SHA256, message),
    };
    Digest::try_from(digest.as_ref()).map_err(failed("digest"))
}

/// Returns the empty ticket of a digest that the TPM did not compute. Unrestricted keys sign it.
fn no_ticket() -> Result<HashcheckTicket, Fault> {
    let ticket = TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: Default::default(),
    };
    HashcheckTicket::try_from(ticket).map_err(failed("ticket"))
}

/// Encodes a signature as in a certificate.
fn encoded(signature: Signature) -> Result<Vec<u8>, Fault> {
    match signature {
        Signature::EcDsa(signature) => ecdsa_signature(
            signature.signature_r().value(),
            signature.signature_s().value(),
        ),
        Signature::RsaSsa(signature) => Ok(signature.signature().value().to_vec()),
        other => Err(Fault::device(format!(
            "a signature in {:?}",
            other.algorithm()
        ))),
    }
}
