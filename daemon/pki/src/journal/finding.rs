//! Names what is wrong with a journal, and where.

use crate::codes;
use schemars::JsonSchema;
use serde::Serialize;

codes! {
    /// The kind of a finding.
    FindingKind {
        AfterClosing => "after_closing",
        Changed => "changed",
        CheckpointForged => "checkpoint_forged",
        CheckpointMissing => "checkpoint_missing",
        EndCutOff => "end_cut_off",
        Inserted => "inserted",
        KeyUnknown => "key_unknown",
        Removed => "removed",
        Reordered => "reordered",
        Rewritten => "rewritten",
        SchemaChanged => "schema_changed",
    }
}

/// One thing that is wrong, and the entries that it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    pub kind: FindingKind,
    /// The first entry that is concerned.
    pub from: i64,
    /// The last one.
    pub to: i64,
    /// The finding as a sentence without an end.
    pub text: String,
}

impl Finding {
    /// Makes a finding about the entries `from` to `to`.
    pub fn new(kind: FindingKind, from: i64, to: i64, text: String) -> Self {
        Self {
            kind,
            from,
            to,
            text,
        }
    }
}
