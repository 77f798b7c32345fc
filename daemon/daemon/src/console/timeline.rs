//! Draws spans of time on one axis, as SVG.
//!
//! Places on the axis are parts of its width and heights are pixels, so text keeps its size and the
//! whole axis is seen on a screen of any width.

use crate::unix_seconds::UnixSeconds;
use askama::Template;
use askama::filters::HtmlSafe;

const DAY: i64 = 86_400;
/// Steps of the axis, in days.
const STEPS: [i64; 9] = [1, 7, 30, 91, 182, 365, 730, 1_826, 3_652];
const TICKS_MAX: i64 = 8;
/// The width of the axis: positions are hundredths of a percent.
const WIDTH: i64 = 10_000;
/// The least width of what is drawn.
const WIDTH_MIN: i64 = 30;
/// Heights of a row, in pixels: its label, its bar, each slot, and the space below.
const LABEL: i64 = 20;
const BAR: i64 = 14;
const SLOT: i64 = 24;
const SPACE: i64 = 14;
const AXIS: i64 = 26;

/// A span with a name.
pub(super) struct Bar {
    pub(super) label: String,
    /// Its state, beside the name.
    pub(super) state: String,
    pub(super) begins: UnixSeconds,
    pub(super) ends: UnixSeconds,
    /// The end of the part that is filled: from then on it does not act.
    pub(super) acts_until: Option<UnixSeconds>,
    /// A severity.
    pub(super) class: &'static str,
    pub(super) slots: Vec<Slot>,
}

/// A slot at a service that holds the certificate of a bar, from now to the certificate's end.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) text: String,
    /// `serving`, `staged`, `draining` or `blocking`.
    pub(super) class: &'static str,
}

/// A part of the width, in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part(i64);

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}%", self.0 / 100, self.0 % 100)
    }
}

/// A bar as it is drawn.
struct Drawn {
    label: String,
    state: String,
    class: &'static str,
    text: String,
    label_y: i64,
    y: i64,
    x: Part,
    width: Part,
    filled: Part,
    slots: Vec<DrawnSlot>,
}

struct DrawnSlot {
    text: String,
    class: &'static str,
    /// Where its line is, and where its words.
    y: i64,
    text_y: i64,
    x: Part,
    end: Part,
}

struct Tick {
    x: Part,
    label: String,
    /// `start` and `end` at the edges, and `minor` where a narrow screen has no room.
    class: String,
}

/// The drawing; empty without a bar.
#[derive(Template)]
#[template(path = "timeline.html")]
pub(super) struct Timeline {
    title: &'static str,
    height: i64,
    bars: Vec<Drawn>,
    ticks: Vec<Tick>,
    now: Part,
}

impl HtmlSafe for Timeline {}

impl Timeline {
    /// Draws `bars` from the first begin to the last end.
    pub(super) fn new(title: &'static str, now: UnixSeconds, bars: Vec<Bar>) -> Self {
        let first = bars.iter().map(|it| it.begins).min();
        let last = bars.iter().map(|it| it.ends).max();
        let begins = first.unwrap_or(now).min(now);
        let ends = last.unwrap_or(now).max(now);
        let scale = Scale {
            begins: begins.get(),
            seconds: ends.seconds_since(begins).max(DAY),
        };
        let now = scale.x(now.get());
        let mut y = 0;
        let draw = |bar| {
            let drawn = scale.drawn(y, now, bar);
            y = drawn.below();
            drawn
        };
        let bars: Vec<Drawn> = bars.into_iter().map(draw).collect();
        Self {
            title,
            height: y + AXIS,
            ticks: scale.ticks(),
            now,
            bars,
        }
    }

    fn is_empty(&self) -> bool {
        self.bars.is_empty()
    }

    /// The lower end of the lines of the axis.
    fn floor(&self) -> i64 {
        self.height - AXIS + 4
    }

    fn has_windows(&self) -> bool {
        self.bars.iter().any(|it| it.filled < it.width)
    }

    fn has_slots(&self) -> bool {
        self.bars.iter().any(|it| !it.slots.is_empty())
    }
}

impl Drawn {
    fn below(&self) -> i64 {
        let slots = i64::try_from(self.slots.len()).unwrap_or(0);
        self.y + BAR + slots * SLOT + SPACE
    }
}

struct Scale {
    begins: i64,
    seconds: i64,
}

impl Scale {
    fn x(&self, moment: i64) -> Part {
        let passed = moment.saturating_sub(self.begins).clamp(0, self.seconds);
        let x = i128::from(passed) * i128::from(WIDTH) / i128::from(self.seconds);
        Part(i64::try_from(x).unwrap_or(0))
    }

    /// The part from `x` to `end`, wide enough to be seen, and within the drawing.
    fn span(x: Part, end: Part) -> (Part, Part) {
        let x = x.0.min(WIDTH - WIDTH_MIN);
        (Part(x), Part((end.0 - x).max(WIDTH_MIN)))
    }

    fn drawn(&self, top: i64, now: Part, bar: Bar) -> Drawn {
        let end = self.x(bar.ends.get());
        let (x, width) = Self::span(self.x(bar.begins.get()), end);
        let until = bar.acts_until.map_or(end, |it| self.x(it.get()));
        let (_, filled) = Self::span(x, until);
        let mut text = format!(
            "{} ({}): {} to {}",
            bar.label, bar.state, bar.begins, bar.ends
        );
        if let Some(until) = bar.acts_until {
            text += &format!(", signs until {until}");
        }
        let y = top + LABEL;
        let slot = |(row, slot): (i64, Slot)| {
            text += &format!("; {}", slot.text);
            let y = y + BAR + row * SLOT;
            let (x, width) = Self::span(now, end);
            DrawnSlot {
                text: slot.text,
                class: slot.class,
                y: y + 5,
                text_y: y + 20,
                x,
                end: Part(x.0 + width.0),
            }
        };
        let slots = (0..).zip(bar.slots).map(slot).collect();
        Drawn {
            text,
            label: bar.label,
            state: bar.state,
            class: bar.class,
            label_y: top + LABEL - 6,
            y,
            x,
            width,
            filled,
            slots,
        }
    }

    /// Marks whole steps, as few as fit.
    fn ticks(&self) -> Vec<Tick> {
        let fits = |step: &&i64| self.seconds / (**step * DAY) <= TICKS_MAX;
        let days = STEPS.iter().find(fits).copied();
        let step = days.map_or(self.seconds / TICKS_MAX, |it| it * DAY).max(1);
        let first = self.begins.div_euclid(step) + 1;
        let last = self.begins.saturating_add(self.seconds).div_euclid(step);
        let tick = |number: i64| {
            let moment = number * step;
            let date = UnixSeconds::new(moment).to_string();
            let x = self.x(moment);
            let edge = match x.0 {
                ..500 => "start",
                9_500.. => "end",
                _ => "",
            };
            let minor = match (number - first) % 3 {
                0 => "",
                _ => " minor",
            };
            Tick {
                x,
                label: date.get(..10).unwrap_or(&date).to_owned(),
                class: format!("{edge}{minor}"),
            }
        };
        (first..=last).map(tick).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_the_times_everything_is_in_the_drawing(
            now: i64, begins: i64, ends: i64, acts: Option<i64>,
        ) {
            let slot = || Slot { text: "primary".into(), class: "serving" };
            let bar = Bar {
                label: "x".into(),
                state: "serving".into(),
                begins: UnixSeconds::new(begins),
                ends: UnixSeconds::new(ends),
                acts_until: acts.map(UnixSeconds::new),
                class: "good",
                slots: vec![slot(), slot()],
            };
            let drawn = Timeline::new("x", UnixSeconds::new(now), vec![bar]);
            prop_assert!(drawn.ticks.len() <= 12, "{} ticks", drawn.ticks.len());
            for bar in &drawn.bars {
                prop_assert!(bar.x.0 >= 0 && bar.x.0 + bar.width.0 <= WIDTH);
                prop_assert!(bar.x.0 + bar.filled.0 <= WIDTH);
                for slot in &bar.slots {
                    prop_assert!(slot.x.0 >= 0 && slot.x < slot.end && slot.end.0 <= WIDTH);
                    prop_assert!(slot.text_y < drawn.floor());
                }
            }
        }
    }

    #[test]
    fn a_place_on_the_axis_is_a_part_of_its_width() {
        for (part, text) in [
            (0, "0.00%"),
            (7, "0.07%"),
            (10_000, "100.00%"),
            (1_234, "12.34%"),
        ] {
            assert_eq!(Part(part).to_string(), text);
        }
    }
}
