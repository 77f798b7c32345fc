//! Says on which day certificates end, by profile and authority.

use super::{CertificateAuthority, Error};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// How far it looks ahead.
const DAYS: i64 = 90;
const DAY_SECONDS: i64 = 86_400;

/// The current certificates of a profile and authority that end on one day.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Ends {
    /// Days from now, 0 for the next 24 hours.
    pub day: i64,
    pub profile: String,
    /// The authority that signed them; for others than devices, that of the profile.
    pub authority: String,
    pub certificates: i64,
}

impl CertificateAuthority {
    /// Counts the current certificates that end in the next 90 days. A certificate that was renewed
    /// or revoked is not counted.
    pub fn ends(&self) -> Result<Vec<Ends>, Error> {
        let now = self.now();
        let hierarchy = self.hierarchy();
        let mut counts: BTreeMap<(i64, String, String), i64> = BTreeMap::new();
        for profile in self.store.registered_profiles()? {
            for ends in self.store.ends_by_day(&profile, now, DAYS)? {
                let issuer = hierarchy.generation(ends.issuer);
                let authority = issuer.map_or_else(String::new, |it| it.authority.clone());
                let key = (ends.day, profile.clone(), authority);
                *counts.entry(key).or_default() += ends.devices;
            }
        }
        for leaf in self.store.current_leaves_of_others(now)? {
            let day = (leaf.not_after.seconds_since(now) - 1) / DAY_SECONDS;
            if day >= DAYS {
                continue;
            }
            let profile = self.issuer.profiles().get(&leaf.profile);
            let authority = profile.map_or_else(String::new, |it| it.authority.clone());
            *counts.entry((day, leaf.profile, authority)).or_default() += 1;
        }
        let ends = |((day, profile, authority), certificates)| Ends {
            day,
            profile,
            authority,
            certificates,
        };
        Ok(counts.into_iter().map(ends).collect())
    }
}
