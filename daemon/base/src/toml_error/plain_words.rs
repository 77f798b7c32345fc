//! Says in an operator's words why a document does not have the form that is read.
//!
//! The messages of serde name types of this program ("expected struct Ask"). They have few forms,
//! and each has another wording here; a message of our own passes unchanged.

/// Returns the message of serde in plain words.
pub fn plain(message: &str) -> String {
    let message = message.trim();
    let name_and_known = |rest: &str, what: &str| {
        let (name, known) = rest.split_once(", ")?;
        Some(match known.strip_prefix("expected ") {
            Some(known) => {
                let known = known.trim_start_matches("one of ").replace(" or ", ", ");
                format!("{name} {what}; possible here: {known}")
            }
            None => format!("{name} {what}; nothing is possible here"),
        })
    };
    let found_and_wanted = |rest: &str| {
        let (found, wanted) = rest.rsplit_once(", expected ")?;
        Some(format!(
            "{} is needed here, not {}",
            wanted_words(wanted),
            found_words(found)
        ))
    };
    let said = |start: &str| message.strip_prefix(start);
    let words = said("unknown field ")
        .and_then(|rest| name_and_known(rest, "is not known"))
        .or_else(|| said("unknown variant ").and_then(|it| name_and_known(it, "is not possible")))
        .or_else(|| said("missing field ").map(|name| format!("{name} is missing")))
        .or_else(|| said("duplicate field ").map(|name| format!("{name} is given twice")))
        .or_else(|| said("invalid type: ").and_then(found_and_wanted))
        .or_else(|| said("invalid value: ").and_then(found_and_wanted))
        .or_else(|| {
            said("invalid length ").and_then(|it| found_and_wanted(&format!("a list of {it}")))
        });
    words.unwrap_or_else(|| match message {
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            "a whole number is needed here".into()
        }
        "invalid socket address syntax" => {
            "an address and a port are needed here, as in 0.0.0.0:8443 or [::]:8443".into()
        }
        "number too large to fit in target type" => "the number is too large".into(),
        "number too small to fit in target type" => "the number is too small".into(),
        "provided string was not `true` or `false`" => "`true` or `false` is needed here".into(),
        _ if message.starts_with("data did not match any variant of untagged enum") => {
            "this has none of the forms that are possible here".into()
        }
        other => other.to_owned(),
    })
}

fn wanted_words(wanted: &str) -> String {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 on".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a string" | "str" | "string" => "a text in quotes".into(),
        "a boolean" => "`true` or `false`".into(),
        "a sequence" => "a list".into(),
        "a map" => "a group of names and values".into(),
        _ if wanted.starts_with("struct ") || wanted.starts_with("internally tagged enum") => {
            "a group of names and values".into()
        }
        _ if wanted.starts_with("enum ") || wanted == "variant identifier" => {
            "one of the possible names".into()
        }
        other => other.to_owned(),
    }
}

fn found_words(found: &str) -> String {
    let found = found.trim();
    match found {
        "map" => "a group of names and values".into(),
        "sequence" => "a list".into(),
        "null" | "unit value" | "Option value" => "nothing".into(),
        _ => found
            .replace("floating point", "the number")
            .replace("integer", "the number")
            .replace("string", "the text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Form {
        #[serde(rename = "name")]
        _name: String,
        #[serde(rename = "count")]
        _count: u32,
        #[serde(rename = "kind", default)]
        _kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Device,
        Group,
    }

    #[test]
    fn each_form_of_a_message_has_plain_words() {
        for (text, words) in [
            ("name = 'a'", "`count` is missing"),
            (
                "nam = 'a'",
                "`nam` is not known; possible here: `name`, `count`, `kind`",
            ),
            (
                "name = 5",
                "a text in quotes is needed here, not the number `5`",
            ),
            (
                "name = 'a'\ncount = 'x'",
                "a whole number from 0 on is needed here, not the text \"x\"",
            ),
            (
                "name = 'a'\ncount = 1\nkind = 'x'",
                "`x` is not possible; possible here: `device`, `group`",
            ),
        ] {
            let error = toml::from_str::<Form>(text).expect_err(text);
            assert_eq!(plain(error.message()), words);
        }
        assert_eq!(
            plain("write one authority or several"),
            "write one authority or several"
        );
    }
}
