//! Counts and times the work of this process, for `/metrics`.
//!
//! An observation is a few atomic operations, and takes no lock that a request could wait for. No
//! label has the name of a device, a station or a certificate: the values of a label are those of
//! the code and of the configuration. `api::metrics` adds the state that it reads at each scrape.

use prometheus::core::Collector;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts};
use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

/// A family of metrics, as a scrape and docs/operations.md show it.
#[derive(Debug)]
pub struct Family {
    /// Its name: with the unit, and `_total` for a counter.
    pub name: &'static str,
    pub kind: MetricType,
    pub labels: &'static [&'static str],
    /// Its meaning, in one sentence.
    pub help: &'static str,
}

impl Family {
    fn histograms(&self, buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(self.name, self.help).buckets(buckets.to_vec());
        HistogramVec::new(options, self.labels).expect("the name and the labels are valid")
    }

    fn gauges(&self) -> GaugeVec {
        let options = Opts::new(self.name, self.help);
        GaugeVec::new(options, self.labels).expect("the name and the labels are valid")
    }

    fn counters(&self) -> IntCounterVec {
        let options = Opts::new(self.name, self.help);
        IntCounterVec::new(options, self.labels).expect("the name and the labels are valid")
    }
}

/// Declares families as constants, and a list of all of them.
macro_rules! families {
    ($($id:ident: $kind:ident $name:literal $labels:tt $help:literal;)*) => {
        $(pub(crate) const $id: $crate::measured::Family = $crate::measured::Family {
            name: $name,
            kind: prometheus::proto::MetricType::$kind,
            labels: &$labels,
            help: $help,
        };)*

        /// Every family of this module.
        #[cfg(test)]
        pub(crate) const FAMILIES: &[&$crate::measured::Family] = &[$(&$id),*];
    };
}
pub(crate) use families;

families! {
    ISSUANCE: HISTOGRAM "hallmark_issuance_seconds" ["outcome"]
        "Time of a request for a leaf in the issuance cycle: issued, refused or failed.";
    STAGES: HISTOGRAM "hallmark_issuance_stage_seconds" ["stage"]
        "Time of one stage of the issuance cycle.";
    COMMITS: HISTOGRAM "hallmark_store_commit_seconds" []
        "Time to run and commit one group of writes.";
    COMMIT_OPERATIONS: HISTOGRAM "hallmark_store_commit_operations" []
        "Operations in one group of writes.";
    TOKEN_OPERATIONS: HISTOGRAM "hallmark_token_operation_seconds" ["token", "operation"]
        "Time from a request to the worker of a token to the answer, good or bad.";
    TOKEN_FAILURES: COUNTER "hallmark_token_operation_failures_total"
        ["token", "operation", "reason"]
        "Operations of a token that failed: unavailable, deadline, parked, key or refused.";
    CLOUD_CALLS: HISTOGRAM "hallmark_cloud_call_seconds" ["plane", "code"]
        "Time of a call to the cloud by HTTP status; code is none where no answer came.";
    OCSP_ANSWERS: COUNTER "hallmark_ocsp_answers_total" ["status"]
        "OCSP answers by status; an answer without a signature has the error of RFC 6960.";
    AUDIT_INTACT: GAUGE "hallmark_audit_intact" []
        "1 if the last verification found the audit journal whole; absent before the first one.";
    AUDIT_VERIFIED: GAUGE "hallmark_audit_verified_timestamp_seconds" []
        "When the audit journal was last verified; absent before the first time since the start.";
}

/// Upper bounds for what the machine does: a tenth of a millisecond is a fast commit, ten seconds
/// are the deadline of a signature.
const LOCAL_SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Upper bounds for calls, each of which ends within thirty seconds.
const CALL_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Upper bounds for a group of writes, which has 256 operations at most.
const GROUP_SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The stages of the issuance cycle, with the step numbers of docs/issuance-cycle.md.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// 1 and 2: from the identified caller to the begin of the cycle, with body and permit.
    Queue,
    /// 3 to 5: CSR, profile, name and signer.
    Request,
    /// 6: the token is ready, the bytes are built and linted.
    Build,
    /// 7.
    Intent,
    /// 8.
    Signature,
    /// 9.
    Verification,
    /// 10.
    Record,
    /// From the certificate on record to the answer.
    Answer,
}

impl Stage {
    /// In the order of the variants.
    const NAMES: [&'static str; 8] = [
        "queue",
        "request",
        "build",
        "intent",
        "signature",
        "verification",
        "record",
        "answer",
    ];
}

/// How a request for a leaf ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    Issued,
    /// The caller must change something.
    Refused,
    Failed,
}

impl Outcome {
    /// In the order of the variants.
    const NAMES: [&'static str; 3] = ["issued", "refused", "failed"];
}

/// The histograms of a family with one label of fixed values, found by number.
struct Numbered<const N: usize> {
    family: HistogramVec,
    each: [Histogram; N],
}

impl<const N: usize> Numbered<N> {
    fn new(family: &Family, values: [&'static str; N]) -> Self {
        let family = family.histograms(LOCAL_SECONDS);
        let each = values.map(|it| family.with_label_values(&[it]));
        Self { family, each }
    }
}

struct Instruments {
    issuance: Numbered<3>,
    stages: Numbered<8>,
    commits: HistogramVec,
    commit: Histogram,
    group_sizes: HistogramVec,
    group_size: Histogram,
    token_operations: HistogramVec,
    token_failures: IntCounterVec,
    cloud_calls: HistogramVec,
    ocsp_answers: IntCounterVec,
    audit_intact: GaugeVec,
    audit_verified: GaugeVec,
    started: SystemTime,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let commits = COMMITS.histograms(LOCAL_SECONDS);
    let group_sizes = COMMIT_OPERATIONS.histograms(GROUP_SIZES);
    Instruments {
        issuance: Numbered::new(&ISSUANCE, Outcome::NAMES),
        stages: Numbered::new(&STAGES, Stage::NAMES),
        commit: commits.with_label_values::<&str>(&[]),
        commits,
        group_size: group_sizes.with_label_values::<&str>(&[]),
        group_sizes,
        token_operations: TOKEN_OPERATIONS.histograms(LOCAL_SECONDS),
        token_failures: TOKEN_FAILURES.counters(),
        cloud_calls: CLOUD_CALLS.histograms(CALL_SECONDS),
        ocsp_answers: OCSP_ANSWERS.counters(),
        audit_intact: AUDIT_INTACT.gauges(),
        audit_verified: AUDIT_VERIFIED.gauges(),
        started: SystemTime::now(),
    }
});

/// Returns when the first observation was made, which is when the process began its work.
pub fn started() -> SystemTime {
    INSTRUMENTS.started
}

/// Returns all families of this module that have a sample.
pub fn gather() -> Vec<MetricFamily> {
    let it = &*INSTRUMENTS;
    let collectors: [&dyn Collector; 10] = [
        &it.issuance.family,
        &it.stages.family,
        &it.commits,
        &it.group_sizes,
        &it.token_operations,
        &it.token_failures,
        &it.cloud_calls,
        &it.ocsp_answers,
        &it.audit_intact,
        &it.audit_verified,
    ];
    let families = collectors.into_iter().flat_map(Collector::collect);
    families.filter(|it| !it.get_metric().is_empty()).collect()
}

/// Times consecutive stages of the issuance cycle: the end of one is the begin of the next.
#[derive(Debug)]
pub struct StageClock(Instant);

impl StageClock {
    /// Begins the first stage.
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Ends a stage.
    pub fn ends(&mut self, stage: Stage) {
        let now = Instant::now();
        INSTRUMENTS.stages.each[stage as usize].observe((now - self.0).as_secs_f64());
        self.0 = now;
    }
}

/// Ends the stage [`Stage::Queue`] of a request that was identified at `since`. Returns the end.
pub fn leaves_queue(since: Instant) -> Instant {
    let mut clock = StageClock(since);
    clock.ends(Stage::Queue);
    clock.0
}

/// Observes a request for a leaf that was in the issuance cycle since `begun`.
pub fn issuance(begun: Instant, outcome: Outcome) {
    INSTRUMENTS.issuance.each[outcome as usize].observe(begun.elapsed().as_secs_f64());
}

/// Observes a group of writes that was run and committed since `begun`.
pub fn commit(begun: Instant, operations: usize) {
    INSTRUMENTS.commit.observe(begun.elapsed().as_secs_f64());
    INSTRUMENTS.group_size.observe(operations as f64);
}

/// Observes an operation of a token. `failure` is the reason, if it failed.
pub fn token_operation(
    token: &str,
    operation: &str,
    begun: Instant,
    failure: Option<&'static str>,
) {
    let seconds = begun.elapsed().as_secs_f64();
    let timed = &INSTRUMENTS.token_operations;
    timed
        .with_label_values(&[token, operation])
        .observe(seconds);
    if let Some(reason) = failure {
        let failed = &INSTRUMENTS.token_failures;
        failed.with_label_values(&[token, operation, reason]).inc();
    }
}

/// Observes a call to a plane of the cloud. `status` is that of the answer, if there was one.
pub fn cloud_call(plane: &str, begun: Instant, status: Option<u16>) {
    let code = status.map_or_else(|| "none".to_owned(), |it| it.to_string());
    let timed = &INSTRUMENTS.cloud_calls;
    let timed = timed.with_label_values(&[plane, &code]);
    timed.observe(begun.elapsed().as_secs_f64());
}

/// Counts an OCSP answer.
pub fn ocsp_answer(status: &str) {
    INSTRUMENTS.ocsp_answers.with_label_values(&[status]).inc();
}

/// Records a verification of the audit journal at this time, in Unix seconds.
pub fn audit_verified(at: i64, intact: bool) {
    let none: &[&str] = &[];
    let verdict = INSTRUMENTS.audit_intact.with_label_values(none);
    verdict.set(f64::from(u8::from(intact)));
    let verified = INSTRUMENTS.audit_verified.with_label_values(none);
    verified.set(at as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_counted_under_its_name() {
        let mut clock = StageClock::begin();
        clock.ends(Stage::Answer);
        let families = gather();
        let stages = families.iter().find(|it| it.name() == STAGES.name);
        let metrics = stages.expect("there is a sample").get_metric();
        let counted = metrics.iter().filter(|it| {
            it.get_histogram().get_sample_count() > 0 && it.get_label()[0].value() == "answer"
        });
        assert_eq!(counted.count(), 1);
    }

    /// Measures all stages of a certificate, its signature and its two commits together. Run it
    /// in release: `cargo test --release -p hallmark-daemon -- --ignored observations`.
    #[test]
    #[ignore = "measures"]
    fn observations_of_one_certificate_take_less_than_a_microsecond() {
        const TIMES: u32 = 1_000_000;
        let begun = Instant::now();
        for _ in 0..TIMES {
            let since = Instant::now();
            let mut clock = StageClock::begin();
            for stage in [
                Stage::Queue,
                Stage::Request,
                Stage::Build,
                Stage::Intent,
                Stage::Signature,
                Stage::Verification,
                Stage::Record,
                Stage::Answer,
            ] {
                clock.ends(stage);
            }
            issuance(since, Outcome::Issued);
            token_operation("factory", "sign", since, None);
            commit(since, 1);
            commit(since, 1);
        }
        let each = begun.elapsed() / TIMES;
        assert!(each.as_nanos() < 1_000, "{each:?} for one certificate");
    }
}
