//! Writes the script of a ceremony with custodians, to be printed and followed.

use std::fmt::Write;
use std::path::Path;

/// The people and files of a ceremony.
pub(crate) struct Plan<'a> {
    /// The ceremony file, and its SHA-256 in hex.
    pub(crate) ceremony: &'a Path,
    pub(crate) sha256: &'a str,
    pub(crate) authorities: &'a [String],
    pub(crate) custodians: &'a [String],
    pub(crate) threshold: u8,
}

/// Returns the script: a text of steps, each with a place for a tick and a time, and a page for
/// signatures.
pub(crate) fn script(plan: &Plan<'_>) -> String {
    let Plan {
        ceremony,
        sha256,
        authorities,
        custodians,
        threshold,
    } = plan;
    let ceremony = ceremony.display();
    let mut text = format!(
        "CEREMONY BY {threshold} OF {} CUSTODIANS\n\n\
         Ceremony file: {ceremony}\nSHA-256:       {sha256}\nAuthorities:   {}\n\
         Date: ______________  Place: ______________________  Operator: ______________________\n\n\
         Each step is read aloud, done, ticked, and given its time. If a step fails: stop, write \
         down what is on the screen, and remove /run/hallmark-pin before anyone leaves.\n\n",
        custodians.len(),
        authorities.join(", "),
    );
    let first = format!("`sha256sum {ceremony}` prints the SHA-256 above.");
    let open = format!(
        "{threshold} custodians bring their shares, each on a medium of its own: `hallmark \
         custodian open --out /run/hallmark-pin SHARE …`, with `--identity FILE` for each \
         encrypted share. It names them."
    );
    let run = format!(
        "`hallmark ceremony run {ceremony} --transcript .` ends without an error, and `sha256sum \
         transcript.json` prints: ______________________________________________________"
    );
    let steps = [
        "The machine has no network: `ip -brief address` lists `lo` alone.",
        "`date -u` is right within a minute.",
        &first,
        &open,
        "`chgrp hallmark-token /run/hallmark-pin` and `chmod 640 /run/hallmark-pin`: the worker \
         has a user of its own.",
        "`systemctl start hallmarkd`, and `hallmark token list` shows the token as ready.",
        &run,
        "`hallmark authority list` shows the authorities above, and no other new one.",
        "`rm /run/hallmark-pin`, and `systemctl stop hallmarkd 'hallmark-token@*.socket' \
         'hallmark-token@*.service'`: a worker that goes on would stay logged in.",
        "`systemctl start hallmarkd`: `hallmark token list` shows the token as not ready. The \
         media go back to their custodians.",
        "Each person signs below, and the transcript by `openssl dgst -sha256 -sign KEY -out \
         NAME.sig transcript.json` if each has a key.",
    ];
    for (number, step) in (1..).zip(steps) {
        let _ = writeln!(text, "[ ] {number}. ____:____  {step}\n");
    }
    text.push_str("SIGNATURES: we saw these steps done, and the SHA-256 of step 7 is right.\n\n");
    let present = custodians.iter().map(String::as_str);
    for name in present.chain(["operator", "witness"]) {
        let _ = writeln!(
            text,
            "{name:<24} ______________________________  {:_<20}\n",
            ""
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_names_files_people_and_the_threshold() {
        let custodians = ["anna".to_owned(), "boris".to_owned(), "chen".to_owned()];
        let text = script(&Plan {
            ceremony: Path::new("root.toml"),
            sha256: "ab12",
            authorities: &["vault".to_owned()],
            custodians: &custodians,
            threshold: 2,
        });
        for words in [
            "2 OF 3",
            "root.toml",
            "ab12",
            "vault",
            "[ ] 11.",
            "\nchen ",
            "\nwitness ",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
