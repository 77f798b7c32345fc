//! Tests bodies of EST, requests and answers, and the names of a renewal.

use super::{SoftwareKey, VALUES};
use crate::x509::certificate::Certificate;
use crate::x509::certs_only;
use crate::x509::csr::Csr;
use crate::x509::csr_attributes;
use crate::x509::key::KeyType;
use crate::x509::pem;
use crate::x509::profile::{Profile, SubjectAlternativeNames};
use crate::x509::request::{assemble, build};
use crate::x509::requested_names::{RequestedNames, UnprovenCsr};
use crate::x509::template::{Template, TemplateRefusal, Values};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;
use der::{Decode, Encode};
use proptest::prelude::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};
use std::sync::LazyLock;

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().expect("makes a key"));
static REQUEST: LazyLock<Vec<u8>> = LazyLock::new(|| request(&params(utf8("press-7"), &[])));

fn utf8(name: &str) -> DnValue {
    DnValue::Utf8String(name.to_owned())
}

fn params(common_name: DnValue, names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Example");
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let name = |name: &&str| SanType::DnsName((*name).try_into().expect("is ASCII"));
    params.subject_alt_names = names.iter().map(name).collect();
    params
}

fn request(params: &CertificateParams) -> Vec<u8> {
    let request = params.serialize_request(&*KEY).expect("makes a request");
    request.der().to_vec()
}

/// The profile of requests whose names are certified.
fn names_let_through() -> Profile {
    Profile {
        subject_alternative_names: SubjectAlternativeNames::dns_and_ip(),
        ..Profile::verification()
    }
}

fn certificate(params: &CertificateParams) -> Certificate {
    let certificate = params.self_signed(&*KEY).expect("makes a certificate");
    Certificate::parse(certificate.der()).expect("is a certificate")
}

#[test]
fn a_renewal_asks_for_the_names_that_there_are() {
    let printable = DnValue::PrintableString("press-7".try_into().expect("is printable"));
    let held = certificate(&params(utf8("press-7"), &["a.example", "b.example"]));
    for (params, same) in [
        (params(utf8("press-7"), &["a.example", "b.example"]), true),
        (params(printable, &["b.example", "a.example"]), true),
        (params(utf8("press-8"), &["a.example", "b.example"]), false),
        (params(utf8("Press-7"), &["a.example", "b.example"]), false),
        (params(utf8("press-7"), &["a.example"]), false),
        (params(utf8("press-7"), &[]), false),
        (params(utf8("press-7"), &["A.example", "b.EXAMPLE"]), true),
    ] {
        let requested = UnprovenCsr::read(&request(&params))
            .expect("is a request")
            .names;
        let renews = requested.renews(&held, &names_let_through(), &VALUES);
        assert_eq!(renews, Ok(same), "{requested:?}");
    }
    let mut shorter = params(utf8("press-7"), &["a.example", "b.example"]);
    shorter.distinguished_name.remove(DnType::OrganizationName);
    // The profile gives the organization, whatever a request says, so it makes no other name.
    let requested = UnprovenCsr::read(&request(&shorter))
        .expect("is a request")
        .names;
    assert_eq!(
        requested.renews(&held, &names_let_through(), &VALUES),
        Ok(true)
    );
    assert!(!requested.has_subject_of(&held));
    // Alternative names count where the profile certifies them.
    let of_device = params(utf8("press-7"), &["c.example"]);
    let requested = UnprovenCsr::read(&request(&of_device))
        .expect("is a request")
        .names;
    assert_eq!(
        requested.renews(&held, &Profile::verification(), &VALUES),
        Ok(true)
    );
    assert_eq!(requested.left_out_of(&held), ["DNS:c.example"]);
}

/// A request of press-7 with this organizational unit and serial number, and these names.
fn of_unit(unit: &str, serial: &str, names: &[&str]) -> CertificateParams {
    let mut params = params(utf8("press-7"), names);
    let subject = &mut params.distinguished_name;
    subject.push(DnType::OrganizationalUnitName, unit);
    subject.push(DnType::CustomDnType(vec![2, 5, 4, 5]), serial);
    params
}

fn names_of(params: &CertificateParams) -> RequestedNames {
    UnprovenCsr::read(&request(params))
        .expect("is a request")
        .names
}

/// The names that a profile makes of the CSR are names of the certificate like all others.
#[test]
fn a_renewal_makes_no_name_that_the_certificate_has_not() {
    let profile = |lines: &str| -> Profile {
        toml::from_str(&format!("preset = \"device\"\n{lines}")).expect("is a profile")
    };
    let dns = "subject_alternative_names = { dns = [\"{csr.organizational_unit}.plant.example\"] }";
    let serial = "subject = { serial_number = \"{csr.serial_number}\" }";
    let module = "subject_alternative_names.hardware_module = { type = \"1.3.6.1.4.1.32473.2\", \
                  serial = \"{csr.serial_number}\" }";
    let held = certificate(&of_unit("gw1", "SN-1", &["gw1.plant.example"]));
    for (lines, unit, number, same) in [
        (dns, "gw1", "SN-1", true),
        (dns, "gw1", "SN-2", true),
        (dns, "gw2", "SN-1", false),
        (serial, "gw1", "SN-1", true),
        (serial, "gw2", "SN-1", true),
        (serial, "gw1", "SN-2", false),
        (module, "gw1", "SN-1", false),
    ] {
        let requested = names_of(&of_unit(unit, number, &[]));
        let values = Values {
            id: "press-7",
            csr: Some(&requested),
            ..VALUES
        };
        let renews = requested.renews(&held, &profile(lines), &values);
        assert_eq!(renews, Ok(same), "{lines} {unit} {number}");
    }
}

/// Names that the profile makes need no request, and names that were asked for do, also where both
/// are of one kind.
#[test]
fn a_renewal_loses_no_name_that_was_asked_for() {
    let made = "preset = \"device\"\nsubject_alternative_names = { request = [\"dns\"], \
                dns = [\"{id}.devices.example\"] }";
    let profile: Profile = toml::from_str(made).expect("is a profile");
    let own = "press-7.devices.example";
    let held = certificate(&params(utf8("press-7"), &["b.example", own]));
    for (names, same) in [
        (&["b.example", own][..], true),
        (&["b.example"], true),
        (&[own], false),
        (&[], false),
        (&["b.example", "c.example"], false),
    ] {
        let requested = names_of(&params(utf8("press-7"), names));
        let values = Values {
            id: "press-7",
            csr: Some(&requested),
            ..VALUES
        };
        let renews = requested.renews(&held, &profile, &values);
        assert_eq!(renews, Ok(same), "{names:?}");
    }
}

/// A value of a CSR is a part of a name, and cannot end one.
#[test]
fn a_csr_chooses_no_host_path_or_field_of_a_made_name() {
    let template = Template::parse("https://{csr.serial_number}.devices.example/").expect("is one");
    for (value, fits) in [
        ("SN-7_a", true),
        ("evil.example/", false),
        ("evil.example", false),
        ("a:8", false),
        ("..", false),
        ("a b", false),
        ("a,b", false),
    ] {
        let requested = names_of(&of_unit("gw1", value, &[]));
        let values = Values {
            csr: Some(&requested),
            ..VALUES
        };
        let refusal = TemplateRefusal::NameField("serial_number");
        let filled = template.fill_within_name(&values);
        assert_eq!(filled.err(), (!fits).then_some(refusal), "{value}");
        assert!(template.fill(&values).is_ok(), "{value}");
        for name in ["uri = [\"https", "dns = [\"x", "email = [\"x"] {
            let text = match name {
                "uri = [\"https" => "://{csr.serial_number}.devices.example/\"]",
                "dns = [\"x" => "{csr.serial_number}.example\"]",
                _ => "{csr.serial_number}@example\"]",
            };
            let lines = format!("subject_alternative_names = {{ {name}{text} }}");
            let profile: Profile =
                toml::from_str(&format!("preset = \"device\"\n{lines}")).expect("is a profile");
            let certified = requested.certified_by(&profile, &values);
            assert!(fits || certified.is_err(), "{value}: {certified:?}");
        }
    }
}

#[test]
fn an_answer_holds_the_certificates_byte_for_byte() {
    let held = ["a", "b", "c"].map(|name| certificate(&params(utf8(name), &[])));
    let answer = certs_only::to_base64(&held.each_ref()).expect("encodes");
    assert!(answer.lines().all(|line| line.len() <= 64) && answer.ends_with('\n'));
    let der = pem::decode_base64(answer.as_bytes()).expect("is base64");
    let message = ContentInfo::from_der(&der).expect("is CMS");
    let message: SignedData = message.content.decode_as().expect("is SignedData");
    assert!(message.signer_infos.0.is_empty() && message.encap_content_info.econtent.is_none());
    let set = message.certificates.expect("has certificates").0;
    let mut answered: Vec<_> = set.iter().map(|it| it.to_der().expect("encodes")).collect();
    let mut expected = held.map(|it| it.der().to_vec());
    answered.sort();
    expected.sort();
    assert_eq!(answered, expected);
}

#[test]
fn an_authority_of_every_kind_of_key_can_ask_for_its_certificate() {
    let name = crate::x509::name::DistinguishedName::from_common_name("Gateway 7");
    let subject = name.expect("is a name").to_der();
    for key_type in [
        KeyType::P256,
        KeyType::P384,
        KeyType::Rsa2048,
        KeyType::Ed25519,
    ] {
        let key = SoftwareKey::generate(key_type);
        let tbs = build(&subject, &key.public_key(), Some(1)).expect("encodes");
        let algorithm = key_type.signature_algorithm();
        let request = assemble(&tbs, algorithm, &key.sign(&tbs)).expect("is a request");
        let csr = Csr::parse(request.der()).expect("is read");
        assert_eq!(*csr.public_key(), key.public_key());
        assert_eq!(request.public_key(), csr.public_key());
        assert_eq!(csr.common_name(), Some("Gateway 7"));
        assert_eq!(request.tbs_bytes(), &*tbs);
        let forged = SoftwareKey::generate(key_type).sign(&tbs);
        assert!(assemble(&tbs, algorithm, &forged).is_err(), "{key_type}");
    }
}

#[test]
fn every_kind_of_key_can_be_asked_for() {
    for key_type in KeyType::ALL {
        let mut profile = Profile::verification();
        profile.key_types = [key_type].into();
        let attributes = csr_attributes::to_base64(&profile).expect("encodes");
        let der = pem::decode_base64(attributes.as_bytes()).expect("is base64");
        let attributes = Vec::<der::Any>::from_der(&der).expect("is a SEQUENCE");
        assert_eq!(attributes.len(), 2, "{key_type}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = UnprovenCsr::read(&bytes);
    }

    #[test]
    fn no_base64_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = UnprovenCsr::read(STANDARD.encode(bytes).as_bytes());
    }

    /// Whatever a body becomes on its way is read by both as the same request, or by neither.
    #[test]
    fn a_damaged_body_is_not_another_request(at in 0..8 * REQUEST.len(), cut in 0..REQUEST.len()) {
        let mut damaged = REQUEST.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        for der in [&damaged, &damaged[cut..].to_vec(), &REQUEST[..cut].to_vec()] {
            let body = STANDARD.encode(der);
            let body = body.as_bytes();
            if let (Ok(requested), Ok(csr)) = (UnprovenCsr::read(body), Csr::parse(body)) {
                prop_assert_eq!(&requested.names, csr.names());
                prop_assert_eq!(&*requested.der, &**der);
            }
        }
    }

    #[test]
    fn white_space_anywhere_changes_nothing(
        places in proptest::collection::vec(
            (any::<prop::sample::Index>(), "[ \t\r\n]{1,3}"), 0..20
        ),
    ) {
        let mut body = STANDARD.encode(&*REQUEST);
        for (place, space) in places {
            body.insert_str(place.index(body.len()), &space);
        }
        prop_assert_eq!(UnprovenCsr::read(body.as_bytes()), UnprovenCsr::read(&REQUEST));
    }
}
