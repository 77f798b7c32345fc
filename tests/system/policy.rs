//! What stations and devices may ask for, as the configuration says.

use crate::process::Told;
use crate::request::Request;
use crate::stage::Stage;

/// A profile by which a caller would obtain a CA certificate.
const AUTHORITY: &str = r#"
[[profile]]
name = "sub-authority"
authority = "plant"
role = "device"
[profile.certificate]
kind = "authority"
path_length = 0
validity = "30d"
key_types = ["p256"]
key_usage = ["key_cert_sign", "crl_sign"]
"#;

/// Verifies: `check`, a start and a reload refuse such a profile for every role and say why; after
/// a refused reload the daemon serves the configuration that it had.
#[test]
fn no_profile_lets_a_caller_obtain_a_ca_certificate() {
    let mut stage = Stage::up();
    let good = stage.configuration();
    let station = stage.station();
    for role in ["device", "station", "operator", "auditor", "server"] {
        let profile = AUTHORITY.replace("\"device\"", &format!("\"{role}\""));
        stage.configure(&(good.clone() + &profile));
        for (code, told) in [(1, stage.check()), (1, stage.hallmark(&["reload"]))] {
            let said = format!("{}{}", told.out, told.error);
            assert_eq!(told.code, Some(code), "{role}: {told:?}");
            for word in ["sub-authority", "a CA certificate", "kind = \"leaf\""] {
                assert!(said.contains(word), "{role}: no {word}: {told:?}");
            }
        }
        let asked = station.ask(&Request::new("sub-authority", "press-7"));
        assert_eq!((asked.status, asked.code()), (404, "profile_unknown"));
    }
    station.obtain(&Request::device("press-7"));
    stage.stop();
    let told = Told::of(&mut stage.serve(&[]));
    assert_eq!(told.code, Some(78), "{told:?}");
    assert!(told.error.contains("a CA certificate"), "{told:?}");
    stage.configure(&good);
    stage.start();
    stage.is_ready();
}
