//! Writes the results: a table in Markdown that can be pasted whole, JSON, and a drawing.

use crate::rounds::{FOREIGN_CORES_MAX, Rounds, Spread, is_kept};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The result of one name of the command line.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// Markdown.
    pub(crate) text: String,
    pub(crate) json: Value,
    pub(crate) goals: Vec<Goal>,
}

/// A measure with its goal.
pub(crate) struct Goal {
    pub(crate) measure: String,
    pub(crate) goal: Bound,
    pub(crate) value: Option<Spread>,
}

#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub(crate) fn new(measure: impl Into<String>, goal: Bound, value: Option<Spread>) -> Self {
        Self {
            measure: measure.into(),
            goal,
            value,
        }
    }

    fn is_reached(&self) -> Option<bool> {
        let median = self.value?.median;
        Some(match self.goal {
            Bound::AtLeast(least) => median >= least,
            Bound::AtMost(most) => median <= most,
        })
    }

    fn bound(&self) -> String {
        match self.goal {
            Bound::AtLeast(least) => format!("≥ {least}"),
            Bound::AtMost(most) => format!("≤ {most}"),
        }
    }
}

/// Writes `performance.md`, `bench.json` and `ratios.svg` into `folder`.
pub(crate) fn write(folder: &Path, parts: &[Part]) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let text = text(parts)?;
    fs::write(folder.join("performance.md"), &text)?;
    fs::write(folder.join("bench.json"), format!("{:#}\n", json(parts)?))?;
    fs::write(folder.join("ratios.svg"), drawing(parts))?;
    Ok(())
}

pub(crate) fn json(parts: &[Part]) -> anyhow::Result<Value> {
    let results = parts.iter().map(|it| (it.name.to_owned(), it.json.clone()));
    let results: serde_json::Map<String, Value> = results.collect();
    Ok(json!({ "machine": machine()?, "results": results, "goals": goals_json(parts) }))
}

pub(crate) fn text(parts: &[Part]) -> anyhow::Result<String> {
    let mut text = String::from(
        "| measure | goal | measured (least to greatest of the rounds) | |\n|---|---|---|---|\n",
    );
    for goal in parts.iter().flat_map(|it| &it.goals) {
        let value = goal.value.map_or_else(|| "not measured".to_owned(), ratio);
        let reached = match goal.is_reached() {
            None => "",
            Some(true) => "reached",
            Some(false) => "**missed**",
        };
        writeln!(
            text,
            "| {} | {} | {value} | {reached} |",
            goal.measure,
            goal.bound()
        )?;
    }
    for part in parts {
        write!(text, "\n{}", part.text)?;
    }
    writeln!(text, "\nMachine: {}.", machine()?)?;
    Ok(text)
}

fn goals_json(parts: &[Part]) -> Value {
    let goals = parts.iter().flat_map(|it| &it.goals);
    let goals = goals.map(|goal| {
        json!({
            "measure": goal.measure, "goal": goal.bound(), "reached": goal.is_reached(),
            "median": goal.value.map(|it| it.median), "least": goal.value.map(|it| it.least),
            "greatest": goal.value.map(|it| it.greatest),
            "rounds": goal.value.map(|it| it.rounds),
        })
    });
    goals.collect()
}

/// Every measurement of some rounds.
pub(crate) fn rounds_json(rounds: &Rounds) -> Value {
    let series = rounds.0.iter().map(|series| {
        let rounds = series.rounds.iter().map(|taken| {
            json!({
                "per_second": taken.rate, "certificates": taken.certificates,
                "p50_ms": 1e3 * taken.p50.as_secs_f64(), "p99_ms": 1e3 * taken.p99.as_secs_f64(),
                "server_cpu_us": taken.server_cpu.iter().map(|it| 1e6 * it.as_secs_f64())
                    .collect::<Vec<_>>(),
                "foreign_cores": taken.foreign_cores, "stolen_cores": taken.stolen_cores,
                "kept": is_kept(taken),
            })
        });
        json!({
            "server": series.name, "connections": series.connections,
            "rounds": rounds.collect::<Vec<_>>(),
        })
    });
    series.collect()
}

/// A table of rates, latencies and processor time, with a sentence about the load of others.
pub(crate) fn rates(title: &str, rounds: &Rounds) -> anyhow::Result<String> {
    let mut text = format!("{title}\n\n");
    text += "| server | connections | certificates a second (least to greatest) | p50 ms | p99 ms \
             | processor time for each, us |\n";
    text += "|---|---|---|---|---|---|\n";
    for series in &rounds.0 {
        let rate = series.spread(|it| it.rate);
        let milliseconds = |value: Option<Spread>| match value {
            Some(it) if it.median > 0.0 => format!("{:.2}", it.median),
            _ => String::new(),
        };
        let p50 = milliseconds(series.spread(|it| 1e3 * it.p50.as_secs_f64()));
        let p99 = milliseconds(series.spread(|it| 1e3 * it.p99.as_secs_f64()));
        let cpu = series.spread(|it| it.cpu_us());
        let cpu = cpu.map_or_else(String::new, |it| format!("{:.0}", it.median));
        let rate = rate.map_or_else(
            || "all rounds dropped".to_owned(),
            |it| format!("{:.0} ({:.0} to {:.0})", it.median, it.least, it.greatest),
        );
        let (name, connections) = (series.name, series.connections);
        writeln!(
            text,
            "| {name} | {connections} | {rate} | {p50} | {p99} | {cpu} |"
        )?;
    }
    let all = rounds.0.iter().flat_map(|it| &it.rounds);
    let foreign = all.clone().map(|it| it.foreign_cores);
    let stolen = Spread::of(all.map(|it| it.stolen_cores));
    let foreign = Spread::of(foreign);
    writeln!(
        text,
        "\nOther programs used {} core (median {}), the host withheld {}; {} of {} measurements \
         were dropped, in which others used {FOREIGN_CORES_MAX} core or more.",
        foreign.map_or_else(String::new, |it| format!(
            "{:.2} to {:.2}",
            it.least, it.greatest
        )),
        foreign.map_or_else(String::new, |it| format!("{:.2}", it.median)),
        stolen.map_or_else(String::new, |it| format!(
            "{:.2} to {:.2}",
            it.least, it.greatest
        )),
        rounds.dropped(),
        rounds.measured()
    )?;
    Ok(text)
}

fn ratio(spread: Spread) -> String {
    format!(
        "{:.2} ({:.2} to {:.2})",
        spread.median, spread.least, spread.greatest
    )
}

/// Processor, cores, kernel and libraries, and the commit that was measured.
fn machine() -> anyhow::Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let cpu = cpu.lines().find_map(|it| it.strip_prefix("model name\t: "));
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .nth(1);
    let memory = memory
        .unwrap_or_default()
        .parse::<u64>()
        .unwrap_or_default()
        >> 20;
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or_else(
            |_| String::new(),
            |it| String::from_utf8_lossy(&it.stdout).trim().to_owned(),
        )
    };
    let here = env!("CARGO_MANIFEST_DIR");
    Ok(format!(
        "{}, {} cores, {memory} GiB, Linux {}, {}, SoftHSM {}, commit {}, {}",
        cpu.unwrap_or("unknown processor"),
        std::thread::available_parallelism()?,
        said("uname", &["-r"]),
        said("openssl", &["version"]),
        said("softhsm2-util", &["--version"]),
        said("git", &["-C", here, "rev-parse", "--short", "HEAD"]),
        said("date", &["--utc", "+%F"]),
    ))
}

/// A row for each ratio that has a goal: its name, a bar (longer is better), and its value.
fn drawing(parts: &[Part]) -> String {
    const ROW: usize = 26;
    const BARS: usize = 500;
    const GOAL: f64 = 200.0;
    const LONGEST: f64 = 280.0;
    const VALUES: usize = 796;
    let goals: Vec<_> = parts
        .iter()
        .flat_map(|it| &it.goals)
        .filter(|it| it.value.is_some())
        .collect();
    let height = ROW * (goals.len() + 2);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"920\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"920\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"18\" fill=\"#555\">a longer bar is better; the line is the goal</text>\
         <text x=\"{VALUES}\" y=\"18\" fill=\"#555\">measured, goal</text>\n"
    );
    for (number, goal) in goals.iter().enumerate() {
        let Some(value) = goal.value else { continue };
        let (share, reached) = match goal.goal {
            Bound::AtLeast(least) => (value.median / least, value.median >= least),
            Bound::AtMost(most) => (most / value.median, value.median <= most),
        };
        let width = (GOAL * share).clamp(1.0, LONGEST);
        let colour = if reached { "#2a7f4f" } else { "#b5552b" };
        let top = ROW * (number + 1);
        let text = top + 17;
        let measure = goal.measure.replace('&', "&amp;").replace('<', "&lt;");
        svg += &format!(
            "<text x=\"12\" y=\"{text}\">{measure}</text>\
             <rect x=\"{BARS}\" y=\"{}\" width=\"{width:.0}\" height=\"18\" fill=\"{colour}\"/>\
             <text x=\"{VALUES}\" y=\"{text}\">{:.2}, {}</text>\n",
            top + 4,
            value.median,
            goal.bound().replace('<', "&lt;"),
        );
    }
    let end = height - 10;
    let goal = BARS as f64 + GOAL;
    svg += &format!(
        "<line x1=\"{goal}\" y1=\"24\" x2=\"{goal}\" y2=\"{end}\" stroke=\"#222\"/>\n</svg>\n"
    );
    svg
}
