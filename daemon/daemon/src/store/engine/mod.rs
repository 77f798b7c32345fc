//! Runs SQL: the transaction, parameters and rows by which operations reach the database.
//!
//! An operation gets a [`Tx`] and never sees the database library, so that its SQL is all that
//! binds it to SQLite, and [`dialect`] names what is SQLite's alone. Statements are prepared once
//! for each connection and kept.

pub(super) mod dialect;
mod failure;
mod value;

pub(super) use failure::remedy;
pub(super) use value::{Column, Parameter, Value};

use super::StoreError;
use super::readings::Readings;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params_from_iter};
use std::cell::RefCell;
use std::ops::ControlFlow;

/// The connection on which an operation runs SQL: in the writer's transaction, or of a reader,
/// where each statement sees the rows that are committed when it begins.
pub(super) struct Tx<'c> {
    connection: &'c Connection,
    readings: RefCell<Readings>,
}

/// The values for `?1`, `?2` … of a statement, as [`params!`] lists them.
pub(super) type Parameters<'p> = &'p [&'p dyn Parameter];

/// Lists the parameters of a statement.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$(&$value as &dyn $crate::store::engine::Parameter),*]
            as &[&dyn $crate::store::engine::Parameter]
    };
}
pub(super) use params;

impl<'c> Tx<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self {
            connection,
            readings: RefCell::default(),
        }
    }

    /// Returns the values that the operations of this transaction share.
    pub(super) fn readings(&self) -> &RefCell<Readings> {
        &self.readings
    }

    /// Runs a statement that returns no rows. Returns how many rows it changed.
    pub(super) fn execute(&self, sql: &str, values: Parameters<'_>) -> Result<usize, StoreError> {
        self.readings.borrow_mut().forget();
        self.execute_apart(sql, values)
    }

    /// Does the same for a statement that changes nothing on which [`Readings`] depend.
    pub(super) fn execute_apart(
        &self,
        sql: &str,
        values: Parameters<'_>,
    ) -> Result<usize, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.execute(params_from_iter(bound(values)))?)
    }

    /// Runs an `INSERT … RETURNING id`. Returns that id.
    pub(super) fn insert<Id: Column>(
        &self,
        sql: &str,
        values: Parameters<'_>,
    ) -> Result<Id, StoreError> {
        self.query_one(sql, values, |row| row.get(0))
    }

    /// Does the same for a statement that changes nothing on which [`Readings`] depend.
    pub(super) fn insert_apart<Id: Column>(
        &self,
        sql: &str,
        values: Parameters<'_>,
    ) -> Result<Id, StoreError> {
        let statement = self.connection.prepare_cached(sql)?;
        first_row(statement, values, |row| row.get(0))?
            .ok_or_else(|| rusqlite::Error::QueryReturnedNoRows.into())
    }

    /// Returns the first row, which must exist.
    pub(super) fn query_one<T>(
        &self,
        sql: &str,
        values: Parameters<'_>,
        read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let found = self.query_optional(sql, values, read)?;
        found.ok_or_else(|| rusqlite::Error::QueryReturnedNoRows.into())
    }

    /// Returns the first row, if there is one.
    pub(super) fn query_optional<T>(
        &self,
        sql: &str,
        values: Parameters<'_>,
        read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let statement = self.prepared(sql)?;
        first_row(statement, values, read)
    }

    pub(super) fn query_all<T>(
        &self,
        sql: &str,
        values: Parameters<'_>,
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut all = Vec::new();
        self.for_each(sql, values, |row| {
            all.push(read(row)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(all)
    }

    /// Calls `visit` with one row after another, so that they need not fit into memory.
    pub(super) fn for_each(
        &self,
        sql: &str,
        values: Parameters<'_>,
        mut visit: impl FnMut(&Row<'_>) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepared(sql)?;
        let mut rows = statement.query(params_from_iter(bound(values)))?;
        while let Some(row) = rows.next()? {
            if visit(&Row(row))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// A statement that returns rows may change some, too (`RETURNING`).
    fn prepared(&self, sql: &str) -> Result<CachedStatement<'c>, StoreError> {
        let statement = self.connection.prepare_cached(sql)?;
        if !statement.readonly() {
            self.readings.borrow_mut().forget();
        }
        Ok(statement)
    }
}

fn first_row<T>(
    mut statement: CachedStatement<'_>,
    values: Parameters<'_>,
    read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    statement
        .query_row(params_from_iter(bound(values)), |row| Ok(read(&Row(row))))
        .optional()?
        .transpose()
}

/// One row of an answer.
pub(super) struct Row<'r>(&'r rusqlite::Row<'r>);

impl Row<'_> {
    /// Reads a column by its number, from 0. Fails with [`StoreError::Unreadable`] if the stored
    /// value is not a `T`.
    pub(super) fn get<T: Column>(&self, column: usize) -> Result<T, StoreError> {
        let stored = self.0.get_ref(column)?;
        from_stored(stored).and_then(T::read).map_err(|error| {
            let name = self.0.as_ref().column_name(column).unwrap_or_default();
            StoreError::Unreadable(format!("{name}: {error}"))
        })
    }
}

fn from_stored(stored: ValueRef<'_>) -> Result<Value<'_>, String> {
    Ok(match stored {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Blob(bytes) => Value::Bytes(bytes),
        ValueRef::Text(text) => {
            Value::Text(str::from_utf8(text).map_err(|error| error.to_string())?)
        }
        ValueRef::Real(_) => return Err("a real number".into()),
    })
}

/// Adapts our parameters to those of the library, without a copy.
struct Bound<'v>(&'v dyn Parameter);

impl rusqlite::ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0.value() {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn bound<'v>(values: Parameters<'v>) -> impl Iterator<Item = Bound<'v>> {
    values.iter().map(|value| Bound(*value))
}
