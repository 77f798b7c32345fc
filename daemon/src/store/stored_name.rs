//! Reads the names and codes by which the schema stores an enum.
//!
//! An unknown name must never become a default: a newer daemon may have written it, and a default
//! would act on it. So each reader fails with [`StoreError::Unreadable`](super::StoreError), also
//! where a CHECK constraint makes an unknown name impossible today.

use super::{BlockKind, EnrollmentKind, GenerationState, HubAction, RollReason, RollState};
use crate::enrollment::role::Role;
use crate::x509::key::KeyType;
use crate::x509::revocation::RevocationReason;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};

/// Returns the value that `known` finds for the stored text, or an error that names both.
fn named<T>(stored: ValueRef<'_>, what: &str, known: fn(&str) -> Option<T>) -> FromSqlResult<T> {
    let name = stored.as_str()?;
    known(name).ok_or_else(|| FromSqlError::Other(format!("unknown {what} {name:?}").into()))
}

/// Returns the value among `all` whose name is the stored text.
fn one_of<T: Copy>(
    stored: ValueRef<'_>,
    what: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> FromSqlResult<T> {
    let text = stored.as_str()?;
    let found = all.iter().find(|it| name(**it) == text);
    found
        .copied()
        .ok_or_else(|| FromSqlError::Other(format!("unknown {what} {text:?}").into()))
}

/// Reads a value of another crate, for which [`FromSql`] cannot be implemented here.
pub(super) struct Stored<T>(pub(super) T);

impl FromSql for HubAction {
    fn column_result(stored: ValueRef<'_>) -> FromSqlResult<Self> {
        one_of(
            stored,
            "hub action",
            &[Self::Delete, Self::Call],
            Self::name,
        )
    }
}

impl FromSql for EnrollmentKind {
    fn column_result(stored: ValueRef<'_>) -> FromSqlResult<Self> {
        let all = [Self::Individual, Self::Group];
        one_of(stored, "kind of enrollment", &all, Self::name)
    }
}

impl FromSql for BlockKind {
    fn column_result(stored: ValueRef<'_>) -> FromSqlResult<Self> {
        let all = [Self::Device, Self::Group, Self::Generation];
        one_of(stored, "kind of block", &all, Self::name)
    }
}

impl FromSql for GenerationState {
    fn column_result(stored: ValueRef<'_>) -> FromSqlResult<Self> {
        let all = [Self::Planned, Self::Staged, Self::Serving, Self::Retired];
        one_of(stored, "state of a generation", &all, Self::name)
    }
}

impl FromSql for Stored<RollReason> {
    fn column_result(stored: ValueRef<'_>) -> FromSqlResult<Self> {
        let all = [RollReason::Expiry, RollReason::Compromise];
        one_of(stored, "reason of a roll", &all, RollReason::name).map(Stored)
    }
}

impl FromSql for Stored<RollState> {
    fn column_result(stored: ValueRef<'_>) -> FromSqlResult<Self> {
        named(stored, "state of a roll", RollState::from_name).map(Stored)
    }
}

impl FromSql for Stored<Role> {
    fn column_result(stored: ValueRef<'_>) -> FromSqlResult<Self> {
        named(stored, "role", Role::from_name).map(Stored)
    }
}

impl FromSql for Stored<KeyType> {
    fn column_result(stored: ValueRef<'_>) -> FromSqlResult<Self> {
        named(stored, "key type", KeyType::from_name).map(Stored)
    }
}

impl FromSql for Stored<RevocationReason> {
    fn column_result(stored: ValueRef<'_>) -> FromSqlResult<Self> {
        let code = stored.as_i64()?;
        RevocationReason::from_code(code)
            .map(Stored)
            .ok_or_else(|| FromSqlError::Other(format!("unknown revocation reason {code}").into()))
    }
}
