//! The token by itself: one thread, one session, one key whose handle is at hand.
//!
//! A process of its own, because a PKCS#11 module reads its environment when it is loaded and a
//! Rust program does not change its own. It waits for a line with a number of milliseconds, signs
//! for so long, and answers with signatures per second; it ends when its input does.

use crate::plant::{MODULE, Plant};
use anyhow::Context;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::{Session, UserType};
use secrecy::SecretString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Signatures between two looks at the clock.
const BATCH: u32 = 64;

/// The process, seen from the benchmark.
pub(crate) struct RawSigner {
    /// `None` once it was asked to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    child: Child,
}

impl RawSigner {
    pub(crate) fn start(plant: &Plant) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--raw", MODULE])
            .arg(plant.pin_file())
            .arg(plant.signing_key_id()?)
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

pub(crate) fn serve(module: &str, pin_file: &str, key_id: &str) -> anyhow::Result<()> {
    let context = Pkcs11::new(module)?;
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let session = log_in(&context, pin_file)?;
    let private = [
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::Id(hex::decode(key_id)?),
    ];
    let key = *session
        .find_objects(&private)?
        .first()
        .context("the authority's key is not on the token")?;
    for order in std::io::stdin().lock().lines() {
        let time = Duration::from_millis(order?.parse()?);
        let digest = [0x5a; 32];
        let (begun, mut signatures) = (Instant::now(), 0);
        while begun.elapsed() < time {
            for _ in 0..BATCH {
                session.sign(&Mechanism::Ecdsa, key, &digest)?;
            }
            signatures += BATCH;
        }
        let rate = f64::from(signatures) / begun.elapsed().as_secs_f64();
        writeln!(std::io::stdout(), "{rate}")?;
    }
    drop(session);
    Ok(context.finalize()?)
}

/// A session on the one token that there is, logged in.
fn log_in(context: &Pkcs11, pin_file: &str) -> anyhow::Result<Session> {
    let pin = std::fs::read_to_string(pin_file)?;
    let slots = context.get_slots_with_initialized_token()?;
    let session = context.open_ro_session(*slots.first().context("there is no token")?)?;
    session.login(UserType::User, Some(&SecretString::from(pin.trim_end())))?;
    Ok(session)
}
