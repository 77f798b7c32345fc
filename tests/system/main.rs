//! System tests: the real daemon and its worker, real tokens, the emulator, real TLS.
//!
//! Each test has a folder, a token, a database and ports of its own. At its end `invariants` must
//! hold. A missing SoftHSM or swtpm fails the tests: `softhsm-setup/install` installs both. The
//! tests of faults need `--features failpoints`.
//!
//! | environment | |
//! |---|---|
//! | `test_env` | the folder, the daemon, the emulator, and what a test may do to them |
//! | `admin`, `configured` | commands over the admin socket; tables of the configuration |
//! | `process` | a child process, signalled and ended by its id |
//! | `request` | keys, CSRs, and the holders of certificates |
//! | `caller` | a client of the HTTPS listener |
//! | `keepalive` | one kept-alive connection, byte for byte |
//! | `raw_tls` | a TLS client that sends exactly the bytes that a test wants |
//! | `load` | a production line at work throughout a test |
//! | `device`, `provisioned` | devices at the provisioning service |
//! | `own_authority` | authorities of a test's own, each with a group and a device |
//! | `prober` | registers devices throughout a test, and judges every answer |
//! | `crash_point` | kills the daemon at a chosen point |
//! | `weak_key` | RSA keys whose private key can be computed |
//! | `clock` | moves the clocks of the daemon and of the service |
//! | `relying_party` | verifies with the addresses in certificates, and nothing else |
//! | `token_objects` | another program at the token, with and without the PIN |
//! | `software_tpm` | a TPM 2.0 in software |
//! | `service_manager` | a substitute for systemd |
//! | `est_client` | a client of EST: curl, and OpenSSL |
//! | `schema` | judges values by the schemas of an OpenAPI document |
//! | `stick` | an offline root, a daemon below it, and the medium that is carried |
//! | `elsewhere`, `old_authority` | another organisation's CA; one that is adopted |
//! | `manufacturer` | a manufacturer of devices, with CA, CRLs and birth certificates |
//! | `terminal` | a terminal with an operator at it |
//! | `invariants` | the conditions that hold after every test |
//!
//! | tests | |
//! |---|---|
//! | `issue` | the main path from the ceremony to an assigned device; places without secrets |
//! | `refusals` | bad input: its own status and code, audited, and nothing left behind |
//! | `csr_cases` | requests from the field: certified, or refused with the true reason |
//! | `batch` | many requests in one body: mixed refusals, limits, kills and stops amid batches |
//! | `batch_command` | `issue-batch`: killed, repeated, finished |
//! | `policies` | authorities that require policies below them, judged by OpenSSL |
//! | `policy` | which certificates stations and devices may request |
//! | `keys` | weak, shared and compromised keys get no certificate |
//! | `screen` | lists, pages and progress on a terminal of some width, and in a pipe |
//! | `secrets` | every secret that a running system was given, in every place |
//! | `printed` | outside text forges no line on a terminal or in the log |
//! | `self_renewal` | stations, auditors and servers renew themselves; an alarm before an end |
//! | `access` | every route and role: refused before the body is read, and audited |
//! | `access_page` | docs/access.md is that of the permissions and commands |
//! | `access_matrix` | every cell of docs/access.md, served and refused |
//! | `hostile` | a thousand connections of every kind, while a station is served |
//! | `http` | HTTP/1.0, ALPN, methods and addresses that no route takes: with curl and OpenSSL |
//! | `late_renewal` | leaves of devices that renew themselves after their end, once |
//! | `one_time_credential` | a device requests its first leaf by a secret that works once |
//! | `birth` | a device requests its first leaf with its manufacturer's certificate |
//! | `est` | devices enroll and renew by EST, with curl and OpenSSL |
//! | `cannot_sign` | while no token can sign, nothing is recorded, whatever the source |
//! | `explained` | every signature that the token made is on record |
//! | `crash` | kills at every step of the issuance cycle; a failing write |
//! | `stop` | an orderly stop: every accepted client is answered, within ten seconds |
//! | `roles` | the role of a caller is the one on record; a row alone makes no caller |
//! | `revoked_callers` | a revoked certificate is refused at its holder's next request |
//! | `revoked_listener` | a revoked certificate of the listener is presented to no client |
//! | `operations_authority` | compromise or block of the authority of stations and operators |
//! | `reload` | a new configuration, whole or not at all, while the line is at work |
//! | `backup` | copies made under load, verified, and restored |
//! | `restored` | after a restore: exclusions of what is not on record, and what receipts say |
//! | `restored_drift` | after a restore: what differs at a service is kept |
//! | `unrecorded` | services with enrollments that are not on record, or not compared with it |
//! | `modes` | files belong to their owner alone; a readable secret is refused |
//! | `planted` | root runs programs in folders where other users have planted links |
//! | `token_gone` | the token is taken away and put back |
//! | `token_faults` | every level of recovery, and beyond, while the line is at work |
//! | `half_made` | keys made by halves, and public keys that another program has written |
//! | `failover` | a token is unavailable: a second one, or a standby authority, signs |
//! | `provisioning` | the service holds the desired state in the end, whatever it does before |
//! | `drift` | changes of other clients are found, shown, and repaired if policy says so |
//! | `ca_drift` | the same for CA certificates; proofs of possession that cannot be signed |
//! | `roll` | a device is renewed through both slots |
//! | `authority_roll` | intermediates and a root are rolled, and no device is refused |
//! | `estimates` | how long the rest of a rollover takes, as measured |
//! | `cross` | the generations of a root certify each other: paths from either, kills, exclusions |
//! | `authority_compromise` | an intermediate and a root are compromised |
//! | `excluded` | no access path is left to what is excluded, whichever it is and was added later |
//! | `authority_crash` | rollovers of authorities, killed at each step |
//! | `authority_faults` | rollovers of authorities, each fault at each call |
//! | `revocation` | lists over plain HTTP, judged by OpenSSL; kills between record and signature |
//! | `published` | caches of lists and CA certificates, with curl |
//! | `split_lists` | delta lists and partitions of revocation lists, judged by OpenSSL |
//! | `ocsp` | OCSP answers, judged by OpenSSL, GnuTLS and curl; a responder without its token |
//! | `ocsp_responder` | responders are renewed; an alarm with its cause while they are not |
//! | `held` | one certificate is revoked, held or released, by its own command, and everywhere |
//! | `block` | a device, a group or a generation is blocked, and the block is lifted |
//! | `compromise` | a compromised leaf is excluded when the command answers |
//! | `leaf_faults` | rollovers of leaves, each fault at each call, many devices side by side |
//! | `device_notification` | devices hear of their rollover, by a call each or by a hub job |
//! | `renewal` | devices renewed again and again, renewals that are lost, calls that hang |
//! | `canary` | canaries that cannot be tried, and authorities that end before a canary would |
//! | `roll_faults` | rollovers of leaves, killed at each step, and probed throughout |
//! | `fleet` | 10,000 devices below a rolling authority: answers are complete and right |
//! | `runbook`, `runbook_text` | the runbooks of `docs/operations.md`, line by line |
//! | `guide` | the pages of `docs/guide`, as a reader runs them |
//! | `adoption` | an authority that existed before is adopted, issues and revokes |
//! | `approval_pages` | two people agree in the console |
//! | `approvals` | two people agree: refused without, done with, forged by no change of a row |
//! | `approval_commands` | the commands by which two people agree, OpenSSL, and the configuration |
//! | `adopted_keys` | adopted authorities with RSA and Ed25519 keys, through a rollover |
//! | `constrained` | name constraints above: for leaves, authorities below, and rollovers |
//! | `encodings` | certificates that are encoded unlike ours: kept octet by octet, or refused |
//! | `certificates` | certificates are found by what is known of them, explained and exported |
//! | `certificate_files` | certificates from elsewhere, in the files that other tools write |
//! | `external` | an authority whose issuer is elsewhere: request, certificate, rollover |
//! | `renewed_authority` | its certificate is renewed for the same key, or not |
//! | `offline_root` | two daemons, one without network: requests, certificates and lists |
//! | `subordinate` | a factory certifies a gateway, which is another daemon |
//! | `subordinate_request` | requests of authorities elsewhere: refused, or as the profile says |
//! | `est_clients` | EST with Bouncy Castle's client, and as `aziot-certd` asks |
//! | `generated_keys` | keys that the daemon makes: as OpenSSL and Java read them, kept nowhere |
//! | `key_types` | authorities with every key type, and on a token that reports less |
//! | `profiles` | certificates of every shape of a profile, as OpenSSL reads and verifies them |
//! | `tokens` | tokens are listed, shown, checked and measured |
//! | `tpm` | authorities in a TPM, beside others in SoftHSM; restarted, locked out, cleared |
//! | `service` | a service of systemd: readiness, status, watchdog, sockets handed over |
//! | `footprint` | an idle daemon and its worker: how often they wake, what they occupy |
//! | `gateway` | a full disk, a slow one, a root that is read-only, weeks offline |
//! | `receipts` | a place that a receipt calls done is as the receipt says, after every test |
//! | `receipt_stories` | receipts after repeats, second compromises, restores and reloads |
//! | `repeated_deletions` | exclusions in force delete again what hubs got back |
//! | `readiness` | a listener without a certificate, a key that does not sign: not ready, and why |
//! | `traced` | the trace of a request, in the logs, at the provisioning service and at the hub |
//! | `monitoring` | alert rules and dashboard, judged by promtool; faults raise alerts |
//! | `wrong_clock` | the machine's clock is wrong: nothing is signed, nothing expires |
//! | `operator` | failures for scripts, the newest of the journal, certificates fetched again |
//! | `path_length` | rollovers for which the certificates above leave no path length |
//! | `pin_prompt` | setup asks for a PIN: unseen, interrupted, corrected, kept in one place |
//! | `setup` | the first-run guide: what it asks, writes and refuses |
//! | `console` | the web pages: who may read them, what they show, how a browser gets them |
//! | `console_compromise` | the compromise of a device and of a generation by forms |
//! | `console_pages` | what each page shows, and forms, which no other site can send |
//! | `openapi` | the document of the API has every route, and every answer is as it says |
//! | `cli` | exit codes, JSON, a ceremony that is repeated |
//! | `check` | `hallmarkd check`: what it reports before the daemon is started |
//! | `doctor`, `doctor_services` | `hallmark doctor`: each check with a fault, and without one |
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test stops at the unexpected and shows the daemon's log; a measurement prints its \
              figures"
)]

mod access;
mod access_matrix;
mod access_page;
mod admin;
mod adopted;
mod adopted_keys;
mod adoption;
mod approval_commands;
mod approval_pages;
mod approvals;
mod authority_compromise;
mod authority_crash;
mod authority_faults;
mod authority_roll;
mod backup;
mod batch;
mod batch_command;
mod birth;
mod block;
mod blocked_groups;
mod ca_drift;
mod caller;
mod canary;
mod cannot_sign;
mod certificate_files;
mod certificates;
mod check;
mod checkpoints;
mod cli;
mod clock;
mod compromise;
mod configured;
mod console;
mod console_compromise;
mod console_pages;
mod constrained;
mod crash;
mod crash_point;
mod cross;
mod csr_cases;
mod custodians;
mod device;
mod device_notification;
mod doctor;
mod doctor_services;
mod drift;
mod elsewhere;
mod encodings;
mod encrypted_backup;
mod est;
mod est_client;
mod est_clients;
mod estimates;
mod excluded;
mod explained;
mod external;
mod failover;
mod fleet;
mod footprint;
mod gateway;
mod generated_keys;
mod guide;
mod half_made;
mod held;
mod hostile;
mod http;
mod hub_quota;
mod hubs;
mod imported;
mod invariants;
mod issue;
mod keepalive;
mod kept;
mod key_types;
mod keys;
mod late_renewal;
mod leaf_faults;
mod load;
mod lost_places;
mod lying_front;
mod manufacturer;
mod modes;
mod monitoring;
mod ocsp;
mod ocsp_responder;
mod offline_root;
mod offline_root_faults;
mod old_authority;
mod one_time_credential;
mod open_places;
mod openapi;
mod openapi_examples;
mod openapi_walk;
mod operations_authority;
mod operator;
mod overload;
mod overview;
mod own_authority;
mod path_length;
mod pin_prompt;
mod planted;
mod policies;
mod policy;
mod printed;
mod prober;
mod process;
mod profiles;
mod provisioned;
mod provisioning;
mod published;
mod raw_tls;
mod readiness;
mod receipt_stories;
mod receipts;
mod refusals;
mod reload;
mod relying_party;
mod removal;
mod renewal;
mod renewed_authority;
mod repeated_deletions;
mod request;
mod restored;
mod restored_drift;
mod revocation;
mod revoked_callers;
mod revoked_listener;
mod roles;
mod roll;
mod roll_faults;
mod runbook;
mod runbook_text;
mod schema;
mod screen;
mod secrets;
mod self_renewal;
mod service;
mod service_manager;
mod setup;
#[allow(
    dead_code,
    reason = "the tests of a TPM alone, in daemon/programs/tests/tpm, use more of it"
)]
mod software_tpm;
mod split_lists;
mod stick;
mod stop;
mod subordinate;
mod subordinate_request;
mod terminal;
mod test_env;
mod token_faults;
mod token_gone;
mod token_objects;
mod tokens;
mod tpm;
mod traced;
mod unrecorded;
mod weak_key;
mod wrong_clock;
