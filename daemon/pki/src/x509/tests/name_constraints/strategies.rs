//! Makes random chains: names that are alike in all but one part, and constraints around them.

use super::*;
use proptest::sample::{select, subsequence};

fn subtree() -> impl Strategy<Value = Subtree> {
    let hosts = [
        "",
        "example",
        ".example",
        "a.example",
        ".a.example",
        "A.EXAMPLE",
        "b",
    ];
    let mailboxes = [
        "example",
        ".example",
        "me@example",
        "ME@example",
        "@example",
        "a.example",
    ];
    let ranges = [
        "10.0.0.0/255.0.0.0",
        "10.1.0.0/255.255.128.0",
        "10.0.0.7/255.0.0.255",
        "0.0.0.0/0.0.0.0",
        "fd00::/ff00::",
        "::/::",
    ];
    let (c, o, ou, cn) = (6, 10, 11, 3);
    let directories = [
        directory(&[]),
        directory(&[(c, 0x13, "DE")]),
        directory(&[(c, 0x0c, "de")]),
        directory(&[(c, 0x13, "DE"), (o, 0x0c, "Works")]),
        directory(&[(c, 0x13, "DE"), (o, 0x13, " wORKS  ")]),
        directory(&[(o, 0x0c, "Works")]),
        directory(&[(o, 0x14, "Works"), (ou, 0x0c, "Line  7")]),
        directory(&[(o, 0x0c, "Works"), (cn, 0x0c, "press.example")]),
        directory(&[(cn, 0x0c, "press.example")]),
    ];
    prop_oneof![
        select(hosts.to_vec()).prop_map(|it| (HOST, it.as_bytes().to_vec())),
        select(mailboxes.to_vec()).prop_map(|it| (EMAIL, it.as_bytes().to_vec())),
        select(hosts[1..].to_vec()).prop_map(|it| (URI, it.as_bytes().to_vec())),
        select(ranges.to_vec()).prop_map(|it| (ADDRESS, range(it))),
        select(directories.to_vec()).prop_map(|it| (DIRECTORY, it)),
    ]
}

fn some_constraints() -> impl Strategy<Value = Option<Constraints>> {
    let lists = (
        proptest::collection::vec(subtree(), 0..3),
        proptest::collection::vec(subtree(), 0..2),
        any::<bool>(),
    );
    lists.prop_map(|(permitted, excluded, critical)| {
        let is_empty = permitted.is_empty() && excluded.is_empty();
        (!is_empty).then_some(Constraints {
            permitted,
            excluded,
            critical,
        })
    })
}

fn directory_part() -> impl Strategy<Value = Vec<(DnType, DnValue)>> {
    let all = vec![
        printable(DnType::CountryName, "DE"),
        text(DnType::OrganizationName, "Works"),
        text(DnType::OrganizationalUnitName, "line 7"),
    ];
    subsequence(all, 0..=3)
}

pub(super) fn leaf() -> impl Strategy<Value = Names> {
    let names = vec![
        host("example"),
        host("a.example"),
        host("b.a.example"),
        host("xa.example"),
        address("10.1.2.3"),
        address("10.0.0.7"),
        address("192.0.2.1"),
        address("fd00::1"),
    ];
    let common_names = [
        "press",
        "press.example",
        "a.example",
        "-a.example",
        "a_1.b",
        "a..b",
        "7:1",
    ];
    let parts = (
        directory_part(),
        select(common_names.to_vec()),
        subsequence(names, 0..3),
    );
    parts.prop_map(|(mut subject, common_name, alternative)| {
        subject.push(text(DnType::CommonName, common_name));
        Names {
            subject,
            alternative,
        }
    })
}

/// The names of an authority. Each has a common name of its own.
fn authority_names(number: usize) -> impl Strategy<Value = Names> {
    let names = vec![
        host("a.example"),
        SanType::Rfc822Name("me@example".try_into().expect("is ASCII")),
        SanType::Rfc822Name("you@a.example".try_into().expect("is ASCII")),
        SanType::URI("https://a.example/x".try_into().expect("is ASCII")),
        SanType::URI("ldap://b:389/x".try_into().expect("is ASCII")),
        address("10.1.2.3"),
    ];
    let mailboxes = vec![mailbox("me@example")];
    let parts = (
        directory_part(),
        subsequence(names, 0..2),
        subsequence(mailboxes, 0..=1),
    );
    parts.prop_map(move |(mut subject, alternative, mailboxes)| {
        subject.push(text(DnType::CommonName, &format!("authority.{number}")));
        subject.extend(mailboxes);
        Names {
            subject,
            alternative,
        }
    })
}

fn link(number: usize) -> impl Strategy<Value = Link> {
    let parts = (authority_names(number), some_constraints());
    parts.prop_map(|(names, constraints)| Link { names, constraints })
}

/// Two or three authorities. One may have the name of the one above: it is self-issued.
pub(super) fn links() -> impl Strategy<Value = Vec<Link>> {
    (link(0), link(1), link(2), 0..4).prop_map(|(root, mut middle, own, shape)| match shape {
        0 => vec![root, own],
        1 => {
            middle.names.subject = root.names.subject.clone();
            vec![root, middle, own]
        }
        _ => vec![root, middle, own],
    })
}
