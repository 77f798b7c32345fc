//! The chain that a device presents, judged as a path (contract section 10).
//!
//! Pure: no clock, no world. Signatures are really verified, one by one, and the path ends where
//! the first link does not hold. TLS lets every chain pass (`tls`); this module is what refuses.

use time::OffsetDateTime;

use crate::certificate::Certificate;

/// Most certificates that a device may present.
pub(crate) const CHAIN_LENGTH_MAX: usize = 10;

/// A leaf and the authorities above it, each of which signed the one before.
#[derive(Debug)]
pub(crate) struct Path {
    certificates: Vec<Certificate>,
    /// Index of the highest certificate that is verified in the service.
    anchor: Option<usize>,
}

impl Path {
    /// Follow `presented`, leaf first and the others in any order, as far as the links hold at
    /// `now`.
    ///
    /// `verified` are the service's verified authorities. Intermediates are never taken from there
    /// or from an enrollment; only with `complete`, the switch for an omitted root, the one that
    /// signed the last presented certificate is added.
    pub(crate) fn follow<'a>(
        presented: &[Certificate],
        verified: impl Iterator<Item = &'a Certificate> + Clone,
        now: OffsetDateTime,
        complete: bool,
    ) -> Self {
        let is_anchor = |own: &Certificate| verified.clone().any(|ca| ca == own);
        let mut certificates = linked(presented, now, &is_anchor);
        if complete && !certificates.iter().any(is_anchor) {
            certificates.extend(missing_root(&certificates, verified.clone(), now));
        }
        let anchor = certificates.iter().rposition(is_anchor);
        Self {
            certificates,
            anchor,
        }
    }

    /// The authorities above the leaf, the nearest first, each with its index in the path.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = (usize, &Certificate)> {
        self.certificates.iter().enumerate().skip(1)
    }

    /// Whether the path has a verified authority above the leaf.
    pub(crate) fn is_anchored(&self) -> bool {
        self.is_anchored_at_or_above(1)
    }

    /// Whether the certificate at `index`, or one above it, is verified.
    pub(crate) fn is_anchored_at_or_above(&self, index: usize) -> bool {
        self.anchor.is_some_and(|anchor| anchor >= index)
    }
}

/// Follows the leaf, which is first, to the certificates that signed it. The others may come in any
/// order, as OpenSSL accepts them; no source says that DPS does not (contract section 10). Where
/// several have signed one, the path that `is_anchor` ends highest is followed.
fn linked(
    presented: &[Certificate],
    now: OffsetDateTime,
    is_anchor: &impl Fn(&Certificate) -> bool,
) -> Vec<Certificate> {
    let mut pool: Vec<&Certificate> = presented.iter().take(CHAIN_LENGTH_MAX).collect();
    pool.retain(|it| it.is_valid_at(now));
    match (presented.first(), pool.first()) {
        (Some(leaf), Some(valid)) if leaf == *valid => {
            let path = vec![pool.remove(0)];
            longest(path, &pool, is_anchor)
                .into_iter()
                .cloned()
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The continuation of `path` by certificates of `pool` that reaches the highest anchor; without an
/// anchor, the longest.
fn longest<'a>(
    path: Vec<&'a Certificate>,
    pool: &[&'a Certificate],
    is_anchor: &impl Fn(&Certificate) -> bool,
) -> Vec<&'a Certificate> {
    let last = path[path.len() - 1];
    let signers = pool.iter().filter(|it| {
        // A root signs itself and is no step of a path.
        !path.contains(it) && issued(last, it, path.len())
    });
    let continued = signers.map(|signer| {
        let longer = [&path[..], &[*signer]].concat();
        longest(longer, pool, is_anchor)
    });
    let reach = |it: &Vec<&Certificate>| (it.iter().rposition(|own| is_anchor(own)), it.len());
    // The first of equals, as the client has sent them.
    continued
        .fold(None, |best, next| match best {
            Some(best) if reach(&best) >= reach(&next) => Some(best),
            _ => Some(next),
        })
        .unwrap_or(path)
}

/// `length` is the path's length below `issuer`, the leaf included.
fn issued(last: &Certificate, issuer: &Certificate, length: usize) -> bool {
    let below = u32::try_from(length - 1).expect("a path has at most CHAIN_LENGTH_MAX links");
    last.is_issued_by(issuer, below)
}

fn missing_root<'a>(
    path: &[Certificate],
    mut verified: impl Iterator<Item = &'a Certificate>,
    now: OffsetDateTime,
) -> Option<Certificate> {
    let last = path.last()?;
    verified
        .find(|ca| ca.is_valid_at(now) && issued(last, ca, path.len()))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use std::slice;

    struct Made {
        certificate: Certificate,
        issuer: Issuer<'static, KeyPair>,
    }

    fn made(name: &str, is_ca: IsCa, above: Option<&Made>) -> Made {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = is_ca;
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer),
            None => params.self_signed(&key),
        };
        Made {
            certificate: Certificate::from_der(certificate.unwrap().der()).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    fn any_ca() -> IsCa {
        IsCa::Ca(BasicConstraints::Unconstrained)
    }

    fn now() -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    #[test]
    fn a_missing_link_ends_the_path() {
        let root = made("root", any_ca(), None);
        let sub = made("sub", any_ca(), Some(&root));
        let leaf = made("press-7", IsCa::NoCa, Some(&sub));
        let whole = [&leaf, &sub, &root].map(|made| made.certificate.clone());
        let gap = [&leaf, &root].map(|made| made.certificate.clone());
        let verified = slice::from_ref(&root.certificate);
        assert!(Path::follow(&whole, verified.iter(), now(), false).is_anchored_at_or_above(2));
        assert!(!Path::follow(&gap, verified.iter(), now(), true).is_anchored());
    }

    /// Clients send what `/cacerts` gave them as it came; OpenSSL finds the path in any order.
    #[test]
    fn the_certificates_above_the_leaf_come_in_any_order() {
        let root = made("root", any_ca(), None);
        let plant = made("plant", any_ca(), Some(&root));
        let line = made("line", any_ca(), Some(&plant));
        let leaf = made("press-7", IsCa::NoCa, Some(&line));
        let verified = slice::from_ref(&root.certificate);
        for [first, second, third] in [
            [&line, &plant, &root],
            [&line, &root, &plant],
            [&plant, &root, &line],
            [&plant, &line, &root],
            [&root, &line, &plant],
            [&root, &plant, &line],
        ] {
            let chain = [&leaf, first, second, third].map(|made| made.certificate.clone());
            let path = Path::follow(&chain, verified.iter(), now(), false);
            assert!(path.is_anchored_at_or_above(3));
        }
        let not_first = [&line, &leaf, &plant, &root].map(|made| made.certificate.clone());
        let path = Path::follow(&not_first, verified.iter(), now(), false);
        assert_ne!(path.certificates.first(), Some(&leaf.certificate));
    }

    /// A certificate above with two signers: the path to the verified one is found, wherever the
    /// other one is in the chain.
    #[test]
    fn of_two_signers_the_verified_one_is_followed() {
        let root = made("root", any_ca(), None);
        let other = made("other", any_ca(), None);
        let line = made("line", any_ca(), Some(&root));
        let mut parameters = CertificateParams::default();
        let name = DnType::CommonName;
        parameters.distinguished_name.push(name, "line");
        parameters.is_ca = any_ca();
        let cross = parameters
            .signed_by(line.issuer.key(), &other.issuer)
            .unwrap();
        let cross = Certificate::from_der(cross.der()).unwrap();
        let leaf = made("press-7", IsCa::NoCa, Some(&line));
        let [leaf, line, root, other] =
            [&leaf, &line, &root, &other].map(|made| made.certificate.clone());
        let verified = slice::from_ref(&root);
        for chain in [
            [&leaf, &cross, &other, &line, &root],
            [&leaf, &line, &root, &cross, &other],
            [&leaf, &other, &root, &line, &cross],
        ] {
            let chain = chain.map(Clone::clone);
            let path = Path::follow(&chain, verified.iter(), now(), false);
            assert!(path.is_anchored_at_or_above(2));
        }
    }

    #[test]
    fn an_omitted_root_counts_only_when_switched_so() {
        let root = made("root", any_ca(), None);
        let leaf = made("press-7", IsCa::NoCa, Some(&root));
        let alone = slice::from_ref(&leaf.certificate);
        let verified = slice::from_ref(&root.certificate);
        assert!(!Path::follow(alone, verified.iter(), now(), false).is_anchored());
        assert!(Path::follow(alone, verified.iter(), now(), true).is_anchored());
    }

    #[test]
    fn the_same_name_with_another_key_is_no_link() {
        let root = made("root", any_ca(), None);
        let impostor = made("root", any_ca(), None);
        let leaf = made("press-7", IsCa::NoCa, Some(&impostor));
        let chain = [&leaf, &root].map(|made| made.certificate.clone());
        let verified = slice::from_ref(&root.certificate);
        assert!(!Path::follow(&chain, verified.iter(), now(), false).is_anchored());
    }

    #[test]
    fn a_leaf_and_an_authority_too_deep_sign_nothing() {
        let root = made("root", IsCa::Ca(BasicConstraints::Constrained(0)), None);
        let sub = made("sub", any_ca(), Some(&root));
        let leaf = made("press-7", IsCa::NoCa, Some(&sub));
        let below_leaf = made("press-8", IsCa::NoCa, Some(&leaf));
        let verified = slice::from_ref(&root.certificate);
        for chain in [
            vec![&leaf, &sub, &root],
            vec![&below_leaf, &leaf, &sub, &root],
        ] {
            let chain: Vec<_> = chain
                .into_iter()
                .map(|made| made.certificate.clone())
                .collect();
            assert!(!Path::follow(&chain, verified.iter(), now(), false).is_anchored());
        }
    }
}
