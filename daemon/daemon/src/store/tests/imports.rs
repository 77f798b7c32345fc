//! Tests what an import may change of what is on record.

use super::*;
use crate::ids::{GenerationId, GenerationNumber};
use crate::x509::ocsp::CertificateStatus;
use crate::x509::revocation::RevocationReason::{self, CertificateHold, KeyCompromise, Superseded};

/// A serial number of an index or a list.
fn line(serial: u8, revoked: Option<(i64, RevocationReason)>) -> FormerCertificate {
    FormerCertificate {
        serial: vec![serial; 16],
        subject: Some("press-9".into()),
        not_after: Some(unix(9_000)),
        revoked: revoked.map(|(since, reason)| (unix(since), reason)),
        leaf: None,
    }
}

/// The same with its file.
fn file(serial: u8, revoked: Option<(i64, RevocationReason)>) -> FormerCertificate {
    let tbs = vec![serial; 40];
    let certificate = MadeElsewhere {
        der: join(&tbs, b"signature"),
        tbs: tbs.into(),
        serial: vec![serial; 16],
        public_key: vec![serial; 50].into(),
        subject: "press-9".into(),
        not_before: unix(500),
        not_after: unix(9_000),
    };
    FormerCertificate {
        leaf: Some(ImportedLeaf {
            certificate,
            is_leaf: true,
            device: None,
        }),
        ..line(serial, revoked)
    }
}

impl Fixture {
    fn import(&self, it: FormerCertificate) -> Imported {
        let actor = "operator".to_owned();
        let imported = self
            .store
            .import_certificates(self.root, vec![it], actor, unix(1_500));
        imported.unwrap()
    }

    /// When and why the certificate with this serial number was revoked.
    fn status_of(&self, serial: u8) -> Option<(UnixSeconds, RevocationReason)> {
        let serial = vec![serial; 16];
        let status = self.store.certificate_status(self.root, &serial).unwrap();
        match status {
            CertificateStatus::Revoked { since, reason } => Some((since, reason)),
            _ => None,
        }
    }

    fn reason(&self, serial: u8) -> Option<RevocationReason> {
        self.status_of(serial).map(|(_, reason)| reason)
    }

    fn entries(&self, action: &str) -> i64 {
        let sql = "SELECT count(*) FROM audit WHERE action = ?1";
        self.raw()
            .query_row(sql, [action], |row| row.get(0))
            .unwrap()
    }
}

/// An authority is excluded by a compromise or a block: its revocation alone would leave the
/// hierarchy in memory and the services as they are.
#[test]
fn an_import_leaves_the_certificate_of_an_authority() {
    let fixture = Fixture::new();
    let done = fixture.import(line(1, Some((900, Superseded))));
    assert_eq!((done.known, done.revocations), (1, 0));
    assert_eq!(fixture.reason(1), None);
    let kept = KeptAuthority {
        authority: "root".into(),
        number: GenerationNumber::FIRST,
        reason: Superseded,
    };
    assert_eq!(done.kept, [kept]);
    let good = fixture.import(line(1, None));
    assert_eq!(good.kept, []);
}

fn operator(serial: u8, at: i64) -> Revocation {
    Revocation {
        target: RevocationTarget::Serial(vec![serial; 16]),
        at: unix(at),
        actor: "operator".into(),
        cause: "a test".into(),
    }
}

fn former(serial: u8, at: i64, root: GenerationId) -> FormerRevocation {
    FormerRevocation {
        generation: root,
        serial: vec![serial; 16],
        reason: CertificateHold,
        at: unix(at),
        actor: "operator".into(),
        cause: "a test".into(),
    }
}

/// A hold takes the final reason of a later list, and keeps its date: of a certificate, of a
/// serial number alone, and of one whose file comes with that list.
#[test]
fn an_imported_reason_makes_a_hold_final() {
    let fixture = Fixture::new();
    fixture.issue("press-7", 2);
    fixture.import(line(2, Some((900, CertificateHold))));
    fixture.import(line(9, Some((900, CertificateHold))));
    fixture.import(line(10, Some((900, CertificateHold))));
    let leaf = |serial| file(serial, Some((950, KeyCompromise)));
    for it in [
        line(2, Some((950, KeyCompromise))),
        line(9, Some((950, KeyCompromise))),
        leaf(10),
    ] {
        let serial = it.serial[0];
        let counted = fixture.store.revocations();
        assert_eq!(fixture.import(it).revocations, 1, "{serial}");
        assert!(fixture.store.revocations() > counted, "{serial}");
        assert_eq!(
            fixture.status_of(serial),
            Some((unix(900), KeyCompromise)),
            "{serial}"
        );
        let again = fixture.import(line(serial, Some((950, KeyCompromise))));
        assert_eq!(again.revocations, 0, "{serial}");
    }
    let entries = fixture.entries("certificate.revoked");
    assert_eq!(
        entries, 3,
        "a hold and two final reasons of what was on record"
    );
}

/// The repeat of an import leaves what an operator has released, also when it brings the file. A
/// later hold counts.
#[test]
fn a_released_hold_is_not_imported_again() {
    let fixture = Fixture::new();
    let held = Some((900, CertificateHold));
    fixture.issue("press-7", 2);
    fixture.import(line(2, held));
    for serial in [9, 10] {
        fixture.import(line(serial, held));
    }
    fixture.store.unrevoke(operator(2, 1_200)).unwrap();
    for serial in [9, 10] {
        let release = former(serial, 1_200, fixture.root);
        assert!(fixture.store.release_former(release).unwrap().1);
    }
    for it in [line(2, held), line(9, held), file(10, held), file(10, held)] {
        let serial = it.serial[0];
        assert_eq!(fixture.import(it).revocations, 0, "{serial}");
        assert_eq!(fixture.reason(serial), None, "{serial}");
    }
    for serial in [2, 9, 10] {
        let later = line(serial, Some((1_600, CertificateHold)));
        assert_eq!(fixture.import(later).revocations, 1, "{serial}");
        assert_eq!(fixture.reason(serial), Some(CertificateHold), "{serial}");
    }
}

/// A certificate that is revoked for another reason stays so; that its key is barred is in the
/// journal, once.
#[test]
fn an_imported_report_of_a_key_is_in_the_journal() {
    let fixture = Fixture::new();
    fixture.issue("press-7", 2);
    fixture
        .store
        .revoke(operator(2, 1_200), Superseded)
        .unwrap();
    for _ in 0..2 {
        fixture.import(line(2, Some((1_100, KeyCompromise))));
        assert_eq!(fixture.reason(2), Some(Superseded));
        assert_eq!(fixture.entries("certificate.revoked"), 2);
    }
}

/// A list with a name has to judge all that have it: a station may have renewed itself often.
#[test]
fn all_serial_numbers_of_a_name_are_found() {
    let fixture = Fixture::new();
    for serial in 20..170 {
        fixture.import(line(serial, None));
    }
    let find = |name, authority| {
        fixture
            .store
            .former_subjects(name, authority)
            .unwrap()
            .len()
    };
    assert_eq!(find("PRESS-9", None), 150);
    assert_eq!(find("press-9", Some("root")), 150);
    assert_eq!(find("press-9", Some("other")), 0);
    assert_eq!(find("press-8", None), 0);
}
