//! Finds the certificates above an authority in a bundle, and judges them as a relying party does
//! (RFC 5280 6.1).
//!
//! A bundle has no order, and may have several certificates of one authority: roots that certify
//! each other, old ones, others that do not belong here. The search tries all of them within
//! bounds, shorter paths first, and later ends first; so the order of the file decides nothing.
//!
//! A certificate that is only above is judged by the rules of RFC 5280 6.1: names, signatures, cA,
//! keyUsage if there is one, path lengths, name constraints, and the authority key identifier,
//! which OpenSSL checks.
//! The signature of the self-signed certificate is not checked, because the relying party trusts
//! its key already (RFC 5280 6.1.1 (d)).

use super::certificate::Certificate;
use super::constrained_names::ConstrainedNames;
use crate::error_code::Code;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Longest path that is searched, in certificates above.
const ABOVE_MAX: usize = 8;

/// Most certificates that are tried as an issuer: so certificates that all certify each other end
/// the search.
const STEPS_MAX: usize = 4096;

/// The reason why a path does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// A certificate is missing.
    Incomplete,
    /// The issuer's signature cannot be verified.
    Signature,
    /// The authority key identifier names another certificate.
    KeyIdentifier,
    /// A certificate above is no authority's.
    NotAnAuthority,
    /// A certificate above allows fewer authorities below.
    PathLength,
    /// A certificate below has a name that one above forbids, or constrains in an unknown way.
    NameConstraints,
    /// The caller's own condition, by the code of its refusal.
    Own(Code),
}

/// The reason why no path was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct PathRefusal {
    pub misfit: Misfit,
    pub reason: String,
}

impl PathRefusal {
    /// Makes a refusal.
    pub fn new(misfit: Misfit, reason: String) -> PathRefusal {
        PathRefusal { misfit, reason }
    }
}

/// Returns the certificates above `certificate`, its issuer's first and a self-signed one last.
/// They allow `authorities_below` others below `certificate`, and each fits the caller's condition.
pub fn above(
    certificate: &Certificate,
    others: &[Certificate],
    authorities_below: usize,
    fits: &dyn Fn(&Certificate) -> Result<(), PathRefusal>,
) -> Result<Vec<Certificate>, PathRefusal> {
    let mut others: Vec<&Certificate> = others.iter().filter(|it| *it != certificate).collect();
    others.sort_by_key(|it| (Reverse(it.not_after()), it.sha256()));
    others.dedup();
    let mut search = Search {
        nodes: [certificate].into_iter().chain(others).collect(),
        authorities_below,
        fits,
        links: BTreeMap::new(),
        names: BTreeMap::new(),
        steps: 0,
        misfit: None,
    };
    if certificate.is_self_issued() && search.ends_at(0) {
        let reason = "it is self-signed".to_owned();
        return Err(PathRefusal::new(Misfit::Incomplete, reason));
    }
    for length in 1..=ABOVE_MAX {
        let mut path = vec![0];
        if search.extend(&mut path, length) {
            let found = path[1..].iter().map(|node| search.nodes[*node].clone());
            return Ok(found.collect());
        }
    }
    Err(search.refusal())
}

/// Returns why relying parties refuse a chain, if they do. It begins with an authority that has
/// `authorities_below` others below it, and ends with a self-signed certificate.
pub fn objection<'a>(
    chain: impl IntoIterator<Item = &'a Certificate>,
    authorities_below: usize,
) -> Option<String> {
    let mut passed: Vec<&Certificate> = Vec::new();
    let mut between = authorities_below;
    for certificate in chain {
        let misfit = passed
            .last()
            .and_then(|below| key_identifier_misfit(below, certificate))
            .or_else(|| path_length_misfit(certificate, between))
            .or_else(|| first_names_misfit(&passed, certificate));
        if let Some(misfit) = misfit {
            return Some(misfit.reason);
        }
        between += usize::from(!certificate.is_self_issued());
        passed.push(certificate);
    }
    let last = passed.last().filter(|it| it.is_self_issued())?;
    key_identifier_misfit(last, last).map(|misfit| misfit.reason)
}

/// Returns why relying parties refuse one of the authorities `below` because of its names, if
/// `above` is above it.
pub fn objection_by_names(below: &[&Certificate], above: &Certificate) -> Option<String> {
    first_names_misfit(below, above).map(|it| it.reason)
}

struct Search<'a> {
    /// The first is the certificate that the path begins with.
    nodes: Vec<&'a Certificate>,
    authorities_below: usize,
    fits: &'a dyn Fn(&Certificate) -> Result<(), PathRefusal>,
    /// Whether a certificate is the issuer's of another, by issuer and certificate below.
    links: BTreeMap<(usize, usize), Link>,
    /// Why a certificate may not stand above another one, by its names.
    names: BTreeMap<(usize, usize), Option<PathRefusal>>,
    steps: usize,
    /// The reason of the longest path that did not fit, and its length.
    misfit: Option<(usize, PathRefusal)>,
}

#[derive(Clone)]
enum Link {
    /// Another name.
    None,
    /// The name of the issuer, and not the key that has signed.
    OtherKey,
    Refused(PathRefusal),
    Fits,
}

impl Search<'_> {
    /// Extends the path upwards, up to `length` certificates above the first.
    fn extend(&mut self, path: &mut Vec<usize>, length: usize) -> bool {
        let Some(&last) = path.last() else {
            return false;
        };
        if path.len() > 1 && self.ends_at(last) {
            return true;
        }
        if path.len() > length {
            return false;
        }
        let mut known = false;
        for issuer in 0..self.nodes.len() {
            if path.contains(&issuer) || self.steps > STEPS_MAX {
                continue;
            }
            self.steps += 1;
            let link = self.link(issuer, last);
            known |= !matches!(link, Link::None | Link::OtherKey);
            let misfit = match link {
                Link::None | Link::OtherKey => continue,
                Link::Refused(refusal) => Some(refusal),
                Link::Fits => {
                    let misfit = self.length_misfit(issuer, path);
                    misfit.or_else(|| self.names_misfit(issuer, path))
                }
            };
            if let Some(misfit) = misfit {
                self.note(path.len(), misfit);
                continue;
            }
            path.push(issuer);
            if self.extend(path, length) {
                return true;
            }
            path.pop();
        }
        if !known {
            let missing = self.missing(last);
            self.note(path.len(), missing);
        }
        false
    }

    /// Returns true if a path may end here. A self-issued certificate that another key has signed,
    /// as at a change of keys (RFC 5280 3.2), is no end; one whose signature cannot be verified,
    /// and that no other certificate here can have signed, is one.
    fn ends_at(&mut self, node: usize) -> bool {
        let certificate = self.nodes[node];
        if !certificate.is_self_issued()
            || key_identifier_misfit(certificate, certificate).is_some()
        {
            return false;
        }
        if certificate
            .verify_issued_by_key_of(certificate.spki_der())
            .is_ok()
        {
            return true;
        }
        let mut others = (0..self.nodes.len()).filter(|it| *it != node);
        !others.any(|other| {
            let other = self.nodes[other];
            other.subject_der() == certificate.issuer_der()
                && certificate
                    .verify_issued_by_key_of(other.spki_der())
                    .is_ok()
        })
    }

    fn link(&mut self, issuer: usize, below: usize) -> Link {
        if let Some(link) = self.links.get(&(issuer, below)) {
            return link.clone();
        }
        let link = self.judge(self.nodes[issuer], self.nodes[below]);
        self.links.insert((issuer, below), link.clone());
        link
    }

    /// RFC 5280 6.1.3 (a) and 6.1.4 (k), (n).
    fn judge(&self, issuer: &Certificate, below: &Certificate) -> Link {
        if issuer.subject_der() != below.issuer_der() {
            return Link::None;
        }
        let named = key_identifier_misfit(below, issuer);
        if let Err(reason) = below.verify_issued_by_key_of(issuer.spki_der()) {
            let other_key = reason == "the signature does not match the public key";
            if other_key || named.is_some() {
                return Link::OtherKey;
            }
            let reason = format!(
                "the signature of {:?} on {:?} cannot be verified: {reason}",
                issuer.subject(),
                below.subject()
            );
            return Link::Refused(PathRefusal::new(Misfit::Signature, reason));
        }
        match named.or_else(|| authority_misfit(issuer)) {
            Some(misfit) => Link::Refused(misfit),
            None => match (self.fits)(issuer) {
                Ok(()) => Link::Fits,
                Err(misfit) => Link::Refused(misfit),
            },
        }
    }

    /// RFC 5280 6.1.4 (l), (m): certificates that are self-issued do not count.
    fn length_misfit(&self, issuer: usize, path: &[usize]) -> Option<PathRefusal> {
        let counted = path.iter().filter(|it| !self.nodes[**it].is_self_issued());
        path_length_misfit(self.nodes[issuer], self.authorities_below + counted.count())
    }

    /// RFC 5280 6.1.3 (b), (c): the names of all certificates below.
    fn names_misfit(&mut self, issuer: usize, path: &[usize]) -> Option<PathRefusal> {
        path.iter().find_map(|below| {
            let misfit = || names_misfit(self.nodes[*below], self.nodes[issuer]);
            let known = self.names.entry((issuer, *below));
            known.or_insert_with(misfit).clone()
        })
    }

    fn missing(&self, below: usize) -> PathRefusal {
        let below = self.nodes[below];
        let mut named = self.nodes.iter().filter(|it| **it != below);
        let reason = if below.is_self_issued()
            && let Some(misfit) = key_identifier_misfit(below, below)
        {
            return misfit;
        } else if named.any(|it| it.subject_der() == below.issuer_der()) {
            format!(
                "the certificate of {:?} in the file has another key than the one that signed \
                 {:?}; append that of this key, and all up to the self-signed one",
                below.issuer(),
                below.subject()
            )
        } else {
            format!(
                "no certificate in the file is that of {:?}, which signed {:?}; append all up to \
                 the self-signed one",
                below.issuer(),
                below.subject()
            )
        };
        PathRefusal::new(Misfit::Incomplete, reason)
    }

    /// Keeps the reason of the longest path. That a certificate is missing is the true reason only
    /// where no other one is known.
    fn note(&mut self, length: usize, misfit: PathRefusal) {
        let weight = |length: usize, it: &PathRefusal| (it.misfit != Misfit::Incomplete, length);
        let is_better = match &self.misfit {
            Some((known, it)) => weight(length, &misfit) > weight(*known, it),
            None => true,
        };
        if is_better {
            self.misfit = Some((length, misfit));
        }
    }

    fn refusal(self) -> PathRefusal {
        if self.steps > STEPS_MAX {
            let reason =
                "too many certificates in the file could be each other's issuers; leave out \
                          those that are not above this authority"
                    .to_owned();
            return PathRefusal::new(Misfit::Incomplete, reason);
        }
        self.misfit.map(|(_, misfit)| misfit).unwrap_or_else(|| {
            let reason = format!("more than {ABOVE_MAX} certificates are above it");
            PathRefusal::new(Misfit::Incomplete, reason)
        })
    }
}

/// RFC 5280 6.1.4 (k), (n). A certificate of version 1 can say nothing about itself; relying
/// parties take it as a root alone.
fn authority_misfit(issuer: &Certificate) -> Option<PathRefusal> {
    let name = issuer.subject();
    let is_old_root = issuer.is_self_issued() && issuer.has_no_extensions_by_its_version();
    let reason = if !issuer.is_ca() && !is_old_root {
        format!(
            "the certificate of {name:?} is no authority: it needs basicConstraints with cA TRUE"
        )
    } else if !issuer.does_not_deny_signing_certificates() {
        format!("the certificate of {name:?} is no authority: its keyUsage lacks keyCertSign")
    } else {
        return None;
    };
    Some(PathRefusal::new(Misfit::NotAnAuthority, reason))
}

fn path_length_misfit(issuer: &Certificate, below: usize) -> Option<PathRefusal> {
    let allowed = issuer.path_length().filter(|it| usize::from(*it) < below)?;
    let reason = format!(
        "the certificate of {:?} allows {allowed} authorities below, and {below} are needed",
        issuer.subject()
    );
    Some(PathRefusal::new(Misfit::PathLength, reason))
}

fn first_names_misfit(below: &[&Certificate], above: &Certificate) -> Option<PathRefusal> {
    below.iter().find_map(|it| names_misfit(it, above))
}

/// RFC 5280 6.1.3 (b), (c). A self-issued certificate is exempt, except at the end of a path, where
/// an authority never is.
fn names_misfit(below: &Certificate, above: &Certificate) -> Option<PathRefusal> {
    let constraints = above.name_constraints()?;
    let why = match constraints {
        Err(reason) => Some(format!("{:?}: {reason}", above.subject())),
        Ok(_) if below.is_self_issued() => None,
        Ok(constraints) => match ConstrainedNames::of_authority(below) {
            Ok(names) => constraints.objection(&names),
            Err(reason) => Some(reason),
        },
    };
    let reason = |why| format!("relying parties refuse {:?}: {why}", below.subject());
    why.map(|why| PathRefusal::new(Misfit::NameConstraints, reason(why)))
}

/// RFC 5280 4.2.1.1; OpenSSL finds no issuer where this differs.
fn key_identifier_misfit(below: &Certificate, issuer: &Certificate) -> Option<PathRefusal> {
    let part = below.names_another_issuer_than(issuer)?;
    let reason = format!(
        "the authority key identifier of {:?} names another certificate than that of {:?}, by its \
         {part}; have it issued again with the identifier of its issuer",
        below.subject(),
        issuer.subject()
    );
    Some(PathRefusal::new(Misfit::KeyIdentifier, reason))
}
