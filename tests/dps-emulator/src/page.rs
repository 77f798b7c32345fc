//! One page of a long answer, and the way to the next one (contract sections 7 and 12).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::ids;
use crate::wire::{Call, Reply};

/// Most items on a page.
const PAGE_SIZE_MAX: usize = 1000;

/// Which part of the answer a client wants.
#[derive(Debug)]
pub(crate) struct Page {
    /// Items after this key; keys are never empty, so the empty one is before all.
    pub(crate) after: String,
    size: usize,
}

impl Page {
    /// From the headers of a call, or what is wrong with them.
    pub(crate) fn read(call: &Call, size_default: usize) -> Result<Self, &'static str> {
        let size = match call.header("x-ms-max-item-count") {
            None => size_default,
            Some(text) => page_size(text)?,
        };
        let after = match call.header("x-ms-continuation") {
            None | Some("") => String::new(),
            Some(token) => continuation(token)?,
        };
        Ok(Self { after, size })
    }

    /// One page of `items`, and the way to the next one if there is one.
    pub(crate) fn answer(
        &self,
        items: impl Iterator<Item = (String, Value)>,
        item_type: &str,
    ) -> Reply {
        let mut page: Vec<(String, Value)> = items.take(self.size + 1).collect();
        let is_last = page.len() <= self.size;
        page.truncate(self.size);
        let next = page
            .last()
            .filter(|_| !is_last)
            .map(|(key, _)| URL_SAFE_NO_PAD.encode(key));
        let values: Vec<Value> = page.into_iter().map(|(_, value)| value).collect();
        let reply = Reply::json(200, values)
            .with("x-ms-item-type", item_type)
            .with("x-ms-max-item-count", self.size.to_string());
        match next {
            Some(token) => reply.with("x-ms-continuation", token),
            None => reply,
        }
    }
}

/// Azure documents no greatest page; a greater wish gets [`PAGE_SIZE_MAX`], as a service would do
/// it.
fn page_size(text: &str) -> Result<usize, &'static str> {
    match text.parse::<usize>() {
        Ok(size) if size > 0 => Ok(size.min(PAGE_SIZE_MAX)),
        _ => Err("x-ms-max-item-count must be a positive number"),
    }
}

fn continuation(token: &str) -> Result<String, &'static str> {
    const UNKNOWN: &str = "x-ms-continuation is not a token of this service";
    if token.len() > 2 * ids::ID_LENGTH_MAX {
        return Err(UNKNOWN);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| UNKNOWN)?;
    String::from_utf8(bytes).map_err(|_| UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,300}") {
            let _ = page_size(&text);
            let _ = continuation(&text);
        }

        #[test]
        fn pages_give_every_item_once(count in 0usize..40, size in 1usize..12) {
            let items: Vec<String> = (0..count).map(|n| format!("d{n:03}")).collect();
            let mut seen = Vec::new();
            let mut after = String::new();
            loop {
                let page = Page { after: after.clone(), size };
                let rest = items.iter().filter(|key| **key > after);
                let rest = rest.map(|key| (key.clone(), Value::from(key.as_str())));
                let reply = page.answer(rest, "t");
                let body = reply.body.clone().unwrap();
                let keys = body.as_array().unwrap().iter();
                seen.extend(keys.map(|v| v.as_str().unwrap().to_owned()));
                match reply.headers.iter().find(|(name, _)| *name == "x-ms-continuation") {
                    Some((_, token)) => after = continuation(token).unwrap(),
                    None => break,
                }
            }
            prop_assert_eq!(seen, items);
        }
    }
}
