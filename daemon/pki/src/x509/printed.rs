//! Prints to-be-signed bytes of a certificate as `openssl x509 -noout -text` does, without key and
//! signature.
//!
//! The bytes are read, not the profile or the request that they were made of.

use super::alternative_name::AlternativeName;
use super::oid;
use super::subject::SubjectValues;
use super::wire::elements;
use crate::unix_seconds::UnixSeconds;
use std::fmt::Write as _;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use x509_parser::certificate::TbsCertificate;
use x509_parser::extensions::{
    DistributionPointName, ExtendedKeyUsage, GeneralName, ParsedExtension, X509Extension,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::SubjectPublicKeyInfo;

const DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[month repr:short] [day padding:space] [hour]:[minute]:[second] [year] GMT"
);

/// The words of OpenSSL for the purposes that it knows.
const PURPOSES: [(&str, &str); 6] = [
    ("1.3.6.1.5.5.7.3.1", "TLS Web Server Authentication"),
    ("1.3.6.1.5.5.7.3.2", "TLS Web Client Authentication"),
    ("1.3.6.1.5.5.7.3.3", "Code Signing"),
    ("1.3.6.1.5.5.7.3.4", "E-mail Protection"),
    ("1.3.6.1.5.5.7.3.8", "Time Stamping"),
    ("1.3.6.1.5.5.7.3.9", "OCSP Signing"),
];

/// The words of OpenSSL for the extensions that it knows.
const EXTENSIONS: [(&str, &str); 12] = [
    ("2.5.29.14", "X509v3 Subject Key Identifier"),
    ("2.5.29.15", "X509v3 Key Usage"),
    ("2.5.29.17", "X509v3 Subject Alternative Name"),
    ("2.5.29.19", "X509v3 Basic Constraints"),
    ("2.5.29.30", "X509v3 Name Constraints"),
    ("2.5.29.31", "X509v3 CRL Distribution Points"),
    ("2.5.29.32", "X509v3 Certificate Policies"),
    ("2.5.29.35", "X509v3 Authority Key Identifier"),
    ("2.5.29.36", "X509v3 Policy Constraints"),
    ("2.5.29.37", "X509v3 Extended Key Usage"),
    ("1.3.6.1.5.5.7.1.1", "Authority Information Access"),
    ("1.3.6.1.5.5.7.48.1.5", "OCSP No Check"),
];

/// Returns the text. Fails with the reason if the bytes cannot be read.
pub fn text(tbs: &[u8]) -> Result<String, String> {
    let (_, read) = TbsCertificate::from_der(tbs).map_err(|error| error.to_string())?;
    let mut text = String::from("Certificate:\n    Data:\n        Version: 3 (0x2)\n");
    let mut line = |indent: usize, words: &str| {
        let _ = writeln!(text, "{:indent$}{words}", "");
    };
    line(8, "Serial Number:");
    line(12, &colons(read.raw_serial()));
    let algorithm = read.signature.algorithm.to_id_string();
    line(8, &format!("Signature Algorithm: {}", name_of(&algorithm)));
    line(8, &format!("Issuer: {}", name(read.issuer.as_raw())?));
    line(8, "Validity");
    line(
        12,
        &format!("Not Before: {}", date(read.validity.not_before)),
    );
    line(
        12,
        &format!("Not After : {}", date(read.validity.not_after)),
    );
    line(8, &format!("Subject: {}", name(read.subject.as_raw())?));
    line(8, "Subject Public Key Info:");
    key(&read.subject_pki, &mut line);
    line(8, "X509v3 extensions:");
    for extension in read.extensions() {
        let id = extension.oid.to_id_string();
        let title = EXTENSIONS.iter().find(|(it, _)| *it == id);
        let title = title.map_or(id.as_str(), |(_, words)| words);
        let critical = if extension.critical { " critical" } else { " " };
        line(12, &format!("{title}:{critical}"));
        for value in values(extension) {
            line(16, &value);
        }
    }
    Ok(text)
}

fn key(info: &SubjectPublicKeyInfo<'_>, line: &mut impl FnMut(usize, &str)) {
    let algorithm = name_of(&info.algorithm.algorithm.to_id_string());
    line(12, &format!("Public Key Algorithm: {algorithm}"));
    match info.parsed() {
        Ok(PublicKey::RSA(rsa)) => line(16, &format!("Public-Key: ({} bit)", rsa.key_size())),
        Ok(PublicKey::EC(point)) => line(16, &format!("Public-Key: ({} bit)", point.key_size())),
        _ => {}
    }
}

fn values(extension: &X509Extension<'_>) -> Vec<String> {
    match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => vec![colons_upper(id.0)],
        ParsedExtension::AuthorityKeyIdentifier(id) => {
            let id = id.key_identifier.as_ref();
            id.map(|it| colons_upper(it.0)).into_iter().collect()
        }
        ParsedExtension::BasicConstraints(it) => {
            let ca = if it.ca { "CA:TRUE" } else { "CA:FALSE" };
            let length = it.path_len_constraint.map(|it| format!(", pathlen:{it}"));
            vec![format!("{ca}{}", length.unwrap_or_default())]
        }
        ParsedExtension::KeyUsage(usage) => {
            vec![
                usage
                    .to_string()
                    .replace("Key Cert Sign", "Certificate Sign"),
            ]
        }
        ParsedExtension::ExtendedKeyUsage(usage) => vec![purposes(usage)],
        ParsedExtension::CertificatePolicies(policies) => {
            let mut lines = Vec::new();
            for policy in policies {
                lines.push(format!("Policy: {}", policy.policy_id.to_id_string()));
                for qualifier in policy.policy_qualifiers.iter().flatten() {
                    let statement = elements(qualifier.qualifier).ok();
                    let statement = statement.and_then(|it| it.first().copied());
                    let octets = statement.map_or(qualifier.qualifier, |it| it.value);
                    lines.push(format!("  CPS: {}", String::from_utf8_lossy(octets)));
                }
            }
            lines
        }
        ParsedExtension::SubjectAlternativeName(_) => vec![alternative_names(extension.value)],
        ParsedExtension::CRLDistributionPoints(points) => {
            let mut lines = Vec::new();
            for point in points.iter() {
                if let Some(DistributionPointName::FullName(names)) = &point.distribution_point {
                    lines.push("Full Name:".to_owned());
                    lines.extend(names.iter().map(|it| format!("  {}", general_name(it))));
                }
            }
            lines
        }
        ParsedExtension::AuthorityInfoAccess(access) => {
            let method = |id: &str| match id {
                "1.3.6.1.5.5.7.48.1" => "OCSP",
                _ => "CA Issuers",
            };
            let line = |it: &x509_parser::extensions::AccessDescription<'_>| {
                let location = general_name(&it.access_location);
                format!("{} - {location}", method(&it.access_method.to_id_string()))
            };
            access.iter().map(line).collect()
        }
        // OCSP No Check is NULL, which has no words.
        _ if extension.value == [5, 0] => Vec::new(),
        _ => vec![dotted(extension.value)],
    }
}

fn purposes(usage: &ExtendedKeyUsage<'_>) -> String {
    let named = [
        (usage.server_auth, PURPOSES[0].1),
        (usage.client_auth, PURPOSES[1].1),
        (usage.code_signing, PURPOSES[2].1),
        (usage.email_protection, PURPOSES[3].1),
        (usage.time_stamping, PURPOSES[4].1),
        (usage.ocsp_signing, PURPOSES[5].1),
    ];
    let named = named.into_iter().filter(|(has, _)| *has);
    let named = named.map(|(_, words)| words.to_owned());
    let other = usage.other.iter().map(|it| it.to_id_string());
    named.chain(other).collect::<Vec<_>>().join(", ")
}

/// With the words of OpenSSL, which does not show the value of an otherName.
fn alternative_names(value: &[u8]) -> String {
    let names = AlternativeName::read_list(value).unwrap_or_default();
    let shown = |it: &AlternativeName| {
        let text = it.to_string();
        match text.strip_prefix("IP:") {
            Some(address) => format!("IP Address:{address}"),
            None => text.replace("otherName:", "othername: "),
        }
    };
    names.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn general_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::URI(uri) => format!("URI:{uri}"),
        other => other.to_string(),
    }
}

fn name(der: &[u8]) -> Result<String, String> {
    let name = SubjectValues::read(der).map_err(|error| error.to_string())?;
    let attributes: Vec<String> = name.iter().map(ToString::to_string).collect();
    Ok(attributes.join(", "))
}

fn name_of(id: &str) -> String {
    oid::parse(id).map_or_else(|| id.to_owned(), oid::name_of)
}

fn date(time: ASN1Time) -> String {
    let moment = UnixSeconds::new(time.timestamp());
    let date = moment.date().and_then(|it| it.format(DATE).ok());
    date.unwrap_or_else(|| moment.to_string())
}

fn colons(octets: &[u8]) -> String {
    let digits: Vec<String> = octets.iter().map(|it| format!("{it:02x}")).collect();
    digits.join(":")
}

fn colons_upper(octets: &[u8]) -> String {
    colons(octets).to_ascii_uppercase()
}

/// Octets that are no printable characters are dots.
fn dotted(octets: &[u8]) -> String {
    let shown = |it: &u8| {
        if it.is_ascii_graphic() || *it == b' ' {
            char::from(*it)
        } else {
            '.'
        }
    };
    octets.iter().map(shown).collect()
}
