//! Gives a sentence for people the code and the parameters that programs compare.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// A sentence, and what it says in a form that does not change with the wording.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Coded{C}")]
pub struct Coded<C> {
    pub code: C,
    /// The sentence's parameters: a JSON object.
    pub parameters: Value,
    pub text: String,
}

impl<C> Coded<C> {
    /// Puts the three together.
    pub fn new(code: C, parameters: Value, text: impl Into<String>) -> Self {
        Self {
            code,
            parameters,
            text: text.into(),
        }
    }
}
