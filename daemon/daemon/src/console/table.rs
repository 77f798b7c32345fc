//! Reads lists of the API page by page, and writes them as files.

use super::components::segment;
use super::refused::Refused;
use super::visit::Visit;
use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::Response;
use futures_util::stream;
use serde::de::DeserializeOwned;
use std::convert::Infallible;

/// Rows of a page.
pub(super) const PAGE_ROWS: usize = 50;
/// Rows that one request for a file reads at once.
const FILE_ROWS: usize = 1_000;

/// Criteria of a list, as an address has them: the empty ones are left out.
pub(super) fn query(criteria: &[(&str, &str)]) -> String {
    let said = criteria.iter().filter(|(_, value)| !value.is_empty());
    let said = said.map(|(name, value)| format!("{name}={}", segment(value)));
    said.collect::<Vec<_>>().join("&")
}

/// A file that is written while its rows are read.
pub(super) struct File<T> {
    pub(super) name: &'static str,
    pub(super) content_type: &'static str,
    pub(super) head: &'static str,
    /// The list of the API, with its criteria.
    pub(super) path: String,
    /// Writes a row as a line.
    pub(super) line: fn(&T) -> String,
    /// The parameter `after` of the page behind a row.
    pub(super) after: fn(&T) -> String,
}

impl<T: DeserializeOwned + Send + 'static> File<T> {
    /// Answers with the file. A refusal of the first page is an answer of its own; after that the
    /// file ends early, with a last line that says so.
    pub(super) async fn write(self, visit: Visit) -> Result<Response, Refused> {
        let first = self.read(&visit, "").await?;
        let head = self.head;
        let name = self.name;
        let content_type = self.content_type;
        let state = (visit, self, Some(first));
        let lines = stream::unfold(state, |(visit, file, page)| async move {
            let (rows, after) = page?;
            let mut text: String = rows.iter().map(file.line).collect();
            let mut next = None;
            if let Some(after) = after {
                match file.read(&visit, &after).await {
                    Ok(page) => next = Some(page),
                    Err(refused) => {
                        text += &format!("# not complete: {}\n", refused.detail());
                    }
                }
            }
            Some((text, (visit, file, next)))
        });
        let begun = stream::once(async move { head.to_owned() });
        let text = futures_util::StreamExt::chain(begun, lines);
        let text = futures_util::StreamExt::map(text, Ok::<_, Infallible>);
        let mut response = Response::new(Body::from_stream(text));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""));
        headers.extend(disposition.ok().map(|it| (CONTENT_DISPOSITION, it)));
        Ok(response)
    }

    /// Reads a page, and where the next one is: as the answer says it, because a page of a list
    /// with criteria may have fewer rows than were asked for; otherwise behind the last row of a
    /// full page.
    async fn read(&self, visit: &Visit, after: &str) -> Result<(Vec<T>, Option<String>), Refused> {
        let (rows, linked) = visit.list::<T>(&self.page(after)).await?;
        let last = rows.last().filter(|_| rows.len() >= FILE_ROWS);
        let next = linked.or_else(|| last.map(self.after));
        Ok((rows, next))
    }

    fn page(&self, after: &str) -> String {
        let mark = if self.path.contains('?') { '&' } else { '?' };
        let after = query(&[("after", after)]);
        format!("{}{mark}limit={FILE_ROWS}&{after}", self.path)
    }
}

/// One line of CSV (RFC 4180). A value that a spreadsheet would calculate is text there.
pub(super) fn csv_line(values: &[&str]) -> String {
    let cells = values.iter().map(|value| {
        let calculates = value.starts_with(['=', '+', '-', '@', '\t', '\r']);
        let value = value.replace('"', "\"\"");
        let mark = if calculates { "'" } else { "" };
        if calculates || value.contains(['"', ',', '\n', '\r']) {
            return format!("\"{mark}{value}\"");
        }
        value
    });
    cells.collect::<Vec<_>>().join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use axum::extract::RawQuery;
    use axum::http::header::LINK;
    use axum::response::IntoResponse;
    use axum::routing::get;
    use axum::{Json, Router};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// A page of the API with fewer rows than were asked for and a link; then the last one.
    async fn scarce(RawQuery(query): RawQuery) -> Response {
        let is_second = query.unwrap_or_default().contains("after=7");
        if is_second {
            return Json(json!([{ "number": 6 }])).into_response();
        }
        let link = "</v1/x?limit=1000&after=7>; rel=\"next\"";
        ([(LINK, link)], Json(json!([{ "number": 9 }]))).into_response()
    }

    #[test]
    fn a_file_goes_on_where_the_list_says_so() {
        let api = Router::new().route("/v1/x", get(scarce));
        let file = File::<Value> {
            name: "x",
            content_type: "text/csv",
            head: "number\r\n",
            path: "/v1/x".into(),
            line: |row| format!("{}\r\n", row["number"]),
            after: |row| row["number"].to_string(),
        };
        let text = pollster::block_on(async {
            let response = file.write(Visit::of_test(api)).await.unwrap();
            to_bytes(response.into_body(), 1_000).await.unwrap()
        });
        assert_eq!(text, "number\r\n9\r\n6\r\n");
    }

    #[test]
    fn a_query_names_what_is_wanted_only() {
        let criteria = [("subject", "a&b"), ("profile", ""), ("state", "valid")];
        assert_eq!(query(&criteria), "subject=a%26b&state=valid");
    }

    #[test]
    fn a_value_cannot_end_its_cell_or_be_a_formula() {
        let line = csv_line(&["a", "b,c", "d\"e", "=1+1", ""]);
        assert_eq!(line, "a,\"b,c\",\"d\"\"e\",\"'=1+1\",\r\n");
    }

    proptest! {
        #[test]
        fn any_values_make_one_row_of_as_many_cells(values in prop::collection::vec(".*", 1..5)) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let line = csv_line(&values);
            let mut quoted = false;
            let outside = line.chars().filter(|it| {
                quoted ^= *it == '"';
                !quoted && matches!(it, ',' | '\n')
            });
            prop_assert_eq!(outside.count(), values.len());
        }
    }
}
