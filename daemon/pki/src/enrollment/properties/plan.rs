//! Tests the planner against a model of the service.

use crate::enrollment::desired::{
    Desired, Kind, ReprovisionPolicy, SlotCertificate, SlotPair, Status,
};
use crate::enrollment::history::History;
use crate::enrollment::id::{EnrollmentGroupId, RegistrationId};
use crate::enrollment::plan::{DriftPolicy, Plan, plan};
use crate::enrollment::record::Record;
use crate::enrollment::thumbprint::Thumbprint;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A model of DPS: PUT replaces, ETags are checked, certificates are returned as `info` only.
#[derive(Clone, Debug, Default)]
struct Service {
    fields: Option<Map<String, Value>>,
    version: u32,
}

impl Service {
    fn observe(&self) -> Option<Record> {
        let fields = self.fields.clone()?;
        Some(Record::parse(Value::Object(fields)).unwrap())
    }

    fn apply(&mut self, plan: &Plan) {
        match plan {
            Plan::Settled | Plan::Drift(_) => {}
            Plan::Create { record } => {
                assert!(self.fields.is_none(), "create answers 409");
                self.put(record);
            }
            Plan::Replace { record, etag, .. } => {
                assert_eq!(self.etag(), etag.if_match());
                self.put(record);
            }
            Plan::Delete { etag } => {
                assert_eq!(self.etag(), etag.if_match());
                self.fields = None;
            }
        }
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.version)
    }

    fn put(&mut self, record: &Value) {
        let mut fields = record.as_object().unwrap().clone();
        for read_only in ["registrationState", "createdDateTimeUtc"] {
            assert!(!fields.contains_key(read_only), "{read_only} was sent");
        }
        let previous = self.fields.clone().unwrap_or_default();
        for member in ["clientCertificates", "signingCertificates"] {
            for slot in ["primary", "secondary"] {
                let path = format!("/attestation/x509/{member}/{slot}");
                store_slot(&mut fields, &previous, &path);
            }
        }
        self.version += 1;
        fields.insert("etag".into(), json!(self.etag()));
        fields.insert(
            "createdDateTimeUtc".into(),
            json!("2026-11-21T00:00:00.0000000Z"),
        );
        self.fields = Some(fields);
    }
}

/// Turns a certificate into its `info`; an `info` alone must be the previous one of the slot.
fn store_slot(fields: &mut Map<String, Value>, previous: &Map<String, Value>, path: &str) {
    let (parent, rest) = path[1..].split_once('/').unwrap();
    let rest = format!("/{rest}");
    let slot = fields
        .get_mut(parent)
        .and_then(|value| value.pointer_mut(&rest));
    let Some(slot) = slot else { return };
    match slot.get("certificate") {
        Some(pem) => {
            let (label, der) = der::pem::decode_vec(pem.as_str().unwrap().as_bytes()).unwrap();
            assert_eq!(label, "CERTIFICATE");
            *slot = info(&der);
        }
        None => {
            let stood = previous.get(parent).and_then(|value| value.pointer(&rest));
            assert_eq!(stood, Some(&*slot), "an info was moved or invented");
        }
    }
}

fn info(der: &[u8]) -> Value {
    let hex = Thumbprint::of(der).to_string().to_lowercase();
    json!({ "info": { "subjectName": "CN=x", "sha256Thumbprint": hex, "version": 3 } })
}

fn pair<T: Clone + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = SlotPair<T>> {
    (prop::option::of(value.clone()), prop::option::of(value))
        .prop_filter_map("one slot at least", |(primary, secondary)| {
            SlotPair::new(primary, secondary)
        })
}

fn certificates() -> impl Strategy<Value = SlotPair<SlotCertificate>> {
    pair((0u8..4).prop_map(|number| SlotCertificate::new(vec![number])))
}

fn kind() -> impl Strategy<Value = Kind> {
    let group = || EnrollmentGroupId::parse("line").unwrap();
    prop_oneof![
        certificates().prop_map(move |certificates| Kind::Group {
            id: group(),
            certificates
        }),
        pair("root-[12]").prop_map(move |references| Kind::GroupByReference {
            id: group(),
            references
        }),
    ]
}

fn desired() -> impl Strategy<Value = Desired> {
    let status = prop_oneof![Just(Status::Enabled), Just(Status::Disabled)];
    let policy = (any::<bool>(), any::<bool>()).prop_map(|(update, migrate)| ReprovisionPolicy {
        update_hub_assignment: update,
        migrate_device_data: migrate,
    });
    let hubs = prop::collection::vec("hub-[ab]", 1..3);
    let parts = (
        kind(),
        status,
        prop::option::of(policy),
        prop::option::of(hubs),
    );
    parts.prop_map(|(kind, status, reprovision_policy, hubs)| Desired {
        kind,
        status,
        reprovision_policy,
        hubs,
    })
}

/// A record of another writer, with unknown fields.
fn foreign_service() -> impl Strategy<Value = Service> {
    let attestation = prop_oneof![
        Just(json!({"type": "symmetricKey", "symmetricKey": {}})),
        Just(json!({"type": "x509", "x509": {
            "signingCertificates": {"primary": info(&[1]), "secondary": info(&[2])},
            "futureMember": {"kept": true},
        }})),
        Just(json!({"type": "x509", "x509": {
            "caReferences": {"primary": "ROOT-1", "secondary": null},
        }})),
    ];
    attestation.prop_map(|attestation| {
        let mut record = json!({
            "enrollmentGroupId": "line",
            "etag": "\"0\"",
            "createdDateTimeUtc": "2026-01-01T00:00:00.0000000Z",
            "initialTwin": {"tags": {"floor": 3}},
            "capabilities": {"iotEdge": true},
            "futureField": [1, 2, 3],
        });
        record["attestation"] = attestation;
        Service {
            fields: record.as_object().cloned(),
            version: 0,
        }
    })
}

const UNKNOWN_TO_US: [&str; 3] = ["initialTwin", "capabilities", "futureField"];

proptest! {
    #[test]
    fn one_step_settles_and_loses_nothing(service in foreign_service(), desired in desired()) {
        let mut service = service;
        let before = service.fields.clone().unwrap();
        let history = History::default();
        let observed = service.observe();
        let first = plan(Some(&desired), observed.as_ref(), &history, DriftPolicy::Repair);
        service.apply(&first);
        let observed = service.observe();
        let second = plan(Some(&desired), observed.as_ref(), &history, DriftPolicy::Repair);
        prop_assert_eq!(second, Plan::Settled);
        let after = service.fields.unwrap();
        for name in UNKNOWN_TO_US {
            prop_assert_eq!(after.get(name), before.get(name));
        }
        let future = "/x509/futureMember";
        let [after, before] = [&after, &before].map(|it| it["attestation"].pointer(future));
        prop_assert_eq!(after, before);
    }

    #[test]
    fn a_chain_of_our_own_changes_never_looks_like_drift(
        wishes in prop::collection::vec(prop::option::weighted(0.9, desired()), 1..8),
        lost in prop::collection::vec(any::<bool>(), 8),
    ) {
        let mut service = Service::default();
        let mut history = History::default();
        for (wish, lost) in wishes.into_iter().zip(lost) {
            let observed = service.observe();
            history = history.observed(observed.as_ref());
            let decided = plan(wish.as_ref(), observed.as_ref(), &history, DriftPolicy::Report);
            prop_assert!(!matches!(decided, Plan::Drift(_)), "{decided:?}");
            if let Plan::Replace { repaired, left, .. } = &decided {
                prop_assert!(repaired.is_empty() && left.is_empty(), "{decided:?}");
            }
            history = history.sending(wish.as_ref());
            service.apply(&decided);
            let observed = service.observe();
            let settled = plan(wish.as_ref(), observed.as_ref(), &history, DriftPolicy::Report);
            prop_assert_eq!(settled, Plan::Settled);
            if !lost {
                history = History::settled(wish.as_ref());
            }
        }
    }

    #[test]
    fn drift_is_left_alone_unless_policy_repairs(desired in desired()) {
        let mut service = Service::default();
        service.apply(&plan(Some(&desired), None, &History::default(), DriftPolicy::Report));
        let status = match desired.status {
            Status::Enabled => "disabled",
            Status::Disabled => "enabled",
        };
        let fields = service.fields.as_mut().unwrap();
        fields.insert("provisioningStatus".into(), json!(status));
        let observed = service.observe();
        let history = History::settled(Some(&desired));
        let reported = plan(Some(&desired), observed.as_ref(), &history, DriftPolicy::Report);
        prop_assert!(matches!(reported, Plan::Drift(_)), "{reported:?}");
        service.apply(&plan(Some(&desired), observed.as_ref(), &history, DriftPolicy::Repair));
        let observed = service.observe();
        let settled = plan(Some(&desired), observed.as_ref(), &history, DriftPolicy::Report);
        prop_assert_eq!(settled, Plan::Settled);
    }
}

fn individual(primary: Option<&[u8]>, secondary: Option<&[u8]>) -> Desired {
    let certificate = |der: &[u8]| SlotCertificate::new(der.to_vec());
    Desired {
        kind: Kind::Individual {
            id: RegistrationId::parse("press-7").unwrap(),
            device_id: None,
            certificates: SlotPair::new(primary.map(certificate), secondary.map(certificate))
                .unwrap(),
        },
        status: Status::Enabled,
        reprovision_policy: None,
        hubs: None,
    }
}

#[test]
fn somebody_elses_slot_cannot_leave_a_device_without_any() {
    let draining = individual(Some(b"old"), Some(b"new"));
    let retired = individual(None, Some(b"new"));
    let mut service = Service::default();
    service.apply(&plan(
        Some(&draining),
        None,
        &History::default(),
        DriftPolicy::Report,
    ));
    let fields = service.fields.as_mut().unwrap();
    let slots = fields["attestation"]
        .pointer_mut("/x509/clientCertificates")
        .unwrap();
    slots.as_object_mut().unwrap().shift_remove("secondary");
    let history = History::settled(Some(&draining));
    let observed = service.observe();
    service.apply(&plan(
        Some(&retired),
        observed.as_ref(),
        &history,
        DriftPolicy::Report,
    ));
    let (primary, secondary) = service.observe().unwrap().thumbprints();
    assert_eq!((primary, secondary), (None, Some(Thumbprint::of(b"new"))));
}

#[test]
fn drift_does_not_hold_up_a_change_of_our_own() {
    let enabled = individual(Some(b"leaf"), None);
    let blocked = Desired {
        status: Status::Disabled,
        ..enabled.clone()
    };
    let mut service = Service::default();
    service.apply(&plan(
        Some(&enabled),
        None,
        &History::default(),
        DriftPolicy::Report,
    ));
    let path = "/x509/clientCertificates/primary";
    *service.fields.as_mut().unwrap()["attestation"]
        .pointer_mut(path)
        .unwrap() = info(b"theirs");
    let history = History::settled(Some(&enabled));
    let decided = plan(
        Some(&blocked),
        service.observe().as_ref(),
        &history,
        DriftPolicy::Report,
    );
    let Plan::Replace { record, left, .. } = decided else {
        panic!("{decided:?}");
    };
    assert_eq!(record["provisioningStatus"], "disabled");
    assert_eq!(record["attestation"].pointer(path), Some(&info(b"theirs")));
    assert_eq!(left.len(), 1);
}

#[test]
fn what_was_never_ours_is_never_deleted() {
    let mut service = Service::default();
    let theirs = individual(Some(b"theirs"), None);
    service.apply(&plan(
        Some(&theirs),
        None,
        &History::default(),
        DriftPolicy::Repair,
    ));
    let observed = service.observe();
    let decided = plan(
        None,
        observed.as_ref(),
        &History::default(),
        DriftPolicy::Repair,
    );
    assert!(matches!(decided, Plan::Drift(_)), "{decided:?}");
}

#[test]
fn a_deleted_enrollment_is_reported_and_a_lost_creation_is_repeated() {
    let wanted = individual(Some(b"leaf"), None);
    let confirmed = History::settled(Some(&wanted));
    let attempted = History::default().sending(Some(&wanted));
    let decided = plan(Some(&wanted), None, &confirmed, DriftPolicy::Report);
    assert!(matches!(decided, Plan::Drift(_)), "{decided:?}");
    for (history, policy) in [
        (attempted, DriftPolicy::Report),
        (confirmed, DriftPolicy::Repair),
    ] {
        let decided = plan(Some(&wanted), None, &history, policy);
        assert!(matches!(decided, Plan::Create { .. }), "{decided:?}");
    }
}
