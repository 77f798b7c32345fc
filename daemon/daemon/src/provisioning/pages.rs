//! Bounds a list that a service answers page by page.
//!
//! The service says whether there is a next page, and an endless list would spend the budget of all
//! other work on itself. A scan ends with an error where its pages repeat, where they are empty or
//! nearly so, and where there are more records than the service's documented maximum.

use super::dps::{Page, ScanKind};
use super::failure::CallError;
use std::collections::HashSet;

/// The most individual enrollments that a provisioning service holds (its documented limit).
const INDIVIDUALS_MAX: usize = 1_000_000;
/// The most groups: the documented limit is 100, and support raises it.
const GROUPS_MAX: usize = 10_000;
/// A service may answer pages without records, as its database does; not many in a row.
const EMPTY_PAGES_MAX: usize = 10;
/// So many pages may hold few records.
const SPARSE_PAGES_MAX: usize = 100;
/// Beyond those, each page holds so many records on average.
const RECORDS_PER_PAGE_MIN: usize = 10;

/// The pages that a scan has read so far.
#[derive(Debug)]
pub struct Pages {
    kind: ScanKind,
    pages: usize,
    records: usize,
    empty: usize,
    /// The first record of each page: pages that repeat begin with one of them.
    first_ids: HashSet<String>,
}

impl Pages {
    /// Before the first page.
    pub fn of(kind: ScanKind) -> Self {
        Self {
            kind,
            pages: 0,
            records: 0,
            empty: 0,
            first_ids: HashSet::new(),
        }
    }

    /// Counts a page. Fails if no honest service answers such a list.
    pub fn count(&mut self, page: &Page) -> Result<(), CallError> {
        self.pages += 1;
        self.records += page.records.len();
        let first = page.records.first().and_then(|record| record.id());
        let repeats = first.is_some_and(|id| !self.first_ids.insert(id.to_lowercase()));
        self.empty = if page.records.is_empty() {
            self.empty + 1
        } else {
            0
        };
        let reason = if repeats {
            "repeats a page"
        } else if self.empty > EMPTY_PAGES_MAX {
            "has page after page without a record"
        } else if self.is_sparse() {
            "has many pages with few records"
        } else if self.records > self.records_max() {
            "has more records than a service can hold"
        } else {
            return Ok(());
        };
        Err(self.endless(reason))
    }

    /// How many records there were.
    pub fn records(&self) -> usize {
        self.records
    }

    fn is_sparse(&self) -> bool {
        self.pages > SPARSE_PAGES_MAX && self.records < self.pages * RECORDS_PER_PAGE_MIN
    }

    fn records_max(&self) -> usize {
        match self.kind {
            ScanKind::Individuals => INDIVIDUALS_MAX,
            ScanKind::Groups => GROUPS_MAX,
        }
    }

    fn endless(&self, reason: &str) -> CallError {
        CallError::Transient {
            operation: format!("scan {}", self.kind.collection()),
            reason: format!("the list {reason}, after {} pages", self.pages),
            retry_after: None,
            lost_answer: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::record::Record;
    use serde_json::json;

    fn page(ids: impl IntoIterator<Item = String>) -> Page {
        let record = |id| {
            let value = json!({ "registrationId": id, "etag": "\"1\"" });
            Record::parse(value).unwrap()
        };
        Page {
            records: ids.into_iter().map(record).collect(),
            next: None,
        }
    }

    /// How many pages of `next` are taken, and why no more.
    fn taken(kind: ScanKind, next: impl Fn(usize) -> Page) -> (usize, String) {
        let mut pages = Pages::of(kind);
        for number in 0..200_000 {
            if let Err(error) = pages.count(&next(number)) {
                return (number, error.to_string());
            }
        }
        panic!("it has no end");
    }

    #[test]
    fn an_endless_list_ends() {
        let individuals = ScanKind::Individuals;
        let (count, why) = taken(individuals, |_| page(["press-7".to_owned()]));
        assert!(count == 1 && why.contains("repeats"), "{count}: {why}");
        let (count, why) = taken(individuals, |_| page([]));
        assert!(
            count == 10 && why.contains("without a record"),
            "{count}: {why}"
        );
        let (count, why) = taken(individuals, |number| page([format!("press-{number}")]));
        assert!(
            count == 100 && why.contains("few records"),
            "{count}: {why}"
        );
        let full = |number| page((0..100).map(|it| format!("press-{number}-{it}")));
        let (count, why) = taken(ScanKind::Groups, full);
        assert!(
            count == 100 && why.contains("more records"),
            "{count}: {why}"
        );
    }

    #[test]
    fn a_long_list_of_an_honest_service_is_taken() {
        let mut pages = Pages::of(ScanKind::Individuals);
        for number in 0..1_000 {
            let ids = (0..100).map(|it| format!("press-{number}-{it}"));
            let next = page(ids.take(if number % 7 == 0 { 0 } else { 100 }));
            pages.count(&next).unwrap();
        }
        assert_eq!(pages.records(), 85_700);
    }
}
