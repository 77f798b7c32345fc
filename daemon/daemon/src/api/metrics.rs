//! Serves `/metrics`: the state in the format of Prometheus, computed at every scrape.

use super::asks::Asks;
use super::problem::Problem;
use crate::ca::CertificateAuthority;
use crate::ca::authorize::Inspect;
use crate::ca::status::Status;
use metrics::{counter, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

/// For auditors and operators, and on the admin socket: it names tokens and authorities. It reads
/// counts that the store keeps, and takes no permit that a station needs.
pub(super) async fn show(Asks { api, .. }: Asks<Inspect>) -> Result<String, Problem> {
    let api = api.monitored();
    api.application(|ca| Ok(render(ca, &ca.status()?))).await
}

fn render(ca: &CertificateAuthority, status: &Status) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        record_issuance(status);
        record_store(status);
        record_push(status);
        record_ca_certificates(status);
        record_tokens(status);
        record_crls(status);
        record_https(ca);
        record_expiry(status);
        for generation in ca
            .hierarchy()
            .iter()
            .filter(|generation| generation.serving)
        {
            let authority = generation.authority.clone();
            gauge!("hallmark_authority_can_sign", "authority" => authority.clone())
                .set(f64::from(u8::from(ca.can_sign_for(&authority))));
            gauge!("hallmark_authority_not_after_seconds", "authority" => authority.clone())
                .set(generation.certificate.not_after().get() as f64);
            gauge!("hallmark_authority_signs_until_seconds", "authority" => authority)
                .set(ca.rollovers().window_end(generation).get() as f64);
        }
    });
    handle.render()
}

fn record_issuance(status: &Status) {
    counter!("hallmark_certificates_issued_total").absolute(unsigned(status.certificates));
    counter!("hallmark_intents_abandoned_total").absolute(unsigned(status.abandoned));
    gauge!("hallmark_intents_under_way").set(status.under_way as f64);
    gauge!("hallmark_ready").set(f64::from(u8::from(status.ready)));
    gauge!("hallmark_alarms").set(status.alarms.len() as f64);
}

fn record_store(status: &Status) {
    gauge!("hallmark_store_writable").set(f64::from(u8::from(status.store.writable)));
    counter!("hallmark_store_write_failures_total").absolute(status.store.failures);
}

fn record_https(ca: &CertificateAuthority) {
    gauge!("hallmark_https_serves").set(f64::from(u8::from(ca.https_serves())));
    if let Some(not_after) = ca.https_not_after() {
        gauge!("hallmark_https_certificate_not_after_seconds").set(not_after.get() as f64);
    }
}

fn record_push(status: &Status) {
    gauge!("hallmark_push_waiting").set(status.push.waiting as f64);
    gauge!("hallmark_push_parked").set(status.push.parked as f64);
    gauge!("hallmark_push_age_seconds").set(status.push.age_seconds as f64);
}

fn record_ca_certificates(status: &Status) {
    for it in &status.ca_certificates {
        let labels = [
            ("provisioning", it.provisioning.clone()),
            ("name", it.name.clone()),
            ("authority", it.authority.clone()),
            (
                "generation",
                it.generation.map_or_else(String::new, |it| it.to_string()),
            ),
        ];
        gauge!("hallmark_ca_certificate_verified", &labels).set(f64::from(u8::from(it.verified)));
        if let Some(observed) = it.observed_seconds {
            gauge!("hallmark_ca_certificate_observed_seconds", &labels).set(observed.get() as f64);
        }
    }
}

fn record_tokens(status: &Status) {
    for (name, token) in &status.tokens {
        let ready = f64::from(u8::from(token.state == "ready"));
        gauge!("hallmark_token_ready", "token" => name.clone()).set(ready);
        counter!("hallmark_token_worker_restarts_total", "token" => name.clone())
            .absolute(token.restarts);
        for (level, count) in token.recoveries() {
            counter!("hallmark_token_recoveries_total", "token" => name.clone(), "level" => level)
                .absolute(count);
        }
        for key in &token.keys {
            let labels = [("token", name.clone()), ("key", key.label.clone())];
            gauge!("hallmark_token_key_usable", &labels)
                .set(f64::from(u8::from(key.unusable.is_none())));
            counter!("hallmark_token_key_proofs_total", &labels).absolute(key.proofs);
            counter!("hallmark_token_key_credentials_total", &labels).absolute(key.credentials);
        }
    }
}

fn record_crls(status: &Status) {
    for list in &status.crls {
        let mut labels = vec![
            ("authority", list.authority.clone()),
            ("generation", list.generation.to_string()),
        ];
        // Without partitions and delta lists the series stay as they are.
        if let Some(partition) = &list.partition {
            labels.push(("partition", partition.clone()));
        }
        if list.delta {
            labels.push(("kind", "delta".to_owned()));
        }
        gauge!("hallmark_crl_next_update_seconds", &labels)
            .set(list.next_update_seconds.get() as f64);
        gauge!("hallmark_crl_entries", &labels).set(list.entries as f64);
        gauge!("hallmark_crl_up_to_date", &labels).set(f64::from(u8::from(list.up_to_date)));
    }
}

fn record_expiry(status: &Status) {
    for it in status.expiry.iter() {
        let labels = [
            ("role", it.role.to_string()),
            ("profile", it.profile.clone()),
        ];
        for (window, count) in it.counts() {
            let [role, profile] = labels.clone();
            let labels = [role, profile, ("within", window.to_owned())];
            gauge!("hallmark_certificates_expiring", &labels).set(count as f64);
        }
        if let Some(next) = it.next_seconds {
            gauge!("hallmark_certificates_next_expiry_seconds", &labels).set(next.get() as f64);
        }
    }
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
