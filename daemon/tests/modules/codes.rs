//! Every return code of PKCS#11, once, in sign, find, login and open, from a module that wraps
//! SoftHSM (`pkcs11_fault`): what the caller is told, and that the same worker does the next thing
//! that it is asked.
//!
//! What was found is docs/return-codes.md, which is compared; `HALLMARK_WRITE_TABLE=1` writes it.

use crate::fixture::{Fixture, until};
use crate::softhsm;
use hallmarkd::token::client::{LOOKUP_DEADLINE, TokenClient};
use hallmarkd::token::worker::health::TokenState;
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

/// Tokens tried side by side: most of the time is the ladder's own, between one climb and the next.
const RIGS: usize = 16;

/// Longer than the ladder rests between two climbs of one rung, so that none is left out.
const REST: Duration = Duration::from_millis(1100);

const DEADLINE: Duration = Duration::from_secs(20);

/// A place where a code may come, and what makes the worker go there.
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

/// What the caller was told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Wait,
    Key,
    Refused,
    Parked,
}

impl Told {
    fn of<T>(outcome: Result<T, TokenError>) -> Self {
        match outcome {
            Ok(_) => Told::Nothing,
            Err(TokenError::Unavailable { .. }) => Told::Wait,
            Err(TokenError::Key { .. }) => Told::Key,
            Err(TokenError::Refused { .. }) => Told::Refused,
            Err(TokenError::Parked { .. }) => Told::Parked,
            Err(error @ TokenError::Deadline { .. }) => panic!("{error}"),
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Told::Nothing => "healed while the caller waited",
            Told::Wait => "`503`, healed afterwards",
            Told::Key => "the key is not usable",
            Told::Refused => "the token refuses this",
            Told::Parked => {
                "the PIN is not taken; after a login, none is tried until the operator changes it"
            }
        }
    }
}

/// One token behind the module with faults.
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
        let plan = Plan::new(fixture.path("faults"));
        fixture.wrapped_by = Some(module());
        fixture.set("PKCS11_FAULT_PLAN", fixture.text("faults"));
        let wrapped = Fixture::module("softhsm2").display().to_string();
        fixture.set("PKCS11_FAULT_MODULE", wrapped);
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
        assert_eq!(tried.client.health().restarts, 0, "the worker had to end");
    }

    /// The code comes once; afterwards the worker is as before.
    fn told(&self, place: &Place, code: u64) -> Told {
        thread::sleep(REST);
        let fault = Fault::at(place.function, 1, Action::Return(code));
        let faults: Vec<_> = place.led_to_by.clone().into_iter().chain([fault]).collect();
        self.plan.set(&faults).unwrap();
        let told = match place.name {
            "find" => Told::of(self.client.find_by_id(&self.key.id, LOOKUP_DEADLINE)),
            _ => Told::of(self.client.prove(&self.key, DEADLINE)),
        };
        assert_eq!(self.plan.came().len(), faults.len(), "{}", place.name);
        self.plan.set(&[]).unwrap();
        let park = self.fixture.path("token-tried.parked");
        if park.exists() {
            self.is_left_alone(&park);
        }
        until(
            &format!("it signs after {code:#x} in {}", place.name),
            || self.client.prove(&self.key, DEADLINE).ok(),
        );
        told
    }

    /// A refused PIN is not tried again before the operator has touched the park file.
    fn is_left_alone(&self, park: &Path) {
        until("it is parked", || {
            (self.client.health().state == TokenState::Parked).then_some(())
        });
        let logins = self.client.health().recoveries.logins;
        thread::sleep(REST);
        assert_eq!(self.client.health().recoveries.logins, logins);
        fs::remove_file(park).unwrap();
    }
}

/// Cargo leaves the library beside the tests that depend on it.
pub(crate) fn module() -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    let module = test.parent().unwrap().join("libpkcs11_fault.so");
    assert!(module.exists(), "{} is not built", module.display());
    module
}

/// Verifies, for each code in each place: the worker survives it, a refused PIN is tried once, and
/// the page says what the caller is told.
#[test]
fn every_return_code_is_survived_and_told_as_the_page_says() {
    let places = places();
    let cases = places
        .iter()
        .flat_map(|place| CODES.iter().map(move |code| (place, *code)));
    let cases = Mutex::new(cases.collect::<Vec<_>>());
    let found = Mutex::new(BTreeMap::<_, Vec<_>>::new());
    thread::scope(|scope| {
        for _ in 0..RIGS {
            scope.spawn(|| {
                Tried::during(|tried| {
                    while let Some((place, (name, code))) = { cases.lock().unwrap().pop() } {
                        let told = tried.told(place, code);
                        let mut found = found.lock().unwrap();
                        let codes = found.entry((place.name, told)).or_default();
                        codes.push((code, name));
                    }
                });
            });
        }
    });
    is_as_documented(&page(&found.into_inner().unwrap()));
}

fn page(found: &BTreeMap<(&str, Told), Vec<(u64, &str)>>) -> String {
    let mut text = HEAD.to_owned();
    for place in places() {
        text.push_str(&format!(
            "\n## In {} (`{}`)\n\n",
            place.name, place.function
        ));
        text.push_str("| effect | return codes |\n|---|---|\n");
        let found = found.iter().filter(|((name, _), _)| *name == place.name);
        let most = found.clone().map(|(_, codes)| codes.len()).max();
        for ((_, told), codes) in found {
            let listed = match Some(codes.len()) == most {
                true => "every other code".to_owned(),
                false => in_order(codes),
            };
            text.push_str(&format!("| {} | {listed} |\n", told.in_words()));
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
        "docs/return-codes.md says something else; if it is the page that is wrong: \
         HALLMARK_WRITE_TABLE=1 cargo nextest run -p hallmarkd --test modules"
    );
}

const HEAD: &str = "\
# Effects of a token's return codes

A test writes this page (`daemon/tests/modules/codes.rs`): a module returns each code once, in each of four
places, and the test checks the caller's answer and the worker. No code ends the worker or `hallmarkd serve`.
A code that comes again and again keeps the token unavailable: the worker recovers once a second, and after
15 seconds another process replaces it.
";
