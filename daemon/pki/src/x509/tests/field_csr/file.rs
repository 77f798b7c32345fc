//! Files in which requests from the field come.

use super::*;

#[test]
fn a_request_is_read_from_every_kind_of_file() {
    let der = Draft::default().der();
    let expected = Csr::parse(&der);
    let pem = pem::encode("CERTIFICATE REQUEST", &der);
    let base64 = STANDARD.encode(&der);
    let with_headers = pem.replacen("-----\n", "-----\nComment: x\nKey-Slot: 9\n\n", 1);
    let low = |text: &str| {
        text.encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<u8>>()
    };
    let high = |text: &str| {
        text.encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect::<Vec<u8>>()
    };
    let mark = |octets: &[u8]| [b"\xef\xbb\xbf", octets].concat();
    for bytes in [
        pem.clone().into_bytes(),
        mark(pem.as_bytes()),
        mark(base64.as_bytes()),
        mark(&der),
        [b"\xff\xfe", &low(&pem)[..]].concat(),
        [b"\xfe\xff", &high(&pem)[..]].concat(),
        low(&pem),
        high(&base64),
        [b"\xff\xfe", &low(&base64)[..]].concat(),
        pem.replace('\n', "\r\n").into_bytes(),
        pem.replace('\n', "\r").into_bytes(),
        pem.replace('\n', " ").into_bytes(),
        pem.replace("CERTIFICATE", "NEW CERTIFICATE").into_bytes(),
        [b"Anfrage M\xfcller\n", pem.as_bytes(), b"Gr\xfc\xdfe"].concat(),
        format!("0 Request:\n{pem}\n\x1a").into_bytes(),
        with_headers.clone().into_bytes(),
        with_headers.replace('\n', "\r\n").into_bytes(),
        URL_SAFE.encode(&der).into_bytes(),
        base64.trim_end_matches('=').as_bytes().to_vec(),
        format!(" \t\r\n{base64}\n\n").into_bytes(),
        // The end of a string in C, and the rest of its buffer.
        format!("{pem}\0").into_bytes(),
        format!("{pem}{}", "\0".repeat(900)).into_bytes(),
        format!("{base64}\0\0").into_bytes(),
        [b"\xff\xfe", &low(&pem)[..], &[0, 0]].concat(),
        STANDARD.encode(&pem).into_bytes(),
        STANDARD
            .encode([b"Anfrage M\xfcller\n", pem.as_bytes()].concat())
            .into_bytes(),
        STANDARD
            .encode([b"\xff\xfe", &low(&pem)[..]].concat())
            .into_bytes(),
    ] {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(Csr::parse(&bytes), expected, "{shown}");
        assert_eq!(
            UnprovenCsr::read(&bytes).expect("is read").der,
            Der::from(der.clone())
        );
    }
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let der = Draft::default().der();
    let pem = pem::encode("CERTIFICATE REQUEST", &der);
    let base64 = STANDARD.encode(&der);
    let certificate = CertificateParams::default()
        .self_signed(&KeyPair::generate().expect("makes a key"))
        .expect("makes a certificate");
    let private_key = KeyPair::generate().expect("makes a key").serialize_der();
    // As `certreq` of Windows wraps a request, without the parts that do not matter here.
    let signed_data = sequence(&[&tlv(2, &[3]), &tlv(SET, &[]), &sequence(&[&der])]);
    let cmc = sequence(&[
        &identifier("1.2.840.113549.1.7.2"),
        &tlv(0xa0, &signed_data),
    ]);
    for (bytes, words) in [
        (Vec::new(), "it is empty"),
        (b"\xef\xbb\xbf\n".to_vec(), "it is empty"),
        (b"hello world".to_vec(), "neither PEM nor complete base64"),
        (b"\x01\x02\x00\x03".to_vec(), "neither DER nor text"),
        (der[..100].to_vec(), "it ends early"),
        ([&der[..], b"\n"].concat(), "1 bytes follow its end"),
        (
            STANDARD.encode([&der[..], b"xy"].concat()).into_bytes(),
            "2 bytes follow",
        ),
        (
            [&pem[..], &pem].concat().into_bytes(),
            "more than one request",
        ),
        (
            pem.replace("-----END", "----END").into_bytes(),
            "no END line",
        ),
        (
            pem::encode("CERTIFICATE", &der).into_bytes(),
            "it holds CERTIFICATE, and no",
        ),
        (
            pem::encode("EC PRIVATE KEY", b"x").into_bytes(),
            "it holds EC PRIVATE KEY, and no",
        ),
        (certificate.der().to_vec(), "no PKCS #10"),
        (
            hex::encode(&der).into_bytes(),
            "written in hexadecimal digits",
        ),
        (
            format!("{}\n", hex::encode_upper(&der)).into_bytes(),
            "written in hexadecimal digits",
        ),
        (STANDARD.encode([0xff; 99]).into_bytes(), "holds no request"),
        (private_key.clone(), "which must stay where it is"),
        (
            STANDARD.encode(&private_key).into_bytes(),
            "which must stay where it is",
        ),
        (
            SoftwareKey::generate(KeyType::Rsa2048).spki_der(),
            "a public key alone",
        ),
        (
            pem::encode("NEW CERTIFICATE REQUEST", &cmc).into_bytes(),
            "RequestType = PKCS10",
        ),
        (
            pem.replace('\n', "\\n").into_bytes(),
            "the character '\\\\'",
        ),
        (base64.replace('o', "%").into_bytes(), "the character '%'"),
        (
            format!("{base64}A=").into_bytes(),
            "neither PEM nor complete base64",
        ),
    ] {
        refused(&bytes, Code::CsrMalformed, words);
    }
    // BER with an indefinite length.
    let indefinite = [&[SEQUENCE, 0x80], &der[3..], &[0, 0]].concat();
    refused(&indefinite, Code::CsrNotCanonical, "as PKCS #10 prescribes");
}
