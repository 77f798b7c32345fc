//! The measurements that the command line names, each with its goals.

use crate::hallmark::{Keys, Plant, TokenKind};
use crate::load::{Load, Taken};
use crate::peers::Peer;
use crate::raw::RawSigner;
use crate::report::{Bound, Goal, Part, rates, rounds_json};
use crate::rounds::{Contestant, Extent, Rounds, Spread};
use crate::target::Api;
use clap::ValueEnum;
use serde_json::json;
use std::fmt::Write as _;
use std::time::Duration;

const HALLMARK: &str = "Hallmark";
const PROTOTYPE: &str = "prototype";
const BATCHES: &str = "Hallmark batch";
const EST: &str = "Hallmark EST";
const RAW: &str = "C_Sign";
/// Certificates of one batch.
const BATCH: usize = 64;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Name {
    /// Hallmark, C_Sign, the prototype, cfssl and OpenBao, over 64, 8 and 1 connections; memory.
    Headline,
    /// Batches of 64 over 4 connections, beside C_Sign.
    Batch,
    /// EST beside the API.
    Est,
    /// An issuer with RSA 4096, beside C_Sign on two threads.
    Rsa4096,
    /// A software TPM, beside the signatures of the same TPM alone.
    Tpm,
    /// 1,000,000 certificates of 200,000 devices in the database, beside 10,000: half an hour.
    Million,
    /// A revocation list of 100,000 entries, and issuance while it is signed.
    Crl,
}

impl Name {
    pub(crate) fn measure(self, extent: &Extent, is_smoke: bool) -> anyhow::Result<Part> {
        match self {
            Self::Headline => headline(extent),
            Self::Batch => batch(extent),
            Self::Est => est(extent),
            Self::Rsa4096 => rsa4096(extent),
            Self::Tpm => tpm(extent),
            Self::Million => million(extent, if is_smoke { 1_000 } else { 1 }),
            Self::Crl => crate::crl::measure(extent, if is_smoke { 200 } else { 100_000 }),
        }
    }
}

/// Keeps the daemon at work, without a table.
pub(crate) fn soak(time: Duration) -> anyhow::Result<()> {
    let mut plant = Plant::build(Keys::P256)?;
    let mut load = Load::new(plant.target(HALLMARK, Api::Hallmark)?)?;
    let mut rate = load.take(1_000, 64)?.rate;
    let begun = std::time::Instant::now();
    while begun.elapsed() < time {
        let taken = load.measure(rate, Duration::from_secs(5), 64)?;
        rate = taken.rate;
        let each = taken
            .server_cpu
            .iter()
            .map(|it| format!("{:.0}", 1e6 * it.as_secs_f64()));
        let each = each.collect::<Vec<_>>().join(" + ");
        crate::say(&format!(
            "{rate:.0}/s, {each} us of daemon and worker for each"
        ));
    }
    plant.check(load.issued())
}

fn rate(taken: &Taken) -> f64 {
    taken.rate
}

fn cpu(taken: &Taken) -> f64 {
    taken.cpu_us()
}

fn p50(taken: &Taken) -> f64 {
    taken.p50.as_secs_f64()
}

fn p99(taken: &Taken) -> f64 {
    taken.p99.as_secs_f64()
}

fn headline(extent: &Extent) -> anyhow::Result<Part> {
    let mut plant = Plant::build(Keys::P256)?;
    let mut load = Load::new(plant.target(HALLMARK, Api::Hallmark)?)?;
    let peers = Peer::start_all()?;
    let loads = peers.iter().map(|it| Load::new(it.target.clone()));
    let mut loads = loads.collect::<anyhow::Result<Vec<_>>>()?;
    let mut contestants = vec![
        Contestant::Raw(RawSigner::start(&plant, 1)?),
        Contestant::Served(&mut load),
    ];
    contestants.extend(loads.iter_mut().map(Contestant::Served));
    let rounds = Rounds::of(extent, &mut contestants, &[64, 8, 1])?;
    drop(contestants);
    let [resident, proportional] = plant.memory()?;
    plant.check(load.issued())?;
    for (peer, load) in peers.into_iter().zip(&loads) {
        peer.check(load.issued())?;
    }
    let over = |peer, connections, value| rounds.ratio([HALLMARK, peer], connections, value);
    let memory = Spread::of([resident as f64 / 1024.0].into_iter());
    let goals = vec![
        Goal::new(
            "processor time for each certificate at 64 connections ÷ prototype",
            Bound::AtMost(1.15),
            over(PROTOTYPE, 64, cpu),
        ),
        Goal::new(
            "rate at 8 connections ÷ prototype",
            Bound::AtLeast(0.8),
            over(PROTOTYPE, 8, rate),
        ),
        Goal::new(
            "p50 at 1 connection ÷ prototype",
            Bound::AtMost(1.3),
            over(PROTOTYPE, 1, p50),
        ),
        Goal::new(
            "rate at 64 connections ÷ cfssl",
            Bound::AtLeast(1.15),
            over("cfssl", 64, rate),
        ),
        Goal::new(
            "rate at 8 connections ÷ cfssl",
            Bound::AtLeast(0.8),
            over("cfssl", 8, rate),
        ),
        Goal::new(
            "rate at 64 connections ÷ OpenBao",
            Bound::AtLeast(3.8),
            over("OpenBao", 64, rate),
        ),
        Goal::new(
            "rate at 64 connections ÷ C_Sign",
            Bound::AtLeast(0.38),
            over(RAW, 64, rate),
        ),
        Goal::new(
            "p99 at 64 connections ÷ prototype",
            Bound::AtMost(1.5),
            over(PROTOTYPE, 64, p99),
        ),
        Goal::new(
            "MiB resident, daemon and worker, after this load",
            Bound::AtMost(48.0),
            memory,
        ),
    ];
    let title = "Each request is for another device with another key. Hallmark: SoftHSM, mutual \
                 TLS, all promises. C_Sign: one thread at the same key. prototype: SoftHSM, mutual \
                 TLS, one commit, checks its own signature. cfssl: key in a file, stores nothing, \
                 HTTP. OpenBao: key in its storage, raft, HTTP.";
    let mut text = rates(title, &rounds)?;
    writeln!(
        text,
        "\nAfter it daemon and worker occupied {} KiB resident and {} KiB proportional together.",
        resident, proportional
    )?;
    Ok(Part {
        name: "headline",
        text,
        json: json!({
            "series": rounds_json(&rounds),
            "resident_kib": resident,
            "proportional_kib": proportional,
        }),
        goals,
    })
}

fn batch(extent: &Extent) -> anyhow::Result<Part> {
    let mut plant = Plant::build(Keys::P256)?;
    let mut load = Load::new(plant.target(BATCHES, Api::Batch(BATCH))?)?;
    let mut contestants = [
        Contestant::Raw(RawSigner::start(&plant, 1)?),
        Contestant::Served(&mut load),
    ];
    let rounds = Rounds::of(extent, &mut contestants, &[4])?;
    plant.check(load.issued())?;
    let ratio = rounds.ratio([BATCHES, RAW], 4, rate);
    let measure = format!("rate by batches of {BATCH} ÷ C_Sign");
    Ok(Part {
        name: "batch",
        text: rates(
            &format!("Batches of {BATCH} over 4 connections; latencies are those of a batch."),
            &rounds,
        )?,
        json: rounds_json(&rounds),
        goals: vec![Goal::new(measure, Bound::AtLeast(0.46), ratio)],
    })
}

fn est(extent: &Extent) -> anyhow::Result<Part> {
    let mut plant = Plant::build(Keys::P256)?;
    let mut api = Load::new(plant.target(HALLMARK, Api::Hallmark)?)?;
    let mut est = Load::new(plant.target(EST, Api::Est)?)?;
    let mut contestants = [Contestant::Served(&mut api), Contestant::Served(&mut est)];
    let rounds = Rounds::of(extent, &mut contestants, &[64])?;
    plant.check(api.issued() + est.issued())?;
    let ratio = rounds.ratio([EST, HALLMARK], 64, rate);
    Ok(Part {
        name: "est",
        text: rates("EST simpleenroll beside the API, the same daemon.", &rounds)?,
        json: rounds_json(&rounds),
        goals: vec![Goal::new(
            "EST ÷ API at 64 connections",
            Bound::AtLeast(0.9),
            ratio,
        )],
    })
}

fn rsa4096(extent: &Extent) -> anyhow::Result<Part> {
    let mut plant = Plant::build(Keys {
        line: "rsa4096",
        token: TokenKind::SoftHsm,
    })?;
    let mut load = Load::new(plant.target(HALLMARK, Api::Hallmark)?)?;
    let mut contestants = [
        Contestant::Raw(RawSigner::start(&plant, 2)?),
        Contestant::Served(&mut load),
    ];
    let rounds = Rounds::of(extent, &mut contestants, &[16])?;
    plant.check(load.issued())?;
    let ratio = rounds.ratio([HALLMARK, RAW], 16, rate);
    Ok(Part {
        name: "rsa4096",
        text: rates(
            "An issuer with RSA 4096. C_Sign: two threads at the same key.",
            &rounds,
        )?,
        json: rounds_json(&rounds),
        goals: vec![Goal::new(
            "rate of an RSA-4096 issuer at 16 connections ÷ C_Sign on two threads",
            Bound::AtLeast(0.92),
            ratio,
        )],
    })
}

fn tpm(extent: &Extent) -> anyhow::Result<Part> {
    const ALONE: &str = "the token alone";
    let mut plant = Plant::build(Keys {
        line: "p256",
        token: TokenKind::Tpm,
    })?;
    let mut load = Load::new(plant.target(HALLMARK, Api::Hallmark)?)?;
    let mut contestants = [
        Contestant::TokenBench(&plant),
        Contestant::Served(&mut load),
    ];
    let rounds = Rounds::of(extent, &mut contestants, &[16])?;
    plant.check(load.issued())?;
    let ratio = rounds.ratio([HALLMARK, ALONE], 16, rate);
    Ok(Part {
        name: "tpm",
        text: rates(
            "An issuer with P-256 in a software TPM (swtpm), a process that counts as a part of \
             the server.",
            &rounds,
        )?,
        json: rounds_json(&rounds),
        goals: vec![Goal::new(
            "rate with a TPM ÷ that of its loaded key alone",
            Bound::AtLeast(0.85),
            ratio,
        )],
    })
}

/// Fills two databases by batches, and compares issuance over them. `part` divides the counts.
fn million(extent: &Extent, part: usize) -> anyhow::Result<Part> {
    const LARGE: &str = "1,000,000 certificates";
    const SMALL: &str = "10,000 certificates";
    let mut plants = Vec::new();
    for (name, certificates, devices) in [(SMALL, 10_000, 10_000), (LARGE, 1_000_000, 200_000)] {
        let plant = Plant::build(Keys::P256)?;
        let mut target = plant.target("fleet", Api::Batch(BATCH))?;
        // Requests for one device at the same time are refused.
        target.devices = Some((devices / part).max(2_000));
        let mut fill = Load::new(target)?;
        while fill.issued() < certificates / part {
            fill.take(256.min((certificates / part).div_ceil(BATCH)), 4)?;
            crate::say(&format!("{name}: {} are issued", fill.issued()));
        }
        let load = Load::new(plant.target(name, Api::Hallmark)?)?;
        plants.push((plant, fill.issued(), load));
    }
    let loads = plants
        .iter_mut()
        .map(|(_, _, load)| Contestant::Served(load));
    let rounds = Rounds::of(extent, &mut loads.collect::<Vec<_>>(), &[64])?;
    let mut size = 0;
    for (plant, filled, load) in &mut plants {
        size = std::fs::metadata(plant.path("state/hallmark.db"))?.len() >> 20;
        plant.check(*filled + load.issued())?;
    }
    let ratio = rounds.ratio([LARGE, SMALL], 64, rate);
    let mut text = rates(
        "Issued over the API to a database that batches have filled before, with random \
         idempotency keys.",
        &rounds,
    )?;
    writeln!(text, "\nThe large database has {size} MiB.")?;
    Ok(Part {
        name: "million",
        text,
        json: rounds_json(&rounds),
        goals: vec![Goal::new(
            "1,000,000 certificates and 200,000 devices on record ÷ 10,000",
            Bound::AtLeast(0.95),
            ratio,
        )],
    })
}
