//! Flushes objects that a killed worker left in the TPM's object slots.
//!
//! This is needed only without a resource manager, which does it when a program ends. Our objects
//! are the primary key, recognized by its name, and every key below it, recognized by its qualified
//! name: the digest of the parent's qualified name and its own name (TPM 2.0 Library, part 1,
//! section 16). No other object is flushed. There are no sessions to flush, because none is ever
//! opened.
//!
//! Two daemons on one TPM without a resource manager would flush each other's objects. The lock in
//! `backend` prevents a second worker of one daemon; docs/operations.md forbids a second daemon.

use super::device;
use super::fault::{Fault, failed, tpm_code};
use aws_lc_rs::digest::{self, SHA256};
use tss_esapi::Context;
use tss_esapi::constants::tss::{TPM2_ALG_SHA256, TPM2_RH_OWNER, TPM2_TRANSIENT_FIRST};
use tss_esapi::handles::TpmHandle;

/// Most transient objects that are read. TPMs have 3 slots; simulators have more.
const OBJECTS_MAX: u32 = 64;

/// Flushes the primary key with this name, and all keys below it.
pub(super) fn flush(context: &mut Context, primary_name: &[u8]) -> Result<(), Fault> {
    for handle in device::handles(context, TPM2_TRANSIENT_FIRST, OBJECTS_MAX)? {
        if matches!(handle, TpmHandle::Transient(_)) {
            flush_if_ours(context, handle, primary_name)?;
        }
    }
    Ok(())
}

fn flush_if_ours(
    context: &mut Context,
    handle: TpmHandle,
    primary_name: &[u8],
) -> Result<(), Fault> {
    let object = match context.tr_from_tpm_public(handle) {
        Ok(object) => object,
        // A hash sequence has no public area, and an object may have been flushed since the
        // listing.
        Err(error) if tpm_code(&error).is_some() => return Ok(()),
        Err(error) => return Err(failed("Esys_TR_FromTPMPublic")(error)),
    };
    let (_, name, qualified) = context
        .read_public(object.into())
        .map_err(failed("TPM2_ReadPublic"))?;
    if is_ours(name.value(), qualified.value(), primary_name) {
        tracing::info!(?handle, "flushing leftover TPM object");
        return context
            .flush_context(object)
            .map_err(failed("TPM2_FlushContext"));
    }
    device::forget(context, object.into());
    Ok(())
}

fn is_ours(name: &[u8], qualified: &[u8], primary_name: &[u8]) -> bool {
    let above_all = TPM2_RH_OWNER.to_be_bytes();
    let primary_qualified = qualified_name(&above_all, primary_name);
    name == primary_name || qualified == qualified_name(&primary_qualified, name)
}

fn qualified_name(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let digest = digest::digest(&SHA256, &[parent, name].concat());
    [&TPM2_ALG_SHA256.to_be_bytes(), digest.as_ref()].concat()
}
