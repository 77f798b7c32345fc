//! Tests birth certificates: a device requests its first leaf with the certificate of its
//! manufacturer, as `[[birth]]` allows.

use crate::configured::device_profile;
use crate::device::is_assigned;
use crate::est_client::EstClient;
use crate::manufacturer::{HARDWARE_TYPE, Manufacturer};
use crate::refusals::Witness;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;
use time::Duration;

fn by_module() -> String {
    format!(
        "id_from = \"san.hardware_module\"\nhardware_type = \"{HARDWARE_TYPE}\"\n\
         id_prefix = \"press-\"\nids = [\"press-*\"]\nprofile = \"born\"\ntimes = 2"
    )
}

/// A device comes from its manufacturer. Verifies: its certificate, of an issuing CA below the
/// anchor and without an end, gives a leaf that DPS assigns; after the leaf's end it gives another
/// one, and no third; another id, a renewal and every other address are refused; the journal names
/// manufacturer and serial number.
#[test]
fn a_device_requests_its_leaf_with_its_birth_certificate() {
    let env = TestEnv::new().with_a_movable_clock();
    let maker = Manufacturer::on(&env);
    let tables = device_profile("born", "line-1", "1h") + &maker.table(&by_module());
    env.configure(&(env.configuration() + &tables));
    let env = env.started();
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let maker = Manufacturer::of(&env);
    let born = maker.device("0a0b");
    let client = EstClient::of(&env, &born);
    let request = |id: &str| Request::new("born", id);

    let caller = env.caller(&born);
    let witness = Witness::of(&env);
    witness.sees_refused(403, "role_forbidden", || caller.ask(&request("press-7")));
    witness.sees_refused(403, "role_forbidden", || {
        caller.ask(&Request::device("press-0a0b"))
    });
    let first = request("press-0a0b");
    let renewal = client.post("simplereenroll", first.csr.as_bytes());
    assert_eq!(renewal.code(), "client_certificate_unknown");
    for path in ["/v1/certificates", "/v1/devices"] {
        assert_eq!(
            caller.get(path).code(),
            "client_certificate_unknown",
            "{path}"
        );
    }

    let leaf = client.obtain("simpleenroll", &first);
    is_assigned(&env.emulator, &leaf);
    assert_eq!(
        client.obtain("simpleenroll", &first).certificate,
        leaf.certificate
    );
    let issued = "audit WHERE action = 'certificate.issued' AND actor = 'device press-0a0b'
                  AND detail ->> '$.birth.name' = 'maker' AND detail ->> '$.birth.serial' = '1001'";
    assert_eq!(env.count(issued), 1);

    env.passes(Duration::hours(2));
    let ended = env.caller(&leaf).ask(&request("press-0a0b"));
    assert_eq!(ended.code(), "client_certificate_expired");
    let second = client.obtain("born/simpleenroll", &request("press-0a0b"));
    is_assigned(&env.emulator, &second);
    let witness = Witness::of(&env);
    witness.sees_refused(409, "birth_used", || caller.ask(&request("press-0a0b")));
    env.run(&["audit", "verify"]);
}

/// Verifies: a certificate that its manufacturer has revoked is refused as soon as the file of the
/// CRL changes, and others are not; an overdue CRL, a missing one, another manufacturer, a blocked
/// or revoked device and a table that was removed are refused with their codes.
#[test]
fn a_birth_certificate_that_is_not_good_is_refused() {
    let env = TestEnv::new().with_a_movable_clock();
    let maker = Manufacturer::on(&env);
    let tables = device_profile("born", "line-1", "1h") + &maker.table(&by_module());
    let without = env.configuration() + &device_profile("born", "line-1", "1h");
    env.configure(&(env.configuration() + &tables));
    let env = env.started();
    let maker = Manufacturer::of(&env);
    let devices = ["0a", "0b", "0c", "0d"].map(|it| maker.device(it));
    let [revoked, good, blocked, gone] = &devices;
    let request = |holder: &Holder| Request::new("born", &holder.id);
    let refused = |holder: &Holder, status: u16, code: &str| {
        let caller = env.caller(holder);
        Witness::of(&env).sees_refused(status, code, || caller.ask(&request(holder)));
        let answer =
            EstClient::of(&env, holder).post("simpleenroll", request(holder).csr.as_bytes());
        assert_eq!(answer.code(), code, "{answer:?}");
    };
    maker.revokes("0a");
    refused(revoked, 401, "birth_revoked");
    env.caller(good).obtain(&request(good));

    let leaf = env.caller(gone).obtain(&request(gone));
    env.run(&[
        "certificate",
        "revoke",
        &leaf.serial,
        "--reason",
        "keyCompromise",
    ]);
    refused(gone, 403, "device_revoked");
    env.caller(blocked).obtain(&request(blocked));
    env.run(&["device", "block", &blocked.id]);
    refused(blocked, 403, "device_blocked");
    let other = env.path("other");
    std::fs::rename(env.path("maker"), &other).unwrap();
    let foreigner = Manufacturer::on(&env).device("0e");
    std::fs::rename(env.path("maker"), env.path("foreign")).unwrap();
    std::fs::rename(&other, env.path("maker")).unwrap();
    refused(&foreigner, 401, "client_certificate_unknown");

    maker.publish("-crlhours 1");
    env.passes(Duration::hours(2));
    refused(good, 403, "birth_crl_unusable");
    maker.publish("-crldays 300");
    env.caller(good).obtain(&request(good));
    std::fs::remove_file(env.path("maker/root.crl")).unwrap();
    refused(good, 403, "birth_crl_unusable");
    env.configure(&without);
    env.run(&["reload"]);
    refused(good, 401, "client_certificate_unknown");
}

/// Verifies: where the table asks for it, the device gets an individual enrollment with its leaf;
/// its id comes from the subject, and an id that is not among `ids` is refused.
#[test]
fn a_birth_adds_the_enrollment_where_asked() {
    let env = TestEnv::new();
    let maker = Manufacturer::on(&env);
    let by_subject = "id_from = \"subject.serial_number\"\nids = [\"press-0*\"]\n\
                      profile = \"device\"\nenroll = \"dps\"";
    env.configure(&(env.configuration() + &maker.table(by_subject)));
    let env = env.started();
    let maker = Manufacturer::of(&env);
    let born = maker.device("0a0b");
    let leaf = EstClient::of(&env, &born).obtain("simpleenroll", &Request::device("press-0a0b"));
    env.wait_in_sync();
    assert!(env.emulator.individual("press-0a0b").is_some());
    is_assigned(&env.emulator, &leaf);
    assert_eq!(env.count("audit WHERE action = 'enrollment.added'"), 1);
    let other = maker.device("1a0b");
    let caller = env.caller(&other);
    let witness = Witness::of(&env);
    witness.sees_refused(403, "birth_id_invalid", || {
        caller.ask(&Request::device("press-1a0b"))
    });
}
