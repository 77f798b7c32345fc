//! Calls the service plane of DPS: enrollments and registrations (sections 2 to 7).
//!
//! A write is conditional or a creation, and never overwrites an unknown state: `If-Match` carries
//! the etag exactly as it was read, and only a creation goes without it and may end in a conflict.
//! An object counts as missing by the service's own code alone, and a missing object as deleted.

use super::call::{Call, Continuation, Reply, segment};
use super::failure::CallError;
use super::http::Plane;
use super::registration::RegistrationRecord;
use crate::enrollment::desired::EnrollmentName;
use crate::enrollment::etag::Etag;
use crate::enrollment::id::{EnrollmentGroupId, RegistrationId};
use crate::enrollment::record::Record;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The version that the SDKs use.
const API_VERSION: &str = "2021-10-01";

/// How many enrollments the service takes at once.
pub const BULK_ITEMS_MAX: usize = 10;

/// The codes of a missing registration; which of them the service uses is not settled (section 4).
const REGISTRATION_MISSING: [&str; 3] = ["404202", "404201", "404204"];

/// Records on one page of a scan.
pub const PAGE_RECORDS_MAX: usize = 100;

/// A client of the service plane.
#[derive(Clone, Debug)]
pub struct DpsClient {
    plane: Plane,
}

impl DpsClient {
    /// Speaks to the service behind `plane`.
    pub fn new(plane: Plane) -> Self {
        Self { plane }
    }

    /// Returns a client whose calls wait for an answer for `timeout` only.
    pub fn within(&self, timeout: Duration) -> Self {
        Self::new(self.plane.within(timeout))
    }

    /// Returns the host name of the plane.
    pub(super) fn host(&self) -> &str {
        self.plane.host()
    }

    /// Returns how far its clock was ahead at its last answer, in seconds.
    pub(super) fn skew_seconds(&self) -> Option<i64> {
        self.plane.skew_seconds()
    }

    /// Reads an enrollment; `None` if there is none.
    pub async fn enrollment(&self, id: EnrollmentName<'_>) -> Result<Option<Record>, CallError> {
        let operation = format!("read {}", name(id));
        let call = Call::new(Method::GET, operation.clone(), path(id));
        match self.plane.call(call).await {
            Ok(answer) => record(&operation, &answer).map(Some),
            Err(error) if error.is_missing(missing(id)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates an enrollment. A conflict means that one exists: observe and compare, it may be
    /// ours with an answer that was lost.
    pub async fn create(&self, id: EnrollmentName<'_>, new: &Value) -> Result<Record, CallError> {
        let operation = format!("create {}", name(id));
        let call = Call::new(Method::PUT, operation.clone(), path(id)).body(new.clone());
        record(&operation, &self.plane.call(call).await?)
    }

    /// Replaces an enrollment whole, if it is still the one that was read.
    pub async fn replace(
        &self,
        id: EnrollmentName<'_>,
        new: &Value,
        etag: &Etag,
    ) -> Result<Record, CallError> {
        let operation = format!("replace {}", name(id));
        let call = Call::new(Method::PUT, operation.clone(), path(id));
        let call = call.if_match(etag).body(new.clone());
        record(&operation, &self.plane.call(call).await?)
    }

    /// Deletes an enrollment, if it is still the one that was read.
    pub async fn delete(&self, id: EnrollmentName<'_>, etag: &Etag) -> Result<(), CallError> {
        let operation = format!("delete {}", name(id));
        let call = Call::new(Method::DELETE, operation, path(id)).if_match(etag);
        gone(self.plane.call(call).await, missing(id))
    }

    /// Reads the service's record of a device's last registration: it alone says in which hub, and
    /// by which id, the device is.
    pub async fn registration(
        &self,
        id: &RegistrationId,
    ) -> Result<Option<RegistrationRecord>, CallError> {
        let operation = format!("read registration {id}");
        let call = Call::new(Method::GET, operation.clone(), registration_path(id));
        match self.plane.call(call).await {
            Ok(answer) => answer.json(&operation).map(Some),
            Err(error) if error.is_missing(&REGISTRATION_MISSING) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes the record of a device's registration. Unconditional: the record decides nothing,
    /// and a device that registers concurrently makes a new one.
    pub async fn delete_registration(&self, id: &RegistrationId) -> Result<(), CallError> {
        let operation = format!("delete registration {id}");
        let call = Call::new(Method::DELETE, operation, registration_path(id));
        gone(self.plane.call(call).await, &REGISTRATION_MISSING)
    }

    /// One page of all enrollments of a kind; `None` in the page ends the scan.
    pub async fn scan(
        &self,
        kind: ScanKind,
        continuation: Option<&Continuation>,
    ) -> Result<Page, CallError> {
        let operation = format!("scan {}", kind.collection());
        let path = versioned(&format!("/{}/query", kind.collection()));
        let call = Call::new(Method::POST, operation.clone(), path)
            .page(PAGE_RECORDS_MAX, continuation)
            .body(json!({ "query": "SELECT *" }));
        Page::read(&operation, &self.plane.call(call).await?)
    }

    /// One page of the registrations that a group has decided last.
    pub async fn registrations_of(
        &self,
        group: &EnrollmentGroupId,
        continuation: Option<&Continuation>,
    ) -> Result<Page, CallError> {
        let operation = format!("list registrations of group {group}");
        let path = versioned(&format!("/registrations/{}/query", segment(group.as_str())));
        let call = Call::new(Method::POST, operation.clone(), path)
            .page(PAGE_RECORDS_MAX, continuation)
            .body(json!({ "query": "SELECT *" }));
        Page::read(&operation, &self.plane.call(call).await?)
    }

    /// Up to [`BULK_ITEMS_MAX`] individual enrollments at once; each item succeeds or fails alone.
    pub async fn bulk(&self, mode: BulkMode, records: &[Value]) -> Result<BulkOutcome, CallError> {
        let operation = format!("{} {} enrollments", mode.as_str(), records.len());
        if records.is_empty() || records.len() > BULK_ITEMS_MAX {
            return Err(CallError::Unsendable {
                operation,
                reason: format!("give 1 to {BULK_ITEMS_MAX} enrollments"),
            });
        }
        let call = Call::new(Method::POST, operation.clone(), versioned("/enrollments"))
            .cost(records.len() as u32) // how it is counted is not documented: as the most
            .body(json!({ "mode": mode.as_str(), "enrollments": records }));
        self.plane.call(call).await?.json(&operation)
    }
}

fn name(id: EnrollmentName<'_>) -> String {
    match id {
        EnrollmentName::Individual(id) => format!("individual enrollment {id}"),
        EnrollmentName::Group(id) => format!("enrollment group {id}"),
    }
}

/// Returns the codes by which the service says that there is no such enrollment (section 4).
fn missing(id: EnrollmentName<'_>) -> &'static [&'static str] {
    match id {
        EnrollmentName::Individual(_) => &["404201"],
        EnrollmentName::Group(_) => &["404204"],
    }
}

fn path(id: EnrollmentName<'_>) -> String {
    let (collection, id) = match id {
        EnrollmentName::Individual(id) => (ScanKind::Individuals, id.as_str()),
        EnrollmentName::Group(id) => (ScanKind::Groups, id.as_str()),
    };
    versioned(&format!("/{}/{}", collection.collection(), segment(id)))
}

fn registration_path(id: &RegistrationId) -> String {
    versioned(&format!("/registrations/{}", segment(id.as_str())))
}

fn versioned(path: &str) -> String {
    format!("{path}?api-version={API_VERSION}")
}

fn record(operation: &str, answer: &Reply) -> Result<Record, CallError> {
    parse_record(operation, answer.json(operation)?)
}

fn parse_record(operation: &str, value: Value) -> Result<Record, CallError> {
    Record::parse(value).map_err(|invalid| CallError::Transient {
        operation: operation.to_owned(),
        reason: invalid.to_string(),
        retry_after: None,
        lost_answer: true,
    })
}

/// A missing object counts as deleted, perhaps by an earlier call whose answer was lost.
fn gone(result: Result<Reply, CallError>, missing: &[&str]) -> Result<(), CallError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.is_missing(missing) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The collection of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanKind {
    Individuals,
    Groups,
}

impl ScanKind {
    pub(super) fn collection(self) -> &'static str {
        match self {
            ScanKind::Individuals => "enrollments",
            ScanKind::Groups => "enrollmentGroups",
        }
    }
}

/// One page of a scan.
#[derive(Clone, Debug)]
pub struct Page {
    /// The records of the page.
    pub records: Vec<Record>,
    /// Where the next one begins, if there is one.
    pub next: Option<Continuation>,
}

impl Page {
    fn read(operation: &str, answer: &Reply) -> Result<Self, CallError> {
        let values: Vec<Value> = answer.json(operation)?;
        let records = values
            .into_iter()
            .map(|value| parse_record(operation, value))
            .collect::<Result<_, _>>()?;
        let next = answer.continuation(operation)?;
        Ok(Self { records, next })
    }
}

/// The operation of a bulk call on each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkMode {
    /// Creates it; an existing one is a failure.
    Create,
    /// Replaces it, if it still has the etag in its record.
    UpdateIfMatch,
}

impl BulkMode {
    fn as_str(self) -> &'static str {
        match self {
            BulkMode::Create => "create",
            BulkMode::UpdateIfMatch => "updateIfMatchETag",
        }
    }
}

/// The answer to a bulk call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BulkOutcome {
    /// Every item succeeded. This decides: a service may list successes among the `errors`.
    pub is_successful: bool,
    /// The errors of single items.
    #[serde(default)]
    pub errors: Vec<BulkItem>,
}

/// The error of one item of a bulk call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BulkItem {
    pub registration_id: String,
    pub error_code: Option<i64>,
    pub error_status: Option<String>,
}
