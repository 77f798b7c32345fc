//! Lists and finds devices, and shows the life of one.

use super::audit::Entry;
use super::certificates::{Found, Row};
use super::cloud::Enrollment;
use super::components::{self, At, Part, Sentence, segment};
use super::refused::Refused;
use super::slots::{Holder, holding};
use super::table::{PAGE_ROWS, query};
use super::timeline::{Bar, Timeline};
use super::visit::{Frame, Visit, page};
use askama::Template;
use axum::extract::{Path, Query};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

/// Digits that may name a certificate have at least so many.
const DIGITS_MIN: usize = 8;
/// Entries of the journal that a device's page has.
const ENTRIES: u32 = 100;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Search {
    q: String,
    after: String,
}

/// The page of a device's certificates.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    after: String,
}

#[derive(Deserialize)]
struct Device {
    registration_id: String,
    profile: String,
    serial: String,
    thumbprint: String,
    not_after: At,
    created_at: At,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(flatten)]
    device: Device,
    blocked: Option<Block>,
    enrollments: Vec<Enrollment>,
    notification: Option<Progress>,
}

#[derive(Deserialize)]
struct Block {
    reason: String,
    by: String,
    since: At,
}

/// How far the calls are that announce a new leaf to a device of a group.
#[derive(Deserialize)]
struct Progress {
    notified: i64,
    offline: i64,
}

#[derive(Template)]
#[template(path = "devices.html")]
struct List {
    frame: Frame,
    search: Search,
    rows: Vec<Device>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "device.html")]
struct One {
    frame: Frame,
    id: String,
    detail: Detail,
    certificates: Vec<Row>,
    /// The parameter of the page with older ones.
    older: Option<String>,
    current: Option<Found>,
    life: Timeline,
    entries: Vec<Entry>,
}

/// Shows a page of the devices, those whose id begins with what is searched; or the one that it
/// names by its id, or by a certificate.
pub(super) async fn list(
    visit: Visit,
    Query(mut search): Query<Search>,
) -> Result<Response, Refused> {
    search.q = search.q.trim().to_owned();
    if !search.q.is_empty()
        && let Some(found) = find(&visit, &search.q).await?
    {
        return Ok(Redirect::to(&found).into_response());
    }
    let after = if search.after.is_empty() {
        &search.q
    } else {
        &search.after
    };
    let criteria = query(&[("after", after)]);
    let path = format!("/v1/devices?limit={PAGE_ROWS}&{criteria}");
    let mut rows: Vec<Device> = visit.get(&path).await?;
    let full = rows.len() >= PAGE_ROWS;
    let prefix = search.q.to_lowercase();
    rows.retain(|it| it.registration_id.to_lowercase().starts_with(&prefix));
    let last = rows.last().filter(|_| full && rows.len() >= PAGE_ROWS);
    let next = last.map(|it| query(&[("q", &search.q), ("after", &it.registration_id)]));
    page(&List {
        frame: visit.frame("Devices"),
        search,
        rows,
        next,
    })
}

/// Returns the address of the page of a device, or of a certificate that is no device's.
async fn find(visit: &Visit, name: &str) -> Result<Option<String>, Refused> {
    let device: Option<Detail> = visit
        .find(&format!("/v1/devices/{}", segment(name)))
        .await?;
    if let Some(detail) = device {
        let id = segment(&detail.device.registration_id);
        return Ok(Some(format!("/console/devices/{id}")));
    }
    let digits: String = name.chars().filter(|it| !matches!(it, ':' | ' ')).collect();
    let is_hex = digits.chars().all(|it| it.is_ascii_hexdigit());
    if !is_hex || digits.len() < DIGITS_MIN {
        return Ok(None);
    }
    let found: Option<Found> = visit.find(&format!("/v1/certificates/{digits}")).await?;
    Ok(found.map(|found| match found.device() {
        Some(id) => format!("/console/devices/{}", segment(id)),
        None => format!("/console/certificates/{digits}"),
    }))
}

/// Shows one device.
pub(super) async fn show(
    visit: Visit,
    Path(id): Path<String>,
    Query(which): Query<Which>,
) -> Result<Response, Refused> {
    let name = segment(&id);
    let detail: Detail = visit.get(&format!("/v1/devices/{name}")).await?;
    let after = query(&[("after", &which.after)]);
    let path = format!("/v1/certificates?limit={PAGE_ROWS}&device={name}&{after}");
    let (certificates, older): (Vec<Row>, _) = match visit.list(&path).await {
        Err(refused) if refused.is_missing() => (Vec::new(), None),
        listed => listed?,
    };
    let path = format!("/v1/certificates/{}", detail.device.thumbprint);
    let current = visit.find(&path).await?;
    let path = format!("/v1/audit?last={ENTRIES}&device={name}");
    let mut entries: Vec<Entry> = visit.get(&path).await?;
    entries.reverse();
    let frame = visit.frame("Devices");
    let path = format!("/v1/enrollments/{name}");
    let holders: Option<Vec<Holder>> = visit.find(&path).await?;
    let holders = holders.unwrap_or_default();
    let bars = certificates.iter().filter_map(|row| bar(row, &holders));
    page(&One {
        life: Timeline::new("Certificates of the device", frame.now, bars.collect()),
        frame,
        id,
        detail,
        certificates,
        older: older.map(|it| query(&[("after", &it)])),
        current,
        entries,
    })
}

/// The life of a certificate, which a revocation does not shorten here.
fn bar(row: &Row, holders: &[Holder]) -> Option<Bar> {
    let digits = row.serial.get(row.serial.len().saturating_sub(8)..)?;
    Some(Bar {
        label: format!("…{digits}"),
        state: row.words().to_owned(),
        slots: row
            .thumbprint
            .as_deref()
            .map(|it| holding(holders, it))
            .unwrap_or_default(),
        begins: row.begins()?.0,
        ends: row.ends()?.0,
        acts_until: None,
        class: row.severity(),
    })
}
