//! Collects the schemas of the types of bodies and answers (JSON Schema 2020-12).

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

/// The types of all routes so far.
pub(super) struct Schemas {
    /// Of written values: by reference, because types recur.
    answers: SchemaGenerator,
    /// Of read values: in place, because a type is read by one route as a rule, and has other
    /// required members than when it is written.
    requests: SchemaGenerator,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|it| it.meta_schema = None);
        let answers = settings.clone().for_serialize().with(|it| {
            it.definitions_path = "/components/schemas".into();
        });
        let requests = settings
            .for_deserialize()
            .with(|it| it.inline_subschemas = true);
        Self {
            answers: answers.into_generator(),
            requests: requests.into_generator(),
        }
    }

    /// The schema of what is written.
    pub(super) fn of_answer<T: JsonSchema>(&mut self) -> Value {
        self.answers.subschema_for::<T>().to_value()
    }

    /// The schema of what is read.
    pub(super) fn of_request<T: JsonSchema>(&mut self) -> Value {
        let mut schema = self.requests.subschema_for::<T>();
        // It would be the name of a type of ours.
        schema.remove("title");
        Schema::to_value(schema)
    }

    /// The member `components/schemas`.
    pub(super) fn definitions(mut self) -> Map<String, Value> {
        self.answers.take_definitions(false)
    }
}
