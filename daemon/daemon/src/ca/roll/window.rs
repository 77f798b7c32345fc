//! The signing window: an authority stops signing leaves in time for them to end before it does.
//!
//! When the window nears its end that is an alarm, and by policy the daemon starts the roll itself.

use super::{AuthorityDetail, Rollovers, canary};
use crate::ca::Error;
use crate::ca::alarm::{Alarm, AlarmCode, unreadable};
use crate::ca::authority_policy::outlives;
use crate::ca::authorize::Caller;
use crate::ca::hierarchy::Generation;
use crate::enrollment::roll::RollReason;
use crate::unix_seconds::UnixSeconds;
use serde_json::{Value, json};
use std::sync::Arc;

impl Rollovers {
    /// When `generation` stops signing leaves, in Unix seconds.
    pub fn window_end(&self, generation: &Generation) -> UnixSeconds {
        let policy = &self.authority_policy;
        policy.window_end(generation, self.issuer.profiles().values())
    }

    /// Generations that serve and near the end of their window, with no roll under way.
    fn near_their_end(&self) -> Result<Vec<Arc<Generation>>, Error> {
        let now = self.issuer.now();
        let hierarchy = self.issuer.hierarchy();
        let serving = hierarchy.iter().filter(|it| it.serving);
        let near: Vec<_> = serving
            .filter(|it| now >= self.notice_begins(it))
            .cloned()
            .collect();
        let mut without_roll = Vec::new();
        for generation in near {
            if self
                .store
                .open_authority_roll(&generation.authority)?
                .is_none()
            {
                without_roll.push(generation);
            }
        }
        Ok(without_roll)
    }

    /// Short-lived ones are not near their end from the beginning.
    fn notice_begins(&self, generation: &Generation) -> UnixSeconds {
        let end = self.window_end(generation);
        let quarter = (end - generation.certified_at).max(0) / 4;
        end - self.authority_policy.notice_seconds.min(quarter)
    }

    /// Windows that near their end, and canaries that were refused, in words.
    pub(in crate::ca) fn authority_alarms(&self) -> Vec<Alarm> {
        let windows = self.window_alarms();
        let rolls = self.roll_alarms();
        // An unreadable rollover is reported with the others, and hides none of them.
        let judged = [windows, rolls].into_iter().map(|alarms| {
            alarms.unwrap_or_else(|error| vec![unreadable("not everything can be judged", &error)])
        });
        let others = [
            self.outliving_alarms(),
            self.ceremonies.pending_alarms(),
            self.issuer.constraint_alarms(),
        ];
        judged.chain(others).flatten().collect()
    }

    fn window_alarms(&self) -> Result<Vec<Alarm>, Error> {
        let near = self.near_their_end()?;
        Ok(near
            .iter()
            .map(|it| {
                let authority = &it.authority;
                let until = self.window_end(it).to_string();
                let none = AuthorityDetail::default();
                let obstacle = self.check_certificate(it, &none, RollReason::Expiry).err();
                let but = obstacle.map_or(String::new(), |it| format!("; but {}", it.message));
                let text = format!(
                    "authority {authority} signs leaves until {until}: `hallmark roll start \
                     --authority {authority} --reason expiry`{but}"
                );
                let parameters = json!({ "authority": authority, "until": until });
                Alarm::new(AlarmCode::SigningWindowEnds, parameters, text)
            })
            .collect())
    }

    /// Profiles whose fixed end is later than that of their authority.
    fn outliving_alarms(&self) -> Vec<Alarm> {
        let hierarchy = self.issuer.hierarchy();
        let profiles = self.issuer.profiles().values();
        profiles
            .filter_map(|profile| {
                let serving = hierarchy.serving(&profile.authority)?;
                outlives(profile, serving).then_some((profile, serving))
            })
            .map(|(profile, serving)| {
                let name = &profile.name;
                let authority = &serving.authority;
                let end = serving.certificate.not_after().to_string();
                let text = format!(
                    "profile {name:?} issues nothing: its not_after is later than the end of \
                     authority {authority}, {end}: set an earlier one and reload, or roll the \
                     authority"
                );
                let parameters = json!({ "profile": name, "authority": authority, "until": end });
                Alarm::new(AlarmCode::ProfileOutlivesAuthority, parameters, text)
            })
            .collect()
    }

    fn roll_alarms(&self) -> Result<Vec<Alarm>, Error> {
        let mut alarms = Vec::new();
        for roll in self.store.open_authority_rolls()? {
            let id = roll.id;
            let name = roll.subject.name();
            let mut raise = |code, mut parameters: Value, text: String| {
                parameters["roll"] = json!(id);
                parameters["authority"] = json!(name);
                alarms.push(Alarm::new(code, parameters, text));
            };
            let detail = match AuthorityDetail::of(&roll) {
                Ok(detail) => detail,
                Err(error) => {
                    let text = format!(
                        "roll {id} of {name} goes no further: {error}; this version cannot read \
                         what is on record of it, so run the version that wrote it, or abort the \
                         roll"
                    );
                    let parameters = json!({ "reason": error.message });
                    raise(AlarmCode::RolloverUnreadable, parameters, text);
                    continue;
                }
            };
            self.raise_canary_alarms(&detail, &format!("roll {id} of {name}"), &mut raise);
            if let Some(failure) = detail.failure {
                let text = format!("roll {id} of {name}: it goes no further: {failure}");
                let parameters = json!({ "reason": failure });
                raise(AlarmCode::RolloverFailed, parameters, text);
            }
        }
        Ok(alarms)
    }

    /// Raises an alarm for each canary that was refused, or could not be tried for a while.
    fn raise_canary_alarms(
        &self,
        detail: &AuthorityDetail,
        roll: &str,
        raise: &mut impl FnMut(AlarmCode, Value, String),
    ) {
        for (service, reason) in detail.refused_canaries() {
            let text = format!("{roll}: the canary was refused at {service}: {reason}");
            let parameters = json!({ "provisioning": service, "reason": reason });
            raise(AlarmCode::CanaryRefused, parameters, text);
        }
        let late = self.issuer.now() - canary::ALARM_SECONDS;
        for (service, failure) in &detail.canary_failures {
            if failure.since > late {
                continue;
            }
            let reason = &failure.reason;
            let since = failure.since.to_string();
            let text = format!(
                "{roll}: the canary could not be tried at {service} since {since}: {reason}"
            );
            let parameters = json!({ "provisioning": service, "reason": reason, "since": since });
            raise(AlarmCode::CanaryNotTried, parameters, text);
        }
    }

    /// By policy, starts the rolls of authorities whose window nears its end. Returns when the next
    /// one does, in Unix seconds.
    pub(super) fn roll_due_authorities(&self) -> Result<Option<UnixSeconds>, Error> {
        if !self.authority_policy.start {
            return Ok(None);
        }
        for generation in self.near_their_end()? {
            let name = &generation.authority;
            let detail = AuthorityDetail::default();
            if let Err(error) = self.begin_authority_roll(&Caller::Daemon, name, &detail, None) {
                tracing::warn!(
                    authority = name,
                    code = error.code.name(),
                    %error,
                    "rollover not started, retrying",
                );
            }
        }
        let now = self.issuer.now();
        let hierarchy = self.issuer.hierarchy();
        let serving = hierarchy.iter().filter(|it| it.serving);
        Ok(serving
            .map(|it| self.notice_begins(it))
            .filter(|begins| *begins > now)
            .min())
    }
}
