//! Presents the listener's certificate with an OCSP answer, if there is one: clients that ask for
//! the status get it in the handshake (RFC 6066 section 8).

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// The key and certificate of every handshake.
#[derive(Debug)]
pub(super) struct Stapled(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Stapled {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Stapled {
    pub(super) fn new(certified: CertifiedKey) -> Self {
        Self(ArcSwap::from_pointee(certified))
    }

    pub(super) fn staple(&self, answer: Option<Vec<u8>>) {
        let present = self.0.load_full();
        if present.ocsp == answer {
            return;
        }
        let mut next = CertifiedKey::new(present.cert.clone(), present.key.clone());
        next.ocsp = answer;
        self.0.store(Arc::new(next));
    }
}
