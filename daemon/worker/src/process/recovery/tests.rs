//! Tests recovery with a backend that fails as scripted.

use super::*;
use crate::backend::{Backend, PinTries, TokenIdentity};
use crate::memory::MemoryToken;
use hallmark_pki::x509::key::{KeyType, SignatureAlgorithm};
use hallmark_protocol::credential;
use hallmark_protocol::health::{KeyReport, RecoveryCounters};
use hallmark_protocol::operation::Token;
use hallmark_protocol::{KeyDescription, KeyReference, KeySpecification, key_proof};
use secrecy::SecretString;
use std::collections::VecDeque;

const NAME: &str = "factory";

/// The faults still to come; shared by the test, the backend and its sessions.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Faults>>);

#[derive(Default)]
struct Faults {
    /// One for each of the next operations.
    operations: VecDeque<RecoveryLevel>,
    /// The number of the next starts that fail.
    starts: usize,
    /// One for each of the next checks.
    remarks: VecDeque<Result<Option<String>, TokenError>>,
    /// True to make wrong signatures.
    lies: bool,
    opened: usize,
    dropped: usize,
    started: usize,
}

impl Script {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.0
            .lock()
            .expect("no test panics while it holds the script")
    }
}

fn broken(level: RecoveryLevel) -> TokenError {
    TokenError::Unavailable {
        token: NAME.into(),
        reason: "scripted".into(),
        level: Some(level),
    }
}

struct ScriptedBackend {
    memory: MemoryToken,
    script: Script,
}

impl Backend for ScriptedBackend {
    fn start(&mut self) -> Result<TokenIdentity, TokenError> {
        let mut faults = self.script.faults();
        assert_eq!(
            faults.opened, faults.dropped,
            "a session outlived C_Finalize"
        );
        faults.started += 1;
        match faults.starts.checked_sub(1) {
            Some(left) => {
                faults.starts = left;
                Err(broken(RecoveryLevel::Initialize))
            }
            None => Ok(TokenIdentity {
                label: NAME.into(),
                serial: "1".into(),
            }),
        }
    }

    fn pin_tries(&mut self) -> Result<PinTries, TokenError> {
        Ok(PinTries::Enough)
    }

    fn log_in(&mut self, _: &SecretString) -> Result<(), TokenError> {
        Ok(())
    }

    fn log_out(&mut self) {}

    fn open(&mut self) -> Result<Box<dyn Token>, TokenError> {
        self.script.faults().opened += 1;
        let (memory, script) = (self.memory.clone(), self.script.clone());
        Ok(Box::new(ScriptedSession { memory, script }))
    }

    fn remark(&mut self) -> Result<Option<String>, TokenError> {
        let remark = self.script.faults().remarks.pop_front();
        remark.unwrap_or(Ok(None))
    }

    fn stop(&mut self) {
        let faults = self.script.faults();
        assert_eq!(
            faults.opened, faults.dropped,
            "a session outlived C_Finalize"
        );
    }
}

struct ScriptedSession {
    memory: MemoryToken,
    script: Script,
}

impl ScriptedSession {
    fn working(&self) -> Result<(), TokenError> {
        match self.script.faults().operations.pop_front() {
            Some(level) => Err(broken(level)),
            None => Ok(()),
        }
    }
}

impl Drop for ScriptedSession {
    fn drop(&mut self) {
        self.script.faults().dropped += 1;
    }
}

impl Token for ScriptedSession {
    fn perform(&mut self, operation: &Operation) -> Result<Answer, TokenError> {
        if let Operation::Generate(_) | Operation::Sign { .. } = operation {
            self.working()?;
        }
        match operation {
            Operation::Sign { key, algorithm, .. } if self.script.faults().lies => {
                self.memory.perform(&Operation::Sign {
                    key: key.clone(),
                    algorithm: *algorithm,
                    message: b"another".to_vec(),
                })
            }
            _ => self.memory.perform(operation),
        }
    }
}

/// A token of one signer, probed once, and a key that has signed.
struct Scene {
    recovery: Recovery,
    script: Script,
    key: KeyDescription,
}

impl Scene {
    fn new() -> Self {
        let (script, mut memory) = (Script::default(), MemoryToken::new(NAME));
        let specification = KeySpecification {
            key_type: KeyType::P256,
            label: "ca".into(),
            id: vec![1],
        };
        let token: &mut dyn Token = &mut memory;
        let key = token.ask(Operation::Generate(specification));
        let key: KeyDescription = key.expect("memory works");
        let backend = ScriptedBackend {
            memory,
            script: script.clone(),
        };
        let login = TokenLogin::new(NAME, Box::new(backend), None);
        let wall = Arc::new(Wall::in_memory(NAME));
        let recovery = Recovery::new(NAME, 1, login, Arc::new(Watchdog::new(2)), wall);
        recovery.probe();
        let scene = Scene {
            recovery,
            script,
            key,
        };
        scene.sign().expect("nothing is scripted yet");
        scene
    }

    fn sign(&self) -> Result<Answer, TokenError> {
        let (algorithm, message) = (SignatureAlgorithm::EcdsaSha256, key_proof::challenge());
        self.perform(&Operation::Sign {
            key: Arc::new(self.key.reference()),
            algorithm,
            message,
        })
    }

    fn perform(&self, operation: &Operation) -> Result<Answer, TokenError> {
        self.recovery
            .perform(0, operation, Instant::now() + Duration::from_secs(5))
    }

    fn script(&self, levels: &[RecoveryLevel]) {
        self.script.faults().operations.extend(levels);
    }

    fn recoveries(&self) -> RecoveryCounters {
        self.recovery.health().recoveries
    }

    fn state(&self) -> TokenState {
        self.recovery.health().state
    }

    /// Waits until another recovery is allowed.
    fn let_time_pass(&self) {
        std::thread::sleep(Duration::from_millis(1010));
    }
}

#[test]
fn a_broken_session_is_replaced_and_nothing_else_is_touched() {
    let scene = Scene::new();
    scene.script(&[RecoveryLevel::Session]);
    scene.sign().expect("signs on a new session");
    assert_eq!(
        (scene.recoveries().sessions, scene.script.faults().started),
        (1, 1)
    );
}

#[test]
fn recovery_goes_on_with_the_next_level_until_one_helps() {
    let scene = Scene::new();
    scene.let_time_pass();
    // The operation, the operation on a new session, the proof after a new login.
    scene.script(&[RecoveryLevel::Session; 3]);
    scene.sign().expect("recovers at a higher level");
    assert_eq!(
        (scene.recoveries().sessions, scene.script.faults().started),
        (1, 2)
    );
    assert_eq!(scene.state(), TokenState::Ready);
}

#[test]
fn a_lost_device_is_initialized_again_after_every_session_was_dropped() {
    let scene = Scene::new();
    scene.let_time_pass();
    scene.script(&[RecoveryLevel::Initialize]);
    scene.sign().expect("signs after a new start");
    assert_eq!(scene.script.faults().started, 2);
}

#[test]
fn initialization_is_rate_limited_and_then_left_to_the_prober() {
    let scene = Scene::new();
    scene.script(&[RecoveryLevel::Initialize]);
    assert!(matches!(scene.sign(), Err(TokenError::Unavailable { .. })));
    assert_eq!(
        scene.script.faults().started,
        1,
        "the first start was just now"
    );
    assert_eq!(scene.state(), TokenState::Unavailable);
    scene.let_time_pass();
    scene.recovery.probe();
    assert_eq!(scene.state(), TokenState::Ready);
    scene.sign().expect("healed");
}

#[test]
fn an_absent_device_is_tried_again_until_it_is_back() {
    let scene = Scene::new();
    scene.let_time_pass();
    scene.script.faults().starts = 2;
    scene.script(&[RecoveryLevel::Initialize]);
    assert!(matches!(
        scene.sign(),
        Err(TokenError::Unavailable { level: None, .. })
    ));
    for _ in 0..2 {
        assert_eq!(scene.state(), TokenState::Unavailable);
        scene.let_time_pass();
        scene.recovery.probe();
    }
    assert_eq!(scene.state(), TokenState::Ready);
}

#[test]
fn a_token_that_signs_wrongly_after_a_login_is_not_ready() {
    let scene = Scene::new();
    scene.let_time_pass();
    scene.script.faults().lies = true;
    scene.script(&[RecoveryLevel::Initialize]);
    scene.sign().expect_err("its proof does not verify");
    assert_eq!(scene.state(), TokenState::Unavailable);
    assert!(scene.recovery.health().reason.contains("does not verify"));
}

#[test]
fn a_used_key_that_is_missing_after_a_login_is_named_and_the_others_sign() {
    let scene = Scene::new();
    let gone = KeyReference {
        label: "gone".into(),
        id: vec![9],
        spki: Vec::new().into(),
        wrapped: None,
    };
    scene.recovery.used_keys.remember(&gone);
    scene.let_time_pass();
    scene.script(&[RecoveryLevel::Initialize]);
    scene.sign().expect("the other key signs");
    assert_eq!(scene.recovery.health().reason, "keys not found: gone");
}

/// Test signatures of a recovery and of the daemon are counted in the health.
#[test]
fn test_signatures_are_counted() {
    let scene = Scene::new();
    let reports = || scene.recovery.health().keys;
    assert_eq!(reports()[0].proofs, 0);
    scene.let_time_pass();
    scene.script(&[RecoveryLevel::Initialize]);
    scene.sign().expect("signs after a new login");
    assert_eq!(reports()[0].proofs, 1);
    let prove = Operation::Prove(scene.key.reference());
    assert_eq!(scene.perform(&prove), Ok(Answer::Key(scene.key.clone())));
    let [report] = &reports()[..] else {
        panic!("one key: {:?}", reports());
    };
    assert_eq!((report.proofs, &report.unusable), (2, &None));
}

/// A key that does not sign makes neither the token unusable nor another key.
#[test]
fn a_key_that_cannot_be_proven_is_reported_until_it_can() {
    let scene = Scene::new();
    let mut absent = scene.key.reference();
    absent.spki = vec![9; 32].into();
    let refused = scene.perform(&Operation::Prove(absent));
    assert!(
        matches!(refused, Err(TokenError::Key { .. })),
        "{refused:?}"
    );
    let health = scene.recovery.health();
    let unusable = |it: &&KeyReport| it.unusable.is_some();
    assert_eq!(health.keys.iter().filter(unusable).count(), 1);
    assert_eq!(health.state, TokenState::Ready);
    assert_eq!(health.reason, "keys not found: ca");
    scene.sign().expect("the other key signs");

    scene.script.faults().lies = true;
    let prove = Operation::Prove(scene.key.reference());
    assert!(matches!(scene.perform(&prove), Err(TokenError::Key { .. })));
    scene.script.faults().lies = false;
    scene.perform(&prove).expect("it signs again");
    let unusable = scene.recovery.health().keys;
    assert_eq!(
        unusable.iter().filter(|it| it.unusable.is_some()).count(),
        1
    );
}

#[test]
fn a_remark_about_a_ready_token_is_its_reason_until_it_ends() {
    let scene = Scene::new();
    let lockout = Ok(Some("in lockout".to_owned()));
    scene.script.faults().remarks = [lockout, Ok(None)].into();
    for reason in ["in lockout", ""] {
        scene.let_time_pass();
        scene.recovery.probe();
        let health = scene.recovery.health();
        assert_eq!((health.state, &*health.reason), (TokenState::Ready, reason));
    }
}

#[test]
fn an_idle_token_that_fails_is_recovered_before_a_request() {
    let scene = Scene::new();
    let started = scene.script.faults().started;
    scene.script.faults().remarks = [Err(broken(RecoveryLevel::Initialize))].into();
    scene.let_time_pass();
    scene.recovery.probe();
    assert_eq!(scene.script.faults().started, started + 1);
    assert_eq!(scene.state(), TokenState::Ready);
}

#[test]
fn a_key_is_not_generated_twice_after_a_recovery() {
    let scene = Scene::new();
    scene.let_time_pass();
    scene.script(&[RecoveryLevel::Initialize]);
    let specification = KeySpecification {
        key_type: KeyType::P256,
        label: "new".into(),
        id: vec![2],
    };
    let outcome = scene.perform(&Operation::Generate(specification));
    assert!(
        matches!(outcome, Err(TokenError::Unavailable { .. })),
        "{outcome:?}"
    );
    let found = scene
        .perform(&Operation::FindById(vec![2]))
        .expect("healed");
    assert_eq!(found, Answer::Found(None));
    assert_eq!(scene.state(), TokenState::Ready);
}

#[test]
fn many_signers_with_one_failure_recover_once() {
    let scene = Scene::new();
    scene.let_time_pass();
    let renewals = scene.recovery.pool.read().expect("not poisoned").renewals;
    assert!(
        scene
            .recovery
            .recover(RecoveryLevel::Initialize, renewals, 0)
    );
    assert!(
        scene
            .recovery
            .recover(RecoveryLevel::Initialize, renewals, 0),
        "another signer has recovered"
    );
    assert_eq!(scene.script.faults().started, 2);
}

/// The worker checks the bytes that its client calls an assertion or the text of a shared access
/// signature.
#[test]
fn a_credentials_key_signs_only_credentials() {
    let scene = Scene::new();
    let label = credential::label("dps").expect("a name");
    let certificate = [0x30, 0x82, 0x01, 0x00, 0xa0, 0x03].to_vec();
    let refused = [
        Operation::SignAssertion {
            key: scene.key.reference(),
            input: certificate.clone(),
        },
        Operation::Hmac {
            label: label.clone(),
            text: certificate,
        },
        Operation::Hmac {
            label,
            text: b"line.example\n9999999999".to_vec(),
        },
    ];
    for operation in refused {
        let outcome = scene.perform(&operation);
        assert!(
            matches!(outcome, Err(TokenError::Refused { .. })),
            "{outcome:?}"
        );
    }
}
