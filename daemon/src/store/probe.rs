//! A write that shows that the store can write, and leaves nothing.
//!
//! It is as large as a busy group of writes: where the disk has room for it, a real write has room.

use rusqlite::{Connection, TransactionBehavior};

/// How much is written.
const PROBE_BYTES: u32 = 256 * 1024;

/// Writes, commits, and deletes it again.
pub(super) fn probe(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "INSERT OR REPLACE INTO write_probe (only, filler) VALUES (1, zeroblob(?1))",
        [PROBE_BYTES],
    )?;
    transaction.commit()?;
    connection.execute("DELETE FROM write_probe", [])?;
    Ok(())
}
