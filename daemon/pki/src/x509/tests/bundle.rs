//! Files that hold certificates, as OpenSSL and other tools write them.

use super::{Authority, YEAR};
use crate::x509::bundle::{
    BundleRefusal, OtherFile, parse_bundle, parse_first, render_chain, trust_anchors,
};
use crate::x509::certificate::Certificate;
use crate::x509::key::KeyType;
use crate::x509::profile::Profile;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;

/// A folder with a chain, its issuer first, and files that OpenSSL has made of it.
struct Files {
    folder: TempDir,
    chain: [Certificate; 2],
}

static CHAIN: LazyLock<[Certificate; 2]> = LazyLock::new(|| {
    let root = Authority::root(KeyType::P256, &Profile::authority(None, 20 * YEAR));
    let below = root.subordinate("Below", KeyType::P256, &Profile::authority(None, YEAR));
    [root.certificate, below.certificate]
});

impl Files {
    fn new() -> Files {
        let folder = tempfile::tempdir().expect("makes a folder");
        let chain = CHAIN.clone();
        fs::write(folder.path().join("chain.pem"), render_chain(&chain)).expect("writes");
        fs::write(folder.path().join("one.pem"), chain[0].to_pem()).expect("writes");
        let files = Files { folder, chain };
        files.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out own.key");
        files.openssl("req -x509 -new -key own.key -subj /CN=Own -days 9 -out own.pem");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs OpenSSL, and returns what it has written into the file `out`.
    fn openssl(&self, arguments: &str) -> Vec<u8> {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ').filter(|it| !it.is_empty()));
        let output = command.current_dir(self.folder.path()).output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "{arguments}: {output:?}");
        fs::read(self.path("out")).unwrap_or(output.stdout)
    }

    fn labelled(&self, label: &str) -> Vec<u8> {
        let pem = render_chain(&self.chain);
        pem.replace("CERTIFICATE", label).into_bytes()
    }
}

#[test]
fn a_chain_is_read_in_every_form() {
    let files = Files::new();
    let pem = render_chain(&files.chain);
    let ders: Vec<u8> = files
        .chain
        .iter()
        .flat_map(|it| it.der().to_vec())
        .collect();
    let p7b = files.openssl("crl2pkcs7 -nocrl -certfile chain.pem -outform DER -out out");
    let p7b_pem = files.openssl("crl2pkcs7 -nocrl -certfile chain.pem -out out");
    let sequence = files.openssl("nseq -toseq -in chain.pem -out out");
    let lines = pem.replace('\n', "\r\n");
    let remarks = [b"Stra\xdfe\n", pem.as_bytes(), b"\nM\xfcller"].concat();
    let as_certificate = String::from_utf8(p7b_pem.clone()).expect("is text");
    for (form, bytes) in [
        ("PEM", pem.clone().into_bytes()),
        ("PEM with CRLF", lines.into_bytes()),
        ("PEM with CR", pem.replace('\n', "\r").into_bytes()),
        ("Latin-1", remarks.clone()),
        ("Latin-1 as base64", STANDARD.encode(&remarks).into_bytes()),
        (
            "byte order mark",
            [b"\xef\xbb\xbf", pem.as_bytes()].concat(),
        ),
        ("DER", ders.clone()),
        ("DER and a newline", [&ders[..], b"\r\n"].concat()),
        ("base64", STANDARD.encode(&ders).into_bytes()),
        ("p7b", p7b.clone()),
        ("p7b in PEM", p7b_pem),
        ("p7b as base64", STANDARD.encode(&p7b).into_bytes()),
        (
            "p7b as CERTIFICATE",
            as_certificate.replace("PKCS7", "CERTIFICATE").into(),
        ),
        ("p7b as CMS", as_certificate.replace("PKCS7", "CMS").into()),
        (
            "p7b by its old label",
            as_certificate
                .replace("PKCS7", "PKCS #7 SIGNED DATA")
                .into(),
        ),
        (
            "p7b as chain",
            as_certificate.replace("PKCS7", "CERTIFICATE CHAIN").into(),
        ),
        ("Netscape's sequence", sequence),
        ("X509", files.labelled("X509 CERTIFICATE")),
        ("X.509", files.labelled("X.509 CERTIFICATE")),
        ("with its key", {
            let key = fs::read(files.path("own.key")).expect("is there");
            [&key[..], pem.as_bytes()].concat()
        }),
    ] {
        let read = parse_bundle(&bytes);
        assert_eq!(read.as_deref(), Ok(&files.chain[..]), "{form}");
        assert_eq!(trust_anchors(&bytes).map(|it| it.len()), Ok(2), "{form}");
    }
}

/// Indefinite lengths, as a signed message has them in a stream.
#[test]
fn the_certificates_of_a_signed_message_are_read() {
    let files = Files::new();
    let signed = files.openssl(
        "cms -sign -signer own.pem -inkey own.key -certfile chain.pem -in chain.pem -outform DER \
         -stream -nodetach -out out",
    );
    assert_eq!(signed[1], 0x80, "is of indefinite length");
    let read = parse_bundle(&signed).expect("is read");
    assert_eq!(read.len(), 3);
    assert!(files.chain.iter().all(|it| read.contains(it)));
}

#[test]
fn the_first_certificate_is_the_leaf_where_there_is_no_order() {
    let files = Files::new();
    let [root, below] = &files.chain;
    let pem = render_chain(&files.chain);
    assert_eq!(parse_first(pem.as_bytes()).as_ref(), Ok(root));
    let p7b = files.openssl("crl2pkcs7 -nocrl -certfile chain.pem -out out");
    assert_eq!(parse_first(&p7b).as_ref(), Ok(below));
    let two = files.openssl("crl2pkcs7 -nocrl -certfile one.pem -certfile own.pem -out out");
    assert_eq!(parse_first(&two), Err(BundleRefusal::NotOne(2)));
}

/// A system's bundle of trusted certificates has some that are rejected for servers.
#[test]
fn a_certificate_that_is_rejected_for_servers_is_no_anchor() {
    let files = Files::new();
    for (settings, is_anchor) in [
        ("-addtrust serverAuth", true),
        ("-addtrust anyExtendedKeyUsage", true),
        (
            "-addtrust serverAuth -addreject emailProtection -setalias Name",
            true,
        ),
        ("-setalias Name", true),
        ("-addtrust emailProtection", false),
        ("-addreject serverAuth", false),
        ("-addtrust clientAuth -addreject anyExtendedKeyUsage", false),
    ] {
        let trusted = files.openssl(&format!("x509 -in one.pem -trustout {settings} -out out"));
        assert!(trusted.starts_with(b"-----BEGIN TRUSTED CERTIFICATE"));
        assert_eq!(
            parse_first(&trusted).as_ref(),
            Ok(&files.chain[0]),
            "{settings}"
        );
        let anchors = trust_anchors(&trusted);
        let wanted = Ok(vec![files.chain[0].der().clone()]);
        assert_eq!(anchors == wanted, is_anchor, "{settings}: {anchors:?}");
        let both = [&trusted[..], files.chain[1].to_pem().as_bytes()].concat();
        let number = trust_anchors(&both).map(|it| it.len());
        assert_eq!(number, Ok(1 + usize::from(is_anchor)), "{settings}");
    }
}

#[test]
fn a_file_without_certificates_is_named_with_the_way_to_one() {
    let files = Files::new();
    let crl = {
        fs::write(files.path("index"), "").expect("writes");
        fs::write(
            files.path("ca.cnf"),
            "[ca]\ndefault_ca=a\n[a]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=9\n",
        )
        .expect("writes");
        files.openssl("ca -config ca.cnf -gencrl -keyfile own.key -cert own.pem -out out")
    };
    let utf_16 = render_chain(&files.chain)
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let p12 = files.openssl("pkcs12 -export -inkey own.key -in own.pem -passout pass:x -out out");
    for (bytes, kind, words) in [
        (
            p12.clone(),
            OtherFile::Pkcs12,
            "openssl pkcs12 -in FILE -nokeys",
        ),
        (
            STANDARD.encode(p12).into_bytes(),
            OtherFile::Pkcs12,
            "PKCS#12",
        ),
        (
            files.openssl("pkey -in own.key -out out"),
            OtherFile::PrivateKey,
            "keep it secret",
        ),
        (
            files.openssl("pkey -in own.key -outform DER -out out"),
            OtherFile::PrivateKey,
            "secret",
        ),
        (
            files.openssl("ec -in own.key -outform DER -out out"),
            OtherFile::PrivateKey,
            "secret",
        ),
        (
            files.openssl("genrsa -traditional -out out 2048"),
            OtherFile::PrivateKey,
            "secret",
        ),
        (
            files.openssl("pkcs8 -topk8 -in own.key -passout pass:x -outform DER -out out"),
            OtherFile::PrivateKey,
            "secret",
        ),
        (
            files.openssl("pkey -in own.key -pubout -out out"),
            OtherFile::PublicKey,
            "public key",
        ),
        (
            files.openssl("pkey -in own.key -pubout -outform DER -out out"),
            OtherFile::PublicKey,
            "public key",
        ),
        (
            files.openssl("req -new -key own.key -subj /CN=a -out out"),
            OtherFile::Request,
            "CSR",
        ),
        (
            files.openssl("req -new -key own.key -subj /CN=a -outform DER -out out"),
            OtherFile::Request,
            "CSR",
        ),
        (crl.clone(), OtherFile::RevocationList, "CRL"),
        (
            {
                fs::write(files.path("crl.pem"), crl).expect("writes");
                files.openssl("crl -in crl.pem -outform DER -out out")
            },
            OtherFile::RevocationList,
            "openssl crl",
        ),
        (
            files.openssl("crl2pkcs7 -in crl.pem -out out"),
            OtherFile::WithoutCertificates,
            "PKCS#7",
        ),
        (utf_16, OtherFile::Utf16, "iconv -f UTF-16"),
        (
            files.chain[0].der()[..99].to_vec(),
            OtherFile::Damaged,
            "as a whole",
        ),
        (
            b"certificate".to_vec(),
            OtherFile::Text,
            "BEGIN CERTIFICATE",
        ),
        (
            b"-----BEGIN DH PARAMETERS-----\nMAA=\n-----END DH PARAMETERS-----".to_vec(),
            OtherFile::Block("DH PARAMETERS".to_owned()),
            "DH PARAMETERS",
        ),
    ] {
        for refusal in [
            parse_bundle(&bytes).map(|_| ()),
            parse_first(&bytes).map(|_| ()),
            trust_anchors(&bytes).map(|_| ()),
        ] {
            assert_eq!(refusal, Err(BundleRefusal::Other(kind.clone())));
        }
        assert!(kind.to_string().contains(words), "{kind}");
    }
}

#[test]
fn a_damaged_certificate_among_others_is_not_skipped() {
    let files = Files::new();
    let pem = render_chain(&files.chain);
    let cut = pem.rsplit_once("\n-----END").expect("has an end").0;
    assert!(matches!(
        trust_anchors(cut.as_bytes()),
        Err(BundleRefusal::Pem(_))
    ));
    let (first, second) = pem.split_at(pem.len() / 2 + 300);
    let damaged = format!("{}*{}", &first[..first.len() - 1], second);
    assert!(matches!(
        trust_anchors(damaged.as_bytes()),
        Err(BundleRefusal::Pem(_))
    ));
    let trailing = [&files.chain[0].der()[..], b"junk"].concat();
    let refusal = OtherFile::Behind(4).into();
    assert_eq!(trust_anchors(&trailing), Err(refusal));
}

proptest! {
    #[test]
    fn no_change_of_a_bundle_makes_it_panic(
        at in 0..2000_usize, octets in proptest::collection::vec(any::<u8>(), 0..9),
    ) {
        let pem = render_chain(&*CHAIN).into_bytes();
        let at = at.min(pem.len());
        let changed = [&pem[..at], &octets, pem.get(at + octets.len()..).unwrap_or_default()];
        let changed = changed.concat();
        let _ = (parse_bundle(&changed), parse_first(&changed), trust_anchors(&changed));
    }

    /// A remark in any encoding changes nothing, as long as it is none of the lines of PEM.
    #[test]
    fn remarks_change_nothing(
        before in proptest::collection::vec(any::<u8>(), 0..90),
        after in proptest::collection::vec(any::<u8>(), 0..90),
    ) {
        let pem = render_chain(&*CHAIN);
        prop_assume!(before.first() != Some(&0x30));
        let remarked = [&before[..], b"\n", pem.as_bytes(), &after].concat();
        let read = parse_bundle(&remarked);
        prop_assert_eq!(read.as_deref(), Ok(&CHAIN[..]));
    }
}
