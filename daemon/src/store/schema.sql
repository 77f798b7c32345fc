-- The store, version 1. Times are Unix seconds. What must never be false is a constraint here,
-- not a habit in code.

-- A generation of an authority: one key and one certificate. `spki` is null between the decision to
-- make a key and the token's answer; `certificate` is null until the certificate is recorded.
CREATE TABLE generation (
    id          INTEGER PRIMARY KEY,
    authority   TEXT    NOT NULL,
    number      INTEGER NOT NULL CHECK (number >= 1),
    parent      INTEGER REFERENCES generation (id),
    token       TEXT    NOT NULL,
    key_type    TEXT    NOT NULL,
    key_label   TEXT    NOT NULL,
    key_id      BLOB    NOT NULL UNIQUE,
    spki        BLOB    UNIQUE,
    certificate INTEGER UNIQUE REFERENCES certificate (intent),
    state       TEXT    NOT NULL CHECK (state IN ('planned', 'serving', 'retired')),
    UNIQUE (authority, number),
    CHECK (state = 'planned' OR (spki IS NOT NULL AND certificate IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX generation_serving ON generation (authority) WHERE state = 'serving';

-- What a token was, or may have been, asked to sign: recorded before it was asked. (For a longer IN,
-- SQLite makes a temporary table at every insert; OR costs nothing.)
CREATE TABLE intent (
    id              INTEGER PRIMARY KEY,
    serial          BLOB    NOT NULL UNIQUE CHECK (length(serial) BETWEEN 9 AND 20),
    issuer          INTEGER NOT NULL REFERENCES generation (id),
    purpose         TEXT    NOT NULL
                    CHECK (purpose = 'leaf' OR purpose = 'authority' OR purpose = 'possession'),
    profile         TEXT    NOT NULL,
    subject         TEXT    NOT NULL COLLATE NOCASE,
    tbs             BLOB    NOT NULL,
    not_before      INTEGER NOT NULL,
    not_after       INTEGER NOT NULL CHECK (not_after > not_before),
    caller          TEXT    NOT NULL,
    idempotency_key TEXT,
    request_sha256  BLOB,
    state           TEXT    NOT NULL
                    CHECK (state = 'intended' OR state = 'issued' OR state = 'abandoned'),
    recorded_at     INTEGER NOT NULL,
    CHECK ((idempotency_key IS NULL) = (request_sha256 IS NULL))
) STRICT;
CREATE UNIQUE INDEX intent_idempotency ON intent (caller, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
-- One signature under way per leaf subject, one verification certificate per code.
CREATE UNIQUE INDEX intent_under_way ON intent (purpose, subject) WHERE state = 'intended';
CREATE UNIQUE INDEX intent_possession ON intent (subject)
    WHERE purpose = 'possession' AND state <> 'abandoned';
CREATE INDEX intent_subject ON intent (subject, id);

-- (FAIL, because for what may ABORT midway, SQLite copies every page that the statement changes. All
-- of these come before their row is changed, and the store rolls back whatever is refused.)
CREATE TRIGGER intent_is_immutable
BEFORE UPDATE OF serial, issuer, purpose, profile, subject, tbs, not_before, not_after, caller,
                 recorded_at ON intent
BEGIN
    SELECT RAISE(FAIL, 'an intent never changes');
END;
-- A burned intent gives its idempotency key back: the caller's repeat begins anew.
CREATE TRIGGER intent_keeps_its_request
BEFORE UPDATE OF idempotency_key, request_sha256 ON intent
WHEN NEW.state <> 'abandoned' OR NEW.idempotency_key IS NOT NULL
BEGIN
    SELECT RAISE(FAIL, 'an intent keeps its request');
END;
CREATE TRIGGER intent_settles_once
BEFORE UPDATE OF state ON intent WHEN OLD.state <> 'intended'
BEGIN
    SELECT RAISE(FAIL, 'an intent settles once');
END;
CREATE TRIGGER intent_is_kept BEFORE DELETE ON intent
BEGIN
    SELECT RAISE(FAIL, 'an intent is never deleted');
END;

-- A certificate that was issued: its bytes contain exactly the bytes that were intended.
CREATE TABLE certificate (
    intent            INTEGER PRIMARY KEY REFERENCES intent (id) DEFERRABLE INITIALLY DEFERRED,
    der               BLOB    NOT NULL,
    sha256            BLOB    NOT NULL UNIQUE CHECK (length(sha256) = 32),
    issued_at         INTEGER NOT NULL,
    revoked_at        INTEGER,
    revocation_reason INTEGER,
    CHECK ((revoked_at IS NULL) = (revocation_reason IS NULL))
) STRICT;
CREATE TRIGGER certificate_equals_intent BEFORE INSERT ON certificate
WHEN NOT EXISTS (
    SELECT 1 FROM intent
    WHERE id = NEW.intent AND state = 'issued' AND instr(NEW.der, tbs) > 0
)
BEGIN
    SELECT RAISE(FAIL, 'a certificate carries the bytes of an issued intent');
END;
CREATE TRIGGER certificate_is_immutable BEFORE UPDATE OF intent, der, sha256, issued_at ON certificate
BEGIN
    SELECT RAISE(FAIL, 'a certificate never changes');
END;

-- One registration id. Its spelling, like its leaf's common name, is fixed at the first leaf.
CREATE TABLE device (
    registration_id TEXT    PRIMARY KEY COLLATE NOCASE,
    profile         TEXT    NOT NULL,
    certificate     INTEGER NOT NULL REFERENCES certificate (intent),
    created_at      INTEGER NOT NULL
) STRICT;

-- What a provisioning service shall hold. `slots` is the JSON form of `enrollment::slots::Slots`,
-- `history` what we sent and saw in place (`enrollment::history::History`), `observed` the record as
-- the service last showed it, `drift` how somebody else has changed it, `seen_in_scan` the number of
-- the last scan that met it.
CREATE TABLE enrollment (
    id           INTEGER PRIMARY KEY,
    provisioning TEXT    NOT NULL,
    kind         TEXT    NOT NULL CHECK (kind IN ('individual', 'group')),
    name         TEXT    NOT NULL COLLATE NOCASE,
    authority    TEXT,
    slots        TEXT    NOT NULL CHECK (json_valid(slots)),
    status       TEXT    NOT NULL CHECK (status IN ('enabled', 'disabled')),
    removed      INTEGER NOT NULL DEFAULT 0 CHECK (removed IN (0, 1)),
    history      TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(history)),
    observed     TEXT    CHECK (observed IS NULL OR json_valid(observed)),
    drift        TEXT    CHECK (drift IS NULL OR json_valid(drift)),
    observed_at  INTEGER,
    seen_in_scan INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    UNIQUE (provisioning, kind, name),
    CHECK ((kind = 'group') = (authority IS NOT NULL))
) STRICT;

-- A CA certificate that a provisioning service shall hold verified.
-- `proof` is the JSON form of `enrollment::ca_certificate::Proof`.
CREATE TABLE ca_certificate (
    id           INTEGER PRIMARY KEY,
    provisioning TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    generation   INTEGER NOT NULL REFERENCES generation (id),
    proof        TEXT    NOT NULL CHECK (json_valid(proof)),
    UNIQUE (provisioning, name),
    UNIQUE (provisioning, generation)
) STRICT;

-- The dirty mark: says that its subject must be looked at, never what must change. `version` counts
-- the causes, so that work done for an older cause does not clear a newer one.
CREATE TABLE mark (
    id             INTEGER PRIMARY KEY,
    provisioning   TEXT    NOT NULL,
    enrollment     INTEGER UNIQUE REFERENCES enrollment (id) ON DELETE CASCADE,
    ca_certificate INTEGER UNIQUE REFERENCES ca_certificate (id) ON DELETE CASCADE,
    version        INTEGER NOT NULL DEFAULT 1,
    cause          TEXT    NOT NULL,
    since          INTEGER NOT NULL,
    due_at         INTEGER NOT NULL,
    attempts       INTEGER NOT NULL DEFAULT 0,
    last_error     TEXT,
    parked         INTEGER NOT NULL DEFAULT 0 CHECK (parked IN (0, 1)),
    CHECK ((enrollment IS NULL) <> (ca_certificate IS NULL))
) STRICT;
CREATE INDEX enrollment_name ON enrollment (name);
CREATE INDEX mark_due ON mark (parked, due_at);

-- The replacement of a certificate. One open roll per enrollment.
CREATE TABLE roll (
    id              INTEGER PRIMARY KEY,
    reason          TEXT    NOT NULL CHECK (reason IN ('expiry', 'compromise')),
    enrollment      INTEGER NOT NULL REFERENCES enrollment (id) ON DELETE CASCADE,
    state           TEXT    NOT NULL
                    CHECK (state IN ('requested', 'staged', 'draining', 'done', 'aborted')),
    old_certificate BLOB    NOT NULL,
    new_certificate BLOB,
    started_by      TEXT    NOT NULL,
    started_at      INTEGER NOT NULL,
    changed_at      INTEGER NOT NULL,
    CHECK (state IN ('requested', 'aborted') OR new_certificate IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX roll_open ON roll (enrollment) WHERE state NOT IN ('done', 'aborted');

-- What happened, in order, each entry sealed by the hash of all before it.
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    actor    TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    detail   TEXT    NOT NULL CHECK (json_valid(detail)),
    hash     BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TRIGGER audit_is_append_only_update BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit journal is append-only');
END;
CREATE TRIGGER audit_is_append_only_delete BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit journal is append-only');
END;
