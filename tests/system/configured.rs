//! Writes tables of a configuration: profiles and stations.

/// A `[[profile]]` table for leaves of TLS clients with P-256 keys, valid for `validity`.
pub(crate) struct Profile<'a> {
    pub(crate) name: &'a str,
    pub(crate) authority: &'a str,
    pub(crate) role: &'a str,
    pub(crate) validity: &'a str,
    /// Further lines of the table.
    pub(crate) more: &'a str,
}

impl Profile<'_> {
    pub(crate) fn toml(&self) -> String {
        let Self {
            name,
            authority,
            role,
            validity,
            more,
        } = self;
        format!(
            r#"
[[profile]]
name = "{name}"
authority = "{authority}"
role = "{role}"
{more}
[profile.certificate]
kind = "leaf"
validity = "{validity}"
key_types = ["p256"]
key_usage = ["digital_signature"]
extended_key_usage = ["client_auth"]
"#
        )
    }
}

/// A `[[profile]]` table for devices below `authority`, whose leaves are valid for `validity`.
pub(crate) fn device_profile(name: &str, authority: &str, validity: &str) -> String {
    let role = "device";
    let more = "";
    Profile {
        name,
        authority,
        role,
        validity,
        more,
    }
    .toml()
}

pub(crate) fn station_table(name: &str, profiles: &[&str], ids: &[&str]) -> String {
    format!("\n[[station]]\nname = \"{name}\"\nprofiles = {profiles:?}\nids = {ids:?}\n")
}
