//! Azure's Device Provisioning Service, its CA plane and an IoT Hub on one loopback address.
//!
//! Tests start it with [`Emulator::start`]; the program `dps-emulator` wraps the same. It shares no
//! code with the daemon, so that no mistake is made on both sides. It keeps no secret and protects
//! nothing: it must never listen where others can reach it.
//!
//! The way of a request:
//!
//! | module | does |
//! |---|---|
//! | `tls`, `listener` | let every client certificate in, once its key is proven |
//! | `server` | HTTP to `wire::Call` and back; `truncated` is a body that ends too soon |
//! | `exchange` | `journal` and `faults` around every answer |
//! | `plane`, `operation` | which service is meant, and what is asked of it |
//! | `mqtt` | the same for MQTT: registration, and devices that are online |
//! | `service`, `device`, `arm`, `hub`, `entra` | services: functions from `Call` to `Reply` |
//! | `cloud`, `world` | what they share: clock, switches, and all state under one lock |
//! | `enrollment`, `registration`, `certificate`, `chain` | the things they talk about |
//! | `etag`, `ids`, `sas`, `dates`, `page`, `rate`, `refusal` | common rules |
//! | `running` | the threads and listeners |
//! | `arguments` | the command line of the program |
//! | `control`, `views`, `emulator` | the test's hand: look, interfere, move the clock |
//!
//! Sections named in comments are those of the contract reference: what is known of Azure, with its
//! sources. Where it says UNCONFIRMED, behaviour is a [`Switches`] field or noted in the README.

pub mod arguments;
mod arm;
mod certificate;
mod chain;
mod clock;
mod cloud;
mod control;
mod dates;
mod device;
mod emulator;
mod enrollment;
mod entra;
mod etag;
mod exchange;
mod faults;
mod hub;
mod ids;
mod journal;
mod listener;
mod mqtt;
mod operation;
mod options;
mod page;
mod plane;
mod rate;
mod refusal;
mod registration;
mod running;
mod sas;
mod server;
mod service;
mod tls;
mod truncated;
mod views;
mod wire;
mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use clock::Clock;
pub use emulator::{ArmAccess, Emulator};
pub use enrollment::Kind;
pub use entra::EntraClient;
pub use faults::{Action, Aim, Fault, TooManyFaults};
pub use hub::presence::MethodAnswer;
pub use journal::{Count, LoggedRequest};
pub use options::{Options, Quotas, Switches};
pub use plane::Plane;

/// Take a lock. A panic elsewhere is that request's failure and must not become every later one's.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
