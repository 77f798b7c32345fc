//! Returns every code of PKCS#11 once, in sign, find, login and open, from a module that wraps
//! SoftHSM (`pkcs11_fault`). Checks what the caller gets, and that the same worker performs the
//! next request.
//!
//! The results are compared with docs/return-codes.md; `HALLMARK_WRITE_TABLE=1` writes it.

use crate::fixture::{Fixture, until};
use crate::softhsm;
use hallmarkd::token::client::{LOOKUP_DEADLINE, TokenClient};
use hallmarkd::token::health::TokenState;
use hallmarkd::token::{KeyDescription, KeySpecification, TokenError};
use hallmarkd::x509::key::KeyType;
use pkcs11_fault::codes::CODES;
use pkcs11_fault::plan::{Action, Fault, Plan};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// Tokens tested in parallel: most of the time is the pause between two recoveries.
const TOKENS: usize = 16;

/// Longer than the pause between two recoveries of one level, so that none is skipped.
const REST: Duration = Duration::from_millis(1100);

const DEADLINE: Duration = Duration::from_secs(20);

/// A function that returns the code, and the fault that makes the worker call it.
struct Place {
    name: &'static str,
    function: &'static str,
    led_to_by: Option<Fault>,
}

fn places() -> [Place; 4] {
    let place = |name, function, code: Option<u64>| Place {
        name,
        function,
        led_to_by: code.map(|code| Fault::at("C_SignInit", 1, Action::Return(code))),
    };
    [
        place("sign", "C_Sign", None),
        place("find", "C_FindObjectsInit", None),
        // CKR_USER_NOT_LOGGED_IN and CKR_SESSION_HANDLE_INVALID
        place("login", "C_Login", Some(0x101)),
        place("open", "C_OpenSession", Some(0xb3)),
    ]
}

/// The result for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Nothing,
    Wait,
    Key,
    Refused,
    Parked,
}

impl Outcome {
    fn of<T>(outcome: Result<T, TokenError>) -> Self {
        match outcome {
            Ok(_) => Outcome::Nothing,
            Err(TokenError::Unavailable { .. }) => Outcome::Wait,
            Err(TokenError::Key { .. }) => Outcome::Key,
            Err(TokenError::Refused { .. }) => Outcome::Refused,
            Err(TokenError::Parked { .. }) => Outcome::Parked,
            Err(error @ TokenError::Deadline { .. }) => panic!("{error}"),
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Outcome::Nothing => "recovered while the caller waited",
            Outcome::Wait => "`503`, recovered afterwards",
            Outcome::Key => "the key is not usable",
            Outcome::Refused => "the token refuses the operation",
            Outcome::Parked => {
                "the PIN is refused; after a login, none is tried until the operator changes it"
            }
        }
    }
}

/// One token behind the module that injects faults.
struct Tried {
    fixture: Fixture,
    plan: Plan,
    client: TokenClient,
    key: KeyDescription,
}

impl Tried {
    fn during(work: impl FnOnce(&Tried)) {
        let mut fixture = Fixture::new("softhsm2", "factory");
        softhsm::make(&mut fixture);
        let plan = fixture.wrapped();
        let (client, _supervisor) = fixture.start();
        let specification = KeySpecification {
            key_type: KeyType::P256,
            label: "ca".into(),
            id: vec![7; 16],
        };
        let key = client.generate(&specification, DEADLINE).unwrap();
        client.prove(&key, DEADLINE).unwrap();
        let tried = Tried {
            fixture,
            plan,
            client,
            key,
        };
        work(&tried);
        assert_eq!(
            tried.client.health().restarts,
            0,
            "the worker had to be restarted"
        );
    }

    /// Lets the function return the code once; checks that the worker works afterwards.
    fn outcome_of(&self, place: &Place, code: u64) -> Outcome {
        thread::sleep(REST);
        let fault = Fault::at(place.function, 1, Action::Return(code));
        let faults: Vec<_> = place.led_to_by.clone().into_iter().chain([fault]).collect();
        self.plan.set(&faults).unwrap();
        let outcome = match place.name {
            "find" => Outcome::of(self.client.find_by_id(&self.key.id, LOOKUP_DEADLINE)),
            _ => Outcome::of(self.client.prove(&self.key, DEADLINE)),
        };
        assert_eq!(self.plan.came().len(), faults.len(), "{}", place.name);
        self.plan.set(&[]).unwrap();
        let park = self.fixture.path("token-tried.parked");
        if park.exists() {
            self.stays_parked(&park);
        }
        until(
            &format!("it signs after {code:#x} in {}", place.name),
            || self.client.prove(&self.key, DEADLINE).ok(),
        );
        outcome
    }

    /// Checks that a refused PIN is not tried again before the operator removes the park file.
    fn stays_parked(&self, park: &Path) {
        until("it is parked", || {
            (self.client.health().state == TokenState::Parked).then_some(())
        });
        let logins = self.client.health().recoveries.logins;
        thread::sleep(REST);
        assert_eq!(self.client.health().recoveries.logins, logins);
        fs::remove_file(park).unwrap();
    }
}

/// Verifies, for each code in each place: the worker keeps running, a refused PIN is tried once,
/// and the caller gets what the page says.
#[test]
fn every_return_code_has_the_documented_result() {
    let places = places();
    let cases = places
        .iter()
        .flat_map(|place| CODES.iter().map(move |code| (place, *code)));
    let cases = Mutex::new(cases.collect::<Vec<_>>());
    let found = Mutex::new(BTreeMap::<_, Vec<_>>::new());
    thread::scope(|scope| {
        for _ in 0..TOKENS {
            scope.spawn(|| {
                Tried::during(|tried| {
                    while let Some((place, (name, code))) = { cases.lock().unwrap().pop() } {
                        let outcome = tried.outcome_of(place, code);
                        let mut found = found.lock().unwrap();
                        let codes = found.entry((place.name, outcome)).or_default();
                        codes.push((code, name));
                    }
                });
            });
        }
    });
    is_as_documented(&page(&found.into_inner().unwrap()));
}

fn page(found: &BTreeMap<(&str, Outcome), Vec<(u64, &str)>>) -> String {
    let mut text = HEAD.to_owned();
    for place in places() {
        text.push_str(&format!(
            "\n## In {} (`{}`)\n\n",
            place.name, place.function
        ));
        text.push_str("| effect | return codes |\n|---|---|\n");
        let found = found.iter().filter(|((name, _), _)| *name == place.name);
        let most = found.clone().map(|(_, codes)| codes.len()).max();
        for ((_, outcome), codes) in found {
            let listed = if Some(codes.len()) == most {
                "every other code".to_owned()
            } else {
                in_order(codes)
            };
            text.push_str(&format!("| {} | {listed} |\n", outcome.in_words()));
        }
    }
    text
}

fn in_order(codes: &[(u64, &str)]) -> String {
    let mut codes = codes.to_vec();
    codes.sort_unstable();
    let names: Vec<_> = codes.iter().map(|(_, name)| format!("`{name}`")).collect();
    names.join(" ")
}

fn is_as_documented(page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/return-codes.md");
    if std::env::var_os("HALLMARK_WRITE_TABLE").is_some() {
        return fs::write(path, page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(
        written == page,
        "docs/return-codes.md differs; if the page is wrong: \
         HALLMARK_WRITE_TABLE=1 cargo nextest run -p hallmarkd --test modules"
    );
}

const HEAD: &str = "\
# Effects of a token's return codes

A test writes this page: a module returns each code once, in each of four
places, and the test checks the caller's answer and the worker. No code ends
the worker or `hallmarkd serve`. A code that comes again and again keeps the
token unavailable: the worker recovers once a second, and after 15 seconds
another process replaces it.
";
