//! Gives every program of Hallmark its access to the machine: files, terminal, log, service
//! manager.
//!
//! | module | what it does |
//! |---|---|
//! | [`files`] | opens, writes and removes files without following planted links |
//! | [`encryption`] | encrypts files to recipients, and decrypts them |
//! | [`printable`] | prints text from outside without control characters, and parses arguments |
//! | [`socket_path`] | refuses a path that no Unix socket can have |
//! | [`toml_error`] | describes a TOML error without repeating the text, which may hold a secret |
//! | [`process_memory`] | keeps the memory of the process from core dumps and debuggers |
//! | [`notify`] | sends readiness, status and watchdog pings to systemd, and the log to journald |
//! | [`fragment`] | describes the families of PKCS#11 modules |
//! | [`probe`] | asks a PKCS#11 module for its slots, in a process of its own |
//! | [`program`] | runs the main function of a program: log, exit codes, error output |

pub mod encryption;
pub mod files;
pub mod fragment;
pub mod notify;
pub mod printable;
pub mod probe;
pub mod process_memory;
pub mod program;
pub mod socket_path;
pub mod toml_error;
pub mod trace;
