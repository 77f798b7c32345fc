//! One subtree of names in name constraints (RFC 5280 4.2.1.10).

use super::comparable_name::ComparableName;
use super::constrained_names::{ADDRESS, DIRECTORY, EMAIL, GivenName, HOST, URI};
use super::wire::{Element, elements};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const UNREADABLE: &str = "its name constraints cannot be read";

/// `minimum` (RFC 5280 4.2.1.10).
const MINIMUM: u8 = 0x80;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subtree {
    /// The form of its names: the tag of `GeneralName`.
    pub(super) tag: u8,
    pub(super) base: Vec<u8>,
}

impl Subtree {
    /// `GeneralSubtree`. Another minimum than 0, or a maximum, has no meaning (RFC 5280 4.2.1.10).
    pub(super) fn read(subtree: Element<'_>, critical: bool) -> Result<Subtree, String> {
        let unreadable = || UNREADABLE.to_owned();
        let parts = elements(subtree.value).map_err(|_| unreadable())?;
        let (base, distances) = parts.split_first().ok_or_else(unreadable)?;
        let read = Subtree {
            tag: base.tag,
            base: base.value.to_vec(),
        };
        let from_zero = |it: &Element<'_>| it.tag == MINIMUM && it.value == [0];
        if !distances.iter().all(from_zero) {
            let shown = read.shown();
            return Err(format!(
                "its name constraints limit {shown} by a minimum or maximum, which RFC 5280 does \
                 not have"
            ));
        }
        let is_known = matches!(base.tag, EMAIL | HOST | URI | ADDRESS | DIRECTORY);
        let is_well_made = match base.tag {
            ADDRESS => matches!(base.value.len(), 8 | 32),
            DIRECTORY => ComparableName::read(base.value).is_ok(),
            _ => base.value.is_ascii() || !is_known,
        };
        if !is_well_made {
            return Err(format!(
                "its name constraint {} cannot be read",
                read.shown()
            ));
        }
        if critical && !is_known {
            return Err(format!(
                "its critical name constraints limit names of the form {}, which Hallmark, like \
                 most verifiers, does not evaluate",
                read.shown()
            ));
        }
        Ok(read)
    }

    /// Returns whether the name, which has the same form, is in the subtree. Fails if it cannot be
    /// compared.
    pub(super) fn holds(&self, name: &[u8]) -> Result<bool, String> {
        let base = &self.base[..];
        match self.tag {
            HOST => Ok(is_host_within(name, base)),
            EMAIL => is_mailbox_within(name, base),
            URI => is_uri_within(name, base),
            ADDRESS => is_address_within(name, base),
            DIRECTORY => match (ComparableName::read(name), ComparableName::read(base)) {
                (Ok(name), Ok(base)) => Ok(name.is_within(&base)),
                _ => Err("the name cannot be read".to_owned()),
            },
            _ => Err("name constraints of its form are not evaluated".to_owned()),
        }
    }

    pub(super) fn shown(&self) -> String {
        match (self.tag, range(&self.base)) {
            (ADDRESS, Some(range)) => format!("IP:{range}"),
            _ => GivenName::new(self.tag, &self.base).shown(),
        }
    }
}

/// Returns an address and its mask as text: the octets of the one, then of the other.
fn range(octets: &[u8]) -> Option<String> {
    let (address, mask) = octets.split_at(octets.len() / 2);
    let text = |octets: &[u8]| {
        let short = <[u8; 4]>::try_from(octets).map(|it| IpAddr::from(Ipv4Addr::from(it)));
        let long = <[u8; 16]>::try_from(octets).map(|it| IpAddr::from(Ipv6Addr::from(it)));
        short.or(long).ok()
    };
    let ones = mask.iter().map(|it| it.count_ones()).sum::<u32>();
    let leading = mask.iter().take_while(|it| **it == 0xff).count();
    let after = mask.get(leading).map_or(0, |it| it.leading_ones());
    let is_prefix = u32::try_from(leading * 8).is_ok_and(|it| it + after == ones);
    let address = text(address)?;
    Some(if is_prefix {
        format!("{address}/{ones}")
    } else {
        format!("{address}/{}", text(mask)?)
    })
}

/// A host name is in the subtree if it ends with the base, at a dot. A dot in front asks for at
/// least one label more, as OpenSSL and GnuTLS read it.
fn is_host_within(host: &[u8], base: &[u8]) -> bool {
    let Some(labels) = host.len().checked_sub(base.len()) else {
        return false;
    };
    let (labels, end) = host.split_at(labels);
    let at_a_dot = base.first().is_none_or(|it| *it == b'.');
    (at_a_dot || labels.last().is_none_or(|it| *it == b'.')) && end.eq_ignore_ascii_case(base)
}

/// The base is a mailbox, a host, or, with a dot in front, a domain.
fn is_mailbox_within(mailbox: &[u8], base: &[u8]) -> Result<bool, String> {
    let (user, host) = halves(mailbox, b'@').ok_or("it is no mailbox")?;
    if base.first() == Some(&b'.') && !base.contains(&b'@') {
        return Ok(is_longer_by_labels(mailbox, base));
    }
    Ok(match halves(base, b'@') {
        Some((base_user, base_host)) => {
            (base_user.is_empty() || base_user == user) && host.eq_ignore_ascii_case(base_host)
        }
        None => host.eq_ignore_ascii_case(base),
    })
}

/// The base is a host or, with a dot in front, a domain.
fn is_uri_within(uri: &[u8], base: &[u8]) -> Result<bool, String> {
    let host = host_of(uri).ok_or("it is a URI without a host name")?;
    Ok(match base.first() {
        Some(b'.') => is_longer_by_labels(host, base),
        _ => host.eq_ignore_ascii_case(base),
    })
}

/// RFC 3986 3.2: the host is between user and port.
fn host_of(uri: &[u8]) -> Option<&[u8]> {
    let colon = uri.iter().position(|it| *it == b':')?;
    let rest = uri[colon + 1..].strip_prefix(b"//")?;
    let authority = rest.split(|it| b"/?#".contains(it)).next()?;
    let host = halves(authority, b'@').map_or(authority, |(_, host)| host);
    host.split(|it| *it == b':')
        .next()
        .filter(|it| !it.is_empty())
}

fn is_longer_by_labels(name: &[u8], base: &[u8]) -> bool {
    let more = name.len().checked_sub(base.len()).filter(|it| *it > 0);
    more.is_some_and(|it| name[it..].eq_ignore_ascii_case(base))
}

/// Splits at the last `separator`.
fn halves(octets: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = octets.iter().rposition(|it| *it == separator)?;
    Some((&octets[..at], &octets[at + 1..]))
}

/// The base is an address and a mask. Addresses of the other version are in no subtree.
fn is_address_within(address: &[u8], base: &[u8]) -> Result<bool, String> {
    if !matches!(address.len(), 4 | 16) {
        return Err("it is no IP address".to_owned());
    }
    let (network, mask) = base.split_at(base.len() / 2);
    let octets = address.iter().zip(network).zip(mask);
    let mut differences = octets.map(|((address, network), mask)| (address ^ network) & mask);
    Ok(network.len() == address.len() && differences.all(|it| it == 0))
}
