//! Names the constraints of the schema by which an operation is refused.

/// A constraint that a change would break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// A serial number is used once.
    IntentSerial,
    /// A leaf's subject has one signature under way.
    IntentUnderWay,
    /// A verification code has one certificate.
    IntentPossession,
    /// A revoked generation signs no certificate.
    IntentIssuerRevoked,
    /// A subject has one block at a time.
    BlockStanding,
    /// Another one, by its name in the schema; one without a name in the database's words.
    Other(String),
}

impl Constraint {
    /// Returns the constraint with this name in the schema.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "intent_serial" => Self::IntentSerial,
            "intent_under_way" => Self::IntentUnderWay,
            "intent_possession" => Self::IntentPossession,
            "intent_of_a_revoked_generation" => Self::IntentIssuerRevoked,
            "block_standing" => Self::BlockStanding,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The name in the schema.
    pub fn name(&self) -> &str {
        match self {
            Self::IntentSerial => "intent_serial",
            Self::IntentUnderWay => "intent_under_way",
            Self::IntentPossession => "intent_possession",
            Self::IntentIssuerRevoked => "intent_of_a_revoked_generation",
            Self::BlockStanding => "block_standing",
            Self::Other(name) => name,
        }
    }
}
