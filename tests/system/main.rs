//! System tests: the real daemon and its worker, real tokens, the emulator, real TLS.
//!
//! Each test has a folder, a token, a database and ports of its own, and tells one story. At its
//! end, whatever the story was, `invariants` must hold. A missing SoftHSM or swtpm fails them:
//! `softhsm-setup/install` brings both. The fault stories need `--features failpoints`.
//!
//! | the stage | |
//! |---|---|
//! | `test_env` | the folder, the daemon, the emulator; what a story may do to them |
//! | `process` | a process of ours, signalled and ended by its id |
//! | `request` | keys, CSRs, and what becomes of them |
//! | `caller` | a client of the HTTPS listener |
//! | `keepalive` | one connection that is kept, byte for byte |
//! | `raw_tls` | a TLS client that says exactly what a story wants |
//! | `load` | a line at work throughout a story |
//! | `device`, `provisioned` | devices at the provisioning service |
//! | `own_authority` | authorities of a story's own, each with a group and a device |
//! | `prober` | registers all the while, and judges every answer |
//! | `crash_point` | the daemon is killed where a story wants it |
//! | `weak_key` | RSA keys whose private key can be computed |
//! | `clock` | time passes, for the daemon and for the service |
//! | `relying_party` | a relying party, who knows what certificates say and nothing else |
//! | `token_objects` | another program at the token, with and without the PIN |
//! | `software_tpm` | a TPM 2.0 in software |
//! | `service_manager` | what systemd does for a service, as far as a story needs it |
//! | `invariants` | what holds after every test |
//!
//! | the stories | |
//! |---|---|
//! | `issue` | from the ceremony to an assigned device; where secrets are not |
//! | `refusals` | bad input: its own status and code, audited, and nothing left of it |
//! | `policy` | what stations and devices may ask for, as the configuration says |
//! | `keys` | weak, shared and compromised keys get no certificate |
//! | `printed` | outside text forges no line on a terminal or in the log |
//! | `self_renewal` | stations, auditors and servers renew themselves; what ends is an alarm before |
//! | `access` | every route and every role: who is refused, before the body is read, and audited |
//! | `hostile` | a thousand connections of every kind, and a station that is served all the same |
//! | `est` | devices enroll and renew by EST, with curl and OpenSSL |
//! | `cannot_sign` | while no token can sign, nothing is recorded, whatever asks |
//! | `explained` | every signature that the token made is on record |
//! | `crash` | killed at every step of the issuance cycle; a failing write |
//! | `stop` | an orderly stop: everybody who was accepted is answered, within ten seconds |
//! | `roles` | the role of a caller is the one on record, and a row alone makes no caller |
//! | `revoked_callers` | one command revokes any certificate, and its holder is refused at its next request |
//! | `operations_authority` | the authority of stations, operators and the listener is compromised or blocked |
//! | `reload` | a new configuration, whole or not at all, while the line is at work |
//! | `backup` | copies made under load, judged, and put in the database's place |
//! | `modes` | files of ours are for their owner alone, and a secret that others can read is refused |
//! | `planted` | root runs our programs in folders where other users have planted links |
//! | `token_gone` | the token is taken away and put back |
//! | `token_faults` | every rung of the recovery ladder, and beyond, while the line is at work |
//! | `half_made` | keys made by halves, and public keys that someone else has written |
//! | `failover` | a token stays away: a second one, or a standby authority, signs |
//! | `provisioning` | the service holds what it shall, whatever it does meanwhile |
//! | `drift` | what somebody else changes there is found, shown, and repaired if policy says so |
//! | `roll` | a device is renewed through both slots |
//! | `authority_roll` | an intermediate, one above another, and a root are rolled, and nobody is refused |
//! | `authority_compromise` | an intermediate and a root in wrong hands |
//! | `authority_crash` | rolls of authorities, killed at each step |
//! | `authority_faults` | rolls of authorities, each fault at each call |
//! | `revocation` | lists over plain HTTP, judged by OpenSSL; killed between record and signature |
//! | `block` | a device, a group or a generation is kept out, and let back in |
//! | `compromise` | a leaf in wrong hands is out when the command answers |
//! | `leaf_faults` | rolls of leaves, each fault at each call, many devices side by side |
//! | `device_notification` | devices hear of their roll, by a call each or by a job of the hub |
//! | `roll_faults` | rolls of leaves, killed at each step, and probed throughout |
//! | `fleet` | 10,000 devices below an authority that is rolled: what is asked is answered, and right |
//! | `runbook` | the runbooks of `docs/operations.md`, run as they stand there |
//! | `adoption` | an authority that existed before is taken over, issues and revokes |
//! | `external` | an authority whose issuer is elsewhere: asked, answered, rolled |
//! | `key_types` | authorities with keys of every kind, and on a token that tells less |
//! | `tokens` | tokens are listed, shown, checked and measured |
//! | `tpm` | authorities in a TPM, beside others in SoftHSM; restarted, locked out, cleared |
//! | `service` | as a service of systemd: readiness, status, watchdog, sockets handed over |
//! | `footprint` | an idle daemon and its worker: how often they wake, what they occupy |
//! | `gateway` | a full disk, a slow one, a root that is read-only, weeks offline |
//! | `readiness` | a listener without a certificate, a key that does not sign: not ready, and why |
//! | `wrong_clock` | the machine's clock is wrong: nothing is signed, nothing expires |
//! | `setup` | the first-run guide: what it asks, writes and refuses |
//! | `cli` | exit codes, JSON, the repeated ceremony, `hallmarkd check` |
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that meets the unexpected shall stop there, and show the daemon's log; one that measures, its figures"
)]

mod access;
mod adoption;
mod authority_compromise;
mod authority_crash;
mod authority_faults;
mod authority_roll;
mod backup;
mod block;
mod caller;
mod cannot_sign;
mod cli;
mod clock;
mod compromise;
mod crash;
mod crash_point;
mod device;
mod device_notification;
mod drift;
mod est;
mod explained;
mod external;
mod failover;
mod fleet;
mod footprint;
mod gateway;
mod half_made;
mod hostile;
mod invariants;
mod issue;
mod keepalive;
mod key_types;
mod keys;
mod leaf_faults;
mod load;
mod modes;
mod operations_authority;
mod own_authority;
mod planted;
mod policy;
mod printed;
mod prober;
mod process;
mod provisioned;
mod provisioning;
mod raw_tls;
mod readiness;
mod refusals;
mod reload;
mod relying_party;
mod request;
mod revocation;
mod revoked_callers;
mod roles;
mod roll;
mod roll_faults;
mod runbook;
mod self_renewal;
mod service;
mod service_manager;
mod setup;
#[allow(
    dead_code,
    reason = "the tests of a TPM alone, in daemon/tests/tpm, use more of it"
)]
mod software_tpm;
mod stop;
mod test_env;
mod token_faults;
mod token_gone;
mod token_objects;
mod tokens;
mod tpm;
mod weak_key;
mod wrong_clock;
