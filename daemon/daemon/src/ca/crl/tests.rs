//! When lists are signed and when they are not, over a token in memory.

use super::*;
use crate::ca::alarm::AlarmCode;
use crate::ca::authorize::{Authorized, Caller, Operate};
use crate::ca::backup::BackupSettings;
use crate::ca::profile::IssuanceProfile;
use crate::ca::{
    Callbacks, CertificateAuthority, Config, ConfiguredToken, IssuerSettings, Settings, TokenTraits,
};
use crate::store::{Intent, Moves, Purpose, RevocationTarget, Store};
use crate::token::TokenError;
use crate::token::client::TokenClient;
use crate::x509::revocation::RevocationReason::{CertificateHold, KeyCompromise};
use hallmark_worker::in_memory;
use hallmark_worker::memory::MemoryToken;
use pollster::block_on;
use std::time::Duration;
use tempfile::TempDir;

const CEREMONY: &str = r#"
name = "test"
[[authority]]
name = "root"
subject = { common_name = "Root" }
validity = "20y"
[[authority]]
name = "line"
issuer = "root"
subject = { common_name = "Line" }
validity = "5y"
"#;
const DAY: i64 = 86_400;

/// A root and a line below it, each with its first list.
pub(in crate::ca) struct Scene {
    pub(in crate::ca) ca: CertificateAuthority,
    memory: MemoryToken,
    _folder: TempDir,
}

impl Scene {
    fn set() -> Self {
        Self::with_profiles(BTreeMap::new())
    }

    pub(in crate::ca) fn with_profiles(profiles: BTreeMap<String, IssuanceProfile>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let memory = MemoryToken::new("memory");
        in_memory::serve("memory", memory.clone(), &socket);
        let token = ConfiguredToken {
            client: TokenClient::new("memory", socket),
            sign_deadline: Duration::from_secs(30),
            traits: TokenTraits::default(),
        };
        let on_it = |name: &str| (name.to_owned(), "memory".to_owned());
        let ca = CertificateAuthority::start(Config {
            store: Store::open(&folder.path().join("hallmark.db")).unwrap(),
            tokens: BTreeMap::from([("memory".to_owned(), token)]),
            issuer: IssuerSettings {
                authorities: BTreeMap::from([on_it("root"), on_it("line")]),
                profiles,
                ..IssuerSettings::default()
            },
            callbacks: Callbacks {
                desired_changed: Box::new(|| {}),
                crl_due: Box::new(|| {}),
            },
            settings: Settings {
                backups: BackupSettings {
                    kept: 1,
                    ..BackupSettings::default()
                },
                ..Settings::default()
            },
        })
        .unwrap();
        ca.ceremonies().run(&operator(), CEREMONY, &|_| {}).unwrap();
        let scene = Self {
            ca,
            memory,
            _folder: folder,
        };
        scene.update();
        assert_eq!([scene.signed("root"), scene.signed("line")], [1, 1]);
        scene
    }

    /// Signs what is due, also what has to wait for the next second.
    fn update(&self) -> Option<UnixSeconds> {
        loop {
            let due = self.ca.crls().update().unwrap();
            if due.is_none_or(|it| it > self.ca.now() + 1) {
                return due;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn generation(&self, authority: &str) -> GenerationId {
        self.ca.hierarchy().serving(authority).unwrap().id
    }

    fn list(&self, authority: &str) -> Arc<CrlRow> {
        self.ca.crls().current(self.generation(authority)).unwrap()
    }

    /// How many lists of this authority's first generation were signed.
    fn signed(&self, authority: &str) -> usize {
        let journal = self
            .ca
            .store()
            .audit_after(0, 1_000, &Default::default())
            .unwrap();
        let name = format!("{authority}-1");
        let signed = journal.iter().filter(|it| it.action == "crl.signed");
        signed.filter(|it| it.subject == name).count()
    }

    /// A serial number that the line's token may have signed.
    fn abandon(&self, serial: u8) {
        let intent = Intent {
            serial: vec![serial; 16],
            issuer: self.generation("line"),
            purpose: Purpose::Leaf,
            profile: "device".into(),
            subject: format!("pump-{serial}"),
            tbs: vec![serial].into(),
            not_before: UnixSeconds::new(0),
            not_after: self.ca.now() + DAY,
            role: None,
            caller: "test".into(),
            requester: None,
            idempotency: None,
            public_key: vec![serial].into(),
            shared_key: false,
            is_device: false,
            moves: Moves::Never,
            grant: None,
            at: UnixSeconds::new(0),
        };
        let store = self.ca.store();
        let now = self.ca.now();
        let recorded = block_on(store.record_intent(intent)).unwrap();
        block_on(store.abandon_intent(recorded.id(), "a test".into(), now)).unwrap();
    }

    /// How many lists were recorded.
    fn recorded(&self) -> usize {
        let journal = self
            .ca
            .store()
            .audit_after(0, 1_000, &Default::default())
            .unwrap();
        let recorded = journal.iter().filter(|it| it.action == "crl.recorded");
        recorded.count()
    }
}

fn operator() -> Authorized<Operate> {
    Authorized::<Operate>::to_operate(Caller::Local { uid: 0 }).unwrap()
}

#[test]
fn nothing_is_signed_without_a_cause() {
    let scene = Scene::set();
    let signatures = scene.memory.signatures();
    let due = scene.update();
    let lists = ["root", "line"].map(|name| scene.list(name).this_update + DAY);
    assert_eq!(due, lists.into_iter().min());
    assert_eq!(scene.memory.signatures(), signatures);
    assert!(scene.ca.crls.is_listed(scene.generation("line")).unwrap());
}

/// By its date alone a client knows which list it has.
#[test]
fn no_two_lists_have_one_date() {
    let scene = Scene::set();
    let mut dates = vec![scene.list("line").this_update];
    for serial in 0x41..0x44 {
        scene.abandon(serial);
        scene.update();
        dates.push(scene.list("line").this_update);
    }
    assert!(dates.is_sorted_by(|one, next| one < next), "{dates:?}");
}

#[test]
fn many_causes_are_one_list() {
    let scene = Scene::set();
    for serial in 0x41..0x60 {
        scene.abandon(serial);
    }
    assert!(!scene.ca.crls.is_listed(scene.generation("line")).unwrap());
    scene.update();
    let list = scene.list("line");
    assert_eq!((scene.signed("line"), list.entries), (2, 31));
    assert_eq!(scene.signed("root"), 1);
    assert!(scene.ca.crls.is_listed(scene.generation("line")).unwrap());
}

/// The old list stays, an alarm says why, and the next attempt waits: each uses up a number.
#[test]
fn a_token_that_refuses_is_not_asked_at_once_again() {
    let scene = Scene::set();
    scene.memory.fail_with(Some(TokenError::Refused {
        token: "memory".into(),
        operation: "sign".into(),
        reason: "scripted".into(),
    }));
    scene.abandon(0x41);
    let recorded = scene.recorded();
    let first = scene.list("line").number;
    let retry_at = scene.update().unwrap();
    let pause = retry_at - scene.ca.now();
    assert!((3..=SHORT_PAUSE_SECONDS).contains(&pause), "{pause}");
    scene.update();
    assert_eq!(scene.recorded(), recorded + 1);
    assert_eq!(scene.signed("line"), 1);
    let alarms = scene.ca.alarms().unwrap();
    let alarm = alarms.iter().find(|it| it.code == AlarmCode::CrlNotSigned);
    let alarm = alarm.unwrap_or_else(|| panic!("{alarms:?}"));
    assert!(alarm.text.contains("line generation 1 cannot be signed"));
    assert_eq!(alarm.parameters["authority"], "line");
    assert_eq!(alarm.parameters["generation"], 1);

    scene.memory.fail_with(None);
    scene.ca.crls.lists.failures.end_pauses();
    scene.update();
    assert_eq!(scene.signed("line"), 2);
    let number = scene.list("line").number;
    assert!(
        number > first.next(),
        "one number is used up: {first}, {number}"
    );
    assert_eq!(scene.ca.crls.alarms(), []);
}

#[test]
fn a_revoked_generation_is_listed_above_and_signs_no_more_until_the_hold_is_lifted() {
    let scene = Scene::set();
    let line = || RevocationTarget::Generation {
        generation: scene.generation("line"),
    };
    let held = scene
        .ca
        .exclusions
        .revoke(&operator(), line(), CertificateHold, "a test");
    assert_eq!(held.unwrap().changed.len(), 1);
    let refusal = scene
        .ca
        .hierarchy()
        .signing("line")
        .map(|_| ())
        .unwrap_err();
    assert_eq!(refusal.code, Code::IssuerRevoked);
    scene.update();
    assert_eq!((scene.signed("root"), scene.list("root").entries), (2, 1));
    assert_eq!(scene.signed("line"), 1);

    scene
        .ca
        .exclusions
        .unrevoke(&operator(), line(), "a test")
        .unwrap();
    scene.abandon(0x41);
    scene.update();
    assert_eq!((scene.signed("root"), scene.list("root").entries), (3, 0));
    assert_eq!(scene.signed("line"), 2);
    assert!(scene.ca.hierarchy().signing("line").is_ok());
}

/// Below a revoked root nothing is issued, although the certificates below are not revoked.
#[test]
fn a_revoked_root_stops_all_below_it() {
    let scene = Scene::set();
    let root = RevocationTarget::Generation {
        generation: scene.generation("root"),
    };
    scene
        .ca
        .exclusions
        .revoke(&operator(), root, KeyCompromise, "a test")
        .unwrap();
    for authority in ["root", "line"] {
        let hierarchy = scene.ca.hierarchy();
        let refusal = hierarchy.signing(authority).map(|_| ()).unwrap_err();
        assert!(
            refusal.message.contains("generation 1 of root"),
            "{refusal}"
        );
    }
}
