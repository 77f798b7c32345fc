//! Operates a Hallmark daemon over its admin socket, and sets one up on a machine.
//!
//! [`ctl`] is the command `hallmark` and [`setup`] its subcommand that makes a service of an
//! installed package. Neither opens the database, loads a token's library or reads the daemon's
//! configuration: for that they run `hallmarkd`.

pub mod ctl;
mod custodian;
pub mod setup;
