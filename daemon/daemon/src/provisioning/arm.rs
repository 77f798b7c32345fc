//! Manages CA certificates of the service, through Azure Resource Manager (section 11).
//!
//! Each step of the proof of possession changes the etag: every call takes the last etag and
//! returns the next. The etag has no quotes in the body, and quotes in `If-Match`.

use super::call::{Call, Reply, segment};
use super::failure::CallError;
use super::http::Plane;
use crate::enrollment::ca_certificate::{ObservedCaCertificate, VerificationCode};
use crate::enrollment::desired::SlotCertificate;
use crate::enrollment::etag::Etag;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The version that the management SDK uses.
const API_VERSION: &str = "2026-11-01";

/// The path of one DPS among Azure's resources.
#[derive(Clone, Debug)]
pub struct ResourcePath {
    pub subscription: String,
    pub resource_group: String,
    /// Name of the provisioning service.
    pub name: String,
}

/// A client of the CA plane.
#[derive(Clone, Debug)]
pub struct ArmClient {
    plane: Plane,
    service: String,
}

/// A CA certificate, with its name at the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCaCertificate {
    /// Its name, which enrollments refer to.
    pub name: String,
    /// The certificate as the service shows it.
    pub certificate: ObservedCaCertificate,
}

/// The service's description of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDescription {
    /// Id scope, which devices name.
    pub id_scope: String,
    /// Host of the service plane.
    pub service_operations_host_name: String,
    /// Host of the device plane.
    pub device_provisioning_host_name: String,
}

impl ArmClient {
    /// Speaks about the service at `path`.
    pub fn new(plane: Plane, path: &ResourcePath) -> Self {
        let service = format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Devices/\
             provisioningServices/{}",
            segment(&path.subscription),
            segment(&path.resource_group),
            segment(&path.name)
        );
        Self { plane, service }
    }

    /// Returns a client whose calls wait for an answer for `timeout` only.
    pub(super) fn within(&self, timeout: Duration) -> Self {
        Self {
            plane: self.plane.within(timeout),
            service: self.service.clone(),
        }
    }

    /// Returns the host name of the plane.
    pub(super) fn host(&self) -> &str {
        self.plane.host()
    }

    /// Returns how far its clock was ahead at its last answer, in seconds.
    pub(super) fn skew_seconds(&self) -> Option<i64> {
        self.plane.skew_seconds()
    }

    /// Reads the service's description of itself.
    pub async fn describe(&self) -> Result<ServiceDescription, CallError> {
        #[derive(Deserialize)]
        struct Resource {
            properties: ServiceDescription,
        }
        let operation = "read the provisioning service".to_owned();
        let call = Call::new(Method::GET, operation.clone(), self.path(""));
        let resource: Resource = self.plane.call(call).await?.json(&operation)?;
        Ok(resource.properties)
    }

    /// All CA certificates; the service holds at most 25.
    pub async fn list(&self) -> Result<Vec<NamedCaCertificate>, CallError> {
        #[derive(Deserialize)]
        struct List {
            value: Vec<CertificateResource>,
        }
        let operation = "list CA certificates".to_owned();
        let call = Call::new(Method::GET, operation.clone(), self.path("/certificates"));
        let list: List = self.plane.call(call).await?.json(&operation)?;
        list.value
            .into_iter()
            .map(|resource| resource.named(&operation))
            .collect()
    }

    /// One CA certificate, or `None`. No source settles the code of a missing one, and Azure
    /// Resource Manager answers 404 for a wrong subscription, too: after a 404 the list of all
    /// certificates decides.
    pub async fn get(&self, name: &str) -> Result<Option<NamedCaCertificate>, CallError> {
        let operation = format!("read CA certificate {name}");
        let call = Call::new(
            Method::GET,
            operation.clone(),
            self.certificate_path(name, ""),
        );
        match self.plane.call(call).await {
            Ok(answer) => named(&operation, &answer).map(Some),
            Err(error) if error.is_not_found() => {
                let all = self.list().await?;
                Ok(all
                    .into_iter()
                    .find(|it| it.name.eq_ignore_ascii_case(name)))
            }
            Err(error) => Err(error),
        }
    }

    /// Uploads a CA certificate, unverified. `etag` is that of the certificate to replace, if any.
    pub async fn put(
        &self,
        name: &str,
        certificate: &SlotCertificate,
        etag: Option<&Etag>,
    ) -> Result<NamedCaCertificate, CallError> {
        let operation = format!("upload CA certificate {name}");
        let body = BASE64_STANDARD.encode(certificate.der());
        let path = self.certificate_path(name, "");
        let mut call = Call::new(Method::PUT, operation.clone(), path)
            .body(json!({ "properties": { "certificate": body } }));
        if let Some(etag) = etag {
            call = call.if_match(etag);
        }
        named(&operation, &self.plane.call(call).await?)
    }

    /// Deletes a CA certificate: DPS refuses every device that needs it. A 404 is no observation:
    /// the caller reads the certificate again.
    pub async fn delete(&self, name: &str, etag: &Etag) -> Result<(), CallError> {
        let operation = format!("delete CA certificate {name}");
        let call = Call::new(Method::DELETE, operation, self.certificate_path(name, ""));
        match self.plane.call(call.if_match(etag)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks for a code to prove possession with; answers the etag for the next step, too.
    pub async fn generate_verification_code(
        &self,
        name: &str,
        etag: &Etag,
    ) -> Result<(VerificationCode, Etag), CallError> {
        let operation = format!("ask for a verification code of CA certificate {name}");
        let path = self.certificate_path(name, "/generateVerificationCode");
        let call = Call::new(Method::POST, operation.clone(), path).if_match(etag);
        let resource: CertificateResource = self.plane.call(call).await?.json(&operation)?;
        let code = resource.properties.verification_code.as_deref();
        let code = VerificationCode::parse(code.unwrap_or_default());
        let code = code.map_err(|invalid| not_as_documented(&operation, invalid.to_string()))?;
        Ok((code, resource.etag(&operation)?))
    }

    /// Proves possession. A refusal of the proof is [`CallError::Rejected`].
    pub async fn verify(
        &self,
        name: &str,
        verification_certificate: &SlotCertificate,
        etag: &Etag,
    ) -> Result<NamedCaCertificate, CallError> {
        let operation = format!("verify CA certificate {name}");
        let path = self.certificate_path(name, "/verify");
        let call = Call::new(Method::POST, operation.clone(), path)
            .if_match(etag)
            .body(json!({ "certificate": verification_certificate.pem() }));
        named(&operation, &self.plane.call(call).await?)
    }

    fn certificate_path(&self, name: &str, action: &str) -> String {
        self.path(&format!("/certificates/{}{action}", segment(name)))
    }

    fn path(&self, below: &str) -> String {
        format!("{}{below}?api-version={API_VERSION}", self.service)
    }
}

/// As Azure Resource Manager answers it.
#[derive(Deserialize)]
struct CertificateResource {
    name: String,
    etag: Option<Value>,
    properties: CertificateProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CertificateProperties {
    thumbprint: String,
    #[serde(default)]
    is_verified: bool,
    verification_code: Option<String>,
}

impl CertificateResource {
    fn etag(&self, operation: &str) -> Result<Etag, CallError> {
        let etag = self.etag.as_ref().and_then(Value::as_str);
        etag.and_then(Etag::quoted)
            .ok_or_else(|| not_as_documented(operation, "there is no usable etag".to_owned()))
    }

    fn named(self, operation: &str) -> Result<NamedCaCertificate, CallError> {
        let thumbprint = self.properties.thumbprint.parse();
        Ok(NamedCaCertificate {
            certificate: ObservedCaCertificate {
                thumbprint: thumbprint.map_err(|invalid| {
                    not_as_documented(operation, format!("thumbprint: {invalid}"))
                })?,
                is_verified: self.properties.is_verified,
                etag: self.etag(operation)?,
            },
            name: self.name,
        })
    }
}

fn named(operation: &str, answer: &Reply) -> Result<NamedCaCertificate, CallError> {
    let resource: CertificateResource = answer.json(operation)?;
    resource.named(operation)
}

/// The service answered, but not as its contract says: what was asked may be done.
fn not_as_documented(operation: &str, problem: String) -> CallError {
    CallError::Transient {
        operation: operation.to_owned(),
        reason: format!("the answer is not as documented: {problem}"),
        retry_after: None,
        lost_answer: true,
    }
}
