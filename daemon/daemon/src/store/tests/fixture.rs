//! Sets up a store with an authority, devices and enrollments for the tests.

use super::*;
use crate::enrollment::role::Role;
use crate::enrollment::roll::HubPolicy;
use crate::ids::{BlockId, GenerationId, GenerationNumber, RollId};
use tempfile::TempDir;

/// A store in a folder of its own, with one serving root (whose certificate is any bytes).
pub(super) struct Fixture {
    pub(super) store: Store,
    pub(super) folder: TempDir,
    pub(super) root: GenerationId,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("hallmark.db")).unwrap();
        store
            .record_hubs(["dps".to_owned()].into(), unix(0))
            .unwrap();
        let root = store.plan_generation(Self::plan(7)).unwrap().id;
        store.record_key(root, vec![1, 2, 3].into(), None).unwrap();
        let fixture = Self {
            store,
            folder,
            root,
        };
        let intent = fixture.intent("root", 1);
        let intent = Intent {
            purpose: Purpose::Authority,
            role: None,
            ..intent
        };
        let recorded = block_on(fixture.store.record_intent(intent)).unwrap();
        fixture
            .settle(&recorded, OnIssued::Authority { generation: root })
            .unwrap();
        fixture
    }

    pub(super) fn intent(&self, subject: &str, serial: u8) -> Intent {
        Intent {
            serial: vec![serial; 16],
            issuer: self.root,
            purpose: Purpose::Leaf,
            profile: "device".into(),
            subject: subject.into(),
            tbs: format!("to be signed for {subject}, {serial}")
                .into_bytes()
                .into(),
            not_before: unix(1_000),
            not_after: unix(2_000),
            role: Some(Role::Device),
            caller: "station line-1".into(),
            requester: None,
            idempotency: None,
            public_key: format!("key of {subject}, {serial}").into_bytes().into(),
            shared_key: false,
            is_device: true,
            moves: Moves::Never,
            grant: None,
            at: unix(1_000),
        }
    }

    /// Returns the plan of a root's generation with this key id.
    pub(super) fn plan(key_id: u8) -> PlannedGeneration {
        PlannedGeneration {
            authority: "root".into(),
            parent: None,
            token: "factory".into(),
            key_type: KeyType::P256,
            key_id: vec![key_id; 16],
        }
    }

    /// Makes the next generation of the root: certified by itself, and staged.
    pub(super) fn stage_root(&self, roll: RollId) -> GenerationRow {
        let store = &self.store;
        let staged = store.plan_rolled_generation(roll, Self::plan(8), unix(1_000));
        let staged = staged.unwrap();
        store
            .record_key(staged.id, vec![4, 5, 6].into(), None)
            .unwrap();
        let intent = Intent {
            purpose: Purpose::Authority,
            role: None,
            issuer: staged.id,
            ..self.intent("root", 9)
        };
        let recorded = block_on(store.record_intent(intent)).unwrap();
        let generation = staged.id;
        self.settle(&recorded, OnIssued::Authority { generation })
            .unwrap();
        staged
    }

    pub(super) fn settle(
        &self,
        recorded: &Recorded,
        on_issued: OnIssued,
    ) -> Result<IssuedEffects, StoreError> {
        let der = join(recorded.tbs(), b"signature");
        let entry = entry("certificate.issued");
        block_on(
            self.store
                .record_certificate(recorded, der, on_issued, entry),
        )
    }

    pub(super) fn issue(&self, id: &str, serial: u8) -> [u8; 32] {
        let recorded = block_on(self.store.record_intent(self.intent(id, serial))).unwrap();
        let on_issued = OnIssued::Device {
            registration_id: id.into(),
            profile: "device".into(),
        };
        self.settle(&recorded, on_issued).unwrap();
        *self
            .store
            .device(id)
            .unwrap()
            .unwrap()
            .certificate
            .as_bytes()
    }

    pub(super) fn enroll(&self, id: &str) -> EnrollmentRow {
        let added = self.add_individual("dps", id);
        added.unwrap()
    }

    pub(super) fn add_individual(
        &self,
        provisioning: &str,
        id: &str,
    ) -> Result<EnrollmentRow, StoreError> {
        let new = NewEnrollment {
            provisioning: provisioning.into(),
            kind: EnrollmentKind::Individual,
            name: id.into(),
            authority: None,
            by_reference: false,
            slots: Slots::Empty,
        };
        self.store.add_enrollment(new, entry("enrollment.added"))
    }

    pub(super) fn add_group(
        &self,
        name: &str,
        authority: &str,
        slots: Slots,
    ) -> Result<EnrollmentRow, StoreError> {
        let new = NewEnrollment {
            provisioning: "dps".into(),
            kind: EnrollmentKind::Group,
            name: name.into(),
            authority: Some(authority.into()),
            by_reference: false,
            slots,
        };
        self.store.add_enrollment(new, entry("enrollment.added"))
    }

    /// The roll of the root by compromise.
    pub(super) fn compromise_root(&self) -> Result<RollRow, StoreError> {
        let cause = Cause::Compromise {
            slots: SlotName::BOTH.into(),
            detail: json!({}),
        };
        let exclusion = Exclusion {
            placeholder: None,
            cause,
            ..block_of(root_generation())
        };
        let recorded = self.store.exclude(exclusion, entry("roll.started"));
        recorded.map(|mut recorded| recorded.rolls.remove(0))
    }

    pub(super) fn block(&self, subject: Excluded) -> Result<BlockRow, StoreError> {
        let recorded = self
            .store
            .exclude(block_of(subject), entry("block.started"));
        recorded.map(|recorded| recorded.block.unwrap())
    }

    pub(super) fn lift(&self, block: BlockId) {
        self.store.readmit(block, entry("block.lifted")).unwrap();
    }

    /// Connects to the database past the store, as an intruder or a test would.
    pub(super) fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("hallmark.db")).unwrap()
    }
}

pub(super) fn entry(action: &'static str) -> AuditEntry {
    AuditEntry {
        at: unix(1_000),
        actor: "test".into(),
        action,
        subject: "subject".into(),
        detail: json!({}),
    }
}

pub(super) fn root_generation() -> Excluded {
    Excluded::Generation("root".into(), GenerationNumber::FIRST)
}

pub(super) fn block_of(subject: Excluded) -> Exclusion {
    Exclusion {
        placeholder: None,
        subject,
        services: vec!["dps".into()],
        hub: HubPolicy::Delete,
        cause: Cause::Block("a test".into()),
    }
}

/// Returns the moment so many seconds after 1970-01-01.
pub(super) const fn unix(seconds: i64) -> UnixSeconds {
    UnixSeconds::new(seconds)
}
