//! Names that clients choose, parsed once and limited here.
//!
//! Everything that becomes a key of the world passes one of these functions first.

/// Longest registration id or enrollment group id (contract section 6).
pub(crate) const ID_LENGTH_MAX: usize = 128;
/// Longest name of a CA certificate (contract section 11).
pub(crate) const CA_NAME_LENGTH_MAX: usize = 256;

/// Whether `id` may name a device or a group (contract section 6).
///
/// The pages say: alphanumerics and `- . _ :`, the last one alphanumeric or `-`. The API
/// description also forbids a special character in front; `strict_start` chooses that reading.
pub(crate) fn is_registration_id(id: &str, strict_start: bool) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    let last_fits = id.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
    let first_fits = !strict_start || id.starts_with(|c: char| c.is_ascii_alphanumeric());
    id.len() <= ID_LENGTH_MAX && id.chars().all(allowed) && last_fits && first_fits
}

/// Whether `name` may name a CA certificate (contract section 11).
pub(crate) fn is_ca_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !name.is_empty() && name.len() <= CA_NAME_LENGTH_MAX && name.chars().all(allowed)
}

/// Whether `id` may name a device of the hub: 1 to 128 of the characters that the hub's pages list.
pub(crate) fn is_hub_device_id(id: &str) -> bool {
    let special = "-.+%_#*?!(),:=@$'";
    let allowed = |c: char| c.is_ascii_alphanumeric() || special.contains(c);
    !id.is_empty() && id.len() <= ID_LENGTH_MAX && id.chars().all(allowed)
}

/// The key under which an id is stored: ids are compared without regard to case.
pub(crate) fn key(id: &str) -> String {
    id.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_contracts_examples() {
        assert!(is_registration_id("line-4.press_07:a-", false));
        assert!(!is_registration_id("", false));
        assert!(!is_registration_id("press.", false));
        assert!(!is_registration_id("press 7", false));
        assert!(!is_registration_id("pressé", false));
        assert!(is_registration_id(&"a".repeat(128), false));
        assert!(!is_registration_id(&"a".repeat(129), false));
        assert!(is_registration_id("-press", false));
        assert!(!is_registration_id("-press", true));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,300}") {
            let _ = is_registration_id(&text, true);
            let _ = is_ca_name(&text);
            let _ = is_hub_device_id(&text);
        }

        #[test]
        fn an_accepted_id_fits_the_published_pattern(text in "[A-Za-z0-9\\-._:]{0,130}") {
            let fits = text.len() <= 128
                && text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
            prop_assert_eq!(is_registration_id(&text, false), fits);
        }
    }
}
