//! Draws spans of time on one axis, as SVG.

use crate::unix_seconds::UnixSeconds;
use askama::Template;
use askama::filters::HtmlSafe;

const DAY: i64 = 86_400;
/// Steps of the axis, in days.
const STEPS: [i64; 9] = [1, 7, 30, 91, 182, 365, 730, 1_826, 3_652];
const TICKS_MAX: i64 = 8;
/// The drawing, in units of its own.
const LABEL_WIDTH: i64 = 150;
const WIDTH: i64 = 1_000;
const ROW_HEIGHT: i64 = 34;
const AXIS_HEIGHT: i64 = 30;

/// A span with a name.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) begins: UnixSeconds,
    pub(super) ends: UnixSeconds,
    /// The end of the part that is filled: from then on it does not act.
    pub(super) acts_until: Option<UnixSeconds>,
    /// A severity.
    pub(super) class: &'static str,
}

/// A bar as it is drawn.
struct Drawn {
    label: String,
    class: &'static str,
    text: String,
    y: i64,
    x: i64,
    width: i64,
    filled: i64,
}

struct Tick {
    x: i64,
    label: String,
}

/// The drawing; empty without a bar.
#[derive(Template)]
#[template(path = "timeline.html")]
pub(super) struct Timeline {
    title: &'static str,
    height: i64,
    bars: Vec<Drawn>,
    ticks: Vec<Tick>,
    now: i64,
}

impl HtmlSafe for Timeline {}

impl Timeline {
    /// Draws `bars` from the first begin to the last end.
    pub(super) fn new(title: &'static str, now: UnixSeconds, bars: Vec<Bar>) -> Self {
        let begins = bars
            .iter()
            .map(|it| it.begins)
            .min()
            .unwrap_or(now)
            .min(now);
        let ends = bars.iter().map(|it| it.ends).max().unwrap_or(now).max(now);
        let scale = Scale {
            begins: begins.get(),
            seconds: ends.seconds_since(begins).max(DAY),
        };
        Self {
            title,
            height: AXIS_HEIGHT + ROW_HEIGHT * i64::try_from(bars.len()).unwrap_or(0),
            ticks: scale.ticks(),
            now: scale.x(now.get()),
            bars: (0..)
                .zip(bars)
                .map(|(row, bar)| scale.drawn(row, bar))
                .collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.bars.is_empty()
    }
}

struct Scale {
    begins: i64,
    seconds: i64,
}

impl Scale {
    fn x(&self, moment: i64) -> i64 {
        let passed = moment.saturating_sub(self.begins).clamp(0, self.seconds);
        let width = i128::from(WIDTH - LABEL_WIDTH - 10);
        let x = i128::from(passed) * width / i128::from(self.seconds);
        LABEL_WIDTH + i64::try_from(x).unwrap_or(0)
    }

    fn drawn(&self, row: i64, bar: Bar) -> Drawn {
        let x = self.x(bar.begins.get());
        let end = self.x(bar.ends.get());
        let filled = bar.acts_until.map_or(end, |it| self.x(it.get()));
        let acts = bar
            .acts_until
            .map_or_else(String::new, |it| format!(", signs until {it}"));
        Drawn {
            text: format!("{}: {} to {}{acts}", bar.label, bar.begins, bar.ends),
            label: bar.label,
            class: bar.class,
            y: row * ROW_HEIGHT,
            x,
            width: (end - x).max(3),
            filled: (filled - x).max(3),
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
            Tick {
                x: self.x(moment),
                label: date.get(..10).unwrap_or(&date).to_owned(),
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
            let bar = Bar {
                label: "x".into(),
                begins: UnixSeconds::new(begins),
                ends: UnixSeconds::new(ends),
                acts_until: acts.map(UnixSeconds::new),
                class: "good",
            };
            let drawn = Timeline::new("x", UnixSeconds::new(now), vec![bar]);
            prop_assert!(drawn.ticks.len() <= 12, "{} ticks", drawn.ticks.len());
            for bar in &drawn.bars {
                prop_assert!(bar.x >= LABEL_WIDTH && bar.x + bar.width <= WIDTH);
            }
        }
    }
}
