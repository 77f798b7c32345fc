-- The store, version 1. Times are Unix seconds. What must never be false is a constraint here. Each
-- trigger that refuses a change reports its own name, and each UNIQUE and CHECK constraint has a
-- name: `store::engine::failure` returns it.
-- AUTOINCREMENT is where rows are deleted: without it SQLite gives the greatest id again, and work
-- that still holds the id of a deleted row would change another.

-- A generation of an authority: one key and one certificate. `spki` is null between the decision to
-- make a key and the token's answer; `certificate` is null until the certificate is recorded. The
-- first generation serves then; later ones are staged until a roll cuts over.
CREATE TABLE generation (
    id          INTEGER PRIMARY KEY,
    authority   TEXT    NOT NULL,
    number      INTEGER NOT NULL CONSTRAINT generation_number_valid CHECK (number >= 1),
    parent      INTEGER REFERENCES generation (id),
    token       TEXT    NOT NULL,
    key_type    TEXT    NOT NULL,
    key_label   TEXT    NOT NULL,
    key_id      BLOB    NOT NULL,
    spki        BLOB    CONSTRAINT generation_spki UNIQUE,
    -- The encrypted key, for a token that stores its keys outside; only that token can decrypt it.
    -- It is recorded with the public key or not at all.
    key_wrapped BLOB
                CONSTRAINT generation_key_wrapped_valid
                CHECK (key_wrapped IS NULL
                               OR (spki IS NOT NULL AND length(key_wrapped) <= 2048)),
    certificate INTEGER CONSTRAINT generation_certificate UNIQUE REFERENCES certificate (intent),
    state       TEXT    NOT NULL
                CONSTRAINT generation_state_valid
                CHECK (state IN ('planned', 'staged', 'serving', 'retired')),
    -- How often a revocation list of this generation had to change: triggers count it.
    revocations INTEGER NOT NULL DEFAULT 0,
    -- The number of the last list before the authority was adopted; new lists have higher ones.
    crl_number  BLOB    NOT NULL DEFAULT (zeroblob(20))
                CONSTRAINT generation_crl_number_valid CHECK (length(crl_number) = 20),
    -- 1 from a restore until a list is signed that is newer than the restored one: the restored
    -- list lacks what was revoked after the backup, so it is not served.
    crl_withheld INTEGER NOT NULL DEFAULT 0
                 CONSTRAINT generation_crl_withheld_valid CHECK (crl_withheld IN (0, 1)),
    -- Into how many lists its revocations are split, by the last octet of the serial number, and
    -- the address of these lists up to their numbers. Certificates name their list, so both are
    -- recorded with the key and stay.
    crl_parts   INTEGER NOT NULL DEFAULT 1 CONSTRAINT generation_crl_parts_valid
                CHECK (crl_parts IN (1, 2, 4, 8, 16, 32, 64, 128, 256)),
    crl_address TEXT CONSTRAINT generation_crl_address_valid
                CHECK ((crl_address IS NULL) = (crl_parts = 1)),
    -- The chain of a certificate whose issuer is elsewhere: PEM, from its issuer's to the
    -- self-signed one.
    above       TEXT,
    CONSTRAINT generation_number UNIQUE (authority, number),
    CONSTRAINT generation_is_certified
        CHECK (state IN ('planned', 'retired') OR (spki IS NOT NULL AND certificate IS NOT NULL))
) STRICT;
-- Ids of our keys are random; an adopted key has its own id, or none.
CREATE UNIQUE INDEX generation_key ON generation (token, key_id) WHERE key_id <> x'';
-- (With `state`, because SQLite reports a violation by its columns: `generation_next` has others.)
CREATE UNIQUE INDEX generation_serving ON generation (authority, state) WHERE state = 'serving';
CREATE UNIQUE INDEX generation_next ON generation (authority) WHERE state IN ('planned', 'staged');
CREATE TRIGGER generation_keeps_its_lists BEFORE UPDATE OF crl_parts, crl_address ON generation
WHEN OLD.spki IS NOT NULL AND
     (NEW.crl_parts <> OLD.crl_parts OR NEW.crl_address IS DISTINCT FROM OLD.crl_address)
BEGIN
    SELECT RAISE(ABORT, 'generation_keeps_its_lists');
END;
-- A renewed certificate for the same key comes with a chain of its own.
CREATE TRIGGER generation_keeps_its_chain BEFORE UPDATE OF above ON generation
WHEN (OLD.above IS NOT NULL AND NEW.certificate IS OLD.certificate) OR NEW.above IS NULL
BEGIN
    SELECT RAISE(ABORT, 'generation_keeps_its_chain');
END;

-- The partitions of a generation's list, where it has some: `revocations` is
-- `generation.revocations` after the last change of a serial number in it.
CREATE TABLE crl_partition (
    generation  INTEGER NOT NULL REFERENCES generation (id),
    part        INTEGER NOT NULL CONSTRAINT crl_partition_part_valid CHECK (part BETWEEN 1 AND 256),
    revocations INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (generation, part)
) STRICT, WITHOUT ROWID;

-- The bytes to be signed, recorded before a token gets them. Each intent is open (`open_intent`)
-- until it has a certificate or an end (`ended`). It is abandoned if its token may have signed, and
-- withdrawn if no worker was asked. An adopted certificate was signed elsewhere; it is here so that
-- all bytes and serial numbers are in one place. (CHECK uses OR because for a longer IN SQLite
-- makes a temporary table at every insert.)
CREATE TABLE intent (
    id              INTEGER PRIMARY KEY,
    serial          BLOB    NOT NULL,
    -- (Deferred, because of a reference that may ABORT the statement SQLite copies every page that
    -- the statement changes.)
    issuer          INTEGER NOT NULL REFERENCES generation (id) DEFERRABLE INITIALLY DEFERRED,
    -- 1 for the certificate that an adopted root has signed itself, and for one whose issuer has no
    -- generation here: `issuer` is then the certified generation, which may give the number again.
    issued_elsewhere INTEGER NOT NULL DEFAULT 0
                    CONSTRAINT intent_issued_elsewhere_valid
                    CHECK (issued_elsewhere = 0 OR issued_elsewhere = 1 AND purpose = 'adopted'),
    -- 1 for a certificate that was signed before it came here: the intent is never open.
    signed_elsewhere INTEGER NOT NULL DEFAULT 0
                    CONSTRAINT intent_signed_elsewhere_valid
                    CHECK (signed_elsewhere = 1 OR signed_elsewhere = 0 AND purpose <> 'adopted'),
    purpose         TEXT    NOT NULL
                    CONSTRAINT intent_purpose_valid
                    CHECK (purpose = 'leaf' OR purpose = 'authority' OR purpose = 'subordinate'
                           OR purpose = 'cross' OR purpose = 'possession'
                           OR purpose = 'adopted'),
    profile         TEXT    NOT NULL,
    subject         TEXT    NOT NULL COLLATE NOCASE,
    -- SHA-256 of the certified key (SubjectPublicKeyInfo): shows who holds the key
    -- (`certified_key`).
    key_sha256      BLOB    NOT NULL
                    CONSTRAINT intent_key_sha256_valid CHECK (length(key_sha256) = 32),
    tbs             BLOB    NOT NULL,
    not_before      INTEGER NOT NULL,
    not_after       INTEGER NOT NULL
                    CONSTRAINT intent_not_after_valid CHECK (not_after > not_before),
    -- The role of the holder, by the profile at the time of the request. Only leaves have a role; a
    -- canary has none. `certificate.issued` in the audit journal has it too, so that a change of
    -- this row alone is detected.
    role            TEXT
                    CONSTRAINT intent_role_valid
                    CHECK (role IS NULL OR purpose = 'leaf' AND (
                                role = 'device' OR role = 'station' OR role = 'operator'
                                OR role = 'auditor' OR role = 'approver' OR role = 'server')),
    caller          TEXT    NOT NULL,
    idempotency_key TEXT,
    request_sha256  BLOB,
    recorded_at     INTEGER NOT NULL,
    -- How it ended without a certificate.
    ended           TEXT
                    CONSTRAINT intent_ended_valid
                    CHECK (ended IS NULL
                           OR signed_elsewhere = 0
                              AND (ended = 'abandoned' OR ended = 'withdrawn')),
    abandoned_at    INTEGER,
    -- An issuer gives each serial number once (RFC 5280, section 4.1.2.2). The serial number comes
    -- first, so that the index finds a certificate by that alone, too.
    CONSTRAINT intent_serial UNIQUE (serial, issuer, issued_elsewhere),
    CONSTRAINT intent_serial_length
        CHECK (length(serial) <= 20 AND (length(serial) >= 9 OR signed_elsewhere = 1)),
    CONSTRAINT intent_request_is_whole CHECK ((idempotency_key IS NULL) = (request_sha256 IS NULL)),
    CONSTRAINT intent_abandoned_has_date
        CHECK ((abandoned_at IS NULL) = (ended IS DISTINCT FROM 'abandoned'))
) STRICT;
-- Each index costs a page for each certificate, so each one is here for a query.
-- A repeated request (`issuance::prior_request`).
CREATE UNIQUE INDEX intent_idempotency ON intent (caller, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
-- One verification certificate per code (`possession::prove`).
CREATE UNIQUE INDEX intent_possession ON intent (subject)
    WHERE purpose = 'possession' AND ended IS NULL;
-- The certificates of a subject, newest first (`Store::certificates_of`).
CREATE INDEX intent_subject ON intent (subject, id);
-- The holder of a key (`certified_key::other_holder`).
CREATE INDEX intent_key ON intent (key_sha256);
-- The leaves below a generation (`fleet_queries`, `hub_observation`).
CREATE INDEX intent_leaf ON intent (issuer, not_after, subject) WHERE purpose = 'leaf';
-- Stations, operators, auditors and servers are few, and are found without reading devices
-- (`expiry`).
CREATE INDEX intent_of_others ON intent (not_after) WHERE role <> 'device';
-- The certificates of authorities elsewhere (`subordinate`).
CREATE INDEX intent_subordinate ON intent (not_after) WHERE purpose = 'subordinate';
-- The entries of a revocation list (`crl`).
CREATE INDEX intent_abandoned ON intent (issuer, not_after) WHERE ended = 'abandoned';

-- The intents that are being signed: no more rows than requests under way, so step 10 of the
-- issuance cycle changes no row of `intent`. The key allows one open intent per leaf subject.
CREATE TABLE open_intent (
    purpose TEXT    NOT NULL,
    subject TEXT    NOT NULL COLLATE NOCASE,
    intent  INTEGER NOT NULL REFERENCES intent (id) DEFERRABLE INITIALLY DEFERRED,
    PRIMARY KEY (purpose, subject)
) STRICT, WITHOUT ROWID;

-- (FAIL, because SQLite copies every page that a statement changes if it may ABORT midway. The
-- triggers that refuse run before their row is changed. The store rolls back an operation that
-- fails; a refused intent of step 7 has written nothing.)
CREATE TRIGGER intent_is_immutable
BEFORE UPDATE OF serial, issuer, issued_elsewhere, signed_elsewhere, purpose, profile, subject,
                 key_sha256, tbs, not_before, not_after, role, caller, recorded_at ON intent
BEGIN
    SELECT RAISE(FAIL, 'intent_is_immutable');
END;
-- An abandoned or withdrawn intent releases its idempotency key: a repeat is a new request.
CREATE TRIGGER intent_keeps_its_request
BEFORE UPDATE OF idempotency_key, request_sha256 ON intent
WHEN NEW.ended IS NULL OR NEW.idempotency_key IS NOT NULL
BEGIN
    SELECT RAISE(FAIL, 'intent_keeps_its_request');
END;
CREATE TRIGGER intent_settles_once
BEFORE UPDATE OF ended, abandoned_at ON intent
WHEN NEW.ended IS NULL OR NOT EXISTS (
    SELECT 1 FROM open_intent
    WHERE purpose = NEW.purpose AND subject = NEW.subject AND intent = NEW.id
)
BEGIN
    SELECT RAISE(FAIL, 'intent_settles_once');
END;
CREATE TRIGGER intent_is_kept BEFORE DELETE ON intent
BEGIN
    SELECT RAISE(FAIL, 'intent_is_kept');
END;
CREATE TRIGGER intent_under_way BEFORE INSERT ON intent
WHEN NEW.signed_elsewhere = 0 AND EXISTS (
    SELECT 1 FROM open_intent WHERE purpose = NEW.purpose AND subject = NEW.subject
)
BEGIN
    SELECT RAISE(FAIL, 'intent_under_way');
END;
CREATE TRIGGER intent_of_a_revoked_generation BEFORE INSERT ON intent
WHEN EXISTS (
    SELECT 1 FROM generation g JOIN certificate c ON c.intent = g.certificate
    WHERE g.id = NEW.issuer AND c.revoked_at IS NOT NULL
)
BEGIN
    SELECT RAISE(FAIL, 'intent_of_a_revoked_generation');
END;
CREATE TRIGGER intent_opens AFTER INSERT ON intent WHEN NEW.signed_elsewhere = 0
BEGIN
    INSERT INTO open_intent (purpose, subject, intent) VALUES (NEW.purpose, NEW.subject, NEW.id);
END;
CREATE TRIGGER intent_ends AFTER UPDATE OF ended ON intent
BEGIN
    DELETE FROM open_intent
    WHERE purpose = NEW.purpose AND subject = NEW.subject AND intent = NEW.id;
END;
CREATE TRIGGER intent_abandoned_is_listed AFTER UPDATE OF ended ON intent
WHEN NEW.ended = 'abandoned'
BEGIN
    UPDATE generation SET revocations = revocations + 1 WHERE id = NEW.issuer;
    UPDATE crl_partition
    SET revocations = (SELECT revocations FROM generation WHERE id = NEW.issuer)
    WHERE generation = NEW.issuer AND part =
        (instr('123456789ABCDEF', substr(hex(NEW.serial), -2, 1)) * 16
         + instr('123456789ABCDEF', substr(hex(NEW.serial), -1)))
        % (SELECT crl_parts FROM generation g WHERE g.id = NEW.issuer) + 1;
END;

CREATE TRIGGER open_intent_is_immutable BEFORE UPDATE ON open_intent
BEGIN
    SELECT RAISE(FAIL, 'open_intent_is_immutable');
END;
CREATE TRIGGER open_intent_is_kept BEFORE DELETE ON open_intent
WHEN NOT EXISTS (SELECT 1 FROM certificate WHERE intent = OLD.intent)
    AND (SELECT ended FROM intent WHERE id = OLD.intent) IS NULL
BEGIN
    SELECT RAISE(FAIL, 'open_intent_is_kept');
END;

-- A certificate that was issued: the bytes of its intent, and what follows them. So it carries
-- exactly the bytes that were recorded before they were signed.
CREATE TABLE certificate (
    intent            INTEGER PRIMARY KEY REFERENCES intent (id) DEFERRABLE INITIALLY DEFERRED,
    -- The signature algorithm and the signature, as DER (`x509::certificate::join`).
    signature         BLOB    NOT NULL,
    -- SHA-256 of the whole certificate.
    sha256            BLOB    NOT NULL CONSTRAINT certificate_sha256 UNIQUE
                      CONSTRAINT certificate_sha256_valid
                      CHECK (length(sha256) = 32),
    issued_at         INTEGER NOT NULL,
    revoked_at        INTEGER,
    -- CRLReason (RFC 5280, section 5.3.1); 8 has a meaning in delta lists only.
    revocation_reason INTEGER
                      CONSTRAINT certificate_revocation_reason_valid
                      CHECK (
        revocation_reason BETWEEN 0 AND 10 AND revocation_reason <> 7 AND revocation_reason <> 8
    ),
    CONSTRAINT certificate_revocation_is_whole
        CHECK ((revoked_at IS NULL) = (revocation_reason IS NULL))
) STRICT;
CREATE INDEX certificate_revoked ON certificate (intent) WHERE revoked_at IS NOT NULL;
CREATE TRIGGER certificate_stays_revoked
BEFORE UPDATE OF revoked_at, revocation_reason ON certificate
WHEN OLD.revoked_at IS NOT NULL AND (
    OLD.revocation_reason <> 6 OR (NEW.revoked_at IS NOT NULL AND NEW.revoked_at <> OLD.revoked_at)
)
BEGIN
    SELECT RAISE(ABORT, 'certificate_stays_revoked');
END;
CREATE TRIGGER certificate_revocation_is_listed
AFTER UPDATE OF revoked_at, revocation_reason ON certificate
BEGIN
    UPDATE generation SET revocations = revocations + 1
    WHERE id = (SELECT issuer FROM intent WHERE id = NEW.intent);
    UPDATE crl_partition
    SET revocations = (SELECT g.revocations FROM generation g WHERE g.id = crl_partition.generation)
    WHERE (generation, part) = (
        SELECT i.issuer,
            (instr('123456789ABCDEF', substr(hex(i.serial), -2, 1)) * 16
             + instr('123456789ABCDEF', substr(hex(i.serial), -1)))
            % (SELECT crl_parts FROM generation g WHERE g.id = i.issuer) + 1
        FROM intent i WHERE i.id = NEW.intent);
END;
-- The last gate before a certificate is released: an exclusion abandons the open intents that it
-- concerns, and relies on this trigger.
CREATE TRIGGER certificate_has_an_open_intent BEFORE INSERT ON certificate
WHEN NOT EXISTS (
    SELECT 1 FROM intent i
    WHERE i.id = NEW.intent AND (i.signed_elsewhere = 1 OR EXISTS (
        SELECT 1 FROM open_intent o
        WHERE o.purpose = i.purpose AND o.subject = i.subject AND o.intent = i.id))
)
BEGIN
    SELECT RAISE(FAIL, 'certificate_has_an_open_intent');
END;
CREATE TRIGGER certificate_ends_its_intent AFTER INSERT ON certificate
BEGIN
    DELETE FROM open_intent
    WHERE (purpose, subject) = (SELECT purpose, subject FROM intent WHERE id = NEW.intent)
      AND intent = NEW.intent;
END;
CREATE TRIGGER certificate_is_immutable
BEFORE UPDATE OF intent, signature, sha256, issued_at ON certificate
BEGIN
    SELECT RAISE(FAIL, 'certificate_is_immutable');
END;
CREATE TRIGGER certificate_is_kept BEFORE DELETE ON certificate
BEGIN
    SELECT RAISE(FAIL, 'certificate_is_kept');
END;

-- The state of each intent in one word, for reading the database by hand.
CREATE VIEW intent_state AS
SELECT i.*, CASE WHEN i.ended IS NOT NULL THEN i.ended
                 WHEN EXISTS (SELECT 1 FROM certificate c WHERE c.intent = i.id) THEN 'issued'
                 ELSE 'intended' END AS state
FROM intent i;

-- The intents with ids from 64 × `number` to 64 × `number` + 63, by issuer and profile: what a list
-- of certificates looks for. A range is written when all of its intents have ended, by work that
-- follows issuance, and never changes. A range without rows is not summarised yet.
CREATE TABLE certificate_range (
    number        INTEGER NOT NULL,
    issuer        INTEGER NOT NULL REFERENCES generation (id),
    profile       TEXT    NOT NULL,
    not_after_min INTEGER NOT NULL,
    not_after_max INTEGER NOT NULL,
    issued_max    INTEGER NOT NULL,
    -- Whether an intent in it was abandoned.
    abandoned     INTEGER NOT NULL
                  CONSTRAINT certificate_range_abandoned_valid CHECK (abandoned IN (0, 1)),
    PRIMARY KEY (number, issuer, profile)
) STRICT, WITHOUT ROWID;
CREATE INDEX certificate_range_profile ON certificate_range (profile, number);
CREATE INDEX certificate_range_issuer ON certificate_range (issuer, number);

-- The certificate of one generation of a root by another one (RFC 4210, section 4.4), each once.
CREATE TABLE cross_certificate (
    issuer      INTEGER NOT NULL REFERENCES generation (id),
    subject     INTEGER NOT NULL REFERENCES generation (id)
                CONSTRAINT cross_certificate_subject_valid CHECK (subject <> issuer),
    certificate INTEGER NOT NULL REFERENCES certificate (intent),
    PRIMARY KEY (issuer, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX cross_certificate_of ON cross_certificate (subject, certificate);

-- A certificate that an authority issued before it was adopted, and that is known by a line of its
-- index or an entry of its last list alone. What is revoked is on the lists of the generation.
CREATE TABLE former_certificate (
    generation        INTEGER NOT NULL REFERENCES generation (id),
    serial            BLOB    NOT NULL CONSTRAINT former_certificate_serial_length
                      CHECK (length(serial) BETWEEN 1 AND 20),
    -- Of a list's entry, neither the subject nor the end is known.
    subject           TEXT,
    not_after         INTEGER,
    revoked_at        INTEGER,
    revocation_reason INTEGER CONSTRAINT former_certificate_reason_valid CHECK (
        revocation_reason BETWEEN 0 AND 10 AND revocation_reason <> 7 AND revocation_reason <> 8
    ),
    -- When its last hold was lifted: the repeat of an import brings no older hold back.
    released_at       INTEGER,
    PRIMARY KEY (generation, serial),
    CONSTRAINT former_certificate_reason_has_date
        CHECK ((revoked_at IS NULL) = (revocation_reason IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX former_certificate_subject
ON former_certificate (subject COLLATE NOCASE, generation);

-- Keys of certificates that were revoked because of their key (keyCompromise, cACompromise,
-- aACompromise). No certificate is issued for such a key again, under any name.
CREATE TABLE compromised_key (
    key_sha256  BLOB    PRIMARY KEY
                CONSTRAINT compromised_key_key_sha256_valid CHECK (length(key_sha256) = 32),
    intent      INTEGER NOT NULL REFERENCES intent (id),
    reported_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER compromised_key_is_immutable BEFORE UPDATE ON compromised_key
BEGIN
    SELECT RAISE(ABORT, 'compromised_key_is_immutable');
END;
CREATE TRIGGER compromised_key_is_kept BEFORE DELETE ON compromised_key
BEGIN
    SELECT RAISE(ABORT, 'compromised_key_is_kept');
END;

-- The OCSP responder of a generation: a key on the token of the generation, planned before the token
-- makes it, and its present certificate by the generation. It is no authority's key.
CREATE TABLE responder (
    generation  INTEGER PRIMARY KEY REFERENCES generation (id),
    token       TEXT    NOT NULL,
    key_type    TEXT    NOT NULL,
    key_label   TEXT    NOT NULL,
    key_id      BLOB    NOT NULL CONSTRAINT responder_key_id UNIQUE,
    spki        BLOB    CONSTRAINT responder_spki UNIQUE,
    key_wrapped BLOB    CONSTRAINT responder_key_wrapped_valid
                CHECK (key_wrapped IS NULL
                               OR (spki IS NOT NULL AND length(key_wrapped) <= 2048)),
    certificate INTEGER CONSTRAINT responder_certificate UNIQUE REFERENCES certificate (intent)
                CONSTRAINT responder_is_certified CHECK (certificate IS NULL OR spki IS NOT NULL)
) STRICT;
CREATE TRIGGER responder_key_is_its_own BEFORE UPDATE OF spki ON responder
WHEN EXISTS (SELECT 1 FROM generation WHERE spki = NEW.spki)
BEGIN
    SELECT RAISE(ABORT, 'responder_key_is_its_own');
END;

-- A revocation list of a generation: recorded before it is signed, and `der` null until it is. A
-- number is used once; the newest signed list is the current one. `revocations` is how far
-- `generation.revocations` had counted when the entries were read.
CREATE TABLE crl (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    generation  INTEGER NOT NULL REFERENCES generation (id),
    -- Which partition it is of, counted from 1; the only list of a generation without partitions
    -- is 1.
    part        INTEGER NOT NULL CONSTRAINT crl_part_valid CHECK (part BETWEEN 1 AND 256),
    -- Of a delta list: the number of the complete list that it changes.
    base        BLOB    CONSTRAINT crl_base_valid CHECK (base < number),
    number      BLOB    NOT NULL
                CONSTRAINT crl_number_valid CHECK (length(number) = 20 AND number > zeroblob(20)),
    tbs         BLOB    NOT NULL,
    der         BLOB,
    this_update INTEGER NOT NULL,
    next_update INTEGER NOT NULL CONSTRAINT crl_next_update_valid CHECK (next_update > this_update),
    revocations INTEGER NOT NULL,
    entries     INTEGER NOT NULL,
    CONSTRAINT crl_number UNIQUE (generation, number)
) STRICT;
CREATE TRIGGER crl_counts_up BEFORE INSERT ON crl
WHEN EXISTS (SELECT 1 FROM crl WHERE generation = NEW.generation AND number >= NEW.number)
BEGIN
    SELECT RAISE(ABORT, 'crl_counts_up');
END;
CREATE TRIGGER crl_of_a_revoked_generation BEFORE INSERT ON crl
WHEN EXISTS (
    SELECT 1 FROM generation g JOIN certificate c ON c.intent = g.certificate
    WHERE g.id = NEW.generation AND c.revoked_at IS NOT NULL
)
BEGIN
    SELECT RAISE(ABORT, 'crl_of_a_revoked_generation');
END;
CREATE TRIGGER crl_is_immutable
BEFORE UPDATE OF id, generation, part, base, number, tbs, this_update, next_update, revocations,
                 entries ON crl
BEGIN
    SELECT RAISE(ABORT, 'crl_is_immutable');
END;
CREATE TRIGGER crl_is_signed_once BEFORE UPDATE OF der ON crl
WHEN OLD.der IS NOT NULL OR NEW.der IS NULL OR instr(NEW.der, OLD.tbs) = 0
BEGIN
    SELECT RAISE(ABORT, 'crl_is_signed_once');
END;
-- The greatest number, and the newest signed list of each partition.
CREATE TRIGGER crl_newest_is_kept BEFORE DELETE ON crl
WHEN NOT EXISTS (SELECT 1 FROM crl WHERE generation = OLD.generation AND number > OLD.number)
  OR OLD.der IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM crl newer
    WHERE newer.generation = OLD.generation AND newer.part = OLD.part
      AND newer.number > OLD.number AND newer.der IS NOT NULL
      AND (newer.base IS NULL OR OLD.base IS NOT NULL))
BEGIN
    SELECT RAISE(ABORT, 'crl_newest_is_kept');
END;

-- Every list that was signed, without its bytes: shows which lists have a revocation.
CREATE TABLE signed_crl (
    generation  INTEGER NOT NULL REFERENCES generation (id),
    part        INTEGER NOT NULL,
    number      BLOB    NOT NULL,
    this_update INTEGER NOT NULL,
    revocations INTEGER NOT NULL,
    is_delta    INTEGER NOT NULL
                CONSTRAINT signed_crl_is_delta_valid CHECK (is_delta IN (0, 1)),
    PRIMARY KEY (generation, part, number)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER crl_is_noted AFTER UPDATE OF der ON crl
BEGIN
    INSERT INTO signed_crl (generation, part, number, this_update, revocations, is_delta)
    VALUES (NEW.generation, NEW.part, NEW.number, NEW.this_update, NEW.revocations,
            NEW.base IS NOT NULL);
END;

-- The revocation list of an issuer elsewhere, as it was brought here; `file` is the name below
-- `/crl/` that certificates by this issuer have. A list is replaced by one with a higher number.
CREATE TABLE issuer_crl (
    issuer_key   BLOB    PRIMARY KEY CONSTRAINT issuer_crl_issuer_key_valid
                 CHECK (length(issuer_key) = 32),
    issuer       TEXT    NOT NULL,
    file         TEXT    CONSTRAINT issuer_crl_file UNIQUE,
    number       BLOB    NOT NULL CONSTRAINT issuer_crl_number_valid CHECK (length(number) = 20),
    this_update  INTEGER NOT NULL,
    next_update  INTEGER NOT NULL
                 CONSTRAINT issuer_crl_next_update_valid CHECK (next_update > this_update),
    entries      INTEGER NOT NULL,
    der          BLOB    NOT NULL,
    installed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER issuer_crl_counts_up BEFORE UPDATE ON issuer_crl
WHEN NEW.number <= OLD.number OR NEW.this_update < OLD.this_update
BEGIN
    SELECT RAISE(ABORT, 'issuer_crl_counts_up');
END;
CREATE TRIGGER issuer_crl_is_kept BEFORE DELETE ON issuer_crl
BEGIN
    SELECT RAISE(ABORT, 'issuer_crl_is_kept');
END;

-- Each change of a certificate's revocation: `reason` is the new one, null if a hold was lifted.
-- `revocations` is `generation.revocations` of its issuer after the change.
CREATE TABLE revocation_event (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    certificate INTEGER NOT NULL REFERENCES certificate (intent),
    at          INTEGER NOT NULL,
    actor       TEXT    NOT NULL,
    reason      INTEGER,
    cause       TEXT    NOT NULL,
    revocations INTEGER NOT NULL,
    -- The issuer of the certificate, and the end of the certificate or this change, the later one:
    -- what retention asks for.
    issuer      INTEGER NOT NULL REFERENCES generation (id),
    ends_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX revocation_event_certificate ON revocation_event (certificate, id);
CREATE INDEX revocation_event_end ON revocation_event (ends_at);
CREATE INDEX revocation_event_issuer ON revocation_event (issuer, at);

-- A request to an issuer elsewhere, recorded before it is signed.
CREATE TABLE request (
    generation  INTEGER PRIMARY KEY REFERENCES generation (id),
    -- The path length that the issuer must allow.
    path_length INTEGER CONSTRAINT request_path_length_valid CHECK (path_length BETWEEN 0 AND 255),
    tbs         BLOB    NOT NULL,
    der         BLOB,
    recorded_at INTEGER NOT NULL
) STRICT;
CREATE TRIGGER request_is_immutable
BEFORE UPDATE OF generation, path_length, tbs, recorded_at ON request
BEGIN
    SELECT RAISE(ABORT, 'request_is_immutable');
END;
CREATE TRIGGER request_is_signed_once BEFORE UPDATE OF der ON request
WHEN OLD.der IS NOT NULL OR NEW.der IS NULL OR instr(NEW.der, OLD.tbs) = 0
BEGIN
    SELECT RAISE(ABORT, 'request_is_signed_once');
END;

-- One registration id. Its spelling, like its leaf's common name, is fixed at the first leaf.
CREATE TABLE device (
    registration_id TEXT    PRIMARY KEY COLLATE NOCASE,
    profile         TEXT    NOT NULL,
    certificate     INTEGER NOT NULL REFERENCES certificate (intent),
    created_at      INTEGER NOT NULL,
    -- The end of that certificate, for `device_ending`.
    not_after       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Finds devices that expire soon and the registered profiles. It has every column that counting
-- needs.
CREATE INDEX device_ending ON device (profile, not_after, certificate);

-- What a provisioning service must hold. A group holds its authority's certificates, or names those
-- that the service holds verified (`by_reference`).
-- * `slots`: JSON of `enrollment::slots::Slots`, as desired.
-- * `leaving`: 1 from the request to remove it until the service was observed without it. Until then
--   it admits what it holds. That observation deletes the row: no row means not there.
-- * `history`: JSON of `enrollment::history::History`: what was sent, and observed in place.
-- * `observed`: the record as last observed; `drift`: how another program has changed it.
-- * `seen_in_scan`: the number of the last scan that listed it, or during which it was observed.
-- * `overlay_of`: for an exclusion, the group whose device this individual enrollment excludes, or
--   the authority whose certificate this disabled group holds.
-- * `after`: an enrollment that must have no mark before this one is sent, because the service
--   takes a certificate in one enrollment only.
-- * `restored`: 1 from a restore until the service was observed with what is desired, or an operator
--   has retried it by its name: until then what differs may be from the lost period.
CREATE TABLE enrollment (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    provisioning TEXT    NOT NULL,
    kind         TEXT    NOT NULL
                 CONSTRAINT enrollment_kind_valid CHECK (kind IN ('individual', 'group')),
    name         TEXT    NOT NULL COLLATE NOCASE,
    authority    TEXT,
    slots        TEXT    NOT NULL CONSTRAINT enrollment_slots_valid CHECK (json_valid(slots)),
    status       TEXT    NOT NULL
                 CONSTRAINT enrollment_status_valid CHECK (status IN ('enabled', 'disabled')),
    leaving      INTEGER NOT NULL DEFAULT 0
                 CONSTRAINT enrollment_leaving_valid CHECK (leaving IN (0, 1)),
    history      TEXT    NOT NULL DEFAULT '{}'
                 CONSTRAINT enrollment_history_valid CHECK (json_valid(history)),
    observed     TEXT
                 CONSTRAINT enrollment_observed_valid
                 CHECK (observed IS NULL OR json_valid(observed)),
    drift        TEXT
                 CONSTRAINT enrollment_drift_valid CHECK (drift IS NULL OR json_valid(drift)),
    observed_at  INTEGER,
    seen_in_scan INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    by_reference INTEGER NOT NULL DEFAULT 0
                 CONSTRAINT enrollment_by_reference_valid CHECK (by_reference IN (0, 1)),
    overlay_of   TEXT,
    after        INTEGER REFERENCES enrollment (id) ON DELETE SET NULL,
    restored     INTEGER NOT NULL DEFAULT 0
                 CONSTRAINT enrollment_restored_valid CHECK (restored IN (0, 1)),
    CONSTRAINT enrollment_name UNIQUE (provisioning, kind, name),
    CONSTRAINT enrollment_group_has_authority CHECK ((kind = 'group') = (authority IS NOT NULL))
) STRICT;

-- A CA certificate that a provisioning service must hold verified, or, once `removed`, not hold.
-- * `proof`: JSON of `enrollment::ca_certificate::PossessionProof`.
-- * `observed`: the certificate under this name as last observed; null where there is none.
-- * `drift`: how another program has changed what was verified.
-- * `gone`: the service was observed without the removed certificate. The row stays, so that a scan
--   finds a certificate that another program uploads again.
-- * `restored`: as of an enrollment.
CREATE TABLE ca_certificate (
    id           INTEGER PRIMARY KEY,
    provisioning TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    generation   INTEGER NOT NULL REFERENCES generation (id),
    proof        TEXT    NOT NULL CONSTRAINT ca_certificate_proof_valid CHECK (json_valid(proof)),
    removed      INTEGER NOT NULL DEFAULT 0
                 CONSTRAINT ca_certificate_removed_valid CHECK (removed IN (0, 1)),
    gone         INTEGER NOT NULL DEFAULT 0
                 CONSTRAINT ca_certificate_gone_valid CHECK (gone IN (0, 1) AND gone <= removed),
    observed     TEXT
                 CONSTRAINT ca_certificate_observed_valid
                 CHECK (observed IS NULL OR json_valid(observed)),
    drift        TEXT
                 CONSTRAINT ca_certificate_drift_valid CHECK (drift IS NULL OR json_valid(drift)),
    observed_at  INTEGER,
    restored     INTEGER NOT NULL DEFAULT 0
                 CONSTRAINT ca_certificate_restored_valid CHECK (restored IN (0, 1)),
    CONSTRAINT ca_certificate_name UNIQUE (provisioning, name),
    CONSTRAINT ca_certificate_generation UNIQUE (provisioning, generation)
) STRICT;

-- The load of a provisioning service: how much of its limits is used, by whatever program, at the
-- last count; how many scans have begun, when one last ended, and the last restore before that one.
-- `hub` is whether the configuration last named a hub of it: exclusions queue deletions there.
CREATE TABLE service_load (
    provisioning    TEXT    PRIMARY KEY,
    groups          INTEGER,
    ca_certificates INTEGER,
    scans           INTEGER NOT NULL DEFAULT 0,
    scanned_at      INTEGER,
    scanned_restore INTEGER,
    hub             INTEGER NOT NULL DEFAULT 0
                    CONSTRAINT service_load_hub_valid CHECK (hub IN (0, 1))
) STRICT;

-- A backup was restored: what was recorded between `lost_since`, when the backup was made, and
-- `restored_at` is lost.
CREATE TABLE restore (
    id          INTEGER PRIMARY KEY,
    lost_since  INTEGER NOT NULL,
    restored_at INTEGER NOT NULL
) STRICT;

-- An enrollment that a scan has found at a service, that has no row in `enrollment`, and that may
-- hold certificates of this daemon. `record` is as the service showed it.
CREATE TABLE unknown_enrollment (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    provisioning TEXT    NOT NULL,
    kind         TEXT    NOT NULL
                 CONSTRAINT unknown_enrollment_kind_valid CHECK (kind IN ('individual', 'group')),
    name         TEXT    NOT NULL COLLATE NOCASE,
    record       TEXT    NOT NULL
                 CONSTRAINT unknown_enrollment_record_valid CHECK (json_valid(record)),
    enabled      INTEGER NOT NULL
                 CONSTRAINT unknown_enrollment_enabled_valid CHECK (enabled IN (0, 1)),
    seen_in_scan INTEGER NOT NULL,
    observed_at  INTEGER NOT NULL,
    CONSTRAINT unknown_enrollment_name UNIQUE (provisioning, kind, name)
) STRICT;

CREATE TRIGGER enrollment_is_known AFTER INSERT ON enrollment
BEGIN
    DELETE FROM unknown_enrollment
    WHERE provisioning = NEW.provisioning AND kind = NEW.kind AND name = NEW.name;
END;

-- A certificate whose key was never stored, for the disabled enrollment of a device without a leaf
-- on record: the service knows no enrollment without a certificate.
CREATE TABLE placeholder (
    device TEXT PRIMARY KEY COLLATE NOCASE,
    sha256 BLOB NOT NULL CONSTRAINT placeholder_sha256 UNIQUE
           CONSTRAINT placeholder_sha256_valid CHECK (length(sha256) = 32),
    der    BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The dirty mark: its subject must be observed; it never says what must change. `version` counts
-- the causes, so that work done for an older cause does not clear a newer one. `urgent` marks are
-- for exclusions and come first. `trace` is the trace context of the request that was the last cause.
CREATE TABLE mark (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    provisioning   TEXT    NOT NULL,
    enrollment     INTEGER CONSTRAINT mark_enrollment UNIQUE
                   REFERENCES enrollment (id) ON DELETE CASCADE,
    ca_certificate INTEGER CONSTRAINT mark_ca_certificate UNIQUE
                   REFERENCES ca_certificate (id) ON DELETE CASCADE,
    version        INTEGER NOT NULL DEFAULT 1,
    cause          TEXT    NOT NULL,
    since          INTEGER NOT NULL,
    due_at         INTEGER NOT NULL,
    attempts       INTEGER NOT NULL DEFAULT 0,
    last_error     TEXT,
    parked         INTEGER NOT NULL DEFAULT 0 CONSTRAINT mark_parked_valid CHECK (parked IN (0, 1)),
    urgent         INTEGER NOT NULL DEFAULT 0 CONSTRAINT mark_urgent_valid CHECK (urgent IN (0, 1)),
    trace          TEXT,
    CONSTRAINT mark_has_one_subject CHECK ((enrollment IS NULL) <> (ca_certificate IS NULL))
) STRICT;
CREATE INDEX enrollment_by_name ON enrollment (name);
CREATE INDEX enrollment_drifted ON enrollment (provisioning, name) WHERE drift IS NOT NULL;
CREATE INDEX mark_due ON mark (parked, due_at);

-- The replacement of a certificate: of one individual enrollment's leaf, or of one authority.
-- `detail` holds options and evidence, in a form that depends on the kind of subject; `parent` is
-- the roll that has started this one. One open roll per subject.
CREATE TABLE roll (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    reason          TEXT    NOT NULL
                    CONSTRAINT roll_reason_valid CHECK (reason IN ('expiry', 'compromise')),
    enrollment      INTEGER REFERENCES enrollment (id) ON DELETE CASCADE,
    authority       TEXT,
    old_generation  INTEGER REFERENCES generation (id),
    new_generation  INTEGER REFERENCES generation (id),
    state           TEXT    NOT NULL
                    CONSTRAINT roll_state_valid
                    CHECK (state IN ('requested', 'staged', 'draining', 'excluding', 'clearing',
                                     'reissuing', 'done', 'aborted')),
    old_certificate BLOB    NOT NULL
                    CONSTRAINT roll_old_certificate_valid CHECK (length(old_certificate) = 32),
    new_certificate BLOB
                    CONSTRAINT roll_new_certificate_valid CHECK (length(new_certificate) = 32),
    detail          TEXT    NOT NULL DEFAULT '{}'
                    CONSTRAINT roll_detail_valid CHECK (json_valid(detail)),
    parent          INTEGER REFERENCES roll (id) ON DELETE SET NULL,
    started_by      TEXT    NOT NULL,
    started_at      INTEGER NOT NULL,
    changed_at      INTEGER NOT NULL,
    -- 1 for a compromise that was reported after a restore, or again then. A time does not show it:
    -- both may be in one second.
    after_restore   INTEGER NOT NULL DEFAULT 0
                    CONSTRAINT roll_after_restore_valid CHECK (after_restore IN (0, 1)),
    CONSTRAINT roll_has_one_subject CHECK ((enrollment IS NULL) <> (authority IS NULL)),
    CONSTRAINT roll_of_authority_has_generation
        CHECK ((authority IS NULL) = (old_generation IS NULL)),
    CONSTRAINT roll_of_leaf_has_no_generation
        CHECK (authority IS NOT NULL OR new_generation IS NULL),
    CONSTRAINT roll_has_successor
        CHECK (state NOT IN ('staged', 'draining', 'done') OR new_certificate IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX roll_open_enrollment ON roll (enrollment)
    WHERE enrollment IS NOT NULL AND state NOT IN ('done', 'aborted');
CREATE UNIQUE INDEX roll_open_authority ON roll (authority)
    WHERE authority IS NOT NULL AND state NOT IN ('done', 'aborted');
CREATE INDEX roll_enrollment ON roll (enrollment) WHERE enrollment IS NOT NULL;
CREATE INDEX roll_under_way ON roll (state) WHERE state NOT IN ('done', 'aborted');
CREATE INDEX roll_parent ON roll (parent) WHERE parent IS NOT NULL;

-- A job at a hub that calls a method of many devices. It is recorded before the hub gets it, so
-- that after a lost answer it is found by its name. Its calls are tasks with their own results.
CREATE TABLE hub_job (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT    NOT NULL CONSTRAINT hub_job_name UNIQUE,
    provisioning TEXT    NOT NULL,
    made_at      INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    last_error   TEXT,
    done_at      INTEGER
) STRICT;
CREATE INDEX hub_job_due ON hub_job (provisioning, due_at) WHERE done_at IS NULL;

-- A task at a hub for one device: delete its identity, or call a method. `cause` and `cause_id`
-- name the roll or block, or the renewal by its intent; the cause `device` with 0 is the compromise
-- of a device that no enrollment of the service admits. While `enrollment` has a dirty mark the task
-- waits, because a device that the service still admits would register again. A task with a `job` is
-- done by that job.
-- `round` counts how often the cause has asked for it: an answer to an earlier round does not end
-- it.
-- `reached` is whether the last call reached the device; a device is called at every service that
-- may know it.
-- `outcome` is the end of a deletion; `elsewhere` means that the registration record names the
-- identity `hub_device` in `hub`, which is not configured.
CREATE TABLE hub_task (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    provisioning TEXT    NOT NULL,
    device       TEXT    NOT NULL COLLATE NOCASE,
    action       TEXT    NOT NULL
                 CONSTRAINT hub_task_action_valid CHECK (action IN ('delete', 'call')),
    cause        TEXT    NOT NULL
                 CONSTRAINT hub_task_cause_valid
                 CHECK (cause IN ('roll', 'block', 'renewal', 'device')),
    cause_id     INTEGER NOT NULL,
    enrollment   INTEGER REFERENCES enrollment (id) ON DELETE SET NULL,
    job          INTEGER REFERENCES hub_job (id),
    round        INTEGER NOT NULL DEFAULT 1,
    queued_at    INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    last_error   TEXT,
    done_at      INTEGER,
    answer       TEXT,
    reached      INTEGER CONSTRAINT hub_task_reached_valid CHECK (reached IN (0, 1)),
    outcome      TEXT
                 CONSTRAINT hub_task_outcome_valid
                 CHECK (outcome IN ('gone', 'kept', 'elsewhere', 'unknown')),
    hub          TEXT,
    hub_device   TEXT,
    trace        TEXT,
    CONSTRAINT hub_task_once UNIQUE (cause, cause_id, device, action, provisioning),
    CONSTRAINT hub_task_done_has_answer CHECK ((done_at IS NULL) = (answer IS NULL)),
    CONSTRAINT hub_task_elsewhere_names_hub
        CHECK ((outcome IS NOT DISTINCT FROM 'elsewhere') = (hub IS NOT NULL)),
    CONSTRAINT hub_task_hub_is_whole CHECK ((hub IS NULL) = (hub_device IS NULL))
) STRICT;
CREATE INDEX hub_task_due ON hub_task (provisioning, due_at) WHERE done_at IS NULL;
CREATE INDEX hub_task_done ON hub_task (id) WHERE done_at IS NOT NULL;
CREATE INDEX hub_task_job ON hub_task (job) WHERE job IS NOT NULL;
CREATE INDEX hub_task_device ON hub_task (device, provisioning);

-- While devices are notified: the last intent of a leaf up to which renewals were announced to the
-- devices of groups.
CREATE TABLE renewal_notice (
    only   INTEGER PRIMARY KEY CONSTRAINT renewal_notice_only_valid CHECK (only = 1),
    intent INTEGER NOT NULL
) STRICT;

-- A group whose registrations an exclusion must list after a restore, because the identities of
-- devices that are not on record are found by them alone. `cause` and `cause_id` name the roll or
-- block.
CREATE TABLE group_registrations (
    id           INTEGER PRIMARY KEY,
    cause        TEXT    NOT NULL
                 CONSTRAINT group_registrations_cause_valid CHECK (cause IN ('roll', 'block')),
    cause_id     INTEGER NOT NULL,
    provisioning TEXT    NOT NULL,
    name         TEXT    NOT NULL COLLATE NOCASE,
    due_at       INTEGER NOT NULL,
    listed_at    INTEGER,
    CONSTRAINT group_registrations_once UNIQUE (cause, cause_id, provisioning, name)
) STRICT;

-- The leaf by which its hub knows a device, as last observed; null where it has no identity.
-- `elsewhere` is the hub that the registration record names, if that is not configured.
CREATE TABLE hub_observation (
    provisioning TEXT    NOT NULL,
    device       TEXT    NOT NULL COLLATE NOCASE,
    certificate  BLOB
                 CONSTRAINT hub_observation_certificate_valid CHECK (length(certificate) = 32),
    registration TEXT,
    elsewhere    TEXT,
    since        INTEGER NOT NULL,
    seen_at      INTEGER NOT NULL,
    PRIMARY KEY (provisioning, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX hub_observation_device ON hub_observation (device, certificate);

-- The identity that the registration record of a device last named. The service may delete that
-- record, with the enrollment for example, and the identity stays. Both are null for a device whose
-- individual enrollment or registration record went before it was seen to name a hub.
CREATE TABLE hub_place (
    provisioning TEXT NOT NULL,
    device       TEXT NOT NULL COLLATE NOCASE,
    hub          TEXT,
    hub_device   TEXT,
    CONSTRAINT hub_place_is_whole CHECK ((hub IS NULL) = (hub_device IS NULL)),
    PRIMARY KEY (provisioning, device)
) STRICT, WITHOUT ROWID;

-- A block. `undo` says what lifting it reverts. `reached` is its progress, device by device: the
-- last one that was put on hold; after lifting, any value until all holds are released; null at the
-- end.
CREATE TABLE block (
    id         INTEGER PRIMARY KEY,
    kind       TEXT    NOT NULL
               CONSTRAINT block_kind_valid CHECK (kind IN ('device', 'group', 'generation')),
    name       TEXT    NOT NULL COLLATE NOCASE,
    generation INTEGER,
    reason     TEXT    NOT NULL,
    undo       TEXT    NOT NULL DEFAULT '[]' CONSTRAINT block_undo_valid CHECK (json_valid(undo)),
    -- JSON of `store::RestrictedEnrollment`s: names outlive the rows of deleted enrollments.
    restricted TEXT    NOT NULL DEFAULT '[]'
               CONSTRAINT block_restricted_valid CHECK (json_valid(restricted)),
    reached    TEXT    COLLATE NOCASE,
    blocked_by TEXT    NOT NULL,
    blocked_at INTEGER NOT NULL,
    lifted_by  TEXT,
    lifted_at  INTEGER,
    CONSTRAINT block_generation_has_number CHECK ((kind = 'generation') = (generation IS NOT NULL)),
    CONSTRAINT block_lifting_is_whole CHECK ((lifted_at IS NULL) = (lifted_by IS NULL))
) STRICT;
CREATE UNIQUE INDEX block_standing ON block (kind, name, coalesce(generation, 0))
    WHERE lifted_at IS NULL;
CREATE INDEX block_unfinished ON block (id) WHERE reached IS NOT NULL;

-- The certificates that a block holds. A hold is lifted when no block and no operator
-- (`operator_hold`) holds the certificate any more.
CREATE TABLE block_hold (
    block       INTEGER NOT NULL REFERENCES block (id),
    certificate INTEGER NOT NULL REFERENCES certificate (intent),
    PRIMARY KEY (block, certificate)
) STRICT, WITHOUT ROWID;
CREATE INDEX block_hold_certificate ON block_hold (certificate);

-- The certificates that an operator holds. A final revocation leaves the row, which has no effect
-- then.
CREATE TABLE operator_hold (
    certificate INTEGER PRIMARY KEY REFERENCES certificate (intent),
    held_by     TEXT    NOT NULL,
    held_at     INTEGER NOT NULL,
    cause       TEXT    NOT NULL
) STRICT;

-- One-time credentials of devices. Of a secret only this hash of salt and secret is stored; its use
-- is in `grant_use`. `failures` counts wrong secrets.
CREATE TABLE device_credential (
    id              INTEGER PRIMARY KEY,
    registration_id TEXT    NOT NULL COLLATE NOCASE,
    profile         TEXT    NOT NULL,
    salt            BLOB    NOT NULL
                    CONSTRAINT device_credential_salt_valid CHECK (length(salt) = 16),
    secret_sha256   BLOB    NOT NULL
                    CONSTRAINT device_credential_secret_valid CHECK (length(secret_sha256) = 32),
    made_by         TEXT    NOT NULL,
    made_at         INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL
                    CONSTRAINT device_credential_expires_later CHECK (expires_at > made_at),
    failures        INTEGER NOT NULL DEFAULT 0,
    revoked_by      TEXT,
    revoked_at      INTEGER,
    CONSTRAINT device_credential_revocation_is_whole
        CHECK ((revoked_by IS NULL) = (revoked_at IS NULL))
) STRICT;
CREATE INDEX device_credential_device ON device_credential (registration_id, id);
CREATE TRIGGER device_credential_is_immutable
BEFORE UPDATE OF id, registration_id, profile, salt, secret_sha256, made_by, made_at, expires_at
ON device_credential
BEGIN
    SELECT RAISE(ABORT, 'device_credential_is_immutable');
END;
CREATE TRIGGER device_credential_stays_revoked
BEFORE UPDATE OF revoked_by, revoked_at ON device_credential WHEN OLD.revoked_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'device_credential_stays_revoked');
END;
-- For those that ended long ago, which are forgotten. The newest stays: uses name credentials by
-- their row id, so none is given twice.
CREATE INDEX device_credential_end ON device_credential (expires_at);
CREATE TRIGGER device_credential_is_kept BEFORE DELETE ON device_credential
WHEN OLD.id = (SELECT max(id) FROM device_credential)
BEGIN
    SELECT RAISE(ABORT, 'device_credential_is_kept');
END;

-- The intents that were recorded by a grant: what lets a device without a valid leaf request one.
-- `name` is the SHA-256 of the leaf that had ended, in hex; the row id of a credential; or the name
-- of a `[[birth]]` with the registration id. An intent that ended without a certificate uses nothing
-- up.
CREATE TABLE grant_use (
    kind   TEXT    NOT NULL
           CONSTRAINT grant_use_kind_valid CHECK (kind IN ('late_renewal', 'credential', 'birth')),
    name   TEXT    NOT NULL COLLATE NOCASE,
    intent INTEGER NOT NULL REFERENCES intent (id),
    PRIMARY KEY (kind, name, intent)
) STRICT, WITHOUT ROWID;
CREATE INDEX grant_use_intent ON grant_use (intent);
CREATE TRIGGER grant_is_used_once BEFORE INSERT ON grant_use
WHEN NEW.kind <> 'birth' AND EXISTS (
    SELECT 1 FROM grant_use g JOIN intent i ON i.id = g.intent
    WHERE g.kind = NEW.kind AND g.name = NEW.name AND i.ended IS NULL
)
BEGIN
    SELECT RAISE(ABORT, 'grant_is_used_once');
END;
CREATE TRIGGER grant_use_is_immutable BEFORE UPDATE ON grant_use
BEGIN
    SELECT RAISE(ABORT, 'grant_use_is_immutable');
END;
CREATE TRIGGER grant_use_is_kept BEFORE DELETE ON grant_use
BEGIN
    SELECT RAISE(ABORT, 'grant_use_is_kept');
END;

-- Counts of signatures that have no other record: `proof` for test signatures, `credential` for
-- those of cloud credentials. `counted` is the last count that the worker process `worker` has
-- reported, `total` the sum over all workers.
CREATE TABLE key_use (
    token   TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    kind    TEXT    NOT NULL CONSTRAINT key_use_kind_valid CHECK (kind IN ('proof', 'credential', 'answer')),
    worker  BLOB    NOT NULL CONSTRAINT key_use_worker_valid CHECK (length(worker) = 8),
    counted INTEGER NOT NULL,
    total   INTEGER NOT NULL CONSTRAINT key_use_total_valid CHECK (total >= counted),
    PRIMARY KEY (token, key, kind)
) STRICT, WITHOUT ROWID;

-- The audit journal: each entry's hash covers all entries before it.
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    actor    TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    detail   TEXT    NOT NULL CONSTRAINT audit_detail_valid CHECK (json_valid(detail)),
    hash     BLOB    NOT NULL CONSTRAINT audit_hash_valid CHECK (length(hash) = 32)
) STRICT;
-- The journal's role of each certificate that is not a device's, read at each connection of its
-- holder.
CREATE INDEX audit_role ON audit (detail ->> 'sha256')
    WHERE action = 'certificate.issued' AND detail ->> 'role' <> 'device';
-- The approvals that were used, each once.
CREATE INDEX audit_approval ON audit (detail ->> 'sha256') WHERE action = 'approval.used';
-- The transcripts of requests that were carried to an offline root.
CREATE INDEX audit_transfer ON audit (subject) WHERE action = 'transfer.requested';
CREATE TRIGGER audit_is_append_only_update BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'audit_is_append_only_update');
END;
CREATE TRIGGER audit_is_append_only_delete BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'audit_is_append_only_delete');
END;

-- Requests for the approval of a second person. `document` is what the approver signs, with the
-- digest `sha256`; `certificate` is the SHA-256 of the approver's. A row proves nothing: the
-- signature is verified over what is asked, and the journal has the uses.
CREATE TABLE approval (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    action         TEXT    NOT NULL,
    asked_by       TEXT    NOT NULL,
    asked_at       INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL
                   CONSTRAINT approval_expires_later CHECK (expires_at > asked_at),
    nonce          TEXT    NOT NULL,
    content_sha256 BLOB    NOT NULL
                   CONSTRAINT approval_content_valid CHECK (length(content_sha256) = 32),
    document       TEXT    NOT NULL,
    sha256         BLOB    NOT NULL
                   CONSTRAINT approval_sha256_valid CHECK (length(sha256) = 32),
    approved_by    TEXT,
    approved_at    INTEGER,
    certificate    BLOB,
    signature      BLOB,
    rejected_by    TEXT,
    used_at        INTEGER,
    CONSTRAINT approval_signature_is_whole
        CHECK ((approved_by IS NULL) = (approved_at IS NULL)
           AND (approved_by IS NULL) = (certificate IS NULL)
           AND (approved_by IS NULL) = (signature IS NULL))
) STRICT;
CREATE INDEX approval_end ON approval (expires_at);

-- The keys that sign checkpoints of the journal. `spki` is null between the decision to make a key
-- and the token's answer; the token confirms each key before it is used, because the owner of this
-- database can write the row.
CREATE TABLE audit_key (
    number      INTEGER PRIMARY KEY
                CONSTRAINT audit_key_number_valid CHECK (number >= 1),
    token       TEXT    NOT NULL,
    key_type    TEXT    NOT NULL,
    key_id      BLOB    NOT NULL,
    spki        BLOB,
    key_wrapped BLOB
                CONSTRAINT audit_key_wrapped_valid
                CHECK (key_wrapped IS NULL
                               OR (spki IS NOT NULL AND length(key_wrapped) <= 2048))
) STRICT;
CREATE TRIGGER audit_key_is_kept_update BEFORE UPDATE ON audit_key WHEN OLD.spki IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'audit_key_is_kept_update');
END;
CREATE TRIGGER audit_key_is_kept_delete BEFORE DELETE ON audit_key
BEGIN
    SELECT RAISE(ABORT, 'audit_key_is_kept_delete');
END;

-- The signed ends of the journal: text and signature as they can be verified elsewhere.
CREATE TABLE checkpoint (
    number    INTEGER PRIMARY KEY CONSTRAINT checkpoint_number_valid CHECK (number >= 1),
    message   TEXT    NOT NULL,
    -- SHA-256 of the key (SubjectPublicKeyInfo) and the signature, in hex.
    key       TEXT    NOT NULL,
    signature TEXT    NOT NULL
) STRICT;
CREATE TRIGGER checkpoint_is_append_only_update BEFORE UPDATE ON checkpoint
BEGIN
    SELECT RAISE(ABORT, 'checkpoint_is_append_only_update');
END;
CREATE TRIGGER checkpoint_is_append_only_delete BEFORE DELETE ON checkpoint
BEGIN
    SELECT RAISE(ABORT, 'checkpoint_is_append_only_delete');
END;

-- An operator has accepted the machine's clock: rows up to these are compared with it no more.
CREATE TABLE accepted_clock (
    only   INTEGER PRIMARY KEY CONSTRAINT accepted_clock_only_valid CHECK (only = 1),
    at     INTEGER NOT NULL,
    intent INTEGER NOT NULL,
    crl    INTEGER NOT NULL
) STRICT;

-- For probes, which show that the store can write. Empty except for a moment.
CREATE TABLE write_probe (
    only   INTEGER PRIMARY KEY CONSTRAINT write_probe_only_valid CHECK (only = 1),
    filler BLOB    NOT NULL
) STRICT;
