//! Tests what a ceremony file may say.

use super::*;
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../../../../../../softhsm-setup/ceremony.toml");

#[test]
fn the_ceremony_that_ships_is_one() {
    let ceremony = Ceremony::parse(EXAMPLE).unwrap();
    let names: Vec<_> = ceremony
        .authority
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(names, ["root", "plant", "line-1", "operations"]);
    let Origin::New(root) = &ceremony.authority[0].origin else {
        panic!("it is made");
    };
    assert_eq!(root.path_length, Some(2));
}

#[test]
fn an_authority_is_made_or_adopted_and_never_half_of_each() {
    let parse = |text: &str| {
        Ceremony::parse(&format!(
            "name = \"n\"\n[[authority]]\nname = \"root\"\n{text}"
        ))
    };
    let adopted = "key = \"pkcs11:object=a\"\ncertificate = \"/a.pem\"\n";
    assert!(matches!(
        parse(adopted).unwrap().authority[0].origin,
        Origin::Adopted(_)
    ));
    for (text, reason) in [
        ("key = \"pkcs11:object=a\"", "both"),
        ("certificate = \"/a.pem\"", "both"),
        ("validity = \"1y\"", "no `subject`"),
        (&format!("{adopted}validity = \"1y\""), "which says"),
        (&format!("{adopted}accept = \"\""), "characters"),
        (&adopted.replace("object=a", "object=a?pin-value=1"), "PIN"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.message.contains(reason), "{text}: {error}");
    }
}

#[test]
fn an_external_issuer_decides_what_is_its_business() {
    let external = "external_issuer = true\nsubject = { common_name = \"Gateway\" }\n";
    let parse = |text: &str| {
        Ceremony::parse(&format!(
            "name = \"n\"\n[[authority]]\nname = \"gateway\"\n{external}{text}"
        ))
    };
    let ceremony = parse("path_length = 1").unwrap();
    assert!(matches!(ceremony.authority[0].origin, Origin::External(_)));
    for text in [
        "validity = \"1y\"",
        "issuer = \"root\"",
        "key = \"pkcs11:object=a\"",
        "certificate = \"/a.pem\"",
        "crl_number = 7",
    ] {
        assert_eq!(
            parse(text).unwrap_err().code,
            Code::CeremonyInvalid,
            "{text}"
        );
    }
}

#[test]
fn a_preset_gives_what_the_file_leaves_out() {
    let parse = |text: &str| {
        let subject = "subject = { common_name = \"Works\" }\n";
        let file = format!("name = \"n\"\n[[authority]]\nname = \"a\"\n{subject}{text}");
        let mut ceremony = Ceremony::parse(&file).map_err(|it| it.message)?;
        Ok::<_, String>(ceremony.authority.remove(0).origin)
    };
    let made = |text: &str| match parse(text) {
        Ok(Origin::New(new)) => (new.validity, new.path_length),
        other => panic!("{text}: {other:?}"),
    };
    let year = 31_557_600;
    assert_eq!(made("preset = \"root\""), (20 * year, None));
    let below = "issuer = \"root\"\npreset = \"intermediate\"\n";
    assert_eq!(made(below), (10 * year, Some(0)));
    let other = format!("{below}validity = \"5y\"\npath_length = 1");
    assert_eq!(made(&other), (5 * year, Some(1)));
    let elsewhere = "external_issuer = true\npreset = \"intermediate\"";
    let Ok(Origin::External(external)) = parse(elsewhere) else {
        panic!("it is certified elsewhere");
    };
    assert_eq!(external.path_length, Some(0));
    for (text, reason) in [
        (
            "issuer = \"root\"\npreset = \"root\"",
            "a root signs itself",
        ),
        ("preset = \"intermediate\"", "an intermediate has an issuer"),
        ("preset = \"adr-intermediate\"", "hallmark authority sign"),
        ("preset = \"device\"", "is for a [[profile]]"),
        ("preset = \"gateway\"", "is not possible"),
    ] {
        let refused = parse(text).unwrap_err();
        assert!(refused.contains(reason), "{text}: {refused}");
    }
    let adopted = "key = \"pkcs11:object=a\"\ncertificate = \"/a.pem\"\npreset = \"root\"";
    let adopted = format!("name = \"n\"\n[[authority]]\nname = \"a\"\n{adopted}");
    let refused = Ceremony::parse(&adopted).unwrap_err().message;
    assert!(refused.contains("leave `preset` out"), "{refused}");
}

#[test]
fn what_is_not_understood_is_refused_with_the_place() {
    for (from, to) in [
        ("path_length", "path_len"),
        ("\"p384\"", "\"p999\""),
        ("country = \"DE\"", "country = \"Germany\""),
        ("validity = \"20y\"", "validity = \"-1d\""),
    ] {
        let error = Ceremony::parse(&EXAMPLE.replacen(from, to, 1)).unwrap_err();
        assert_eq!(error.code, Code::CeremonyInvalid, "{from} → {to}: {error}");
    }
    let long = format!("{EXAMPLE}#{}", "x".repeat(FILE_BYTES_MAX));
    assert!(
        Ceremony::parse(&long)
            .unwrap_err()
            .message
            .contains("at most")
    );
}

proptest! {
    #[test]
    fn whatever_the_file_holds_it_is_refused_and_not_a_panic(
        at in 0..EXAMPLE.len(), noise in "\\PC{0,12}",
    ) {
        if let (Some(before), Some(after)) = (EXAMPLE.get(..at), EXAMPLE.get(at..)) {
            let _ = Ceremony::parse(&format!("{before}{noise}{after}"));
        }
    }
}
