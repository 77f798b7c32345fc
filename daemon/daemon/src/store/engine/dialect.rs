//! Names the snippets of SQL that are SQLite's alone. Macros, so that they cost nothing at run
//! time.
//!
//! Everywhere else operations use what SQLite and PostgreSQL share: `CASE` for `iif`, `IS NOT
//! DISTINCT FROM` for `IS`, `RETURNING` for the last row id.

/// After `IN`: the values of the JSON array `?1` (PostgreSQL: `= ANY (?1)`).
macro_rules! values_of_1 {
    () => {
        "(SELECT value FROM json_each(?1))"
    };
}

/// The function that returns the greatest of its arguments (PostgreSQL: `greatest`).
macro_rules! greatest {
    () => {
        "max"
    };
}

/// The function that returns the bytes of a text in hexadecimal (PostgreSQL: `decode`).
macro_rules! from_hex {
    () => {
        "unhex"
    };
}

/// The last byte of a byte string, as a number (PostgreSQL: `get_byte`).
macro_rules! last_byte {
    ($bytes:literal) => {
        concat!(
            "(instr('123456789ABCDEF', substr(hex(",
            $bytes,
            "), -2, 1)) * 16 + instr('123456789ABCDEF', substr(hex(",
            $bytes,
            "), -1)))"
        )
    };
}

/// After `INSERT` or `UPDATE`: leaves it to the writer to roll back what a refused statement has
/// changed, so that SQLite copies no page for that (PostgreSQL: nothing).
macro_rules! without_statement_journal {
    () => {
        "OR FAIL"
    };
}

pub(in crate::store) use {from_hex, greatest, last_byte, values_of_1, without_statement_journal};
