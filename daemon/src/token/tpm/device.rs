//! One connection to a TPM, with its primary key: where the library is called, and nowhere else.
//!
//! A TPM has three slots for transient objects, and without a resource manager everybody shares them.
//! At most two are used here: the primary key (none, if it is persistent) and the key used last, which
//! stays loaded until another one is wanted. Somebody may have flushed them, and somebody else's object
//! may have their handle by now: what is flushed is looked at before. Authorization is by password; so there are no session
//! objects, no saved contexts, and no gap that contexts could run into.
//!
//! `Esys_TR_FromTPMPublic` crashes with a password session, and other commands that need none fail
//! with it: the context has no session but around the commands that want one.

use super::authorization::Authorization;
use super::fault::{Class, Fault, failed, tpm_code};
use super::leftovers;
use super::primary;
use super::tcti::Tcti;
use super::template::{self, SigningKey};
use super::wrapped::WrappedKey;
use crate::token::encoding::ecdsa_signature;
use crate::token::{KeyReference, KeySpecification};
use crate::x509::key::SignatureAlgorithm;
use aws_lc_rs::digest::{self, SHA256, SHA384};
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

/// Most keys that are remembered as refused: more than an operator has.
const REFUSED_MAX: usize = 64;

/// A TPM, connected, with its primary key at hand.
pub(super) struct Device {
    context: Context,
    /// Nobody shares our handles.
    is_managed: bool,
    primary: KeyHandle,
    primary_name: Vec<u8>,
    authorization: Option<Authorization>,
    loaded: Option<LoadedKey>,
    /// Keys whose authorization value the TPM refused: not tried again.
    refused: Vec<KeyReference>,
}

/// The key that was used last.
struct LoadedKey {
    /// As it stands on record.
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
    /// Connects, and has the primary key made or found.
    ///
    /// `primary_handle` is where it is persistent. `known_primary` is the name that it had the last
    /// time; without a resource manager, what an earlier worker of ours left behind is flushed.
    /// `admitted` judges a TPM by the name of its primary key, before anything on it is changed.
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
                // Ours would be taken for a leftover: it is made again.
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

    /// Name of the primary key: another one after a clear, and on every other TPM.
    pub(super) fn primary_name(&self) -> &[u8] {
        &self.primary_name
    }

    /// Keys are used with this from now on; without it, with none.
    pub(super) fn authorize(&mut self, authorization: Option<Authorization>) {
        self.authorization = authorization;
        self.refused.clear();
        // A loaded key has the authorization value that it was loaded with.
        if let Err(fault) = self.unload() {
            tracing::debug!(reason = fault.reason, "a key stays loaded");
        }
    }

    /// A property of the TPM, as it is now.
    pub(super) fn property(&mut self, tag: PropertyTag) -> Result<u32, Fault> {
        property(&mut self.context, tag)
    }

    /// Names of the algorithms that the TPM lists.
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

    /// Whether the TPM is there, and still the one with our primary key.
    pub(super) fn look(&mut self) -> Result<(), Fault> {
        is_at(&mut self.context, self.primary, &self.primary_name)
    }

    /// Makes a key. The TPM does not keep it: what comes back, wrapped, is all there is of it.
    pub(super) fn create(
        &mut self,
        specification: &KeySpecification,
    ) -> Result<(FoundKey, Vec<u8>), Fault> {
        let template = template::signing(specification.key_type)?;
        let (label, id) = (specification.label.as_str(), &specification.id[..]);
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

    /// The key that `reference` carries, loaded: the TPM has checked that it is one of its own.
    pub(super) fn find(&mut self, reference: &KeyReference) -> Result<FoundKey, Fault> {
        Ok(self.loaded(reference)?.found.clone())
    }

    /// Signs. A key whose authorization value is refused is not used again before the next login.
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
                self.look_at_loaded()?;
                if self.refused.len() < REFUSED_MAX {
                    self.refused.push(reference.clone());
                }
                Err(refused_key())
            }
            outcome => outcome,
        }
    }

    /// The same, once, whatever was refused before.
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
        let (handle, digest) = (loaded.handle, digest_of(algorithm, message)?);
        let ticket = no_ticket()?;
        let signature = with_password(&mut self.context, |context| {
            context.sign(handle, digest, SignatureScheme::Null, ticket)
        });
        encoded(signature.map_err(failed("TPM2_Sign"))?)
    }

    /// Takes the key that is loaded out of its slot.
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

    /// Whether it was our key that refused, and not somebody else's object under its handle.
    fn look_at_loaded(&mut self) -> Result<(), Fault> {
        match &self.loaded {
            Some(loaded) => is_at(&mut self.context, loaded.handle, &loaded.name),
            None => Ok(()),
        }
    }

    fn authorization(&self) -> Result<&Authorization, Fault> {
        let authorization = self.authorization.as_ref();
        authorization.ok_or_else(|| Fault::device("nobody has logged in"))
    }

    /// The key that `reference` carries, which is loaded if another one is.
    fn loaded(&mut self, reference: &KeyReference) -> Result<&LoadedKey, Fault> {
        let wrapped = reference.wrapped.as_deref().ok_or_else(|| {
            Fault::key("a TPM keeps no keys, and what is on record of it does not hold the key")
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
            .ok_or_else(|| Fault::key("its record holds a key with another public half"))
    }

    /// Loads a key in place of the one that was loaded.
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
        let (label, id) = (wrapped.label, wrapped.id);
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
    /// Takes ours out of the slots, if they are still in them.
    fn drop(&mut self) {
        // Nothing can be done about a TPM that is gone, and it has forgotten them.
        let _ = self.unload();
        if !self.is_managed && self.look().is_err() {
            forget(&mut self.context, self.primary);
        }
    }
}

/// The object of `handle` must be the one of this name.
fn is_at(context: &mut Context, handle: KeyHandle, name: &[u8]) -> Result<(), Fault> {
    let read = context.read_public(handle);
    let (_, found, _) = read.map_err(failed("TPM2_ReadPublic"))?;
    match found.value() == name {
        true => Ok(()),
        false => Err(Fault::device("somebody else's object has its handle")),
    }
}

/// Has the library forget an object without flushing it, as it would at the context's end. It calls
/// that an error, and does it.
pub(super) fn forget(context: &mut Context, handle: KeyHandle) {
    let _ = context.tr_close(&mut handle.into());
}

fn gone_for_good() -> Fault {
    Fault::key(
        "the TPM that made it was cleared, or this is another TPM: the key is gone for good. Roll the \
         authority to a new generation, or put the old TPM back",
    )
}

fn refused_key() -> Fault {
    Fault::key(
        "the TPM refuses its authorization value: it was made under another credential, or its label \
         or id on record was altered. Put the credential of that time back",
    )
}

pub(super) fn with_password<T>(
    context: &mut Context,
    command: impl FnOnce(&mut Context) -> T,
) -> T {
    context.execute_with_session(Some(AuthSession::Password), command)
}

/// `TPM2_Startup`, where nobody has done it: a software TPM that was just started.
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
            .ok_or_else(|| Fault::device(format!("the TPM does not tell its {tag:?}"))),
        _ => Err(Fault::device(
            "the TPM tells something else than its properties",
        )),
    }
}

/// Handles in use, from `first` on.
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

/// A digest that the TPM did not make itself comes without a ticket. Keys that are not restricted
/// sign it all the same.
fn no_ticket() -> Result<HashcheckTicket, Fault> {
    let ticket = TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: Default::default(),
    };
    HashcheckTicket::try_from(ticket).map_err(failed("ticket"))
}

/// A signature as it stands in a certificate.
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
