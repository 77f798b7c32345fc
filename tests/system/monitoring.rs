//! Tests what `docs/monitoring` ships for Prometheus: promtool checks rules, their tests and a
//! scrape, and a Prometheus on loopback raises alerts for faults of the real daemon.

use crate::ocsp;
use crate::process::{CommandOutput, Process, until};
use crate::provisioned::individually;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use dps_emulator::{Action, Aim, Fault};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn shipped(name: &str) -> PathBuf {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    docs.join(name).canonicalize().unwrap()
}

fn text(name: &str) -> String {
    fs::read_to_string(shipped(name)).unwrap()
}

fn promtool(arguments: &[&str]) -> CommandOutput {
    let mut command = Command::new("promtool");
    command.current_dir(shipped("monitoring"));
    CommandOutput::of(command.args(arguments))
}

/// The values of `key` in a file of YAML.
fn values(yaml: &str, key: &str) -> BTreeSet<String> {
    let lines = yaml
        .lines()
        .map(|line| line.trim().trim_start_matches("- "));
    let values = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    values.map(str::to_owned).collect()
}

/// The metrics that a text names, without what Prometheus adds to a histogram's name.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let words = text.split(|it| !is_name(it));
    let names = words.filter(|it| it.starts_with("hallmark_") || it.starts_with("process_"));
    let names = names.map(|name| {
        let suffixes = ["_bucket", "_sum", "_count"];
        let bare = suffixes.iter().find_map(|it| name.strip_suffix(it));
        bare.unwrap_or(name).to_owned()
    });
    names.collect()
}

/// Verifies: promtool accepts the rules; each has a test of its own that passes, and a remedy that
/// is a section of docs/operations.md.
#[test]
fn every_rule_has_a_test_and_a_remedy() {
    for arguments in [
        ["check", "rules", "hallmark.rules.yml"],
        ["test", "rules", "hallmark.rules.test.yml"],
    ] {
        let output = promtool(&arguments);
        assert_eq!(output.code, Some(0), "{output:?}");
    }
    let rules = text("monitoring/hallmark.rules.yml");
    let alerts = values(&rules, "alert");
    assert!(alerts.len() > 20, "{alerts:?}");
    let tested = values(&text("monitoring/hallmark.rules.test.yml"), "alertname");
    assert_eq!(alerts, tested);

    let page = text("operations.md");
    let headings = page.lines().filter(|line| line.starts_with("##"));
    let anchors = headings.map(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.replace(' ', "-");
        kept.replace(|it: char| !it.is_alphanumeric() && it != '-', "")
    });
    let anchors: BTreeSet<String> = anchors.collect();
    let remedies = values(&rules, "remedy");
    let unknown: Vec<_> = remedies.difference(&anchors).collect();
    assert!(
        unknown.is_empty(),
        "no section of docs/operations.md: {unknown:?}"
    );
}

/// An environment in which every metric has a sample: a device, its enrollment, an OCSP answer, a
/// verified journal, a backup.
fn used() -> TestEnv {
    let env = TestEnv::new();
    env.configure(&(env.configuration() + ocsp::TABLE));
    let env = env.started();
    env.run(&["enrollment", "add", "--individual", "press-1"]);
    let device = env.enlist("device", "press-1");
    ocsp::wait_for_responders(&env, 2);
    env.write("line-1.pem", &env.authority("line-1"));
    ocsp::Client::of(&env).status(&device.serial);
    env.run(&["audit", "verify"]);
    env.run(&["backup", "create"]);
    env.wait_in_sync();
    env
}

/// Verifies: `promtool check metrics` has no complaint about a scrape, and the scrape has every
/// metric of docs/operations.md, and so every one of the rules and of the dashboard.
#[test]
fn a_scrape_has_what_rules_and_dashboard_name() {
    let env = used();
    let scrape = env.metrics();
    let file = env.write("metrics", &scrape);
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]);
    check.stdin(Stdio::from(fs::File::open(file).unwrap()));
    let checked = CommandOutput::of(&mut check);
    let silent = (checked.out.as_str(), checked.error.as_str());
    assert_eq!((checked.code, silent), (Some(0), ("", "")));

    let samples = scrape.lines().filter(|line| !line.starts_with('#'));
    let has = metrics_in(&samples.collect::<Vec<_>>().join("\n"));
    let page = text("operations.md");
    let (_, table) = page.split_once("\n### Metrics\n").unwrap();
    let table = table.split("\n#").next().unwrap();
    // A token has failed, or a certificate ends within thirty days: not here.
    let rare = [
        "hallmark_token_operation_failures_total",
        "hallmark_certificates_next_expiry_timestamp_seconds",
    ];
    let rare = BTreeSet::from(rare.map(str::to_owned));
    for (place, named) in [
        ("operations.md", metrics_in(table)),
        ("rules", metrics_in(&text("monitoring/hallmark.rules.yml"))),
        (
            "dashboard",
            metrics_in(&text("monitoring/grafana-dashboard.json")),
        ),
    ] {
        assert!(named.len() > 20, "{place} names {named:?}");
        let missing: Vec<_> = named
            .difference(&has)
            .filter(|it| !rare.contains(*it))
            .collect();
        assert!(missing.is_empty(), "{place} names {missing:?}: {scrape}");
    }
}

/// A Prometheus that scrapes the daemon each second, as an auditor.
struct Prometheus {
    _process: Process,
    base: String,
}

impl Prometheus {
    fn over(env: &TestEnv, auditor: &Holder) -> Self {
        let https = env.https();
        env.write("ca.pem", &env.authority("root"));
        let presented = auditor.certificate.clone() + &auditor.chain.concat();
        env.write("auditor-1.pem", &presented);
        env.write_secret("auditor-1.key", &auditor.key);
        let rules = shipped("monitoring/hallmark.rules.yml");
        let file = env.write(
            "prometheus.yml",
            &format!(
                "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
                 rule_files: [{rules:?}]\n\
                 scrape_configs:\n\
                 \x20 - job_name: hallmark\n\
                 \x20   scheme: https\n\
                 \x20   tls_config: {{ ca_file: ca.pem, cert_file: auditor-1.pem, key_file: \
                 auditor-1.key, server_name: localhost }}\n\
                 \x20   static_configs: [{{ targets: [{:?}] }}]\n",
                https.trim_start_matches("https://")
            ),
        );
        // Released at once: Prometheus does not say which port it has got.
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!(
            "--storage.tsdb.path={}",
            env.path("tsdb").display()
        ));
        command.arg(format!("--web.listen-address={free}"));
        let process = Process::start(&mut command, env.path("prometheus.log"));
        let prometheus = Self {
            _process: process,
            base: format!("http://{free}"),
        };
        until("the daemon is scraped", || {
            let up = prometheus.query("up{job=\"hallmark\"}");
            (up[0]["value"][1] == "1").then_some(())
        });
        prometheus
    }

    fn ask(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.base), query);
        let Ok(answer) = reqwest::blocking::get(url.unwrap()) else {
            return Value::Null;
        };
        let text = answer.text().unwrap();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// The series of an expression at this moment.
    fn query(&self, expression: &str) -> Value {
        let answer = self.ask("/api/v1/query", &[("query", expression)]);
        answer["data"]["result"].clone()
    }

    /// The alerts whose expression is true, whether or not for long enough.
    fn alerts(&self) -> BTreeSet<String> {
        let answer = self.ask("/api/v1/alerts", &[]);
        let alerts = answer["data"]["alerts"].as_array();
        let names = alerts.into_iter().flatten();
        let names = names.map(|it| it["labels"]["alertname"].as_str().unwrap().to_owned());
        names.collect()
    }

    fn raises(&self, names: &[&str]) {
        until(&format!("the alerts {names:?}"), || {
            let alerts = self.alerts();
            names.iter().all(|it| alerts.contains(*it)).then_some(())
        });
    }

    fn ends(&self, names: &[&str]) {
        until(&format!("no alert {names:?}"), || {
            let alerts = self.alerts();
            (!names.iter().any(|it| alerts.contains(*it))).then_some(())
        });
    }
}

/// Verifies: a Prometheus with the configuration of docs/operations.md and the shipped rules
/// evaluates each rule, raises the alerts of a token that is away and of a service that fails, and
/// ends those of the token when it is back. Each expression of the dashboard is accepted.
#[test]
fn faults_raise_their_alerts() {
    let (env, _) = individually(&["press-1"]);
    let station = env.station_called("station-2");
    let auditor = env.enlist("auditor", "auditor-1");
    let prometheus = Prometheus::over(&env, &auditor);
    let of_token = [
        "HallmarkTokenUnavailable",
        "HallmarkNotReady",
        "HallmarkAuthorityCannotSign",
    ];
    assert!(
        prometheus
            .alerts()
            .iter()
            .all(|it| !of_token.contains(&it.as_str()))
    );

    fs::rename(env.path("tokens"), env.path("tokens.away")).unwrap();
    assert_eq!(station.ask(&Request::device("press-2")).status, 503);
    prometheus.raises(&of_token);
    fs::rename(env.path("tokens.away"), env.path("tokens")).unwrap();
    prometheus.ends(&of_token);

    let plane = Aim {
        operation: Some("individual.put".into()),
        ..Aim::default()
    };
    let fault = Fault {
        aim: plane,
        skip: 0,
        times: 1_000,
        action: Action::status(503),
    };
    env.emulator.inject(fault).unwrap();
    station.obtain(&Request::device("press-1"));
    prometheus.raises(&["HallmarkCloudFails"]);
    env.emulator.clear_faults();
    env.run(&["push", "retry"]);
    env.wait_in_sync();

    let rules = prometheus.ask("/api/v1/rules", &[]);
    let groups = rules["data"]["groups"].as_array().unwrap();
    for rule in groups.iter().flat_map(|it| it["rules"].as_array().unwrap()) {
        assert_eq!(rule["health"], "ok", "{rule:#}");
    }
    let dashboard = text("monitoring/grafana-dashboard.json");
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|it| it["targets"].as_array().into_iter().flatten());
    let mut count = 0;
    for target in targets {
        let expression = target["expr"].as_str().unwrap();
        let expression = expression
            .replace("$__rate_interval", "1m")
            .replace("$instance", ".*");
        let answer = prometheus.ask("/api/v1/query", &[("query", &expression)]);
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        count += 1;
    }
    assert!(count > 30, "{count} expressions");
}
