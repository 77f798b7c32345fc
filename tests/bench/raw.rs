//! The token by itself: one session for each thread, and one key whose handle is at hand.
//!
//! A process of its own, because a PKCS#11 module reads its environment when it is loaded and a
//! Rust program does not change its own. It waits for a line with a number of milliseconds, signs
//! for so long, and answers with signatures per second; it ends when its input does.

use crate::hallmark::{MODULE, Plant};
use anyhow::Context;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use secrecy::SecretString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Signatures between two readings of the clock.
const BATCH: u32 = 16;
/// The DigestInfo of a SHA-256 (RFC 8017, section 9.2, note 1), without the digest.
const SHA256_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// The process, as the bench sees it.
pub(crate) struct RawSigner {
    /// `None` once it was asked to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    child: Child,
}

impl RawSigner {
    /// Signs with the key of the plant's line.
    pub(crate) fn start(plant: &Plant, threads: usize) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--raw", MODULE])
            .arg(plant.pin_file())
            .arg(plant.signing_key_id()?)
            .arg(threads.to_string())
            .env("SOFTHSM2_CONF", plant.softhsm_conf())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the raw signer")?;
        let answers = child.stdout.take().context("its output is piped")?;
        Ok(Self {
            orders: child.stdin.take(),
            answers: BufReader::new(answers),
            child,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Signatures per second, measured for `time`.
    pub(crate) fn rate(&mut self, time: Duration) -> anyhow::Result<f64> {
        let orders = self.orders.as_mut().context("the raw signer was ended")?;
        writeln!(orders, "{}", time.as_millis())?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        answer.trim().parse().context("the raw signer gave up")
    }
}

impl Drop for RawSigner {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// Is the process: signs for as long as each line of its input says.
pub(crate) fn serve(
    module: &str,
    pin_file: &str,
    key_id: &str,
    threads: &str,
) -> anyhow::Result<()> {
    let context = Pkcs11::new(module)?;
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let pin = SecretString::from(std::fs::read_to_string(pin_file)?.trim_end());
    let key_id = hex::decode(key_id)?;
    let threads: usize = threads.parse()?;
    let slots = context.get_slots_with_initialized_token()?;
    let slot = *slots.first().context("there is no token")?;
    let mut sessions = Vec::new();
    for number in 0..threads {
        let session = context.open_ro_session(slot)?;
        // The login is one of the whole process.
        if number == 0 {
            session.login(UserType::User, Some(&pin))?;
        }
        sessions.push(session);
    }
    for order in std::io::stdin().lock().lines() {
        let time = Duration::from_millis(order?.parse()?);
        let rates = std::thread::scope(|scope| {
            let signers = sessions.iter_mut().map(|session| {
                let key_id = &key_id;
                scope.spawn(move || sign(session, key_id, time))
            });
            let signers: Vec<_> = signers.collect();
            let ended = signers
                .into_iter()
                .map(|it| it.join().expect("no signer panics"));
            ended.collect::<anyhow::Result<Vec<f64>>>()
        });
        writeln!(std::io::stdout(), "{}", rates?.iter().sum::<f64>())?;
    }
    drop(sessions);
    Ok(context.finalize()?)
}

fn sign(session: &mut Session, key_id: &[u8], time: Duration) -> anyhow::Result<f64> {
    let private = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Id(key_id.to_vec()),
    ];
    let key = session.find_objects(&private)?;
    let key = *key
        .first()
        .context("the authority's key is not on the token")?;
    let kind = session.get_attributes(key, &[cryptoki::object::AttributeType::KeyType])?;
    let is_rsa = kind.contains(&Attribute::KeyType(KeyType::RSA));
    let digest = [0x5a; 32];
    let (mechanism, data) = if is_rsa {
        (Mechanism::RsaPkcs, [&SHA256_INFO[..], &digest].concat())
    } else {
        (Mechanism::Ecdsa, digest.to_vec())
    };
    let begun = Instant::now();
    let mut signatures = 0;
    while begun.elapsed() < time {
        for _ in 0..BATCH {
            session.sign(&mechanism, key, &data)?;
        }
        signatures += BATCH;
    }
    Ok(f64::from(signatures) / begun.elapsed().as_secs_f64())
}
