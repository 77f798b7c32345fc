//! Another program at the environment's token: writes public-key objects without a PIN, and moves
//! and deletes objects with it.
//!
//! SoftHSM reads its environment when it is loaded, so the program is a process of its own: this
//! test program again, with a variable that says what to do.

use crate::test_env::{MODULE, TestEnv};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use std::fs;
use std::process::Command;

/// The task of the other program; without it, it is a test.
const ORDER: &str = "HALLMARK_TEST_TOKEN_ORDER";
/// The PIN that it may use.
const PIN_FILE: &str = "HALLMARK_TEST_TOKEN_PIN_FILE";
/// Begins the line with its answer.
const ANSWER: &str = "objects: ";
const P_256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// How many objects have an id: public keys, private keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Objects {
    pub(crate) public: usize,
    pub(crate) private: usize,
}

/// The change to objects with the id `id`, in hex.
pub(crate) enum Order<'a> {
    /// Nothing: the objects are counted.
    Count { id: &'a str },
    /// Writes so many useless public keys, without a PIN.
    WritePublic {
        id: &'a str,
        label: &'a str,
        count: usize,
    },
    /// Deletes public keys that were not made on this token as a generation's.
    DeleteForeign { id: &'a str },
    /// Deletes every public key.
    DeletePublic { id: &'a str },
    /// Gives private keys another id and label, so that no search finds them.
    Move { id: &'a str, to: &'a str },
    /// Tries a wrong PIN once, which the token remembers.
    TryWrongPin,
}

impl Order<'_> {
    fn words(&self) -> String {
        match self {
            Order::Count { id } => format!("count\n{id}"),
            Order::WritePublic { id, label, count } => format!("write\n{id}\n{label}\n{count}"),
            Order::DeleteForeign { id } => format!("delete-foreign\n{id}"),
            Order::DeletePublic { id } => format!("delete-public\n{id}"),
            Order::Move { id, to } => format!("move\n{id}\n{to}"),
            Order::TryWrongPin => "try-wrong-pin\n".into(),
        }
    }
}

impl TestEnv {
    /// Runs the other program with this task, and counts the objects with the id.
    pub(crate) fn at_the_token(&self, order: &Order<'_>) -> Objects {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("token_objects::a_public_key_is_written_without_a_pin")
            .env(ORDER, order.words())
            .env(PIN_FILE, self.path("pin"))
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let out = String::from_utf8(output.stdout).unwrap();
        let answer = out.lines().find_map(|line| line.split_once(ANSWER));
        let (_, counts) = answer.unwrap_or_else(|| panic!("no answer: {out}"));
        let (public, private) = counts.split_once(' ').unwrap();
        Objects {
            public: public.parse().unwrap(),
            private: private.trim().parse().unwrap(),
        }
    }

    /// The id of the key of an authority's generation, in hex.
    pub(crate) fn key_id(&self, authority: &str, generation: u32) -> String {
        let store = crate::invariants::open(&self.database());
        let sql = "SELECT lower(hex(key_id)) FROM generation WHERE authority = ?1 AND number = ?2";
        store
            .query_row(sql, (authority, generation), |row| row.get(0))
            .unwrap()
    }
}

/// Verifies that SoftHSM takes a public key from a program that knows no PIN.
#[test]
fn a_public_key_is_written_without_a_pin() {
    if let Ok(order) = std::env::var(ORDER) {
        let objects = obey(&order);
        println!("{ANSWER}{} {}", objects.public, objects.private);
        return;
    }
    let env = TestEnv::new();
    let (id, label) = ("0102", "foreign");
    let count = 2;
    let written = env.at_the_token(&Order::WritePublic { id, label, count });
    let expected = Objects {
        public: 2,
        private: 0,
    };
    assert_eq!(written, expected);
}

fn obey(order: &str) -> Objects {
    let words: Vec<&str> = order.split('\n').collect();
    let id = hex::decode(words[1]).unwrap();
    let session = session();
    match (words[0], &words[2..]) {
        ("write", [label, count]) => {
            for _ in 0..count.parse().unwrap() {
                write_public(&session, &id, label);
            }
            log_in(&session);
        }
        ("count", []) => log_in(&session),
        ("delete-public", []) => {
            log_in(&session);
            for object in objects(&session, ObjectClass::PUBLIC_KEY, &id) {
                session.destroy_object(object).unwrap();
            }
        }
        ("delete-foreign", []) => {
            log_in(&session);
            delete_foreign(&session, &id);
        }
        ("move", [to]) => {
            log_in(&session);
            let place = [
                Attribute::Id(hex::decode(to).unwrap()),
                Attribute::Label(to.as_bytes().to_vec()),
            ];
            for object in objects(&session, ObjectClass::PRIVATE_KEY, &id) {
                session.update_attributes(object, &place).unwrap();
            }
        }
        ("try-wrong-pin", []) => {
            let pin = AuthPin::new("not the pin".into());
            session.login(UserType::User, Some(&pin)).unwrap_err();
        }
        _ => panic!("no such order: {order:?}"),
    }
    Objects {
        public: objects(&session, ObjectClass::PUBLIC_KEY, &id).len(),
        private: objects(&session, ObjectClass::PRIVATE_KEY, &id).len(),
    }
}

fn session() -> Session {
    let module = Pkcs11::new(MODULE).unwrap();
    let threads = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    module.initialize(threads).unwrap();
    let slots = module.get_slots_with_initialized_token().unwrap();
    module.open_rw_session(slots[0]).unwrap()
}

fn log_in(session: &Session) {
    let pin = fs::read_to_string(std::env::var(PIN_FILE).unwrap()).unwrap();
    let pin = AuthPin::new(pin.trim().into());
    session.login(UserType::User, Some(&pin)).unwrap();
}

fn objects(
    session: &Session,
    class: ObjectClass,
    id: &[u8],
) -> Vec<cryptoki::object::ObjectHandle> {
    let template = [Attribute::Class(class), Attribute::Id(id.to_vec())];
    session.find_objects(&template).unwrap()
}

/// A point whose private key does not exist.
fn write_public(session: &Session, id: &[u8], label: &str) {
    const OCTET_STRING: u8 = 4;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let point = key.public_key_raw();
    let length = u8::try_from(point.len()).unwrap();
    let template = [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::Id(id.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::EcParams(P_256.to_vec()),
        Attribute::EcPoint([&[OCTET_STRING, length], point].concat()),
    ];
    session.create_object(&template).unwrap();
}

/// An object of C_CreateObject is not local.
fn delete_foreign(session: &Session, id: &[u8]) {
    for object in objects(session, ObjectClass::PUBLIC_KEY, id) {
        let wanted = [cryptoki::object::AttributeType::Local];
        let output = session.get_attributes(object, &wanted).unwrap();
        if output == [Attribute::Local(false)] {
            session.destroy_object(object).unwrap();
        }
    }
}
