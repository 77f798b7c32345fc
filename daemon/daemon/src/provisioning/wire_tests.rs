//! Tests the bytes that the clients send, and their reaction to answers that no emulator gives.

use super::arm::{ArmClient, ResourcePath};
use super::budget::Budget;
use super::credential::Credential;
use super::dps::{BulkMode, DpsClient, ScanKind};
use super::failure::CallError;
use super::http::{Plane, PlaneKind};
use super::scripted_server::{HOST, Received, Script, ScriptedServer};
use crate::enrollment::desired::{EnrollmentName, SlotCertificate};
use crate::enrollment::etag::Etag;
use crate::enrollment::id::RegistrationId;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RECORD: &str = r#"{"registrationId":"a:b","etag":"\"e-2\"","future":1}"#;
const AUTHORITY: &str = r#"{"name":"root","etag":"AAAB=","properties":{"isVerified":false,
    "thumbprint":"A9993E364706816ABA3E25717850C26C9CD0D89D",
    "verificationCode":"0123456789ABCDEF0123456789ABCDEF"}}"#;

struct Fixture {
    server: ScriptedServer,
    dps: DpsClient,
    arm: ArmClient,
}

async fn fixture(script: Vec<Script>) -> Fixture {
    let server = ScriptedServer::start(script).await;
    let path = server.folder.path().join("dps");
    let string = format!("HostName={HOST};SharedAccessKeyName=owner;SharedAccessKey=c2VjcmV0");
    crate::files::atomic::write(&path, string.as_bytes(), 0o600).unwrap();
    let host = HOST.to_owned();
    let credential = Credential::ConnectionString { path, host };
    let budget = Arc::new(Budget::new(1000));
    let plane = Plane::new(PlaneKind::Dps, &server.settings(), credential, budget).unwrap();
    let resource = ResourcePath {
        subscription: "s".into(),
        resource_group: "r g".into(),
        name: "line".into(),
    };
    Fixture {
        dps: DpsClient::new(plane.clone()),
        arm: ArmClient::new(plane, &resource),
        server,
    }
}

fn id() -> RegistrationId {
    RegistrationId::parse("a:b").unwrap()
}

fn etag() -> Etag {
    Etag::verbatim("\"e-1\"").unwrap()
}

/// One replacement against one scripted answer.
async fn replace(script: Script) -> (Result<(), CallError>, Vec<Received>) {
    let fixture = fixture(vec![script]).await;
    let id = id();
    let id = EnrollmentName::Individual(&id);
    let result = fixture.dps.replace(id, &json!({"x": 1}), &etag()).await;
    (result.map(drop), fixture.server.asked())
}

#[tokio::test]
async fn a_replacement_is_conditional_authorised_and_whole() {
    let (result, asked) = replace(Script::json(200, "", RECORD)).await;
    result.unwrap();
    let request = asked[0].head.lines().next().unwrap();
    assert_eq!(
        request,
        "PUT /enrollments/a%3Ab?api-version=2021-10-01 HTTP/1.1"
    );
    assert_eq!(asked[0].header("if-match"), Some("\"e-1\""));
    assert_eq!(asked[0].header("host"), Some(HOST));
    assert_eq!(asked[0].header("content-type"), Some("application/json"));
    assert_eq!(asked[0].body, r#"{"x":1}"#);
    let authorization = asked[0].header("authorization").unwrap();
    let prefix = format!("SharedAccessSignature sr={HOST}&sig=");
    assert!(authorization.starts_with(&prefix), "{authorization}");
    assert!(authorization.ends_with("&skn=owner"), "{authorization}");
}

#[tokio::test]
async fn a_creation_has_no_condition_and_a_deletion_has_one() {
    let fixture = fixture(vec![
        Script::json(
            409,
            "",
            r#"{"errorCode":409201,"message":"Enrollment already exists"}"#,
        ),
        Script::json(404, "", r#"{"errorCode":404201,"message":"Not Found."}"#),
        Script::json(404, "", r#"{"errorCode":404201,"message":"Not Found."}"#),
    ])
    .await;
    let id = id();
    let id = EnrollmentName::Individual(&id);
    let created = fixture.dps.create(id, &json!({})).await;
    assert!(
        matches!(created, Err(CallError::Conflict { .. })),
        "{created:?}"
    );
    fixture.dps.delete(id, &etag()).await.unwrap();
    assert_eq!(fixture.dps.enrollment(id).await.unwrap(), None);
    let asked = fixture.server.asked();
    assert_eq!(asked[0].header("if-match"), None);
    assert_eq!(asked[1].header("if-match"), Some("\"e-1\""));
}

#[tokio::test]
async fn an_answer_that_is_lost_is_said_to_be_lost() {
    let truncated = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"registrationId\"";
    for script in [
        Script::Silence,
        Script::Answer(truncated.to_owned()),
        Script::Answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<ht>".to_owned()),
        Script::json(200, "", r#"{"registrationId":"no etag"}"#),
        Script::json(502, "", ""),
    ] {
        let (result, _) = replace(script.clone()).await;
        let error = result.unwrap_err();
        assert!(error.may_have_happened(), "{script:?}: {error:?}");
    }
}

#[tokio::test]
async fn no_connection_is_not_a_lost_answer() {
    let fixture = fixture(vec![]).await;
    let mut settings = fixture.server.settings();
    drop(fixture.server);
    // Port 1 of the loopback address: nothing listens there.
    settings.address = Some(([127, 0, 0, 1], 1).into());
    let ca_bundle = tempfile::NamedTempFile::new().unwrap();
    let authority = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    std::fs::write(&ca_bundle, authority.cert.pem()).unwrap();
    settings.ca_bundle = Some(ca_bundle.path().to_owned());
    let budget = Arc::new(Budget::new(1000));
    let plane = Plane::new(PlaneKind::Dps, &settings, Credential::None, budget).unwrap();
    let id = id();
    let id = EnrollmentName::Individual(&id);
    let error = DpsClient::new(plane)
        .create(id, &json!({}))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "provisioning_unavailable");
    assert!(!error.may_have_happened(), "{error:?}");
}

#[tokio::test]
async fn a_throttled_call_says_when_and_holds_the_others() {
    let fixture = fixture(vec![
        Script::json(
            429,
            "Retry-After: 1\r\n",
            r#"{"message":"Too many requests"}"#,
        ),
        Script::json(200, "", RECORD),
    ])
    .await;
    let id = id();
    let id = EnrollmentName::Individual(&id);
    let CallError::Transient {
        retry_after,
        lost_answer,
        ..
    } = fixture.dps.create(id, &json!({})).await.unwrap_err()
    else {
        panic!("not transient");
    };
    assert_eq!(
        (retry_after, lost_answer),
        (Some(Duration::from_secs(1)), false)
    );
    let throttled = Instant::now();
    fixture.dps.enrollment(id).await.unwrap();
    assert!(throttled.elapsed() > Duration::from_millis(900));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let script = Script::json(302, "Location: https://elsewhere.example/\r\n", "");
    let (result, asked) = replace(script).await;
    assert!(
        matches!(result, Err(CallError::Rejected { status: 302, .. })),
        "{result:?}"
    );
    assert_eq!(asked.len(), 1);
}

#[tokio::test]
async fn a_missing_credential_is_told_and_nothing_is_sent() {
    let fixture = fixture(vec![Script::Silence]).await;
    std::fs::remove_file(fixture.server.folder.path().join("dps")).unwrap();
    let id = id();
    let error = fixture.dps.registration(&id).await.unwrap_err();
    assert_eq!(error.code(), "provisioning_unauthorized");
    assert!(fixture.server.asked().is_empty());
}

#[tokio::test]
async fn a_scan_goes_on_where_the_service_says() {
    let fixture = fixture(vec![
        Script::json(200, "x-ms-continuation: next-1\r\n", &format!("[{RECORD}]")),
        Script::json(200, "", "[]"),
    ])
    .await;
    let first = fixture.dps.scan(ScanKind::Individuals, None).await.unwrap();
    assert_eq!(first.records.len(), 1);
    let next = first.next.as_ref();
    let last = fixture.dps.scan(ScanKind::Individuals, next).await.unwrap();
    assert_eq!(last.next, None);
    let asked = fixture.server.asked();
    assert_eq!(asked[0].header("x-ms-continuation"), None);
    assert_eq!(asked[1].header("x-ms-continuation"), Some("next-1"));
}

#[tokio::test]
async fn bulk_is_bounded_and_judged_as_a_whole() {
    let listed = r#"{"isSuccessful":true,"errors":[{"registrationId":"a","errorCode":200}]}"#;
    let fixture = fixture(vec![Script::json(200, "", listed)]).await;
    let outcome = fixture
        .dps
        .bulk(BulkMode::Create, &[json!({})])
        .await
        .unwrap();
    assert!(outcome.is_successful);
    let eleven = vec![json!({}); 11];
    let error = fixture
        .dps
        .bulk(BulkMode::Create, &eleven)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "provisioning_unsendable");
}

#[tokio::test]
async fn every_step_of_the_proof_is_conditional_on_the_last() {
    let verified = AUTHORITY.replace("false", "true").replace("AAAB", "AAAC");
    let fixture = fixture(vec![
        Script::json(200, "", AUTHORITY),
        Script::json(200, "", AUTHORITY),
        Script::json(200, "", &verified),
    ])
    .await;
    let certificate = SlotCertificate::new(b"abc".to_vec());
    let put = fixture.arm.put("root", &certificate, None).await.unwrap();
    let etag = put.certificate.etag;
    let (code, etag) = fixture
        .arm
        .generate_verification_code("root", &etag)
        .await
        .unwrap();
    assert_eq!(code.as_str(), "0123456789ABCDEF0123456789ABCDEF");
    let verified = fixture
        .arm
        .verify("root", &certificate, &etag)
        .await
        .unwrap();
    assert!(verified.certificate.is_verified);
    let asked = fixture.server.asked();
    assert_eq!(asked[0].header("if-match"), None);
    assert_eq!(asked[1].header("if-match"), Some("\"AAAB=\""));
    assert_eq!(asked[1].header("content-length"), Some("0"));
    assert_eq!(asked[2].header("if-match"), Some("\"AAAB=\""));
    let path = "POST /subscriptions/s/resourceGroups/r%20g/providers/Microsoft.Devices\
        /provisioningServices/line/certificates/root/verify?api-version=2026-11-01 ";
    assert!(asked[2].head.starts_with(path), "{}", asked[2].head);
}
