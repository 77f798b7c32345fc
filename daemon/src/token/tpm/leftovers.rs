//! What a worker that was killed left in the TPM's object slots.
//!
//! Only where there is no resource manager: otherwise it takes everything back when a program ends.
//! Ours, and nobody else's, is the primary key itself, known by its name, and whatever lies below it,
//! known by its qualified name: that is the digest of the parent's and its own (TPM 2.0 Library,
//! part 1, section 16). There are no sessions to look for, because none is ever opened.
//!
//! Two daemons on one TPM without a resource manager would take each other's objects for their own;
//! the lock in `backend` keeps out a second worker of one daemon, docs/operations.md the rest.

use super::device;
use super::fault::{Fault, failed, tpm_code};
use aws_lc_rs::digest::{self, SHA256};
use tss_esapi::Context;
use tss_esapi::constants::tss::{TPM2_ALG_SHA256, TPM2_RH_OWNER, TPM2_TRANSIENT_FIRST};
use tss_esapi::handles::TpmHandle;

/// Most transient objects that are looked at. TPMs have 3 slots; simulators have more.
const OBJECTS_MAX: u32 = 64;

/// Flushes the primary key of this name, and all keys below it.
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
        // A sequence has no public area; or it is gone by now. Neither is ours.
        Err(error) if tpm_code(&error).is_some() => return Ok(()),
        Err(error) => return Err(failed("Esys_TR_FromTPMPublic")(error)),
    };
    let (_, name, qualified) = context
        .read_public(object.into())
        .map_err(failed("TPM2_ReadPublic"))?;
    if is_ours(name.value(), qualified.value(), primary_name) {
        tracing::info!(?handle, "flushing what an earlier worker left in the TPM");
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
