//! Names in requests from the field.

use super::*;

#[test]
fn a_common_name_of_every_string_type_is_read() {
    let named = |tag: u8, octets: &[u8]| Draft {
        common_name: (tag, octets.to_vec()),
        ..Draft::default()
    };
    let wide: Vec<u8> = "device_7".bytes().flat_map(|it| [0, it]).collect();
    let wider: Vec<u8> = "device_7".bytes().flat_map(|it| [0, 0, 0, it]).collect();
    for tag in [0x0c, 0x12, 0x13, 0x14, 0x16, 0x1a] {
        let csr = Csr::parse(&named(tag, b"device_7").der()).expect("is a request");
        assert_eq!(csr.common_name(), Some("device_7"), "{tag:#x}");
    }
    for (tag, octets) in [(0x1e, wide), (0x1c, wider)] {
        let csr = Csr::parse(&named(tag, &octets).der()).expect("is a request");
        assert_eq!(csr.common_name(), Some("device_7"), "{tag:#x}");
    }
    for (tag, octets) in [
        (0x14, &b"M\xfcller"[..]),
        (0x1e, b"a"),
        (0x1c, b"abc"),
        (0x0c, b"\xff"),
    ] {
        refused(
            &named(tag, octets).der(),
            Code::CsrBadName,
            "openssl req: -utf8",
        );
    }
}

#[test]
fn a_profile_without_names_takes_every_name_and_lists_it() {
    let upn = sequence(&[
        &identifier("1.3.6.1.4.1.311.20.2.3"),
        &tlv(0xa0, &tlv(0x0c, b"x")),
    ]);
    let directory = sequence(&[&tlv(SET, &sequence(&[COMMON_NAME, &tlv(0x0c, b"x")]))]);
    for (name, shown) in [
        (dns("device_7"), "DNS:device_7"),
        (dns("CN=device-7"), "DNS:CN=device-7"),
        (dns("*.example.net"), "DNS:*.example.net"),
        (dns("gate.example"), "DNS:gate.example"),
        (dns("a\nb\x1b"), "DNS:a\u{fffd}b\u{fffd}"),
        (tlv(0x82, b"\xff"), "DNS:\u{fffd}"),
        (tlv(0x87, &[10, 0, 0, 1]), "IP:10.0.0.1"),
        (
            tlv(0x87, &[10, 0, 0, 1, 255, 0, 0, 0]),
            "IP:0a000001ff000000",
        ),
        (tlv(0x87, b"10.0.0.7"), "IP:10.0.0.7"),
        (tlv(0x81, b"x@example.net"), "email:x@example.net"),
        (tlv(0x86, b"urn:x"), "URI:urn:x"),
        (tlv(0x88, &[0x2a, 3]), "RID:1.2.3"),
        (tlv(0xa0, &upn[2..]), "otherName:1.3.6.1.4.1.311.20.2.3"),
        (tlv(0xa4, &directory), "dirName:CN=x"),
        (tlv(0xa3, b""), "X400Name:"),
        (tlv(0xa5, b""), "EdiPartyName:"),
        (tlv(0x04, b"x"), "unknown:0478"),
    ] {
        let csr = Draft::with_names(&[&name]).der();
        assert_eq!(certified(&csr, &device()), Ok(Vec::new()));
        assert_eq!(dropped(&csr), [shown]);
    }
    let csr = Draft::with_names(&[]).der();
    assert_eq!(dropped(&csr), [""; 0]);
    let many: Vec<Vec<u8>> = (0..40).map(|number| dns(&format!("a-{number}"))).collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    let many = dropped(&Draft::with_names(&many).der());
    assert_eq!((many.len(), &many[32][..]), (33, "and 8 more"));
    let long = dropped(&Draft::with_names(&[&dns(&"a".repeat(500))]).der());
    assert_eq!(long[0].chars().count(), 129, "{long:?}");
}

#[test]
fn a_server_needs_a_name_that_can_be_certified() {
    let good = dns("Gate.example");
    let names = [
        &good[..],
        &tlv(0x81, b"x@example.net"),
        &tlv(0x87, &[10, 0, 0, 1]),
    ];
    let csr = Draft::with_names(&names).der();
    let both = vec!["DNS:gate.example".to_owned(), "IP:10.0.0.1".to_owned()];
    assert_eq!(certified(&csr, &server()), Ok(both));
    for name in [
        dns("device_7"),
        dns("*.example.net"),
        dns("CN=x"),
        tlv(0x87, &[1; 8]),
    ] {
        let refusal = certified(&Draft::with_names(&[&good, &name]).der(), &server());
        assert_eq!(refusal.expect_err("is refused").code(), Code::CsrBadName);
    }
    for csr in [
        Draft::default().der(),
        Draft::with_names(&[]).der(),
        Draft::with_names(&[&tlv(0x81, b"x@example.net")]).der(),
    ] {
        let refusal = certified(&csr, &server()).expect_err("is refused");
        assert_eq!(refusal.code(), Code::CsrWithoutNames);
        assert!(refusal.to_string().contains("-addext"), "{refusal}");
        assert_eq!(certified(&csr, &device()), Ok(Vec::new()));
    }
    let no_names = Profile {
        subject_alternative_names: SubjectAlternativeNames::default(),
        ..server()
    };
    let refusal = no_names.check().expect_err("is refused").to_string();
    assert!(refusal.contains("dns_and_ip"), "{refusal}");
    let both_sides = Profile {
        extended_key_usage: vec![ExtendedKeyUsage::ServerAuth, ExtendedKeyUsage::ClientAuth],
        ..no_names
    };
    assert_eq!(
        certified(&Draft::default().der(), &both_sides),
        Ok(Vec::new())
    );
}

#[test]
fn names_are_read_under_either_identifier_and_must_agree() {
    let one = extensions(&[&san(&[&dns("one.example")])]);
    let other = extensions(&[&san(&[&dns("two.example")])]);
    let usage = extensions(&[&sequence(&[
        &identifier("2.5.29.15"),
        &tlv(4, &tlv(3, &[7, 128])),
    ])]);
    let taken = Ok(vec!["DNS:one.example".to_owned()]);
    for attributes in [
        &[(RFC, &[&one[..]][..])][..],
        &[(MICROSOFT, &[&one])],
        &[(RFC, &[&one]), (MICROSOFT, &[&one])],
        &[(MICROSOFT, &[&one]), (RFC, &[&usage])],
        &[(RFC, &[&one]), (RFC, &[&one])],
        &[(RFC, &[&one, &usage])],
        &[(MICROSOFT, &[]), (RFC, &[&one])],
    ] {
        let csr = Draft::with_attributes(attributes).der();
        assert_eq!(certified(&csr, &server()), taken);
    }
    let twice_in_one = extensions(&[&san(&[&dns("one.example")]), &san(&[&dns("two.example")])]);
    for attributes in [
        &[(RFC, &[&one[..]][..]), (MICROSOFT, &[&other])][..],
        &[(RFC, &[&one]), (RFC, &[&other])],
        &[(RFC, &[&one, &other])],
        &[(RFC, &[&twice_in_one])],
    ] {
        let csr = Draft::with_attributes(attributes).der();
        let refusal = certified(&csr, &server()).expect_err("is refused");
        assert!(
            refusal.to_string().contains("two different lists"),
            "{refusal}"
        );
        assert_eq!(certified(&csr, &device()), Ok(Vec::new()));
        assert_eq!(dropped(&csr), ["DNS:one.example", "DNS:two.example"]);
    }
    let damaged = extensions(&[&sequence(&[&identifier("2.5.29.17"), &tlv(4, b"x")])]);
    let damaged = Draft::with_attributes(&[(RFC, &[&damaged])]).der();
    refused(
        &damaged,
        Code::CsrMalformed,
        "damaged in its subject alternative names",
    );
}
