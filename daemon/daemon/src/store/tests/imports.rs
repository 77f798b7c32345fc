//! Tests what an import may change of what is on record.

use super::*;
use crate::ids::GenerationNumber;
use crate::x509::ocsp::CertificateStatus;
use crate::x509::revocation::RevocationReason::{self, Superseded};

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
