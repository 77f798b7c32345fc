//! Stories of real clients: each starts its own emulator and talks to it over TLS.
//!
//! | file | subject |
//! |---|---|
//! | `client` | the clients themselves: SAS tokens, client certificates, host names |
//! | `pki` | the certificates they use |
//! | `enrollments` | the service plane: versions, slots, queries, bulk |
//! | `authorities` | CA certificates and their proof of possession |
//! | `devices` | registration, and every way to be refused |
//! | `entra` | bearer tokens for client assertions |
//! | `hub` | identities, direct methods, jobs |
//! | `mqtt` | devices over MQTT, at DPS and at the hub |
//! | `interference` | faults, the clock, the request log, state over a restart |
//! | `page` | the page about CI, line by line |
//! | `strangers` | independent clients: curl and openssl |

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod authorities;
mod client;
mod devices;
mod enrollments;
mod entra;
mod hub;
mod interference;
mod mqtt;
mod page;
mod pki;
mod strangers;
