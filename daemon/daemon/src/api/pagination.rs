//! Pages of a list: an answer carries a page at most, and says in its `Link` header where the next
//! one is (RFC 8288).

use super::PAGE_ROWS_MAX;
use axum::Json;
use axum::http::header::LINK;
use axum::http::{HeaderMap, HeaderValue};
use serde::Serialize;
use std::fmt::Display;

/// How many rows one answer carries, of what was asked for: 1 to [`PAGE_ROWS_MAX`].
pub(super) fn rows(limit: Option<u32>) -> u32 {
    limit.unwrap_or(PAGE_ROWS_MAX).clamp(1, PAGE_ROWS_MAX)
}

/// Returns a page of rows that are ordered by a number. `path` is that of the list, with or without
/// a query.
pub(super) fn page<T: Serialize, K: Display>(
    path: &str,
    rows: Vec<T>,
    limit: u32,
    key: impl Fn(&T) -> K,
) -> (HeaderMap, Json<Vec<T>>) {
    let full = rows.len() >= limit as usize;
    let next = rows.last().filter(|_| full).map(key);
    followed(path, rows, limit, next)
}

/// Returns a page that says by itself whether and where there is more: it may have fewer rows than
/// the limit.
pub(super) fn followed<T: Serialize>(
    path: &str,
    rows: Vec<T>,
    limit: u32,
    next: Option<impl Display>,
) -> (HeaderMap, Json<Vec<T>>) {
    let mut headers = HeaderMap::new();
    let link = next.map(|next| link(path, limit, next));
    // The path is ours or was sent as part of an address, and the rest are numbers.
    if let Some(Ok(link)) = link.map(HeaderValue::try_from) {
        headers.insert(LINK, link);
    }
    (headers, Json(rows))
}

fn link(path: &str, limit: u32, next: impl Display) -> String {
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("<{path}{mark}limit={limit}&after={next}>; rel=\"next\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_page_says_where_the_next_one_is() {
        let (headers, _) = page("/v1/rolls?open=true", vec![9, 7], 2, |it| *it);
        assert_eq!(
            headers[LINK],
            "</v1/rolls?open=true&limit=2&after=7>; rel=\"next\""
        );
        let (headers, _) = page("/v1/rolls?open=true", vec![9], 2, |it| *it);
        assert!(headers.is_empty(), "there are no more");
    }

    #[test]
    fn a_page_has_a_limit_whatever_was_asked_for() {
        assert_eq!(rows(None), PAGE_ROWS_MAX);
        assert_eq!((rows(Some(0)), rows(Some(u32::MAX))), (1, PAGE_ROWS_MAX));
    }
}
