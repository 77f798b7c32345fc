//! Station policy: which devices a station may ask for, and by which profiles.
//!
//! Judges each request of a station by the `[[station]]` tables of the configuration. A station
//! that no table names may ask for nothing. Tables add up: a request is allowed if one table that
//! names the station lists the profile and covers the registration id. A table cannot take away
//! what another one allows.

use super::profile::{IssuanceProfile, Role};
use super::{Code, Error};
use crate::enrollment::pattern::NamePattern;
use crate::store::Moves;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// How many tables there may be, and how many entries a list of one: each request of a station
/// looks through them.
const ENTRIES_MAX: usize = 1_024;

/// A `[[station]]` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Table")]
pub struct StationRule {
    /// The pattern of common names, as it is written.
    pub name: String,
    stations: NamePattern,
    profiles: BTreeSet<String>,
    ids: Vec<NamePattern>,
    authorities: Option<BTreeSet<String>>,
    may_move: bool,
}

/// The `[[station]]` table as written, before it is checked.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Common names of stations.
    name: String,
    /// Profiles of devices that these may ask for.
    profiles: Vec<String>,
    /// Registration ids that these may ask for.
    ids: Vec<String>,
    /// The authorities that issue by these profiles; any other one is refused when this is read.
    authorities: Option<Vec<String>>,
    /// Whether these may give a registered device another of their profiles.
    #[serde(default)]
    may_move: bool,
}

impl JsonSchema for StationRule {
    fn schema_name() -> Cow<'static, str> {
        Table::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Table::json_schema(generator)
    }
}

impl TryFrom<Table> for StationRule {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        let of_table = |problem: String| format!("station {:?}: {problem}", table.name);
        let stations = NamePattern::parse(&table.name).map_err(|it| of_table(it.to_string()))?;
        let ids = table.ids.iter().map(|id| NamePattern::parse(id));
        let ids: Vec<_> = ids
            .collect::<Result<_, _>>()
            .map_err(|it| of_table(it.to_string()))?;
        distinct("ids", &ids).map_err(of_table)?;
        let profiles = distinct("profiles", &table.profiles).map_err(of_table)?;
        let authorities = table.authorities.as_deref();
        let authorities = authorities
            .map(|it| distinct("authorities", it))
            .transpose()
            .map_err(of_table)?;
        Ok(Self {
            name: table.name.clone(),
            stations,
            profiles,
            ids,
            authorities,
            may_move: table.may_move,
        })
    }
}

/// The entries of a list that has some, and none twice.
fn distinct<T: Clone + Ord>(list: &str, entries: &[T]) -> Result<BTreeSet<T>, String> {
    let distinct: BTreeSet<T> = entries.iter().cloned().collect();
    if entries.is_empty() {
        return Err(format!(
            "`{list}` is empty, so the table allows nothing; fill or remove it"
        ));
    }
    if entries.len() > ENTRIES_MAX {
        return Err(format!(
            "`{list}` has more than {ENTRIES_MAX} entries; use patterns"
        ));
    }
    if distinct.len() < entries.len() {
        return Err(format!("`{list}` has an entry twice; remove one"));
    }
    Ok(distinct)
}

/// All `[[station]]` tables, checked against the profiles.
#[derive(Clone, Debug, Default)]
pub struct StationPolicy {
    rules: Vec<StationRule>,
    /// The profiles by which devices are issued leaves.
    device_profiles: BTreeSet<String>,
}

impl StationPolicy {
    /// The policy of these tables, which have yet to pass [`Self::check`].
    pub fn new(rules: Vec<StationRule>, profiles: &BTreeMap<String, IssuanceProfile>) -> Self {
        let of_devices = profiles.values().filter(|it| it.role == Role::Device);
        Self {
            rules,
            device_profiles: of_devices.map(|it| it.name.clone()).collect(),
        }
    }

    /// Returns why the tables contradict the profiles, if they do.
    pub fn check(&self, profiles: &BTreeMap<String, IssuanceProfile>) -> Result<(), String> {
        let rules = &self.rules;
        if rules.len() > ENTRIES_MAX {
            return Err(format!(
                "there are more than {ENTRIES_MAX} [[station]]; use patterns"
            ));
        }
        for rule in rules {
            rule.check(profiles)
                .map_err(|problem| format!("station {:?} {problem}", rule.name))?;
        }
        Ok(())
    }

    /// Returns from which other profiles the device may be moved to this one, if `station` may ask
    /// for the device `id` by the device profile `profile` at all.
    pub(super) fn moves_to(&self, station: &str, profile: &str, id: &str) -> Result<Moves, Error> {
        let mut rules: Vec<_> = self.rules.iter().collect();
        rules.retain(|it| it.stations.covers(station));
        let refused = |code, problem: String| Err(Error::forbidden(code, problem));
        if rules.is_empty() {
            let problem = format!(
                "no [[station]] names station {station:?}, so it may ask for nothing; add one with \
                 its profiles and ids, and reload"
            );
            return refused(Code::StationNotBound, problem);
        }
        rules.retain(|it| it.profiles.contains(profile));
        if rules.is_empty() {
            let problem = format!(
                "no [[station]] lets station {station:?} use profile {profile:?}; ask by one of \
                 its profiles, or add this one and reload"
            );
            return refused(Code::StationProfileForbidden, problem);
        }
        rules.retain(|it| it.ids.iter().any(|ids| ids.covers(id)));
        if rules.is_empty() {
            let problem = format!(
                "no [[station]] lets station {station:?} ask for {id:?} by profile {profile:?}; \
                 ask at the station of that line, or add the id and reload"
            );
            return refused(Code::StationIdForbidden, problem);
        }
        Ok(self.moves(&rules))
    }

    /// From any profile that one of these tables lists, and from one that is no longer configured;
    /// never from that of another line.
    fn moves(&self, allowing: &[&StationRule]) -> Moves {
        let mut moving = allowing.iter().filter(|it| it.may_move).peekable();
        if moving.peek().is_none() {
            return Moves::Never;
        }
        let own: BTreeSet<_> = moving.flat_map(|it| &it.profiles).collect();
        let others = self.device_profiles.iter().filter(|it| !own.contains(it));
        Moves::NotFrom(others.cloned().collect())
    }
}

impl StationRule {
    fn check(&self, profiles: &BTreeMap<String, IssuanceProfile>) -> Result<(), String> {
        for name in &self.profiles {
            let Some(profile) = profiles.get(name) else {
                return Err(format!(
                    "lists profile {name:?}, and there is no such [[profile]]"
                ));
            };
            if profile.role != Role::Device {
                return Err(format!(
                    "lists profile {name:?}, which is for the role {:?}; stations ask for devices \
                     only",
                    profile.role.to_string()
                ));
            }
            let authorities = self.authorities.as_ref();
            if authorities.is_some_and(|it| !it.contains(&profile.authority)) {
                return Err(format!(
                    "lists profile {name:?} of authority {:?}, which is not in its authorities; \
                     add the authority or remove the profile",
                    profile.authority
                ));
            }
        }
        self.check_authorities(profiles)
    }

    fn check_authorities(
        &self,
        profiles: &BTreeMap<String, IssuanceProfile>,
    ) -> Result<(), String> {
        let used: BTreeSet<_> = self
            .profiles
            .iter()
            .filter_map(|it| Some(&profiles.get(it)?.authority))
            .collect();
        match self
            .authorities
            .iter()
            .flatten()
            .find(|it| !used.contains(it))
        {
            None => Ok(()),
            Some(unused) => Err(format!(
                "lists authority {unused:?}, and none of its profiles is issued by that; remove it"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::profile::Profile;

    const TABLE: &str = "name = \"line-*\"\nprofiles = [\"device\"]\nids = [\"press-*\"]\n";

    fn profiles() -> BTreeMap<String, IssuanceProfile> {
        let profile = |name: &str, authority: &str, role| IssuanceProfile {
            name: name.into(),
            authority: authority.into(),
            role,
            shared_keys: false,
            generate_keys: false,
            self_renewal: None,
            expiry_alarm: None,
            late_renewal: None,
            certificate: Profile::verification(),
        };
        let all = [
            profile("device", "line-1", Role::Device),
            profile("device-b", "line-2", Role::Device),
            profile("station", "operations", Role::Station),
        ];
        all.map(|it| (it.name.clone(), it)).into()
    }

    fn policy(tables: &[&str]) -> Result<StationPolicy, String> {
        let rules = tables.iter().map(|table| toml::from_str(table));
        let rules: Result<_, toml::de::Error> = rules.collect();
        let policy = StationPolicy::new(rules.map_err(|it| it.to_string())?, &profiles());
        policy.check(&profiles())?;
        Ok(policy)
    }

    fn code(policy: &StationPolicy, station: &str, profile: &str, id: &str) -> &'static str {
        let moves = policy.moves_to(station, profile, id);
        moves.map_or_else(|error| error.code.name(), |_| "allowed")
    }

    #[test]
    fn a_table_that_contradicts_itself_or_the_profiles_is_refused() {
        let long = format!("\"{}\"", "x".repeat(200));
        let many: Vec<_> = (0..=ENTRIES_MAX).map(|it| format!("\"p-{it}\"")).collect();
        let many = format!("[{}]", many.join(","));
        for (from, to, words) in [
            ("\"device\"", "", "`profiles` is empty"),
            ("\"press-*\"", "", "`ids` is empty"),
            ("\"device\"", "\"device\", \"device\"", "twice"),
            ("\"press-*\"", "\"a\", \"A\"", "twice"),
            ("\"device\"", "\"devise\"", "no such [[profile]]"),
            ("\"device\"", "\"station\"", "stations ask for devices only"),
            ("\"press-*\"", "\"press 7\"", "which no name has"),
            ("\"press-*\"", "\"\"", "a pattern is empty"),
            ("\"line-*\"", "\"\"", "a pattern is empty"),
            ("\"line-*\"", "\"line-[12]\"", "which no name has"),
            ("\"press-*\"", &long, "at most"),
            ("[\"press-*\"]", &many, "more than"),
            (
                "ids = ",
                "authorities = [\"line-2\"]\nids = ",
                "not in its authorities",
            ),
            (
                "ids = ",
                "authorities = []\nids = ",
                "`authorities` is empty",
            ),
            (
                "ids = ",
                "authorities = [\"line-1\", \"line-9\"]\nids = ",
                "none of its profiles is issued by that",
            ),
            ("ids = ", "role = \"x\"\nids = ", "unknown field `role`"),
            (
                "ids = ",
                "may_moves = true\nids = ",
                "unknown field `may_moves`",
            ),
            ("profiles = [\"device\"]", "", "missing field `profiles`"),
            ("ids = [\"press-*\"]", "", "missing field `ids`"),
            ("name = \"line-*\"", "", "missing field `name`"),
        ] {
            let refusal = policy(&[&TABLE.replacen(from, to, 1)]).unwrap_err();
            assert!(refusal.contains(words), "{from} → {to}: {refusal}");
        }
        assert!(policy(&[TABLE]).is_ok());
    }

    #[test]
    fn tables_add_up_and_what_none_of_them_says_is_refused() {
        let other = "name = \"line-2\"\nprofiles = [\"device-b\"]\nids = [\"saw-1\"]\n";
        let policy = policy(&[TABLE, other]).unwrap();
        for (station, profile, id, expected) in [
            ("line-1", "device", "press-7", "allowed"),
            ("LINE-1", "device", "PRESS-7", "allowed"),
            ("line-2", "device", "press-7", "allowed"),
            ("line-2", "device-b", "saw-1", "allowed"),
            ("line-2", "device-b", "press-7", "station_id_forbidden"),
            ("line-2", "device", "saw-1", "station_id_forbidden"),
            ("line-1", "device-b", "saw-1", "station_profile_forbidden"),
            ("xline-1", "device", "press-7", "station_not_bound"),
            ("", "device", "press-7", "station_not_bound"),
        ] {
            let found = code(&policy, station, profile, id);
            assert_eq!(found, expected, "{station} {profile} {id}");
        }
        let none = StationPolicy::default();
        assert_eq!(
            code(&none, "line-1", "device", "press-7"),
            "station_not_bound"
        );
    }

    #[test]
    fn a_table_moves_devices_from_its_own_profiles_only() {
        let moving = format!("{TABLE}may_move = true\n");
        let staying = TABLE
            .replace("press-*", "saw-*")
            .replace("line-*", "line-?");
        let policy = policy(&[&moving, &staying]).unwrap();
        let moves = |id: &str| policy.moves_to("line-1", "device", id).unwrap();
        assert_eq!(
            moves("press-7"),
            Moves::NotFrom(["device-b".to_owned()].into())
        );
        assert_eq!(moves("saw-7"), Moves::Never);
    }
}
