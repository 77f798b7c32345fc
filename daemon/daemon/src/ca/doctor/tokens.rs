//! Checks tokens: whether they are ready, their flags about the PIN, and the key of each authority.

use super::Visit;
use super::check::Check;
use super::finding::Finding;
use crate::ca::hierarchy::Generation;
use crate::ca::issuer::IssuerSettings;
use crate::token::TokenError;
use crate::token::client::{LOOKUP_DEADLINE, TokenClient};
use crate::token::health::TokenState;
use crate::token::inventory::remark;
use std::time::Duration;

/// How long the flags of a token may take to be read.
const FLAGS_DEADLINE: Duration = Duration::from_secs(20);

impl Visit<'_> {
    fn clients(&self) -> impl Iterator<Item = (&String, &TokenClient)> {
        self.ca
            .issuer()
            .tokens()
            .iter()
            .map(|(name, token)| (name, &token.client))
    }

    pub(super) fn tokens(&self) -> Vec<Finding> {
        self.clients().map(|(name, it)| token(name, it)).collect()
    }

    pub(super) fn pins(&self) -> Vec<Finding> {
        self.clients().map(|(name, it)| pin(name, it)).collect()
    }

    pub(super) fn keys(&self) -> Vec<Finding> {
        let issuer = self.ca.issuer();
        let client = |name: &str| issuer.tokens().get(name).map(|it| &it.client);
        let mut findings: Vec<Finding> = Vec::new();
        for generation in self.ca.hierarchy().iter().filter(|it| it.serving) {
            findings.push(key(issuer.settings(), generation, client));
        }
        if findings.is_empty() {
            let text = "no ceremony has been run yet";
            return vec![Finding::not_applicable(Check::Keys, text)];
        }
        findings
    }
}

/// Judges whether a token is there, from the health that its worker has reported.
pub fn token(name: &str, client: &TokenClient) -> Finding {
    let health = client.health();
    let finding = match health.state {
        TokenState::Ready if health.reason.is_empty() => match client.describe(LOOKUP_DEADLINE) {
            Ok(it) => Finding::ok(
                Check::Tokens,
                format!(
                    "{} {}, label {:?}, serial {}",
                    it.manufacturer, it.model, it.label, it.serial
                ),
            ),
            Err(error) => Finding::failed(Check::Tokens, error.to_string()),
        },
        TokenState::Ready => {
            Finding::attention(Check::Tokens, format!("it works, but {}", health.reason))
        }
        state => Finding::failed(
            Check::Tokens,
            format!("{}: {}", state.name(), health.reason),
        ),
    };
    finding.of(name)
}

/// Judges the token's flags about its PIN. A parked token was refused its PIN.
pub fn pin(name: &str, client: &TokenClient) -> Finding {
    let check = Check::Pin;
    let health = client.health();
    let finding = match health.state {
        TokenState::Ready => match client.inventory(FLAGS_DEADLINE) {
            Ok(inventory) => flags(&inventory.remarks),
            // A TPM in lockout, or a token that lists no objects, has no flags to judge.
            Err(TokenError::Refused { reason, .. }) => Finding::not_applicable(check, reason),
            Err(error) => Finding::failed(check, error.to_string()),
        },
        TokenState::Parked => Finding::failed(check, health.reason),
        state => Finding::not_applicable(check, format!("the token is {}", state.name())),
    };
    finding.of(name)
}

fn flags(remarks: &[String]) -> Finding {
    let has = |flag: &&&str| remarks.iter().any(|it| it == **flag);
    let locked = [remark::PIN_LOCKED, remark::PIN_LAST_TRY];
    if let Some(flag) = locked.iter().find(has) {
        return Finding::failed(Check::Pin, format!("the token reports: {flag}"));
    }
    let doubtful = [remark::WRONG_PIN_TRIED, remark::PIN_MUST_CHANGE];
    if let Some(flag) = doubtful.iter().find(has) {
        return Finding::attention(Check::Pin, format!("the token reports: {flag}"));
    }
    Finding::ok(
        Check::Pin,
        "the login works, and the token reports no refused PIN",
    )
}

/// Has the key of a serving generation sign a test message, on each token that is to hold it. The
/// signature is verified with the public key of the generation's certificate.
pub fn key<'a>(
    settings: &IssuerSettings,
    generation: &Generation,
    client: impl Fn(&str) -> Option<&'a TokenClient>,
) -> Finding {
    let signs = |name: &str| {
        let client = client(name).filter(|it| it.out_for().is_none());
        let Some(client) = client else {
            return Err(format!(
                "token {name} is not ready, so its key was not looked for"
            ));
        };
        let found = client.find(&generation.key, LOOKUP_DEADLINE);
        let signed = found.and_then(|key| client.prove(&key, LOOKUP_DEADLINE));
        signed.map_err(|error| error.to_string())
    };
    let also_on = settings.failover.also_on.get(&generation.authority);
    let judged = match settings.misplaced(&generation.authority, &generation.token) {
        Some(problem) => Err(problem),
        None => signs(&generation.token).and_then(|()| {
            also_on.into_iter().flatten().try_for_each(|name| {
                signs(name).map_err(|error| {
                    format!("its key is also on token {name}, as is said, but: {error}")
                })
            })
        }),
    };
    let subject = generation.certificate.subject();
    let judged =
        judged.map(|()| format!("its certificate verifies, and its key signs ({subject})"));
    Finding::from_result(Check::Keys, judged).of(format!("authority {}", generation.authority))
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn each_flag_has_its_verdict() {
        for (flag, verdict) in [
            ("PIN set", Verdict::Ok),
            ("login required", Verdict::Ok),
            (remark::WRONG_PIN_TRIED, Verdict::Attention),
            (remark::PIN_MUST_CHANGE, Verdict::Attention),
            (remark::PIN_LAST_TRY, Verdict::Failed),
            (remark::PIN_LOCKED, Verdict::Failed),
        ] {
            let remarks = ["PIN set".to_owned(), flag.to_owned()];
            assert_eq!(flags(&remarks).verdict, verdict, "{flag}");
        }
    }
}
