//! Checks what only the whole configuration can show: names that refer to other tables, socket
//! paths, and names that would collide.

use super::{Configuration, ConfigurationError};
use crate::ca::approval::Action;
use crate::ca::profile::Role;
use crate::provisioning::configuration::Provisioning;
use crate::socket_path;
use crate::token::credential::label;
use crate::x509::san::NameKind;
use crate::x509::template::Place;

/// The longest name of an authority: the name is part of addresses.
const AUTHORITY_NAME_BYTES_MAX: usize = 64;

impl Configuration {
    /// Refuses a configuration whose tables do not fit together.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        self.check_authorities()?;
        self.check_failover()?;
        self.check_ocsp()?;
        self.check_audit()?;
        self.check_profiles()?;
        self.check_subordinate_profiles()?;
        self.issuer
            .stations
            .check(&self.issuer.profiles)
            .map_err(ConfigurationError::Contradiction)?;
        let is_service = |name: &str| self.provisioning.contains_key(name);
        self.issuer
            .births
            .check(&self.issuer.profiles, is_service)
            .map_err(ConfigurationError::Contradiction)?;
        self.check_provisioning()?;
        self.check_est_profile()?;
        self.check_approvals()?;
        self.check_sockets()?;
        self.check_https()
    }

    fn check_authorities(&self) -> Result<(), ConfigurationError> {
        for (authority, token) in &self.issuer.authorities {
            if !self.tokens.contains_key(token) {
                return contradiction(format!(
                    "authority {authority:?} keeps its key on token {token:?}, and there is no \
                     such [[token]]"
                ));
            }
            self.check_authority_name(authority)?;
            let has_addresses = self.crl_schedule.with_deltas.contains(authority)
                || self.issuer.crl_partitions.contains_key(authority);
            if has_addresses && self.issuer.public_http.is_none() {
                return contradiction(format!(
                    "authority {authority:?} has crl_partitions or delta_crls: these lists name \
                     their addresses, so set [listen] http and public_http"
                ));
            }
        }
        Ok(())
    }

    /// Refuses a rule that one person could go round, or that no person could follow.
    fn check_approvals(&self) -> Result<(), ConfigurationError> {
        let actions = &self.approvals.actions;
        if actions.is_empty() {
            return Ok(());
        }
        if !actions.contains(&Action::RoleChange) {
            return contradiction(
                "[approval] actions needs \"role.change\": without it one operator issues a \
                 second certificate to himself, and approves with that"
                    .into(),
            );
        }
        let mut profiles = self.issuer.profiles.values();
        let may_approve = |role| matches!(role, Role::Operator | Role::Approver);
        if !profiles.any(|it| may_approve(it.role)) {
            return contradiction(
                "[approval] needs a [[profile]] with role \"approver\" or \"operator\": nothing \
                 else can approve"
                    .into(),
            );
        }
        Ok(())
    }

    fn check_ocsp(&self) -> Result<(), ConfigurationError> {
        let unknown = |it: &&String| !self.issuer.authorities.contains_key(*it);
        let mut answered = self.issuer.ocsp.authorities.iter();
        match answered.find(unknown) {
            None => Ok(()),
            Some(authority) => contradiction(format!(
                "[ocsp] authorities has {authority:?}, and there is no such [[authority]]"
            )),
        }
    }

    fn check_audit(&self) -> Result<(), ConfigurationError> {
        match &self.issuer.audit.checkpoints {
            Some(it) if !self.tokens.contains_key(&it.token) => contradiction(format!(
                "[audit] checkpoints are signed by token {:?}, and there is no such [[token]]",
                it.token
            )),
            _ => Ok(()),
        }
    }

    fn check_profiles(&self) -> Result<(), ConfigurationError> {
        for profile in self.issuer.profiles.values() {
            if !self.issuer.authorities.contains_key(&profile.authority) {
                return contradiction(format!(
                    "profile {:?} is issued by authority {:?}, and there is no such [[authority]]",
                    profile.name, profile.authority
                ));
            }
            if let Err(problem) = profile.check() {
                return contradiction(format!("profile {:?}: {problem}", profile.name));
            }
        }
        Ok(())
    }

    fn check_subordinate_profiles(&self) -> Result<(), ConfigurationError> {
        for (name, profile) in &self.issuer.subordinate_profiles {
            let refuse =
                |why: String| contradiction(format!("subordinate_profile {name:?}: {why}"));
            if self.issuer.profiles.contains_key(name) {
                return refuse("a [[profile]] has this name; choose another one".into());
            }
            let authority = profile.authority.as_ref();
            if let Some(unknown) = authority.filter(|it| !self.issuer.authorities.contains_key(*it))
            {
                return refuse(format!("there is no [[authority]] {unknown:?}"));
            }
            if let Err(problem) = profile.check() {
                return refuse(problem);
            }
        }
        Ok(())
    }

    fn check_provisioning(&self) -> Result<(), ConfigurationError> {
        for (name, service) in &self.provisioning {
            let unknown = |it: &&String| !self.issuer.authorities.contains_key(*it);
            if let Some(authority) = service.verified.iter().find(unknown) {
                return contradiction(format!(
                    "provisioning {name:?} is to verify authority {authority:?}, and there is no \
                     such [[authority]]"
                ));
            }
            self.check_credential_keys(name, service)?;
        }
        Ok(())
    }

    fn check_sockets(&self) -> Result<(), ConfigurationError> {
        let refused =
            |it: socket_path::SocketPathInvalid| ConfigurationError::Contradiction(it.to_string());
        let admin = "[listen] admin, or runtime_dir (by default state_dir)";
        socket_path::check(&self.admin, admin).map_err(refused)?;
        for name in self.tokens.keys() {
            let setting = "runtime_dir (by default state_dir), or the token's name";
            socket_path::check(&self.worker_socket(name), setting).map_err(refused)?;
        }
        Ok(())
    }

    fn check_failover(&self) -> Result<(), ConfigurationError> {
        for (authority, tokens) in &self.issuer.failover.also_on {
            let own = self.issuer.authorities.get(authority);
            for token in tokens {
                let known = self.tokens.get(token);
                let keeps_keys = known.is_some_and(|it| it.interface.family().is_some());
                if !keeps_keys || Some(token) == own {
                    return contradiction(format!(
                        "authority {authority:?} is also on token {token:?}; name another \
                         [[token]] that holds the same key; a TPM cannot"
                    ));
                }
            }
        }
        for (authority, standby) in &self.issuer.failover.standby {
            if !self.issuer.authorities.contains_key(standby) || standby == authority {
                return contradiction(format!(
                    "authority {authority:?} has the standby {standby:?}; name another \
                     [[authority]]"
                ));
            }
        }
        Ok(())
    }

    /// Published files have the name of the authority, or its name and the number of a generation.
    fn check_authority_name(&self, name: &str) -> Result<(), ConfigurationError> {
        let number = |rest: &str| rest.strip_prefix('-')?.parse::<u32>().ok();
        let namesake = self
            .issuer
            .authorities
            .keys()
            .find(|other| name.strip_prefix(other.as_str()).and_then(number).is_some());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let fits = (1..=AUTHORITY_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
        // Delta lists and partitions are published under the name with such an ending.
        let last = name.rsplit_once('.').map_or("", |(_, last)| last);
        let digits = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
        let is_partition = last
            .split_once("of")
            .is_some_and(|(part, count)| digits(part) && digits(count));
        let is_list = last == "delta" || is_partition;
        let problem = match (fits, namesake) {
            _ if is_list => "that would also be one of its lists; rename it".to_owned(),
            (false, _) => "give 1 to 64 letters, digits and - _ .".to_owned(),
            (_, Some(other)) => format!("that would also be a generation of {other:?}; rename one"),
            _ => return Ok(()),
        };
        contradiction(format!("authority {name:?} cannot be called so: {problem}"))
    }

    fn check_credential_keys(
        &self,
        name: &str,
        service: &Provisioning,
    ) -> Result<(), ConfigurationError> {
        for (token, key) in service.token_keys() {
            let problem = match (self.tokens.contains_key(token), label(key)) {
                (false, _) => format!("token {token:?}, and there is no such [[token]]"),
                (_, None) => format!("key {key:?}; give 1 to 64 letters, digits and - _ ."),
                _ => continue,
            };
            return contradiction(format!(
                "a credential of provisioning {name:?} names {problem}"
            ));
        }
        Ok(())
    }

    fn check_est_profile(&self) -> Result<(), ConfigurationError> {
        match &self.est.profile {
            Some(name) if !self.issuer.profiles.contains_key(name) => contradiction(format!(
                "[listen] est_profile is {name:?}, and there is no such [[profile]]"
            )),
            _ => Ok(()),
        }
    }

    fn check_https(&self) -> Result<(), ConfigurationError> {
        let Some(https) = &self.https else {
            return Ok(());
        };
        match self.issuer.profiles.get(&https.profile) {
            Some(profile) if profile.certificate.longest_seconds().is_none() => {
                contradiction(format!(
                    "[listen] profile {:?} has a fixed end, and the daemon renews its certificate \
                     by itself; set validity in place of not_after",
                    https.profile
                ))
            }
            Some(profile)
                if (profile.certificate.places()).any(|it| matches!(it, Place::Csr(_))) =>
            {
                contradiction(format!(
                    "[listen] profile {:?} takes attributes of the CSR ({{csr.…}}), and the \
                     daemon's own CSR has none; remove them, or name another profile",
                    https.profile
                ))
            }
            Some(profile) if profile.role != Role::Server => contradiction(format!(
                "[listen] profile {:?} must have role \"server\"",
                https.profile
            )),
            Some(profile)
                if ![NameKind::Dns, NameKind::Ip]
                    .into_iter()
                    .all(|it| profile.certificate.subject_alternative_names.takes(it)) =>
            {
                contradiction(format!(
                    "[listen] profile {:?} must have subject_alternative_names = \"dns_and_ip\": \
                     clients look for the listener's names there, and nowhere else",
                    https.profile
                ))
            }
            Some(_) => Ok(()),
            None => contradiction(format!(
                "[listen] names profile {:?}, and there is no such [[profile]]",
                https.profile
            )),
        }
    }
}

fn contradiction(message: String) -> Result<(), ConfigurationError> {
    Err(ConfigurationError::Contradiction(message))
}
