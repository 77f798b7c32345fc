//! Writes the table of docs/access.md: every route against every kind of caller.

use super::described;
use super::operation::Operation;
use crate::api::openapi::Access;
use crate::ca::Code;
use crate::ca::permissions::{CallerKind, Reach};
use crate::ca::profile::Role;

/// The tag of the routes that plain HTTP has, too.
const PUBLISHED: &str = "Published files";
/// The cell of a refusal; the page says which code it has.
const REFUSED: &str = "–";

/// Clients that are nobody's caller, in the words of the table, each with the code of its refusal.
const STRANGERS: [(&str, Code); 5] = [
    ("no certificate", Code::ClientCertificateRequired),
    ("revoked", Code::ClientCertificateRevoked),
    ("expired", Code::ClientCertificateExpired),
    ("other authority", Code::ClientCertificateUnknown),
    ("user not admitted", Code::UserNotAdmitted),
];

/// Returns the table, in Markdown: one row for each route, one column for each kind of caller.
pub fn access_table() -> String {
    let roles = Role::ALL.iter().map(|it| it.name());
    let others = ["local user", "first leaf", "late renewal"];
    let strangers = STRANGERS.iter().map(|it| it.0);
    let columns = roles.chain(others).chain(strangers).chain(["plain HTTP"]);
    let mut table = row("route", columns.chain(["code for callers"]));
    let dashes = Role::ALL.len() + others.len() + STRANGERS.len() + 2;
    table += &row("---", std::iter::repeat_n("---", dashes));
    let (operations, _) = described();
    for operation in &operations {
        if !operation.path().contains("/est/{label}/") {
            table += &operation.row();
        }
    }
    table
}

fn row<'a>(first: &str, cells: impl Iterator<Item = &'a str>) -> String {
    let cells: Vec<_> = cells.collect();
    format!("| {first} | {} |\n", cells.join(" | "))
}

impl Operation {
    fn row(&self) -> String {
        let mut cells: Vec<&str> = Vec::new();
        for role in Role::ALL {
            cells.push(self.cell(CallerKind::Role(role)));
        }
        cells.push(self.cell(CallerKind::LocalUser));
        cells.push(self.granted(self.takes_credential));
        cells.push(self.granted(self.takes_late_renewals()));
        let is_open = self.access == Access::All;
        let of_strangers = if is_open { "all" } else { REFUSED };
        cells.extend(STRANGERS.map(|_| of_strangers));
        let is_published = self.tag == PUBLISHED;
        cells.push(if is_published { "all" } else { REFUSED });
        let code = match (is_open, self.local_only) {
            (true, _) => "none".to_owned(),
            (false, Some(code)) => format!("`{}`", code.name()),
            (false, None) => format!("`{}`", Code::RoleForbidden.name()),
        };
        let cells = cells.into_iter().chain([code.as_str()]);
        let route = format!("`{} {}`", self.method.to_uppercase(), self.path());
        row(&route, cells)
    }

    fn cell(&self, kind: CallerKind) -> &'static str {
        match self.access.reach(kind) {
            Reach::Nothing => REFUSED,
            Reach::Own => "own",
            Reach::Tables => "tables",
            Reach::All => "all",
        }
    }

    /// The cell of devices with a grant that the route takes or not.
    fn granted(&self, takes: bool) -> &'static str {
        if takes || self.access == Access::All {
            self.cell(CallerKind::Granted)
        } else {
            REFUSED
        }
    }
}
