//! Tests that lists find certificates by each criterion, page by page, summarised or not, and that
//! they read indexes.

use super::indexes::plan;
use super::*;
use crate::enrollment::role::Role;
use crate::ids::{GenerationId, IntentId};
use crate::store::{certificate_range as range, certificate_search as search};
use crate::x509::revocation::RevocationReason;
use proptest::prelude::*;

const NOW: UnixSeconds = unix(1_500);

pub(super) fn anything() -> CertificateFilter {
    CertificateFilter {
        subject: None,
        role: None,
        serial: None,
        sha256: None,
        profile: None,
        issuers: None,
        self_signed: Vec::new(),
        state: None,
        not_after: (UnixSeconds::MIN, UnixSeconds::MAX),
        issued_since: None,
        revoked_issuers: Vec::new(),
        now: NOW,
        before: IntentId::new(i64::MAX),
        limit: 1_000,
    }
}

/// One certificate, or an intent without one, to be put on record.
#[derive(Clone, Debug)]
struct Made {
    profile: usize,
    issuer: usize,
    not_after: i64,
    issued_at: i64,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Issued,
    Revoked(u8),
    Abandoned,
    Withdrawn,
}

const PROFILES: [&str; 3] = ["device", "station", "rare"];

impl Fixture {
    /// Adds a second generation, and these intents as the writer would leave them.
    fn fill(&self, made: &[Made]) -> [GenerationId; 2] {
        let raw = self.raw();
        raw.execute_batch(
            "DROP TRIGGER certificate_has_an_open_intent; DROP TRIGGER intent_settles_once;
             INSERT INTO generation (authority, number, token, key_type, key_label, key_id, state)
             VALUES ('other', 1, 'factory', 'p256', 'x', x'08', 'planned');",
        )
        .unwrap();
        let other: i64 = raw.last_insert_rowid();
        let issuers = [self.root, GenerationId::new(other)];
        for (number, it) in (0_i64..).zip(made) {
            let serial = format!("{number:020}");
            let ended = match it.end {
                End::Abandoned => Some("abandoned"),
                End::Withdrawn => Some("withdrawn"),
                End::Issued | End::Revoked(_) => None,
            };
            raw.execute(
                "INSERT INTO intent (serial, issuer, purpose, profile, subject, key_sha256, tbs,
                     not_before, not_after, caller, recorded_at, role)
                 VALUES (CAST(?1 AS BLOB), ?2, 'leaf', ?3, 'device-' || ?4, zeroblob(32), x'30', 0,
                     ?5, 'test', ?6, 'device')",
                (
                    serial,
                    issuers[it.issuer].get(),
                    PROFILES[it.profile],
                    number,
                    it.not_after,
                    it.issued_at,
                ),
            )
            .unwrap();
            let id = raw.last_insert_rowid();
            if let Some(ended) = ended {
                let at = (ended == "abandoned").then_some(it.issued_at);
                raw.execute(
                    "UPDATE intent SET ended = ?2, abandoned_at = ?3 WHERE id = ?1",
                    (id, ended, at),
                )
                .unwrap();
                continue;
            }
            let (revoked, reason) = match it.end {
                End::Revoked(reason) => (Some(it.issued_at), Some(reason)),
                _ => (None, None),
            };
            raw.execute(
                "INSERT INTO certificate (intent, signature, sha256, issued_at, revoked_at,
                     revocation_reason) VALUES (?1, x'30', randomblob(32), ?2, ?3, ?4)",
                (id, it.issued_at, revoked, reason),
            )
            .unwrap();
        }
        issuers
    }

    /// Returns what all pages of a list have, and checks their order.
    fn pages(&self, filter: &CertificateFilter) -> Vec<ListedCertificate> {
        let mut filter = filter.clone();
        let mut all = Vec::<ListedCertificate>::new();
        loop {
            let page = self.store.search_certificates(&filter).unwrap();
            assert!(page.rows.len() <= filter.limit as usize);
            all.extend(page.rows);
            let Some(next) = page.next else { break };
            assert!(next < filter.before, "a page goes back");
            filter.before = next;
        }
        assert!(all.is_sorted_by(|a, b| a.intent > b.intent), "newest first");
        all
    }
}

/// Judges a certificate without an index: the model with which lists are compared.
fn fits(filter: &CertificateFilter, it: &ListedCertificate) -> bool {
    let (from, until) = filter.not_after;
    let since = it.issued_at.unwrap_or(it.recorded_at);
    (filter.state.is_none() || filter.state == Some(it.state))
        && filter
            .profile
            .as_ref()
            .is_none_or(|profile| *profile == it.profile)
        && filter
            .issuers
            .as_ref()
            .is_none_or(|them| them.contains(&it.issuer))
        && filter.issued_since.is_none_or(|at| since >= at)
        && (from..=until).contains(&it.not_after)
}

fn made() -> impl Strategy<Value = Vec<Made>> {
    let end = prop_oneof![
        8 => Just(End::Issued),
        1 => prop_oneof![Just(6_u8), Just(1), Just(0)].prop_map(End::Revoked),
        1 => Just(End::Abandoned),
        1 => Just(End::Withdrawn),
    ];
    let profile = prop_oneof![20 => Just(0_usize), 5 => Just(1), 1 => Just(2)];
    let one = (profile, 0_usize..2, 1_000_i64..2_000, 900_i64..1_400, end);
    let one = one.prop_map(|(profile, issuer, not_after, issued_at, end)| Made {
        profile,
        issuer,
        not_after,
        issued_at,
        end,
    });
    prop::collection::vec(one, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever is on record, and however far it is summarised, each list has what fits and nothing
    /// else; and every intent with a certificate or abandoned is in one state.
    #[test]
    fn a_list_has_what_fits_and_nothing_else(
        made in made(),
        limit in 1_u32..90,
        summarised in any::<bool>(),
        since in 900_i64..1_400,
        until in 1_000_i64..2_000,
    ) {
        let fixture = Fixture::new();
        let issuers = fixture.fill(&made);
        if summarised {
            fixture.store.summarise_certificates().unwrap();
        }
        let dead = vec![issuers[1]];
        let everything = CertificateFilter { revoked_issuers: dead.clone(), ..anything() };
        let all = fixture.pages(&everything);
        let ended = made.iter().filter(|it| it.end != End::Withdrawn).count();
        prop_assert_eq!(all.len(), ended + 1, "and the root");
        let states = [
            CertificateState::Valid, CertificateState::Expired, CertificateState::Revoked,
            CertificateState::OnHold, CertificateState::IssuerRevoked, CertificateState::Abandoned,
        ];
        let mut counted = 0;
        for state in states.map(Some).into_iter().chain([None]) {
            for profile in [None, Some("rare".to_owned()), Some("none".to_owned())] {
                for issuers in [None, Some(vec![issuers[0]]), Some(issuers.to_vec())] {
                    let bounded = (Some(unix(since)), unix(until));
                    for (since, until) in [(None, UnixSeconds::MAX), bounded] {
                        let filter = CertificateFilter {
                            state,
                            profile: profile.clone(),
                            issuers: issuers.clone(),
                            issued_since: since,
                            not_after: (UnixSeconds::MIN, until),
                            revoked_issuers: dead.clone(),
                            limit,
                            ..anything()
                        };
                        let found = fixture.pages(&filter);
                        let found: Vec<IntentId> = found.iter().map(|it| it.intent).collect();
                        let wanted = all.iter().filter(|it| fits(&filter, it));
                        let wanted: Vec<IntentId> = wanted.map(|it| it.intent).collect();
                        counted += found.len();
                        prop_assert_eq!(found, wanted, "{:?}", filter);
                    }
                }
            }
        }
        prop_assert!(counted > 0);
    }
}

/// The end of an open intent is not known, so its range waits, with all after it.
#[test]
fn a_range_is_summarised_when_all_of_its_intents_have_ended() {
    let fixture = Fixture::new();
    let one = Made {
        profile: 0,
        issuer: 0,
        not_after: 2_000,
        issued_at: 1_000,
        end: End::Issued,
    };
    fixture.fill(&vec![one.clone(); 70]);
    let raw = fixture.raw();
    raw.execute(
        "INSERT INTO open_intent (purpose, subject, intent) VALUES ('leaf', 'device-69', 71)",
        [],
    )
    .unwrap();
    assert_eq!(fixture.store.summarise_certificates().unwrap(), 1);
    assert_eq!(fixture.store.summarise_certificates().unwrap(), 0);
    assert_eq!(fixture.pages(&anything()).len(), 71);
    raw.execute("DROP TRIGGER open_intent_is_kept", []).unwrap();
    raw.execute("DELETE FROM open_intent", []).unwrap();
    fixture.fill_more(60);
    assert_eq!(fixture.store.summarise_certificates().unwrap(), 1);
    assert_eq!(fixture.pages(&anything()).len(), 131);
}

impl Fixture {
    fn fill_more(&self, count: usize) {
        let raw = self.raw();
        let sql = "INSERT INTO intent (serial, issuer, purpose, profile, subject, key_sha256, tbs,
                       not_before, not_after, caller, recorded_at, role, signed_elsewhere)
                   VALUES (randomblob(16), 1, 'adopted', 'device', 'more', zeroblob(32), x'30', 0,
                       9999, 'test', 1, NULL, 1)";
        for _ in 0..count {
            raw.execute(sql, []).unwrap();
            let id = raw.last_insert_rowid();
            let certificate = "INSERT INTO certificate (intent, signature, sha256, issued_at)
                               VALUES (?1, x'30', randomblob(32), 1)";
            raw.execute(certificate, [id]).unwrap();
        }
    }
}

/// A name, a serial number and a digest find the certificate in any spelling of the name, with the
/// other criteria.
#[test]
fn a_certificate_is_found_by_its_own_keys() {
    let fixture = Fixture::new();
    let sha256 = fixture.issue("pump-7", 2);
    fixture.issue("pump-8", 3);
    let serial = vec![2; 16];
    let found = |filter: &CertificateFilter| -> Vec<String> {
        let rows = fixture.pages(filter).into_iter();
        rows.map(|it| it.subject).collect()
    };
    for filter in [
        CertificateFilter {
            subject: Some("PUMP-7".into()),
            ..anything()
        },
        CertificateFilter {
            serial: Some(serial.clone()),
            ..anything()
        },
        CertificateFilter {
            sha256: Some(sha256),
            ..anything()
        },
    ] {
        let with = |role, profile: &str| CertificateFilter {
            role,
            profile: Some(profile.to_owned()),
            ..filter.clone()
        };
        assert_eq!(found(&filter), ["pump-7"]);
        assert_eq!(found(&with(Some(Role::Device), "device")), ["pump-7"]);
        assert!(found(&with(Some(Role::Station), "device")).is_empty());
        assert!(found(&with(None, "other")).is_empty());
    }
    let both = CertificateFilter {
        subject: Some("pump-8".into()),
        serial: Some(serial),
        sha256: Some(sha256),
        ..anything()
    };
    assert!(found(&both).is_empty());
}

/// Verifies that no list reads a whole table of certificates.
#[test]
fn every_list_is_answered_from_an_index() {
    let fixture = Fixture::new();
    let by_id = "i USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)";
    let with_certificate = "c USING INTEGER PRIMARY KEY (rowid=?)";
    for (sql, steps) in [
        (
            search::select(search::IN_RANGE, None),
            [by_id, with_certificate],
        ),
        (
            search::select(search::IN_RANGE, Some(CertificateState::OnHold)),
            [by_id, with_certificate],
        ),
        (
            search::select(search::BY_SUBJECT, None),
            [
                "INDEX intent_subject (subject=? AND id>? AND id<?)",
                with_certificate,
            ],
        ),
        (
            search::select(search::BY_SERIAL, None),
            ["i USING INDEX", with_certificate],
        ),
        (
            search::select(search::BY_SHA256, None),
            ["c USING INDEX", "i USING INTEGER PRIMARY KEY (rowid=?)"],
        ),
        (
            search::LAST_REVOKED.to_owned(),
            ["INDEX certificate_revoked (intent<?)", ""],
        ),
        (
            range::ALL.to_owned(),
            ["certificate_range USING PRIMARY KEY (number<?)", ""],
        ),
        (
            range::OF_PROFILE.to_owned(),
            [
                "INDEX certificate_range_profile (profile=? AND number<?)",
                "",
            ],
        ),
        (
            range::OF_ISSUER.to_owned(),
            ["INDEX certificate_range_issuer (issuer=? AND number<?)", ""],
        ),
    ] {
        let plan = plan(&fixture, &sql);
        for step in steps {
            assert!(plan.contains(step), "{step}: {plan}");
        }
        assert!(
            !plan.contains("SCAN i ") && !plan.contains("SCAN c "),
            "{plan}"
        );
    }
}

/// A final reason is not a hold, whatever it was before.
#[test]
fn a_hold_that_was_made_final_is_listed_as_revoked() {
    let fixture = Fixture::new();
    let sha256 = fixture.issue("pump-7", 2);
    let states = || {
        let of_it = CertificateFilter {
            sha256: Some(sha256),
            ..anything()
        };
        fixture.pages(&of_it)[0].state
    };
    for (reason, state) in [
        (RevocationReason::CertificateHold, CertificateState::OnHold),
        (RevocationReason::Superseded, CertificateState::Revoked),
    ] {
        let revocation = Revocation {
            target: RevocationTarget::Sha256(sha256),
            at: NOW,
            actor: "test".into(),
            cause: "a test".into(),
        };
        fixture.store.revoke(revocation, reason).unwrap();
        assert_eq!(states(), state);
    }
}

/// A generation that has issued much, and nothing of a rare profile, is asked once, and not again
/// at each range of the other one: that made a page read everything 100 times.
#[test]
fn an_issuer_without_a_fit_is_asked_once() {
    let fixture = Fixture::new();
    let issuers = fixture.fill(&[]);
    let [old, new] = issuers.map(GenerationId::get);
    fixture
        .raw()
        .execute_batch(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 199)
             INSERT INTO certificate_range
             SELECT i, {old}, 'device', 0, 9000, 9000, 0 FROM n
             UNION ALL SELECT i, {new}, 'rare', 0, 9000, 9000, 0 FROM n;"
        ))
        .unwrap();
    let filter = range::RangeFilter {
        profile: Some("rare".into()),
        issuers: Some(issuers.to_vec()),
        not_after: (UnixSeconds::MIN, UnixSeconds::MAX),
        issued_since: UnixSeconds::MIN,
        abandoned: false,
    };
    let (found, asked) = fixture
        .store
        .read(|tx| {
            let mut ranges = range::LastRanges::new(&filter);
            let (mut found, mut number) = (0, 250);
            while let Some(next) = ranges.last(tx, number)? {
                assert_eq!(next, number.min(199));
                number = next - 1;
                found += 1;
            }
            Ok((found, ranges.asked))
        })
        .unwrap();
    assert_eq!(found, 200);
    assert!(asked <= 202, "{asked} queries for {found} ranges");
}
