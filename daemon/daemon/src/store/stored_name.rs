//! Reads the names and codes by which the schema stores an enum.
//!
//! An unknown name must never become a default: a newer daemon may have written it, and a default
//! would act on it. So each reader fails with [`StoreError::Unreadable`](super::StoreError), also
//! where a CHECK constraint makes an unknown name impossible today.

use super::engine::{Column, Value};
use super::hub_task::HubCauseKind;
use super::{BlockKind, EnrollmentKind, GenerationState, HubAction, RollReason, RollState};
use crate::enrollment::role::Role;
use crate::x509::key::KeyType;
use crate::x509::revocation::RevocationReason;

/// Returns the value that `known` finds for the stored text, or an error that names both.
fn named<T>(stored: Value<'_>, what: &str, known: fn(&str) -> Option<T>) -> Result<T, String> {
    let name = stored.text()?;
    known(name).ok_or_else(|| format!("unknown {what} {name:?}"))
}

/// Returns the value among `all` whose name is the stored text.
fn one_of<T: Copy>(
    stored: Value<'_>,
    what: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    let text = stored.text()?;
    let found = all.iter().find(|it| name(**it) == text);
    found
        .copied()
        .ok_or_else(|| format!("unknown {what} {text:?}"))
}

impl Column for HubAction {
    fn read(stored: Value<'_>) -> Result<Self, String> {
        one_of(
            stored,
            "hub action",
            &[Self::Delete, Self::Call],
            Self::name,
        )
    }
}

impl Column for HubCauseKind {
    fn read(stored: Value<'_>) -> Result<Self, String> {
        let all = [Self::Roll, Self::Block, Self::Renewal, Self::Device];
        one_of(stored, "cause of a hub task", &all, Self::name)
    }
}

impl Column for EnrollmentKind {
    fn read(stored: Value<'_>) -> Result<Self, String> {
        let all = [Self::Individual, Self::Group];
        one_of(stored, "kind of enrollment", &all, Self::name)
    }
}

impl Column for BlockKind {
    fn read(stored: Value<'_>) -> Result<Self, String> {
        let all = [Self::Device, Self::Group, Self::Generation];
        one_of(stored, "kind of block", &all, Self::name)
    }
}

impl Column for GenerationState {
    fn read(stored: Value<'_>) -> Result<Self, String> {
        let all = [Self::Planned, Self::Staged, Self::Serving, Self::Retired];
        one_of(stored, "state of a generation", &all, Self::name)
    }
}

impl Column for RollReason {
    fn read(stored: Value<'_>) -> Result<Self, String> {
        let all = [Self::Expiry, Self::Compromise];
        one_of(stored, "reason of a roll", &all, Self::name)
    }
}

impl Column for RollState {
    fn read(stored: Value<'_>) -> Result<Self, String> {
        named(stored, "state of a roll", Self::from_name)
    }
}

impl Column for Role {
    fn read(stored: Value<'_>) -> Result<Self, String> {
        named(stored, "role", Self::from_name)
    }
}

impl Column for KeyType {
    fn read(stored: Value<'_>) -> Result<Self, String> {
        named(stored, "key type", Self::from_name)
    }
}

impl Column for RevocationReason {
    fn read(stored: Value<'_>) -> Result<Self, String> {
        let code = i64::read(stored)?;
        Self::from_code(code).ok_or_else(|| format!("unknown revocation reason {code}"))
    }
}
