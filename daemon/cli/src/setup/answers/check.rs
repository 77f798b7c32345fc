//! Checks answers: each by itself, and that they agree with each other.

use super::{
    Answers, Enrollment, GatewayIssuer, Provisioning, SiteKind, TPM_DEVICE, Token, TokenKind,
};
use hallmark_base::fragment::{Fragment, Sandbox};
use hallmark_pki::x509::name::{AttributeKind, check_value};
use std::path::PathBuf;

impl Answers {
    /// Refuses answers that contradict each other; the error names the key.
    pub(super) fn check(&self) -> Result<(), String> {
        let refuse = |problem: &str| Err(problem.to_owned());
        is_organization(&self.organization).map_err(|problem| in_key("organization", &problem))?;
        let country = self.country.as_deref().map_or(Ok(()), is_country);
        country.map_err(|problem| in_key("country", &problem))?;
        let url = self
            .listen
            .public_http
            .as_deref()
            .map_or(Ok(()), is_http_url);
        url.map_err(|problem| in_key("public_http", &problem))?;
        match (self.shape, self.issuer) {
            (SiteKind::FactoryLine, Some(_)) => {
                return refuse("`issuer` is for shape = \"gateway\"");
            }
            (SiteKind::Gateway, None) => {
                return refuse("shape = \"gateway\" needs `issuer`: \"external\" or \"own-root\"");
            }
            _ => {}
        }
        if self.shape == SiteKind::Gateway && self.line.is_some() {
            return refuse("`line` is for shape = \"factory-line\"");
        }
        if self.certificate.is_some() && self.issuer != Some(GatewayIssuer::External) {
            return refuse("`certificate` is for issuer = \"external\"");
        }
        if self.listen.http.is_some() != self.listen.public_http.is_some() {
            return refuse("[listen] `http` and `public_http` go together: give both, or none");
        }
        self.check_enrollment()?;
        self.token.check()?;
        let named = [&self.certificate, &self.transcript, &self.token.pin_file];
        let station = self.station.iter().flat_map(|it| [&it.csr, &it.out]);
        let secrets = self.provisioning.iter().flat_map(Provisioning::files);
        let mut files = named.into_iter().chain(station).chain(secrets).flatten();
        match files.find(|path| !path.is_absolute()) {
            Some(path) => Err(format!("{path:?} must be an absolute path")),
            None => Ok(()),
        }
    }

    fn check_enrollment(&self) -> Result<(), String> {
        match (&self.provisioning, self.enrollment) {
            (None, Enrollment::None) => Ok(()),
            (None, _) => Err("`enrollment` needs [provisioning], or must be \"none\"".into()),
            (Some(_), Enrollment::None) => {
                Err("enrollment = \"none\" takes no [provisioning]".into())
            }
            (Some(service), _) => service.check(self.verifies_by_arm()),
        }
    }
}

fn in_key(key: &str, problem: &str) -> String {
    format!("`{key}`: {problem}")
}

/// Accepts what every subject of this site may have as its organization.
pub(in crate::setup) fn is_organization(answer: &str) -> Result<(), String> {
    check_value(AttributeKind::Organization, answer).map_err(|refusal| refusal.to_string())
}

/// Accepts a code of ISO 3166.
pub(in crate::setup) fn is_country(answer: &str) -> Result<(), String> {
    check_value(AttributeKind::Country, answer).map_err(|_| {
        format!("{answer:?} is no country code: it has two capital letters, as in DE or FR")
    })
}

/// Accepts the base of the addresses that certificates carry.
pub(in crate::setup) fn is_http_url(answer: &str) -> Result<(), String> {
    let host = answer.strip_prefix("http://").unwrap_or_default();
    let plain = |it: char| it.is_ascii_alphanumeric() || "-._:[]/".contains(it);
    if host.is_empty() || !host.chars().all(plain) {
        return Err(format!(
            "{answer:?} is no address of plain HTTP, as in http://pki.example:8080"
        ));
    }
    Ok(())
}

/// Accepts the host of a service.
pub(in crate::setup) fn is_host(answer: &str) -> Result<(), String> {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-.".contains(it);
    if answer.is_empty() || !answer.chars().all(plain) {
        return Err(format!(
            "{answer:?} is no host name: give it without https:// and without a path, as in \
             works.azure-devices-provisioning.net"
        ));
    }
    Ok(())
}

impl Token {
    fn check(&self) -> Result<(), String> {
        let is_pkcs11 = self.kind == TokenKind::Pkcs11;
        let only_pkcs11 = [
            ("fragment", self.fragment.is_some()),
            ("module", self.module.is_some()),
            ("label", self.label.is_some()),
            ("serial", self.serial.is_some()),
            ("environment", !self.environment.is_empty()),
            ("sandbox", self.sandbox.is_some()),
            ("pin_file", self.pin_file.is_some()),
        ];
        if let Some((key, _)) = only_pkcs11.iter().find(|(_, given)| *given && !is_pkcs11) {
            return Err(format!("[token] `{key}` is for kind = \"pkcs11\""));
        }
        if is_pkcs11 && self.label.is_none() {
            return Err("[token] kind = \"pkcs11\" needs `label`".into());
        }
        if self.tcti.is_some() && self.kind != TokenKind::Tpm {
            return Err("[token] `tcti` is for kind = \"tpm\"".into());
        }
        self.tpm_device().map(drop)?;
        self.sandbox().map(drop)
    }

    /// Returns the TPM device that the worker may use. Other ways to a TPM need a drop-in by hand.
    pub fn tpm_device(&self) -> Result<&str, String> {
        let Some(tcti) = self.tcti.as_deref() else {
            return Ok(TPM_DEVICE);
        };
        let device = tcti.strip_prefix("device:");
        device.filter(|it| is_device(it)).ok_or_else(|| {
            format!(
                "[token] `tcti` must be \"device:\" and a file below /dev, as \
                 in \"device:{TPM_DEVICE}\": {tcti:?} is no device that the worker's sandbox could \
                 be opened for"
            )
        })
    }

    /// Returns the access of the worker, from the kind of token, its family or the answer.
    pub fn sandbox(&self) -> Result<Sandbox, String> {
        let fragment = self.fragment.as_deref().map(Fragment::shipped);
        let family = fragment.transpose().map_err(|error| error.to_string())?;
        let of_family = family.and_then(|it| it.sandbox);
        match self.kind {
            TokenKind::Softhsm => Ok(Sandbox::Softhsm),
            TokenKind::Tpm => Ok(Sandbox::Tpm),
            TokenKind::Pkcs11 => self.sandbox.or(of_family).ok_or_else(|| {
                "[token] needs `sandbox`: what the worker of this family may touch is not known; \
                 \"softhsm\" (files), \"tpm\", \"usb-hsm\", \"network-hsm\" or \"pcscd\""
                    .to_owned()
            }),
        }
    }
}

/// Accepts only a file name that systemd cannot misread, because it is written into a unit.
fn is_device(path: &str) -> bool {
    let plain = |it: char| it.is_ascii_alphanumeric() || "/-_".contains(it);
    let name = path.strip_prefix("/dev/");
    name.is_some_and(|it| it.starts_with(char::is_alphanumeric) && it.chars().all(plain))
}

impl Provisioning {
    fn files(&self) -> [&Option<PathBuf>; 4] {
        [
            &self.connection_string_file,
            &self.arm_token_file,
            &self.hub_connection_string_file,
            &self.ca_bundle,
        ]
    }

    fn check(&self, by_arm: bool) -> Result<(), String> {
        let hosts = [
            ("endpoint", Some(&self.endpoint)),
            ("hub_endpoint", self.hub_endpoint.as_ref()),
            ("device_endpoint", self.device_endpoint.as_ref()),
            ("arm_endpoint", self.arm_endpoint.as_ref()),
        ];
        for (key, answer) in hosts {
            let host = answer.map_or(Ok(()), |it| is_host(it));
            host.map_err(|problem| in_key(key, &problem))?;
        }
        for (key, answer) in [
            ("subscription", &self.subscription),
            ("resource_group", &self.resource_group),
            ("service_name", &self.service_name),
        ] {
            if answer.is_some() != by_arm {
                let verb = if by_arm { "needs" } else { "has no" };
                let verify = if by_arm { "arm" } else { "by-hand" };
                return Err(format!(
                    "[provisioning] verify = \"{verify}\" {verb} `{key}`"
                ));
            }
        }
        Ok(())
    }
}
