//! Reads the state of everything as samples.

use super::families as family;
use crate::ca::alarm::AlarmCode;
use crate::ca::remedy::ExplainedAlarm;
use crate::ca::status::Status;
use crate::ca::{CertificateAuthority, Error};
use crate::measured::{self, Family};
use crate::store::{Monitored, RollState};
use crate::unix_seconds::UnixSeconds;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

/// The samples of one scrape, by family.
#[derive(Default)]
pub(super) struct Scrape(BTreeMap<&'static str, MetricFamily>);

impl Scrape {
    /// Reads everything.
    pub(super) fn of(ca: &CertificateAuthority) -> Result<Self, Error> {
        let status = ca.status()?;
        let mut scrape = Self::default();
        scrape.process(&status);
        scrape.issuance(&status);
        scrape.push(&status);
        scrape.monitored(&ca.store().monitored()?);
        scrape.ca_certificates(&status);
        scrape.tokens(&status);
        scrape.lists(ca, &status);
        scrape.authorities(ca);
        scrape.ends(ca, &status);
        scrape.records(ca);
        Ok(scrape)
    }

    pub(super) fn into_families(self) -> Vec<MetricFamily> {
        self.0.into_values().collect()
    }

    /// Adds a sample. A label without a value is left out, which is the same to Prometheus.
    fn add(&mut self, of: &'static Family, labels: &[&str], value: f64) {
        debug_assert_eq!(of.labels.len(), labels.len(), "{}", of.name);
        let mut metric = Metric::default();
        let pairs = of.labels.iter().zip(labels);
        let pairs = pairs.filter(|(_, value)| !value.is_empty());
        metric.set_label(
            pairs
                .map(|(name, value)| {
                    let mut pair = LabelPair::default();
                    pair.set_name((*name).to_owned());
                    pair.set_value((*value).to_owned());
                    pair
                })
                .collect(),
        );
        if of.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        let family = self.0.entry(of.name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(of.name.to_owned());
            family.set_help(of.help.to_owned());
            family.set_field_type(of.kind);
            family
        });
        family.mut_metric().push(metric);
    }

    fn count(&mut self, of: &'static Family, labels: &[&str], value: i64) {
        self.add(of, labels, value as f64);
    }

    fn flag(&mut self, of: &'static Family, labels: &[&str], value: bool) {
        self.add(of, labels, f64::from(u8::from(value)));
    }

    fn time(&mut self, of: &'static Family, labels: &[&str], value: UnixSeconds) {
        self.add(of, labels, value.get() as f64);
    }

    fn process(&mut self, status: &Status) {
        self.add(&family::BUILD, &[status.version], 1.0);
        let started = measured::started().duration_since(UNIX_EPOCH);
        self.add(
            &family::STARTED,
            &[],
            started.unwrap_or_default().as_secs_f64(),
        );
        self.flag(&family::READY, &[], status.ready);
        // A code without an alarm is 0, so that a rule finds each series before its first alarm.
        for code in AlarmCode::ALL {
            let of_code = |it: &&ExplainedAlarm| it.alarm.code == *code;
            let count = status.alarm_details.iter().filter(of_code).count();
            let labels = [code.name(), &code.severity().to_string()];
            self.add(&family::ALARMS, &labels, count as f64);
        }
    }

    fn issuance(&mut self, status: &Status) {
        self.count(&family::ISSUED, &[], status.certificates);
        self.count(&family::ABANDONED, &[], status.abandoned);
        self.count(&family::UNDER_WAY, &[], status.under_way);
        self.flag(&family::WRITABLE, &[], status.store.writable);
        let failures = status.store.failures as f64;
        self.add(&family::WRITE_FAILURES, &[], failures);
        self.count(&family::BLOCKS, &[], status.blocked);
    }

    fn push(&mut self, status: &Status) {
        self.count(&family::WAITING, &[], status.push.waiting);
        self.count(&family::PARKED, &[], status.push.parked);
        self.count(&family::OLDEST, &[], status.push.age_seconds);
    }

    fn monitored(&mut self, counts: &Monitored) {
        for state in RollState::ALL {
            if matches!(state, RollState::Done | RollState::Aborted) {
                continue;
            }
            let rolls = counts.rolls.iter().find(|it| it.0 == state.name());
            let rolls = rolls.map_or(0, |it| it.1);
            self.count(&family::ROLLS, &[state.name()], rolls);
        }
        self.count(
            &family::DRIFTED,
            &["enrollment"],
            counts.drifted_enrollments,
        );
        let drifted = counts.drifted_ca_certificates;
        self.count(&family::DRIFTED, &["ca_certificate"], drifted);
        self.count(&family::AUDIT_ENTRIES, &[], counts.audit_entries);
    }

    fn ca_certificates(&mut self, status: &Status) {
        for it in &status.ca_certificates {
            let generation = it.generation.map_or_else(String::new, |it| it.to_string());
            let labels = [&*it.provisioning, &it.name, &it.authority, &generation];
            self.flag(&family::VERIFIED, &labels, it.verified);
            if let Some(observed) = it.observed_seconds {
                self.time(&family::OBSERVED, &labels, observed);
            }
        }
    }

    fn tokens(&mut self, status: &Status) {
        for (name, token) in &status.tokens {
            self.flag(&family::TOKEN_READY, &[name], token.state == "ready");
            self.add(&family::RESTARTS, &[name], token.restarts as f64);
            self.add(&family::REFUSALS, &[name], token.refusals.count as f64);
            for (level, count) in token.recoveries() {
                self.add(&family::RECOVERIES, &[name, level], count as f64);
            }
            for key in &token.keys {
                let labels = [name, &*key.label];
                self.flag(&family::KEY_USABLE, &labels, key.unusable.is_none());
                self.add(&family::KEY_PROOFS, &labels, key.proofs as f64);
                self.add(&family::KEY_CREDENTIALS, &labels, key.credentials as f64);
            }
        }
    }

    /// The lists of generations that go on signing them: the others end for good.
    fn lists(&mut self, ca: &CertificateAuthority, status: &Status) {
        for list in &status.crls {
            if !ca.crls().signs_lists(&list.authority, list.generation) {
                continue;
            }
            let generation = list.generation.to_string();
            let partition = list.partition.as_deref().unwrap_or_default();
            let kind = if list.delta { "delta" } else { "" };
            let labels = [&*list.authority, &generation, partition, kind];
            self.time(&family::CRL_NEXT_UPDATE, &labels, list.next_update_seconds);
            self.time(&family::CRL_THIS_UPDATE, &labels, list.this_update_seconds);
            // A number of more than 53 bits loses its last digits here.
            let number = list.number.to_string().parse().unwrap_or(f64::NAN);
            self.add(&family::CRL_NUMBER, &labels, number);
            self.count(&family::CRL_ENTRIES, &labels, list.entries);
            self.flag(&family::CRL_UP_TO_DATE, &labels, list.up_to_date);
        }
    }

    fn authorities(&mut self, ca: &CertificateAuthority) {
        for generation in ca.hierarchy().iter().filter(|it| it.serving) {
            let name = &*generation.authority;
            self.flag(&family::CAN_SIGN, &[name], ca.can_sign_for(name));
            let not_after = generation.certificate.not_after();
            self.time(&family::NOT_AFTER, &[name], not_after);
            let window_end = ca.rollovers().window_end(generation);
            self.time(&family::SIGNS_UNTIL, &[name], window_end);
        }
    }

    fn ends(&mut self, ca: &CertificateAuthority, status: &Status) {
        self.flag(&family::HTTPS_SERVES, &[], ca.https_serves());
        if let Some(not_after) = ca.https_not_after() {
            self.time(&family::HTTPS_NOT_AFTER, &[], not_after);
        }
        for responder in &status.ocsp {
            let labels = [&*responder.authority, &responder.generation.to_string()];
            if let Some(not_after) = responder.not_after_seconds {
                self.time(&family::RESPONDER_NOT_AFTER, &labels, not_after);
            }
        }
        for it in status.expiry.iter() {
            let role = it.role.to_string();
            for (window, count) in it.counts() {
                let labels = [&*role, &it.profile, window];
                self.count(&family::EXPIRING, &labels, count);
            }
            if let Some(next) = it.next_seconds {
                self.time(&family::NEXT_EXPIRY, &[&role, &it.profile], next);
            }
        }
    }

    fn records(&mut self, ca: &CertificateAuthority) {
        if let Some(made) = ca.backups().newest() {
            self.time(&family::BACKUP, &[], made);
        }
    }
}
