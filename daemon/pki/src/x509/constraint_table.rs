//! Reads name constraints as a ceremony file writes them (RFC 5280 4.2.1.10).
//!
//! They are encoded once; the reader that judges names by constraints has to accept the result.

use super::name::SubjectAttributes;
use super::name_constraints::{KeptConstraints, NameConstraints};
use super::san::{NameKind, SubjectAlternativeName};
use der::asn1::{Ia5String, OctetString};
use der::{Decode, Encode};
use serde::Deserialize;
use std::net::IpAddr;
use x509_cert::ext::pkix::constraints::name::{self, GeneralSubtree};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

/// Most subtrees of one authority.
const SUBTREES_MAX: usize = 64;

/// The member as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConstraintTable {
    #[serde(default)]
    permitted: Subtrees,
    #[serde(default)]
    excluded: Subtrees,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Subtrees {
    /// Host names; each covers the names below it.
    dns: Vec<String>,
    /// Networks: address and length of the prefix.
    ip: Vec<String>,
    /// Hosts, or domains with a dot in front.
    uri: Vec<String>,
    /// Mailboxes, hosts, or domains with a dot in front.
    email: Vec<String>,
    /// Attributes with which a subject begins.
    directory: Vec<SubjectAttributes>,
}

impl TryFrom<ConstraintTable> for KeptConstraints {
    type Error = String;

    fn try_from(table: ConstraintTable) -> Result<Self, String> {
        let permitted = table.permitted.read()?;
        let excluded = table.excluded.read()?;
        let count = permitted.len() + excluded.len();
        if count == 0 {
            return Err(
                "name_constraints are empty; fill permitted or excluded, or remove them".into(),
            );
        }
        if count > SUBTREES_MAX {
            return Err(format!(
                "name_constraints have more than {SUBTREES_MAX} subtrees; remove some"
            ));
        }
        let some = |list: Vec<GeneralSubtree>| (!list.is_empty()).then_some(list);
        let constraints = name::NameConstraints {
            permitted_subtrees: some(permitted),
            excluded_subtrees: some(excluded),
        };
        let value = constraints.to_der().map_err(|_| unencodable())?;
        // RFC 5280 4.2.1.10: it MUST be critical.
        let critical = true;
        NameConstraints::read(&value, critical, "the authority")?;
        Ok(KeptConstraints {
            value: value.into(),
            critical,
        })
    }
}

impl Subtrees {
    fn read(&self) -> Result<Vec<GeneralSubtree>, String> {
        let mut bases = Vec::new();
        for host in &self.dns {
            bases.push(GeneralName::DnsName(ascii(host_name("dns", host)?)?));
        }
        for network in &self.ip {
            let octets = network_octets(network).ok_or_else(|| {
                format!(
                    "name_constraints: ip {network:?} is no network, such as \"192.0.2.0/24\"; \
                     bits behind the prefix must be 0"
                )
            })?;
            let octets = OctetString::new(octets).map_err(|_| unencodable())?;
            bases.push(GeneralName::IpAddress(octets));
        }
        for host in &self.uri {
            domain("uri", host)?;
            bases.push(GeneralName::UniformResourceIdentifier(ascii(host)?));
        }
        for mailbox in &self.email {
            if SubjectAlternativeName::from_text(NameKind::Email, mailbox).is_err() {
                domain("email", mailbox)?;
            }
            bases.push(GeneralName::Rfc822Name(ascii(mailbox)?));
        }
        for attributes in &self.directory {
            if attributes.iter().next().is_none() {
                return Err("name_constraints: a directory has no attribute; add one".into());
            }
            let name = Name::from_der(&attributes.to_der()).map_err(|_| unencodable())?;
            bases.push(GeneralName::DirectoryName(name));
        }
        let subtree = |base| GeneralSubtree {
            base,
            minimum: 0,
            maximum: None,
        };
        Ok(bases.into_iter().map(subtree).collect())
    }
}

fn unencodable() -> String {
    "name_constraints cannot be encoded; shorten them".to_owned()
}

fn ascii(text: &str) -> Result<Ia5String, String> {
    Ia5String::new(text).map_err(|_| unencodable())
}

fn host_name<'a>(member: &str, host: &'a str) -> Result<&'a str, String> {
    match SubjectAlternativeName::dns(host) {
        Ok(_) => Ok(host),
        Err(why) => Err(format!(
            "name_constraints: {member}: {why}, no dot in front"
        )),
    }
}

/// A host, or a domain with a dot in front.
fn domain(member: &str, text: &str) -> Result<(), String> {
    host_name(member, text.strip_prefix('.').unwrap_or(text)).map(drop)
}

/// The octets of the address, then of the mask.
fn network_octets(text: &str) -> Option<Vec<u8>> {
    let (address, prefix) = text.split_once('/')?;
    let prefix: usize = prefix.parse().ok()?;
    let address = match address.parse().ok()? {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    if prefix > 8 * address.len() {
        return None;
    }
    let is_of_prefix = |bit: usize| bit < prefix;
    let mask = |at: usize| {
        (0..8).fold(0_u8, |octet, bit| {
            octet << 1 | u8::from(is_of_prefix(8 * at + bit))
        })
    };
    let mask: Vec<u8> = (0..address.len()).map(mask).collect();
    let fits = address.iter().zip(&mask).all(|(it, mask)| it & !mask == 0);
    fits.then(|| [address, mask].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<KeptConstraints, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn constraints_are_encoded_as_verifiers_read_them() {
        let kept = read("permitted = { dns = [\"a.b\"], ip = [\"192.0.2.0/25\"] }").expect("reads");
        let expected = "3015a013 30058203612e62 300a8708 c0000200 ffffff80";
        assert_eq!(hex::encode(&*kept.value), expected.replace(' ', ""));
        assert!(kept.critical);
    }

    #[test]
    fn constraints_that_cannot_be_meant_are_refused() {
        for (text, reason) in [
            ("", "are empty"),
            ("permitted = {}", "are empty"),
            ("permitted = { dns = [\".a\"] }", "no dot in front"),
            ("excluded = { dns = [\"*.a\"] }", "not a host name"),
            (
                "permitted = { ip = [\"192.0.2.1/24\"] }",
                "bits behind the prefix",
            ),
            ("permitted = { ip = [\"192.0.2.0\"] }", "is no network"),
            ("permitted = { ip = [\"192.0.2.0/33\"] }", "is no network"),
            ("permitted = { uri = [\"https://a\"] }", "uri: "),
            ("permitted = { email = [\"a@\"] }", "email: "),
            ("permitted = { directory = [{}] }", "no attribute"),
            ("permitted = { names = [] }", "unknown field"),
        ] {
            let refusal = read(text).expect_err(text);
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
        let many = vec!["\"a\""; SUBTREES_MAX + 1].join(", ");
        let refusal = read(&format!("permitted = {{ dns = [{many}] }}")).expect_err("too many");
        assert!(refusal.contains("more than 64"), "{refusal}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z0-9.@/:]{0,20}") {
            for member in ["dns", "ip", "uri", "email"] {
                let _ = read(&format!("permitted = {{ {member} = [\"{text}\"] }}"));
            }
        }
    }
}
