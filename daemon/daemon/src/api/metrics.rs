//! Serves `/metrics` in the text format of Prometheus: what [`measured`] has counted, and the state
//! at this moment.

mod families;
mod scrape;

use super::asks::Asks;
use super::problem::Problem;
use crate::ca::authorize::Inspect;
use crate::ca::{CertificateAuthority, Error};
use crate::measured;
use prometheus::TextEncoder;
use scrape::Scrape;

/// For auditors and operators, and on the admin socket: it names tokens and authorities. It reads
/// counts that the store keeps, and takes no permit that a station needs.
pub(super) async fn show(Asks { api, .. }: Asks<Inspect>) -> Result<String, Problem> {
    api.monitored().application(render).await
}

fn render(ca: &CertificateAuthority) -> Result<String, Error> {
    let mut families = Scrape::of(ca)?.into_families();
    families.extend(measured::gather());
    let text = TextEncoder::new().encode_to_string(&families);
    text.map_err(|error| Error::stop(crate::ca::Code::Internal, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::families;
    use crate::measured::{self, Family};
    use std::collections::BTreeSet;
    use std::path::Path;

    /// A family as a row of the table.
    fn row(family: &Family) -> String {
        let labels: Vec<String> = family.labels.iter().map(|it| format!("`{it}`")).collect();
        let kind = format!("{:?}", family.kind).to_lowercase();
        let (name, help) = (family.name, family.help);
        format!("| `{name}` | {kind} | {} | {help} |", labels.join(", "))
    }

    #[test]
    fn every_metric_is_documented() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
        let page = std::fs::read_to_string(page).expect("docs/operations.md");
        let (_, section) = page.split_once("\n### Metrics\n").expect("the section");
        let section = section.split("\n#").next().unwrap_or_default();
        let lines = section.lines().filter(|line| line.starts_with("| `"));
        let documented: BTreeSet<String> = lines.map(str::to_owned).collect();
        let all = families::FAMILIES.iter().chain(measured::FAMILIES);
        let rows: BTreeSet<String> = all.map(|it| row(it)).collect();
        let missing: Vec<_> = rows.difference(&documented).collect();
        let unknown: Vec<_> = documented.difference(&rows).collect();
        assert!(
            missing.is_empty() && unknown.is_empty(),
            "not in docs/operations.md, Metrics: {missing:#?}; not in the code: {unknown:#?}"
        );
    }

    /// The conventions of Prometheus, as far as `promtool check metrics` does not know them.
    #[test]
    fn names_follow_the_conventions() {
        for family in families::FAMILIES.iter().chain(measured::FAMILIES) {
            let name = family.name;
            assert!(
                name.starts_with("hallmark_") || name == "process_start_time_seconds",
                "{name}"
            );
            let is_counter = family.kind == prometheus::proto::MetricType::COUNTER;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            assert!(family.help.ends_with('.'), "{name}");
            let of_one = ["device", "station", "subject", "serial", "registration_id"];
            let found = family.labels.iter().find(|it| of_one.contains(it));
            assert_eq!(found, None, "{name} has a series for each device");
        }
    }
}
