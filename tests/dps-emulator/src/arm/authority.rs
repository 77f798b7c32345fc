//! One CA certificate of the DPS (contract section 11).

use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::resource_id;
use crate::certificate::Certificate;
use crate::dates;

/// A CA certificate, verified or not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Authority {
    pub(crate) name: String,
    pub(crate) certificate: Certificate,
    pub(crate) verified: bool,
    pub(crate) etag: String,
    /// Waits to be proven. Gone once it was, or when the certificate changes.
    pub(crate) code: Option<String>,
    created: String,
    updated: String,
}

impl Authority {
    /// A certificate that was just uploaded.
    pub(crate) fn new(
        name: &str,
        certificate: Certificate,
        verified: bool,
        now: OffsetDateTime,
    ) -> Self {
        let now = dates::rfc_1123(now);
        Self {
            name: name.to_owned(),
            certificate,
            verified,
            etag: String::new(),
            code: None,
            created: now.clone(),
            updated: now,
        }
    }

    /// The same resource with another certificate: name and creation date stay.
    pub(crate) fn replaced_by(&self, new: Self) -> Self {
        Self {
            name: self.name.clone(),
            created: self.created.clone(),
            ..new
        }
    }

    pub(crate) fn touch(&mut self, etag: String, now: OffsetDateTime) {
        self.etag = etag;
        self.updated = dates::rfc_1123(now);
    }

    /// A fresh verification code: upper hex that fits a common name. Its exact length is
    /// UNCONFIRMED.
    pub(crate) fn fresh_code(&mut self) -> String {
        let mut bytes = [0; 24];
        rand::fill(&mut bytes).expect("the system's random source works");
        let code = hex::encode_upper(bytes);
        self.code = Some(code.clone());
        code
    }

    /// The resource as answers show it.
    pub(crate) fn shown(&self, service: &str) -> Value {
        use base64::Engine as _;
        let der = base64::engine::general_purpose::STANDARD.encode(self.certificate.der());
        json!({
            "id": format!("{}/certificates/{}", resource_id(service), self.name),
            "name": self.name,
            "type": "Microsoft.Devices/ProvisioningServices/Certificates",
            "etag": self.etag,
            "properties": {
                "subject": self.certificate.common_name().unwrap_or_default(),
                "expiry": dates::rfc_1123(self.certificate.not_after()),
                "thumbprint": self.certificate.sha1(),
                "isVerified": self.verified,
                "created": self.created,
                "updated": self.updated,
                "certificate": der,
            },
        })
    }
}
