//! Formats lists as tables that fit the terminal.
//!
//! In a pipe, and with `-o wide`, a table has every column and every value whole, and its times are
//! RFC 3339. On a terminal it is as wide as the terminal at most: long values are shortened, times
//! are relative, and columns that still have no room are named below. The member of a row that a
//! column shows decides its form.

use super::render::cell;
use super::state::{self, Tone};
use dialoguer::console::{Style, measure_text_width, truncate_str};
use hallmark_pki::moment::Moment;
use hallmark_pki::unix_seconds::UnixSeconds;
use serde_json::Value;

/// The columns between two columns.
const GAP: usize = 2;
/// Below this width the times of the audit journal are relative too.
const EXACT_TIMES_FROM: usize = 100;

/// How a table is printed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Paper {
    /// How many columns a line of the terminal has; `None` if nothing is shortened.
    pub(super) width: Option<usize>,
    /// The time from which relative times are counted.
    pub(super) now: UnixSeconds,
    pub(super) colours: bool,
}

/// The columns of a table, the most needed first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns<'a> {
    pub(super) shown: &'a [&'a str],
    /// Columns that only a pipe and `-o wide` have.
    pub(super) wide: &'a [&'a str],
}

/// The kind of the values of a column. The order is that in which columns are shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Sentence,
    /// A serial number or a digest: its beginning identifies it on the screen.
    Digits,
    Name,
    /// A word, a number or a time, which is never shortened.
    Word,
    Time,
    /// A time of the journal, which is compared with logs.
    ExactTime,
}

/// A column, as the name of its member says: how its values are shortened, and how urgent each is.
#[derive(Clone, Copy)]
struct Column {
    form: Form,
    tone: fn(&Value) -> Tone,
}

impl Column {
    fn of(name: &str) -> Self {
        let plain: fn(&Value) -> Tone = |_| Tone::Plain;
        let (form, tone) = match name {
            "state" | "status" | "severity" => (Form::Word, state::of_state as _),
            "token" => (Form::Name, state::of_state as _),
            "block" => (Form::Name, state::of_block as _),
            "days_left" => (Form::Word, state::of_days as _),
            "parked" => (Form::Word, state::of_parked as _),
            "verified" => (Form::Word, state::of_verified as _),
            "kind" | "generation" | "sequence" | "number" | "id" | "attempts" | "role" | "slot"
            | "key_type" | "crl_number" | "slots" => (Form::Word, plain),
            "answer" | "detail" | "error" | "estimate" | "last_error" | "meaning" | "reason"
            | "remarks" | "waits_for" => (Form::Sentence, plain),
            "serial" | "thumbprint" | "sha256" | "primary" | "secondary" => (Form::Digits, plain),
            "at" => (Form::ExactTime, plain),
            "since" | "not_after" | "not_before" | "crl_next_update" => (Form::Time, plain),
            _ if name.ends_with("_at") => (Form::Time, plain),
            _ => (Form::Name, plain),
        };
        Self { form, tone }
    }
}

impl Form {
    /// The least width of a column that is shortened.
    fn least(self) -> Option<usize> {
        match self {
            Self::Sentence => Some(14),
            Self::Digits => Some(9),
            Self::Name => Some(10),
            Self::Word | Self::Time | Self::ExactTime => None,
        }
    }
}

/// The heading of a column.
fn title(column: &str) -> String {
    match column {
        "registration_id" => "DEVICE".into(),
        "sequence" => "#".into(),
        _ => column.replace('_', " ").to_uppercase(),
    }
}

/// A table before it is printed: the heading, then the rows.
struct Table {
    forms: Vec<Form>,
    lines: Vec<Vec<String>>,
    tones: Vec<Vec<Tone>>,
    /// The widths at which nothing is shortened.
    natural: Vec<usize>,
}

/// Formats a list, with one row per entry.
pub(super) fn table(rows: &Value, columns: Columns<'_>, paper: Paper) -> String {
    let mut names = columns.shown.to_vec();
    if paper.width.is_none() {
        names.extend(columns.wide);
    }
    let whole = Table::new(rows, &names, paper);
    let Some(width) = paper.width else {
        return whole.print(&whole.natural, paper);
    };
    let least = names.len().min(2);
    let mut shorter = (least..=names.len()).rev();
    let fitting = shorter.find_map(|count| whole.fitted(count, width));
    let widths = fitting.unwrap_or_else(|| whole.shortest(least, width));
    let mut text = whole.print(&widths, paper);
    if widths.len() < names.len() {
        let left_out = names[widths.len()..]
            .iter()
            .map(|it| title(it).to_lowercase());
        let left_out = left_out.collect::<Vec<_>>().join(", ");
        let note = format!("no room for: {left_out}; `-o wide` or a wider terminal has them\n");
        text += &dim(&note, paper);
    }
    text
}

impl Table {
    fn new(rows: &Value, names: &[&str], paper: Paper) -> Self {
        let columns: Vec<Column> = names.iter().map(|it| Column::of(it)).collect();
        let forms: Vec<Form> = columns.iter().map(|it| it.form).collect();
        let mut lines = vec![names.iter().map(|it| title(it)).collect()];
        let mut tones = vec![vec![Tone::Plain; names.len()]];
        for row in rows.as_array().into_iter().flatten() {
            let cells = names.iter().zip(&forms);
            lines.push(
                cells
                    .map(|(it, form)| shown(&row[*it], *form, paper))
                    .collect(),
            );
            let toned = names.iter().zip(&columns);
            tones.push(toned.map(|(it, column)| (column.tone)(&row[*it])).collect());
        }
        let widest = |column: usize| {
            let widths = lines
                .iter()
                .map(|it: &Vec<String>| measure_text_width(&it[column]));
            widths.max().unwrap_or(0)
        };
        Self {
            natural: (0..forms.len()).map(widest).collect(),
            forms,
            lines,
            tones,
        }
    }

    /// The widths of the first `count` columns within `width`, or `None` if they have no room.
    fn fitted(&self, count: usize, width: usize) -> Option<Vec<usize>> {
        let widths = self.shortest(count, width);
        (total(&widths) <= width).then_some(widths)
    }

    /// Shortens the first `count` columns until they fit or cannot be shorter: sentences first,
    /// and of one form the widest first.
    fn shortest(&self, count: usize, width: usize) -> Vec<usize> {
        let mut widths = self.natural[..count].to_vec();
        for form in [Form::Sentence, Form::Digits, Form::Name] {
            let Some(least) = form.least() else { continue };
            while total(&widths) > width {
                let of_form =
                    (0..count).filter(|it| self.forms[*it] == form && widths[*it] > least);
                let Some(widest) = of_form.max_by_key(|it| widths[*it]) else {
                    break;
                };
                widths[widest] -= 1;
            }
        }
        widths
    }

    fn print(&self, widths: &[usize], paper: Paper) -> String {
        let mut text = String::new();
        for (number, line) in self.lines.iter().enumerate() {
            let mut row = String::new();
            let mut gap = 0;
            for (column, width) in widths.iter().enumerate() {
                let cell = truncate_str(&line[column], *width, "…");
                row.push_str(&" ".repeat(gap));
                let style = match number {
                    0 => Style::new().bold(),
                    _ => self.tones[number][column].style(),
                };
                // Spaces have no colour, and none end a line.
                row += &style
                    .force_styling(paper.colours)
                    .apply_to(&cell)
                    .to_string();
                gap = width.saturating_sub(measure_text_width(&cell)) + GAP;
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

fn shown(value: &Value, form: Form, paper: Paper) -> String {
    let is_relative = match form {
        Form::Time => paper.width.is_some(),
        Form::ExactTime => paper.width.is_some_and(|it| it < EXACT_TIMES_FROM),
        _ => false,
    };
    let time = value.as_str().filter(|_| is_relative);
    match time.and_then(|it| it.parse::<Moment>().ok()) {
        Some(time) => relative(time.before(paper.now), paper.now),
        None => cell(value),
    }
}

/// Returns how long ago a time is, or in how long, in its largest unit: `3 min ago`, `in 89 d`.
pub(super) fn relative(time: UnixSeconds, now: UnixSeconds) -> String {
    let seconds = time.seconds_since(now);
    let amount = match seconds.unsigned_abs() {
        it @ 0..60 => format!("{it} s"),
        it @ 60..3_600 => format!("{} min", it / 60),
        it @ 3_600..86_400 => format!("{} h", it / 3_600),
        it => format!("{} d", it / 86_400),
    };
    match seconds {
        1.. => format!("in {amount}"),
        _ => format!("{amount} ago"),
    }
}

/// Returns a remark below a table.
pub(super) fn dim(text: &str, paper: Paper) -> String {
    let style = Style::new().dim().force_styling(paper.colours);
    style.apply_to(text.trim_end()).to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn days_and_flags_have_a_colour_too() {
        for (column, value, expected) in [
            ("days_left", json!(-1), Tone::Bad),
            ("days_left", json!(29), Tone::Attention),
            ("days_left", json!(30), Tone::Good),
            ("parked", json!(false), Tone::Plain),
            ("verified", json!(false), Tone::Bad),
            ("block", json!(null), Tone::Plain),
            ("block", json!("device"), Tone::Bad),
            ("state", json!("ready"), Tone::Good),
            ("name", json!("ready"), Tone::Plain),
        ] {
            assert_eq!(
                (Column::of(column).tone)(&value),
                expected,
                "{column} {value}"
            );
        }
    }

    fn of(rows: &Value, columns: &[&str], width: Option<usize>) -> String {
        let now = "2026-11-30T12:00:00Z".parse::<Moment>().unwrap();
        let paper = Paper {
            width,
            now: now.before(UnixSeconds::new(0)),
            colours: false,
        };
        let wide = &[];
        let shown = columns;
        table(rows, Columns { shown, wide }, paper)
    }

    #[test]
    fn a_pipe_has_every_column_as_wide_as_it_needs_and_absent_values_are_dashes() {
        let rows = json!([
            { "id": 1, "name": "station", "not_after": "2027-01-01T00:00:00Z" },
            { "id": 20, "name": null },
        ]);
        assert_eq!(
            of(&rows, &["id", "name", "not_after"], None),
            "ID  NAME     NOT AFTER\n\
             1   station  2027-01-01T00:00:00Z\n\
             20  -        -\n"
        );
    }

    #[test]
    fn a_terminal_shortens_sentences_first_then_digits_then_names() {
        let rows = json!([{
            "registration_id": "a-very-long-device-name", "serial": "0123456789ABCDEF",
            "reason": "the service was not reachable",
        }]);
        let columns = ["registration_id", "serial", "reason"];
        for (width, row) in [
            (
                72,
                "a-very-long-device-name  0123456789ABCDEF  the service was not reachable",
            ),
            (
                57,
                "a-very-long-device-name  0123456789ABCDEF  the service w…",
            ),
            (52, "a-very-long-device-name  0123456789…  the service w…"),
            (40, "a-very-long-…  01234567…  the service w…"),
            (30, "a-very-long-device…  01234567…"),
        ] {
            let text = of(&rows, &columns, Some(width));
            let found = text.lines().nth(1).unwrap();
            let widest = measure_text_width(found);
            assert!(found == row && widest <= width, "{width}: {text}");
        }
        let text = of(&rows, &columns, Some(30));
        assert!(text.ends_with("no room for: reason; `-o wide` or a wider terminal has them\n"));
    }

    #[test]
    fn a_wide_character_takes_two_columns() {
        let rows =
            json!([{ "name": "日本語", "state": "ready" }, { "name": "a", "state": "ready" }]);
        let text = of(&rows, &["name", "state"], None);
        assert_eq!(text, "NAME    STATE\n日本語  ready\na       ready\n");
    }

    #[test]
    fn times_are_relative_on_a_terminal() {
        let now = UnixSeconds::new(1_000_000);
        for (seconds, words) in [
            (0, "0 s ago"),
            (-59, "59 s ago"),
            (-60, "1 min ago"),
            (7_300, "in 2 h"),
            (-90 * 86_400, "90 d ago"),
        ] {
            assert_eq!(relative(now + seconds, now), words);
        }
        let rows = json!([{ "since": "2026-11-30T11:57:00Z", "at": "2026-11-30T11:57:00Z" }]);
        let row = |width| {
            let text = of(&rows, &["since", "at"], width);
            text.lines().nth(1).unwrap().to_owned()
        };
        assert_eq!(row(Some(120)), "3 min ago  2026-11-30T11:57:00Z");
        assert_eq!(row(Some(80)), "3 min ago  3 min ago");
        assert_eq!(row(None), "2026-11-30T11:57:00Z  2026-11-30T11:57:00Z");
    }

    #[test]
    fn a_state_has_a_colour_and_the_spaces_after_it_have_none() {
        let rows = json!([{ "state": "ready", "id": 1 }, { "state": "unavailable", "id": 2 }]);
        let paper = Paper {
            colours: true,
            ..Paper::default()
        };
        let columns = Columns {
            shown: &["state"],
            wide: &["id"],
        };
        let text = table(&rows, columns, paper);
        assert!(
            text.contains("\u{1b}[32mready\u{1b}[0m        1\n"),
            "{text:?}"
        );
        assert!(
            text.contains("\u{1b}[31munavailable\u{1b}[0m  2\n"),
            "{text:?}"
        );
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(
            names in prop::collection::vec("[a-z日]{0,60}", 1..5),
            width in 30..140_usize,
        ) {
            let rows: Value = names.iter().map(|it| json!({
                "registration_id": it, "serial": it, "reason": it, "state": "ready",
            })).collect();
            let text = of(&rows, &["registration_id", "state", "serial", "reason"], Some(width));
            for line in text.lines().filter(|it| !it.starts_with("no room")) {
                prop_assert!(measure_text_width(line) <= width, "{}", text);
            }
        }
    }
}
