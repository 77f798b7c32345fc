//! Checks the names of `[listen] names`, which the certificate of the HTTPS listener will carry.
//!
//! The certificate is issued long after the configuration is read. An invalid name would leave the
//! listener without a certificate, so it is refused at once, with the reason.

use super::san::{NAMES_MAX, SubjectAlternativeName, ends_in_number};
use std::net::IpAddr;

/// Characters of a refused name that the error repeats.
const SHOWN_CHARACTERS: usize = 80;

/// Returns the names as the certificate carries them: host names in lower case, addresses in short
/// form.
pub fn listener_names(said: &[String]) -> Result<Vec<String>, String> {
    if said.len() > NAMES_MAX {
        return Err(format!(
            "[listen] names has {} names; a certificate takes {NAMES_MAX}",
            said.len()
        ));
    }
    let mut names = Vec::new();
    for name in said {
        let shown: String = name.chars().take(SHOWN_CHARACTERS).collect();
        let refused = |reason: &str| format!("[listen] names has {shown:?}: {reason}");
        let taken = listener_name(name).map_err(|reason| refused(&reason))?;
        if names.contains(&taken) {
            return Err(refused("it is there twice; remove one"));
        }
        names.push(taken);
    }
    Ok(names)
}

fn listener_name(name: &str) -> Result<String, String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        if address.is_unspecified() || address.is_multicast() {
            return Err("no client connects to this address; name the machine's own".into());
        }
        return Ok(address.to_string());
    }
    if let Some(reason) = confusion(name) {
        return Err(reason.to_owned());
    }
    match SubjectAlternativeName::dns(name) {
        Ok(SubjectAlternativeName::Dns(name)) => Ok(name),
        _ if ends_in_number(name) => {
            Err("it ends in a number and is no IP address; correct it".into())
        }
        _ => Err(
            "a host name has labels of 1 to 63 letters, digits and hyphens, begins and ends each \
             with a letter or digit, and has at most 253 characters"
                .into(),
        ),
    }
}

/// Returns the advice for a common mistake, if `name` is one.
fn confusion(name: &str) -> Option<&'static str> {
    let reason = if name.is_empty() {
        "it is empty; remove it"
    } else if name.contains("://") || name.contains('/') {
        "it is a URL; give the host name alone"
    } else if name.starts_with('[') {
        "give an IPv6 address without brackets and without a port"
    } else if name.contains('%') {
        "a certificate has no zone of an IPv6 address; give a global address or a host name"
    } else if name.contains(':') {
        "give the host name without a port"
    } else if name.contains('*') {
        "a wildcard is not issued; give every name that clients use"
    } else if name.contains('_') {
        "a host name has no underscore (RFC 1123 2.1); give the machine a name without one"
    } else if !name.is_ascii() {
        "write an internationalised name as the DNS has it, in its xn-- form (RFC 5890)"
    } else if name.ends_with('.') {
        "leave out the final dot: names in certificates have none"
    } else if name.contains(|it: char| it.is_ascii_whitespace() || it.is_ascii_control()) {
        "it holds a space or a control character; remove it"
    } else {
        return None;
    };
    Some(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(said: &[&str]) -> Result<Vec<String>, String> {
        let said: Vec<_> = said.iter().map(|&it| it.to_owned()).collect();
        listener_names(&said)
    }

    #[test]
    fn host_names_and_addresses_are_taken() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        assert_eq!(longest.len(), 253);
        for (said, taken) in [
            ("localhost", "localhost"),
            ("Plant-7.Works.Example", "plant-7.works.example"),
            ("xn--mller-kva.example", "xn--mller-kva.example"),
            ("7.works.example", "7.works.example"),
            ("192.0.2.10", "192.0.2.10"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("::1", "::1"),
            (&longest, &longest),
        ] {
            assert_eq!(names(&[said]), Ok(vec![taken.to_owned()]), "{said}");
        }
    }

    #[test]
    fn what_cannot_stand_in_a_certificate_is_refused_with_the_reason() {
        let long_label = "a".repeat(64);
        let long_name = ["a"; 128].join(".");
        for (said, reason) in [
            ("plant_7.works.example", "underscore"),
            ("_sip.works.example", "underscore"),
            ("*.works.example", "wildcard"),
            ("*", "wildcard"),
            ("host.", "final dot"),
            (".", "final dot"),
            ("müller.example", "xn--"),
            ("", "is empty"),
            (" ", "space"),
            ("host name", "space"),
            ("host\n", "control character"),
            ("https://host.example", "is a URL"),
            ("host.example/path", "is a URL"),
            ("host.example:8443", "without a port"),
            ("192.0.2.10:8443", "without a port"),
            ("[2001:db8::1]", "without brackets"),
            ("[2001:db8::1]:8443", "without brackets"),
            ("fe80::1%eth0", "zone"),
            ("192.0.2.300", "ends in a number"),
            ("192.0.2", "ends in a number"),
            ("0.0.0.0", "no client connects"),
            ("::", "no client connects"),
            ("224.0.0.1", "no client connects"),
            ("-host.example", "letters, digits and hyphens"),
            ("host-.example", "letters, digits and hyphens"),
            ("a..example", "letters, digits and hyphens"),
            (".example", "letters, digits and hyphens"),
            ("user@host.example", "letters, digits and hyphens"),
            (&long_label, "1 to 63"),
            (&long_name, "253"),
        ] {
            let refusal = names(&[said]).expect_err(said);
            assert!(refusal.contains(reason), "{said:?}: {refusal}");
            assert!(!refusal.contains('\n'), "{refusal:?}");
        }
    }

    #[test]
    fn one_name_is_named_once() {
        for twice in [
            ["a.example", "A.example"],
            ["::1", "0:0:0:0:0:0:0:1"],
            ["192.0.2.1", "192.0.2.1"],
        ] {
            let refusal = names(&twice).expect_err("twice");
            assert!(refusal.contains("twice"), "{refusal}");
        }
        let many: Vec<String> = (0..=NAMES_MAX).map(|it| format!("a{it}.example")).collect();
        assert!(
            listener_names(&many)
                .expect_err("too many")
                .contains("33 names")
        );
        assert_eq!(
            listener_names(&many[1..]).expect("as many as fit").len(),
            NAMES_MAX
        );
    }
}
