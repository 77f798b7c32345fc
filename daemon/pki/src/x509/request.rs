//! Builds certification requests (PKCS #10, RFC 2986) for authorities with an external issuer.
//!
//! A request is built, recorded and signed like a certificate. The result is read and checked with
//! [`super::csr`] before it leaves.

use super::certificate::tbs_range;
use super::csr::{self, CsrRefusal};
use super::extensions::{basic_constraints, key_usage};
use super::key::{PublicKey, SignatureAlgorithm};
use super::profile::{Profile, VALIDITY_SECONDS_MAX};
use super::{oid, pem, wire};
use crate::der_bytes::Der;
use der::asn1::{Any, AnyRef, BitStringRef, SetOfVec};
use der::{Decode, Encode, Sequence};
use std::ops::Range;
use x509_cert::attr::{Attribute, Attributes};

/// The PEM label (RFC 7468 7).
const PEM_LABEL: &str = "CERTIFICATE REQUEST";

/// `CertificationRequestInfo` (RFC 2986 4.1) with name and key undecoded.
#[derive(Sequence)]
struct CertificationRequestInfo<'a> {
    version: u8,
    subject: AnyRef<'a>,
    subject_public_key_info: AnyRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    attributes: Attributes,
}

/// Builds the to-be-signed bytes of a request for an authority's certificate with this path length.
pub fn build(
    subject_der: &[u8],
    public_key: &PublicKey,
    path_length: Option<u8>,
) -> der::Result<Der> {
    // The issuer decides the validity; a request has no field for it.
    let profile = Profile::authority(path_length, VALIDITY_SECONDS_MAX);
    let extensions = vec![basic_constraints(&profile)?, key_usage(&profile)?];
    let request = Attribute {
        oid: oid::EXTENSION_REQUEST,
        values: SetOfVec::try_from([Any::encode_from(&extensions)?])?,
    };
    let info = CertificationRequestInfo {
        version: 0,
        subject: AnyRef::from_der(subject_der)?,
        subject_public_key_info: AnyRef::from_der(public_key.spki_der())?,
        attributes: SetOfVec::try_from([request])?,
    };
    Ok(info.to_der()?.into())
}

/// A signed request: canonical DER whose signature proves possession of its key.
#[derive(Debug)]
pub struct SignedRequest {
    der: Der,
    tbs: Range<usize>,
    public_key: PublicKey,
}

/// Assembles the request from the signed bytes and their signature, and checks it: the result is
/// canonical, and its signature proves possession of the key.
pub fn assemble(
    tbs: &[u8],
    algorithm: SignatureAlgorithm,
    signature: &[u8],
) -> Result<SignedRequest, CsrRefusal> {
    let damaged = |_: der::Error| CsrRefusal::damaged("form");
    let request = wire::Signed {
        to_be_signed: AnyRef::from_der(tbs).map_err(damaged)?,
        signature_algorithm: AnyRef::from_der(algorithm.identifier_der()).map_err(damaged)?,
        signature: BitStringRef::from_bytes(signature).map_err(damaged)?,
    };
    let der = request.to_der().map_err(damaged)?;
    let read = wire::Signed::from_der(&der).map_err(damaged)?;
    let length = read.to_be_signed.to_der().map_err(damaged)?.len();
    Ok(SignedRequest {
        tbs: tbs_range(&der, length).map_err(damaged)?,
        public_key: csr::proven_key(&der)?,
        der: der.into(),
    })
}

impl SignedRequest {
    /// The whole request.
    pub fn der(&self) -> &Der {
        &self.der
    }

    /// The whole request, owned.
    pub fn into_der(self) -> Der {
        self.der
    }

    /// The bytes that its signature covers.
    pub fn tbs_bytes(&self) -> &[u8] {
        &self.der[self.tbs.clone()]
    }

    /// The key that it asks a certificate for.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}

/// Returns the request as one PEM block.
pub fn to_pem(der: &[u8]) -> String {
    pem::encode(PEM_LABEL, der)
}
