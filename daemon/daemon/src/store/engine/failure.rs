//! Translates errors of SQLite: into the violated constraint, or into what an operator can do.

use super::super::{Constraint, StoreError};
use rusqlite::ErrorCode;
use rusqlite::ffi::{
    SQLITE_CONSTRAINT_CHECK, SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID,
    SQLITE_CONSTRAINT_UNIQUE,
};

/// The columns by which SQLite reports a unique constraint, and the constraint's name.
const UNIQUE: &[(&str, &str)] = &[
    (
        "ca_certificate.provisioning, ca_certificate.generation",
        "ca_certificate_generation",
    ),
    (
        "ca_certificate.provisioning, ca_certificate.name",
        "ca_certificate_name",
    ),
    ("certificate.sha256", "certificate_sha256"),
    ("crl.generation, crl.number", "crl_number"),
    (
        "enrollment.provisioning, enrollment.kind, enrollment.name",
        "enrollment_name",
    ),
    ("generation.authority", "generation_next"),
    (
        "generation.authority, generation.number",
        "generation_number",
    ),
    (
        "generation.authority, generation.state",
        "generation_serving",
    ),
    ("generation.certificate", "generation_certificate"),
    ("generation.spki", "generation_spki"),
    ("generation.token, generation.key_id", "generation_key"),
    (
        "group_registrations.cause, group_registrations.cause_id, \
         group_registrations.provisioning, group_registrations.name",
        "group_registrations_once",
    ),
    ("hub_job.name", "hub_job_name"),
    (
        "hub_task.cause, hub_task.cause_id, hub_task.device, hub_task.action, \
         hub_task.provisioning",
        "hub_task_once",
    ),
    (
        "intent.caller, intent.idempotency_key",
        "intent_idempotency",
    ),
    (
        "intent.serial, intent.issuer, intent.issued_elsewhere",
        "intent_serial",
    ),
    ("intent.subject", "intent_possession"),
    ("issuer_crl.file", "issuer_crl_file"),
    ("mark.ca_certificate", "mark_ca_certificate"),
    ("mark.enrollment", "mark_enrollment"),
    ("placeholder.sha256", "placeholder_sha256"),
    ("responder.certificate", "responder_certificate"),
    ("responder.key_id", "responder_key_id"),
    ("responder.spki", "responder_spki"),
    ("roll.authority", "roll_open_authority"),
    ("roll.enrollment", "roll_open_enrollment"),
    (
        "unknown_enrollment.provisioning, unknown_enrollment.kind, unknown_enrollment.name",
        "unknown_enrollment_name",
    ),
];

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match &error {
            rusqlite::Error::SqliteFailure(code, message)
                if code.code == ErrorCode::ConstraintViolation =>
            {
                let message = message.as_deref().unwrap_or_default();
                let constraint = Constraint::named(name_of(code.extended_code, message));
                // Its name means nothing to an operator.
                tracing::debug!(constraint = constraint.name(), "change refused");
                StoreError::Violates(constraint)
            }
            rusqlite::Error::SqliteFailure(code, _) => {
                StoreError::Unavailable(match remedy(code.code) {
                    Some(remedy) => format!("{remedy} ({error})"),
                    None => error.to_string(),
                })
            }
            _ => StoreError::Unreadable(error.to_string()),
        }
    }
}

/// Returns the name of the violated constraint; SQLite's message where the constraint has no name.
///
/// SQLite names columns, not unique constraints. An index over an expression it does name. A
/// trigger's message is the trigger's name.
fn name_of(extended_code: i32, message: &str) -> &str {
    let reported = message.rsplit("constraint failed: ").next();
    let reported = reported.unwrap_or(message);
    match extended_code {
        SQLITE_CONSTRAINT_UNIQUE => unique_name(reported),
        SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_ROWID | SQLITE_CONSTRAINT_CHECK => {
            reported
        }
        _ => message,
    }
}

fn unique_name(reported: &str) -> &str {
    if let Some(index) = reported.strip_prefix("index '") {
        return index.trim_end_matches('\'');
    }
    let known = UNIQUE.iter().find(|(columns, _)| *columns == reported);
    known.map_or(reported, |(_, name)| name)
}

/// Says what to do about an error of the disk.
pub(in crate::store) fn remedy(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::DiskFull => "the disk is full: make room in the file system of state_dir",
        ErrorCode::ReadOnly => {
            "the disk or the database is read-only: remount the file system of state_dir writable, \
             or give the database to the daemon's user"
        }
        ErrorCode::SystemIoFailure => {
            "the disk fails or is full: look at the free space of state_dir and at the kernel's log"
        }
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
            "the database cannot be opened: look at owner, mode and free space of state_dir"
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            "another process holds the database: find it with fuser(1), and end it"
        }
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            "the database is damaged: restore a backup"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;
    use std::collections::BTreeSet;

    fn schema() -> Connection {
        let connection = Connection::open_in_memory().expect("memory");
        let schema = include_str!("../schema.sql");
        connection.execute_batch(schema).expect("valid SQL");
        connection
    }

    fn texts(connection: &Connection, sql: &str) -> Vec<String> {
        let mut statement = connection.prepare(sql).expect("valid SQL");
        let rows = statement.query_map([], |row| row.get(0)).expect("readable");
        rows.collect::<Result<_, _>>().expect("text")
    }

    /// Verifies that each unique constraint of the schema has a name here, and that no two of them
    /// are reported alike. SQLite reports an index over an expression by its name.
    #[test]
    fn every_unique_constraint_has_a_name() {
        let reported = texts(
            &schema(),
            "SELECT (SELECT group_concat(t.name || '.' || c.name, ', ' ORDER BY c.seqno)
                     FROM pragma_index_info(i.name) c)
             FROM sqlite_schema t, pragma_index_list(t.name) i
             WHERE t.type = 'table' AND i.\"unique\" AND i.origin <> 'pk'
               AND NOT EXISTS (SELECT 1 FROM pragma_index_info(i.name) WHERE name IS NULL)
             ORDER BY 1",
        );
        let known: Vec<&str> = UNIQUE.iter().map(|(columns, _)| *columns).collect();
        assert_eq!(reported, known);
        let names: BTreeSet<&str> = UNIQUE.iter().map(|(_, name)| *name).collect();
        assert_eq!(names.len(), UNIQUE.len());
        let schema = include_str!("../schema.sql");
        for name in names {
            let is_named = ["CONSTRAINT", "CREATE UNIQUE INDEX"]
                .iter()
                .any(|keyword| schema.contains(&format!("{keyword} {name} ")));
            assert!(is_named, "{name} is not in the schema");
        }
    }

    /// Verifies that each CHECK constraint has a name of its own, which begins with its table.
    /// SQLite reports it by that name.
    #[test]
    fn every_check_has_a_name() {
        let connection = schema();
        let sql = "SELECT name || ' ' || sql FROM sqlite_schema WHERE type = 'table'";
        let mut names = BTreeSet::from_iter(UNIQUE.iter().map(|(_, name)| (*name).to_owned()));
        for table in texts(&connection, sql) {
            let (own, sql) = table.split_once(' ').expect("a name");
            // A trigger or comment of the schema is not part of a table's SQL, except within it.
            let code = sql
                .lines()
                .map(|it| it.split("--").next().unwrap_or_default());
            let code = code.collect::<Vec<_>>().join(" ");
            let words: Vec<&str> = code.split_whitespace().collect();
            for at in (0..words.len()).filter(|at| words[*at] == "CHECK") {
                let [keyword, name] = [words[at - 2], words[at - 1]];
                assert_eq!(
                    keyword, "CONSTRAINT",
                    "{own}: a CHECK after {name:?} has no name"
                );
                assert!(name.starts_with(&format!("{own}_")), "{own}: {name}");
                assert!(names.insert(name.to_owned()), "{name} is there twice");
            }
        }
        assert!(names.len() > UNIQUE.len() + 60, "{} names", names.len());
    }

    /// Verifies that the message of each trigger that refuses a change is the trigger's own name.
    #[test]
    fn a_trigger_refuses_by_its_own_name() {
        let connection = schema();
        let sql = "SELECT name || ' ' || sql FROM sqlite_schema WHERE type = 'trigger'";
        for trigger in texts(&connection, sql) {
            let name = trigger.split(' ').next().expect("a name");
            if trigger.contains("RAISE") {
                assert!(trigger.contains(&format!(", '{name}')")), "{trigger}");
            }
        }
    }

    /// Verifies that no name of the schema is in a text for operators.
    #[test]
    fn a_violation_is_reported_without_the_name_of_the_constraint() {
        for (columns, name) in UNIQUE {
            let violated = StoreError::Violates(Constraint::named(name));
            let shown = violated.to_string();
            let is_named = [columns, name].iter().any(|it| shown.contains(**it));
            assert!(!is_named && !shown.contains("constraint"), "{shown}");
        }
    }

    #[test]
    fn a_violation_names_the_constraint() {
        let connection = schema();
        let violated = |sql: &str| match connection.execute_batch(sql).map_err(StoreError::from) {
            Err(StoreError::Violates(constraint)) => constraint,
            other => panic!("{sql}: {other:?}"),
        };
        let block = "INSERT INTO block (kind, name, reason, blocked_by, blocked_at)
                     VALUES ('device', 'pump-7', '', '', 0)";
        connection.execute_batch(block).expect("the first block");
        assert_eq!(violated(block), Constraint::BlockStanding);
        let job = "INSERT INTO hub_job (name, provisioning, made_at, due_at)
                   VALUES ('job', 'dps', 0, 0)";
        connection.execute_batch(job).expect("the first job");
        assert_eq!(violated(job), Constraint::Other("hub_job_name".into()));
        let entry = "INSERT INTO audit (sequence, at, actor, action, subject, detail, hash)
                     VALUES (1, 0, '', '', '', '{}', zeroblob(32))";
        connection.execute_batch(entry).expect("the first entry");
        assert_eq!(violated(entry), Constraint::Other("audit.sequence".into()));
        let checked = "INSERT INTO accepted_clock (only, at, intent, crl) VALUES (2, 0, 0, 0)";
        assert_eq!(
            violated(checked),
            Constraint::Other("accepted_clock_only_valid".into())
        );
        let lifted = "UPDATE block SET lifted_at = 1";
        assert_eq!(
            violated(lifted),
            Constraint::Other("block_lifting_is_whole".into())
        );
        assert_eq!(
            violated("DELETE FROM audit"),
            Constraint::Other("audit_is_append_only_delete".into())
        );
        assert_eq!(
            violated("INSERT INTO service_load (provisioning) VALUES (NULL)"),
            Constraint::Other("NOT NULL constraint failed: service_load.provisioning".into())
        );
    }
}
