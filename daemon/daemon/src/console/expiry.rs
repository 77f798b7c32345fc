//! Shows what ends when: by role and profile, and the authorities.

use super::components::{self, At};
use super::refused::Refused;
use super::visit::{Frame, Visit, page};
use askama::Template;
use axum::response::Response;
use serde::Deserialize;

#[derive(Deserialize)]
struct Status {
    expiry: Vec<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    role: String,
    profile: String,
    alarm_within_seconds: Option<i64>,
    alarming: i64,
    within_1d: i64,
    within_7d: i64,
    within_30d: i64,
    next: Option<At>,
    next_subject: Option<String>,
}

impl Profile {
    fn alarm_days(&self) -> Option<i64> {
        self.alarm_within_seconds.map(|it| it / 86_400)
    }
}

/// The certificates that end on one day, by profile and authority.
#[derive(Deserialize)]
struct Ends {
    /// Days from now, 0 for the next 24 hours.
    day: i64,
    profile: String,
    authority: String,
    certificates: i64,
}

/// A profile and authority whose certificates end in the time that is drawn.
struct Row {
    profile: String,
    authority: String,
    within: [i64; 3],
}

const WINDOWS: [i64; 3] = [7, 30, 90];
/// The drawing, in units of its own.
const WIDTH: i64 = 1_000;
const HEIGHT: i64 = 160;
const BAR: i64 = WIDTH / 90;

/// A column of the histogram.
struct Column {
    day: i64,
    certificates: i64,
    x: i64,
    y: i64,
    height: i64,
    class: &'static str,
}

#[derive(Template)]
#[template(path = "expiry.html")]
struct Page {
    frame: Frame,
    profiles: Vec<Profile>,
    rows: Vec<Row>,
    columns: Vec<Column>,
    /// The certificates of the highest column.
    most: i64,
}

impl Page {
    fn bar_width(&self) -> i64 {
        BAR - 2
    }

    fn height(&self) -> i64 {
        HEIGHT
    }

    /// Where the windows end, on the axis.
    fn marks(&self) -> [(i64, i64); 3] {
        WINDOWS.map(|days| (days, days * BAR))
    }
}

/// Shows the page.
pub(super) async fn show(visit: Visit) -> Result<Response, Refused> {
    let Status { expiry } = visit.get("/v1/status").await?;
    let ends: Vec<Ends> = visit.get("/v1/expiry").await?;
    let (columns, most) = columns(&ends);
    page(&Page {
        frame: visit.frame("Expiry"),
        profiles: expiry,
        rows: rows(&ends),
        columns,
        most,
    })
}

fn columns(ends: &[Ends]) -> (Vec<Column>, i64) {
    let last = WINDOWS[2];
    let on = |day: i64| {
        let its = ends.iter().filter(move |it| it.day == day);
        its.map(|it| it.certificates).sum::<i64>()
    };
    let counts: Vec<(i64, i64)> = (0..last).map(|day| (day, on(day))).collect();
    let most = counts.iter().map(|it| it.1).max().unwrap_or(0);
    let column = |(day, certificates): (i64, i64)| {
        let height = certificates * HEIGHT / most.max(1);
        // A single certificate among thousands is visible.
        let height = height.max(i64::from(certificates > 0) * 3);
        Column {
            day,
            certificates,
            x: day * BAR + 1,
            y: HEIGHT - height,
            height,
            class: if day < 7 {
                "critical"
            } else if day < 30 {
                "attention"
            } else {
                "quiet"
            },
        }
    };
    (counts.into_iter().map(column).collect(), most)
}

fn rows(ends: &[Ends]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for end in ends {
        let is_its = |it: &&mut Row| it.profile == end.profile && it.authority == end.authority;
        let row = match rows.iter_mut().find(is_its) {
            Some(row) => row,
            None => {
                rows.push(Row {
                    profile: end.profile.clone(),
                    authority: end.authority.clone(),
                    within: [0; 3],
                });
                rows.last_mut().expect("it was pushed")
            }
        };
        for (count, days) in row.within.iter_mut().zip(WINDOWS) {
            *count += if end.day < days { end.certificates } else { 0 };
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_counted_in_its_day_and_windows() {
        let ends = |day, certificates| Ends {
            day,
            profile: "device".into(),
            authority: "line-1".into(),
            certificates,
        };
        let ends = [ends(0, 1), ends(6, 2), ends(7, 4), ends(89, 10_000)];
        assert_eq!(rows(&ends)[0].within, [3, 7, 10_007]);
        let (columns, most) = columns(&ends);
        assert_eq!((columns.len(), most), (90, 10_000));
        assert_eq!(
            (columns[0].height, columns[1].height, columns[89].height),
            (3, 0, HEIGHT)
        );
    }
}
