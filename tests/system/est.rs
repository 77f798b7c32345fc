//! Tests Enrollment over Secure Transport (RFC 7030), with curl as the client and OpenSSL as the
//! judge, as in a gateway's shell script.

use crate::authority_roll::second_signs;
use crate::device::is_assigned;
use crate::est_client::{EstClient, answer, decoded, openssl, print_certificates};
use crate::process::{CommandOutput, until};
use crate::request::{Holder, Request, der};
use crate::test_env::TestEnv;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fs;
use std::process::Command;
use time::Duration;

/// The life of a device behind a gateway. Verifies: a client without a certificate learns the trust
/// anchors; a station enrolls the device, whose certificate OpenSSL accepts and which DPS assigns;
/// the device renews itself by its own certificate with a new key and is assigned again. Devices
/// present what `cacerts` lists, as it comes.
#[test]
fn a_device_is_enrolled_by_a_station_and_renews_itself() {
    let env = TestEnv::running();
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let root = env.authority("root");
    let stranger = EstClient::stranger(&env);

    let output = stranger.get("device/cacerts");
    assert_eq!(output.content_type, "application/pkcs7-mime");
    assert!(
        output.head.contains("content-transfer-encoding: base64"),
        "{output:?}"
    );
    let trusted = print_certificates(&env, &output.body);
    let authorities = ["line-1", "plant", "root"].map(|name| der(&env.authority(name)));
    let trusted: Vec<_> = trusted.iter().map(|pem| der(pem)).collect();
    assert_eq!(trusted, authorities, "each before its issuer");
    let asked_for = stranger.get("device/csrattrs");
    assert_eq!(asked_for.content_type, "application/csrattrs");
    let attributes = decoded(&env, &asked_for.body);
    let attributes = openssl(&["asn1parse", "-inform", "DER", "-in", &attributes]);
    for name in ["id-ecPublicKey", "prime256v1", "ecdsa-with-SHA256"] {
        assert!(attributes.contains(name), "{attributes}");
    }

    let station = env.enlist("station", "station-1");
    let station = EstClient::of(&env, &station);
    let device = station.obtain("device/simpleenroll", &Request::device("press-7"));
    device.is_accepted_by_openssl(&root);
    is_assigned(&env.emulator, &device);

    let renewed = EstClient::of(&env, &device);
    let renewed = renewed.obtain("device/simplereenroll", &Request::device("press-7"));
    assert_ne!(der(&renewed.certificate), der(&device.certificate));
    renewed.is_accepted_by_openssl(&root);
    is_assigned(&env.emulator, &renewed);
    env.run(&["audit", "verify"]);
}

/// strongSwan's client, which does not know Hallmark, runs on the device. Verifies: it gets the
/// authorities' certificates and renews the device's, which is then in its slot at DPS, and OpenSSL
/// accepts it.
#[test]
fn a_foreign_est_client_renews() {
    let env = TestEnv::new();
    // strongSwan's client supports no labels, and reads no lines.
    let for_it = "[listen]\nest_profile = \"device\"\nest_line_breaks = false";
    let configuration = env.configuration();
    env.configure(&configuration.replacen("[listen]", "[listen]\nest_profile = \"device\"", 1));
    let env = env.started();
    env.add_group("line-1", "line-1");
    env.wait_in_sync();
    let station = env.enlist("station", "station-1");
    let old =
        EstClient::of(&env, &station).obtain("device/simpleenroll", &Request::device("press-7"));
    env.configure(&configuration.replacen("[listen]", for_it, 1));
    env.run(&["reload"]);
    let request = Request::device("press-7");
    let client = EstClient::of(&env, &old);
    let root = client.file("root.pem", &env.authority("root"));
    let plant = client.file("plant.pem", &env.authority("plant"));
    let line = client.file("line-1.pem", &env.authority("line-1"));
    let csr = client.file("csr.pem", &request.csr);
    let certificate = client.file("old.pem", &old.certificate);
    let key = client.file("old.key", &old.key);
    let url = env.https();
    let pki = |arguments: &[&str]| {
        let mut pki = Command::new("pki");
        pki.args(arguments)
            .args(["--url", &url, "--outform", "pem", "--cacert"]);
        pki.arg(&root)
            .arg("--cacert")
            .arg(&plant)
            .arg("--cacert")
            .arg(&line);
        let output = CommandOutput::of(&mut pki);
        assert_eq!(output.code, Some(0), "{output:?}");
        output.out
    };
    pki(&["--estca", "--caout", env.path("ca.pem").to_str().unwrap()]);
    is_one_line_for_openssl(&client);
    let renewed = pki(&[
        "--est",
        "--in",
        csr.to_str().unwrap(),
        "--cert",
        certificate.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ]);
    let renewed = Holder {
        key: request.key.clone(),
        certificate: renewed,
        ..old.clone()
    };
    assert_ne!(der(&renewed.certificate), der(&old.certificate));
    renewed.is_accepted_by_openssl(&env.authority("root"));
    is_assigned(&env.emulator, &renewed);
}

/// Without line breaks an answer is one line, which ends as a text file does, so that OpenSSL reads
/// it.
fn is_one_line_for_openssl(client: &EstClient<'_>) {
    let out = client.env.path("one-line.der");
    for operation in ["device/cacerts", "device/csrattrs"] {
        let body = client.get(operation).body;
        assert_eq!(body.find('\n'), Some(body.len() - 1), "{body:?}");
        let text = client.file("one-line", &body);
        let [text, out] = [&text, &out].map(|it| it.to_str().unwrap());
        openssl(&["base64", "-d", "-A", "-in", text, "-out", out]);
        assert_eq!(
            STANDARD.decode(body.trim()).unwrap(),
            fs::read(out).unwrap()
        );
    }
}

/// Bodies come in every shape; a station that lost the answer repeats its request. Verifies: the
/// same request in any shape is one request, and is answered with the certificate that it has;
/// another station's request is separate.
#[test]
fn the_same_request_in_any_shape_has_one_answer() {
    let env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let station = EstClient::of(&env, &station);
    let request = Request::device("press-7");
    let first = station.obtain("device/simpleenroll", &request);
    let rows = (env.count("intent"), env.entries());

    let der = der(&request.csr);
    let base64 = STANDARD.encode(&der);
    let lines = |columns: usize, end: &str| {
        let lines = base64.as_bytes().chunks(columns);
        let lines = lines.map(|line| String::from_utf8(line.to_vec()).unwrap() + end);
        lines.collect::<String>().into_bytes()
    };
    for body in [
        lines(64, "\n"),
        lines(76, "\r\n"),
        lines(60, " \t\r\n"),
        base64.trim_end_matches('=').into(),
        request.csr.replace('\n', "\r\n").into_bytes(),
        der,
    ] {
        let answer = station.post("device/simpleenroll", &body);
        assert_eq!(answer.status, "200", "{answer:?}");
        let again = print_certificates(&env, &answer.body);
        assert_eq!(again, std::slice::from_ref(&first.certificate));
    }
    assert_eq!((env.count("intent"), env.entries()), rows);

    let other = env.enlist("station", "station-2");
    let other = EstClient::of(&env, &other).obtain("device/simpleenroll", &request);
    assert_ne!(other.certificate, first.certificate);
    // The id is now the device's: the first station's next request is a new one.
    let next = station.obtain("device/simpleenroll", &request);
    assert!(![first.certificate, other.certificate].contains(&next.certificate));
}

/// A device that keeps its key sends the same bytes each time. Verifies: they are a repeat while
/// the certificate is young, and a renewal after half of its life; a renewal whose answer was lost
/// is answered with the same certificate; after a compromise of the issuer there is a new one.
#[test]
fn the_same_csr_is_a_repeat_first_and_a_renewal_later() {
    let mut env = TestEnv::new().with_a_movable_clock();
    let configuration = env.configuration();
    let with_default = "[listen]\nest_profile = \"device\"";
    env.configure(&configuration.replacen("[listen]", with_default, 1));
    env = env.started();
    let request = Request::device("press-7");
    let obtain = |operation: &str| {
        let body = env.write("est-body", &request.csr);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--dump-header", "-"]);
        curl.arg("--unix-socket").arg(env.path("state/admin.sock"));
        curl.args(["--header", "content-type: application/pkcs10"]);
        curl.arg("--data-binary")
            .arg(format!("@{}", body.display()));
        let answer = answer(curl.arg(format!("http://localhost/.well-known/est/{operation}")));
        assert_eq!(answer.status, "200", "{answer:?}");
        print_certificates(&env, &answer.body).remove(0)
    };

    let first = obtain("simpleenroll");
    env.passes(Duration::days(44));
    assert_eq!(obtain("simpleenroll"), first);
    env.passes(Duration::days(2));
    let second = obtain("simpleenroll");
    assert_ne!(second, first);
    assert_eq!(obtain("simpleenroll"), second);
    assert_eq!(obtain("simplereenroll"), second);

    // A certificate that is revoked with its issuer is no answer any more.
    let compromise = ["--authority", "line-1", "--reason", "compromise"];
    env.hallmark(&[&["roll", "start"], &compromise[..]].concat());
    until("the successor signs", || {
        second_signs(&env, "line-1").then_some(())
    });
    assert_ne!(obtain("simpleenroll"), second);
}

/// Verifies: each refusal has its status and code, is audited, and leaves nothing behind.
#[test]
fn a_request_that_est_does_not_allow_is_refused_with_the_reason() {
    let env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let station = EstClient::of(&env, &station);
    let device = station.obtain("device/simpleenroll", &Request::device("press-7"));
    let device = EstClient::of(&env, &device);
    let auditor = env.enlist("auditor", "auditor-1");
    let auditor = EstClient::of(&env, &auditor);
    let stranger = EstClient::stranger(&env);
    let good = Request::device("press-7").csr;
    let other = Request::device("press-8").csr;
    let nameless = Request::named("device", "press-7", None).csr;
    let of_openssl = |more: &[&str]| {
        let algorithm = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        Request::by_openssl("press-7", &env.path(""), &[&algorithm, more].concat()).csr
    };
    let more_names = of_openssl(&["-addext", "subjectAltName=DNS:press-7.example"]);
    let other_spelling = Request::device("PRESS-7").csr;
    let as_openssl_writes_it = of_openssl(&[]);

    let left_behind = || env.count("intent") + env.count("certificate") + env.count("mark");
    let before = left_behind();
    let (enroll, renew) = ("device/simpleenroll", "device/simplereenroll");
    for (status, code, client, operation, body) in [
        (
            "401",
            "client_certificate_required",
            &stranger,
            enroll,
            &good,
        ),
        ("403", "role_forbidden", &auditor, enroll, &good),
        ("403", "role_forbidden", &device, enroll, &other),
        (
            "403",
            "role_forbidden",
            &station,
            "station/simpleenroll",
            &other,
        ),
        (
            "404",
            "profile_unknown",
            &station,
            "devise/simpleenroll",
            &good,
        ),
        ("404", "est_label_required", &station, "simpleenroll", &good),
        (
            "400",
            "csr_malformed",
            &station,
            enroll,
            &"no base64!".into(),
        ),
        ("400", "csr_malformed", &station, enroll, &String::new()),
        (
            "400",
            "csr_too_large",
            &station,
            enroll,
            &"A".repeat(17 * 1024),
        ),
        (
            "413",
            "body_too_large",
            &station,
            enroll,
            &"A".repeat(65 * 1024),
        ),
        (
            "400",
            "csr_without_common_name",
            &station,
            enroll,
            &nameless,
        ),
        ("400", "csr_other_names", &station, renew, &other_spelling),
        ("409", "nothing_to_renew", &station, renew, &other),
    ] {
        let answer = client.post(operation, body.as_bytes());
        assert_eq!(
            (answer.status.as_str(), answer.code().as_str()),
            (status, code),
            "{answer:?}"
        );
        assert_eq!(answer.content_type, "application/problem+json");
        let audited =
            format!("audit WHERE action = 'certificate.refused' AND detail ->> 'code' = '{code}'");
        assert!(env.count(&audited) > 0, "{code} is not in the journal");
    }
    let json = ["--header", "content-type: application/json", "--data", "{}"];
    let answer = answer(station.curl(enroll).args(json));
    assert_eq!(
        (answer.status.as_str(), answer.code().as_str()),
        ("415", "content_type_unsupported")
    );
    assert_eq!(stranger.get("cacerts").code(), "est_label_required");
    assert_eq!(stranger.get("device/fullcmc").code(), "route_unknown");
    assert_eq!(left_behind(), before);

    // A request that only looks different is the same request; so is one with names that the
    // profile does not certify, since an enrollment drops them, too.
    for csr in [as_openssl_writes_it, more_names] {
        let answer = device.post(renew, csr.as_bytes());
        assert_eq!(answer.status, "200", "{answer:?}");
    }
}

/// Verifies: while the token is unavailable EST answers with `Retry-After`, and serves what needs
/// no signature.
#[test]
fn est_asks_to_come_back_while_the_token_is_away() {
    let env = TestEnv::running();
    let station = env.enlist("station", "station-1");
    let station = EstClient::of(&env, &station);
    fs::rename(env.path("tokens"), env.path("tokens.away")).unwrap();
    let request = Request::device("press-7");
    let answer = station.post("device/simpleenroll", request.csr.as_bytes());
    assert_eq!(answer.status, "503", "{answer:?}");
    assert!(answer.head.contains("retry-after: "), "{answer:?}");
    assert_eq!(station.get("device/cacerts").status, "200");
    fs::rename(env.path("tokens.away"), env.path("tokens")).unwrap();
    env.wait_ready();
    station.obtain("device/simpleenroll", &request);
}
