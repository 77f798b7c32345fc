//! Tests that each index of the tables to which every certificate adds rows serves a query, because
//! each one costs a page for each certificate.

use super::*;
use crate::store::{
    approval, block, certificate, certified_key, client, crl, enrollment, fleet_queries,
};
use crate::store::{issuance, issuer_crl, possession, subordinate};
use std::collections::BTreeSet;

/// How SQLite would answer `sql`.
pub(super) fn plan(fixture: &Fixture, sql: &str) -> String {
    let raw = fixture.raw();
    let mut statement = raw.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let mut steps = statement.raw_query();
    let mut plan = String::new();
    while let Some(step) = steps.next().unwrap() {
        plan += &step.get::<_, String>(3).unwrap();
        plan += " \n";
    }
    plan
}

#[test]
fn each_index_serves_a_query_of_the_product() {
    let fixture = Fixture::new();
    let queries = [
        ("intent_idempotency", issuance::BY_REQUEST.to_owned()),
        ("intent_possession", possession::OF_CODE.to_owned()),
        (
            "intent_subject",
            format!("{} {}", certificate::SELECT, certificate::OF_SUBJECT),
        ),
        ("intent_key", certified_key::FINDINGS.to_owned()),
        (
            "intent_leaf",
            format!("SELECT count(*) {}", fleet_queries::LEAVES),
        ),
        (
            "intent_subordinate",
            format!("{} {}", certificate::SELECT, subordinate::LIVING),
        ),
        ("intent_abandoned", crl::ENTRIES.to_owned()),
        ("audit_role", client::IN_JOURNAL.to_owned()),
        ("audit_approval", approval::IS_USED.to_owned()),
        ("audit_transfer", issuer_crl::REQUESTED.to_owned()),
        ("intent_key", issuer_crl::OF_KEY.to_owned()),
    ];
    for (index, sql) in &queries {
        let plan = plan(&fixture, sql);
        assert!(plan.contains(&format!("INDEX {index} ")), "{index}: {plan}");
    }
    // Their queries name them: SQLite refuses such a query where it cannot use the index.
    let named = ["intent_of_others", "certificate_revoked", "device_ending"];
    for index in named {
        let query = format!("INDEXED BY {index}");
        assert!(include_str!("../expiry.rs").contains(&query), "{index}");
    }
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL
               AND tbl_name IN ('intent', 'open_intent', 'certificate', 'device', 'audit')";
    let raw = fixture.raw();
    let mut statement = raw.prepare(sql).unwrap();
    let names = statement.query_map([], |row| row.get(0)).unwrap();
    let names: BTreeSet<String> = names.collect::<Result<_, _>>().unwrap();
    let served = queries.iter().map(|(index, _)| *index).chain(named);
    assert_eq!(names, served.map(str::to_owned).collect());
}

#[test]
fn a_page_of_devices_reads_no_enrollment_and_no_block_of_others() {
    let fixture = Fixture::new();
    for (index, select, condition) in [
        (
            "enrollment_by_name (name>? AND name<?)",
            enrollment::SELECT,
            enrollment::INDIVIDUALS_BETWEEN,
        ),
        (
            "block_standing (kind=? AND name>? AND name<?)",
            block::SELECT,
            block::OF_DEVICES_BETWEEN,
        ),
        (
            "block_standing (kind=?)",
            block::SELECT,
            block::OF_MANY_DEVICES,
        ),
    ] {
        let plan = plan(&fixture, &format!("{select} {condition}"));
        assert!(
            plan.contains(&format!("USING INDEX {index}")),
            "{index}: {plan}"
        );
    }
}
