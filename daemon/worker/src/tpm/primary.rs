//! Makes the primary key at each start, or finds the persistent one if the configuration names it.
//!
//! The TPM derives the same key each time (`template`). No other key is ever made persistent, and
//! an object of another program at the configured handle is not changed.

use super::device::{flush, handles, with_password};
use super::fault::{Class, Fault, failed, tpm_code};
use super::template;
use tss_esapi::Context;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
use tss_esapi::handles::{KeyHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};

/// Returns the primary key and its name. With a `persistent` handle, makes the key persistent there
/// if it is not yet. Changes nothing if `admitted` refuses the name of the primary key.
pub(super) fn find_or_make(
    context: &mut Context,
    persistent: Option<u32>,
    admitted: impl Fn(&[u8]) -> Result<(), Fault>,
) -> Result<(KeyHandle, Vec<u8>), Fault> {
    let found = match persistent {
        None => None,
        Some(handle) => persistent_primary(context, handle)?,
    };
    let (primary, is_transient) = match found {
        Some(primary) => (primary, false),
        None => (transient_primary(context)?, true),
    };
    let name = context
        .tr_get_name(primary.into())
        .map_err(failed("Esys_TR_GetName"))?;
    let name = name.value().to_vec();
    if let Err(refusal) = admitted(&name) {
        if is_transient {
            flush(context, primary.into())?;
        }
        return Err(refusal);
    }
    match persistent.filter(|_| is_transient) {
        Some(handle) => Ok((persist(context, primary, handle)?, name)),
        None => Ok((primary, name)),
    }
}

fn transient_primary(context: &mut Context) -> Result<KeyHandle, Fault> {
    let template = template::primary()?;
    let created = with_password(context, |context| {
        context.create_primary(Hierarchy::Owner, template, None, None, None, None)
    });
    created
        .map(|it| it.key_handle)
        .map_err(|error| match class_of_owner(&error) {
            Some(fault) => fault,
            None => failed("TPM2_CreatePrimary")(error),
        })
}

/// Returns the fault if the TPM's owner has set an authorization value. No value is tried.
fn class_of_owner(error: &tss_esapi::Error) -> Option<Fault> {
    use Tss2ResponseCodeKind::{AuthFail, BadAuth};
    matches!(tpm_code(error), Some(AuthFail | BadAuth)).then(|| Fault {
        class: Class::Pin,
        reason:
            "the owner hierarchy has an authorization value: make the primary key persistent by \
                 hand, as docs/operations.md says, and name it as `primary_handle`"
                .to_owned(),
    })
}

fn persistent_primary(context: &mut Context, handle: u32) -> Result<Option<KeyHandle>, Fault> {
    let persistent = PersistentTpmHandle::new(handle).map_err(failed("primary_handle"))?;
    let persistent = TpmHandle::Persistent(persistent);
    if !handles(context, handle, 1)?.contains(&persistent) {
        return Ok(None);
    }
    let object = context
        .tr_from_tpm_public(persistent)
        .map_err(failed("Esys_TR_FromTPMPublic"))?;
    let (public, ..) = context
        .read_public(object.into())
        .map_err(failed("TPM2_ReadPublic"))?;
    if !template::is_primary(&public) {
        return Err(Fault {
            class: Class::Pin,
            reason: format!("{handle:#x} holds another object: choose another `primary_handle`"),
        });
    }
    Ok(Some(object.into()))
}

fn persist(context: &mut Context, transient: KeyHandle, handle: u32) -> Result<KeyHandle, Fault> {
    let persistent = PersistentTpmHandle::new(handle).map_err(failed("primary_handle"))?;
    let object = with_password(context, |context| {
        context.evict_control(Provision::Owner, transient.into(), persistent.into())
    });
    let object = object.map_err(failed("TPM2_EvictControl"))?;
    flush(context, transient.into())?;
    Ok(object.into())
}
