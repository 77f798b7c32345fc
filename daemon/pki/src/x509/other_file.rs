//! Recognizes files that hold no certificate which can be read, and says how to get one from them.

use super::ber::{
    BIT_STRING, Element, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, context,
};

/// A file, or a PEM block, that holds no certificate which can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtherFile {
    #[error("the file is empty")]
    Empty,
    #[error(
        "it is UTF-16 text; convert it with `iconv -f UTF-16 -t UTF-8 FILE > certificates.pem`"
    )]
    Utf16,
    #[error(
        "it is a PKCS#12 file; take the certificates out of it with `openssl pkcs12 -in FILE \
         -nokeys -out certificates.pem`"
    )]
    Pkcs12,
    #[error(
        "it is a Java key store; take the certificate out of it with `keytool -exportcert -rfc \
         -keystore FILE -alias ALIAS -file certificate.pem`"
    )]
    JavaKeyStore,
    #[error(
        "it is an S/MIME message; take the certificates out of it with `openssl smime -pk7out -in \
         FILE -out certificates.p7b`"
    )]
    Smime,
    #[error(
        "it is a PKCS#7 file without certificates; `openssl pkcs7 -in FILE -noout -print_certs` \
         shows none"
    )]
    WithoutCertificates,
    #[error(
        "it is a private key, and no certificate: keep it secret, and give the certificate of \
         that key"
    )]
    PrivateKey,
    #[error("it is a public key, and no certificate: give the certificate of that key")]
    PublicKey,
    #[error(
        "it is a certificate signing request (CSR), and no certificate: have an authority sign it \
         (`openssl req -in FILE -noout -subject` shows its name)"
    )]
    Request,
    #[error(
        "it is a certificate revocation list (CRL), and no certificate (`openssl crl -in FILE \
         -noout -issuer` shows whose it is)"
    )]
    RevocationList,
    #[error(
        "it is an attribute certificate, which certifies no key: give a public key certificate"
    )]
    AttributeCertificate,
    #[error("it is an SSH key or SSH certificate, and no X.509 certificate")]
    Ssh,
    #[error("it is a file of PGP, and no X.509 certificate")]
    Pgp,
    #[error(
        "it is a web page (HTML): a server has answered with that instead of a certificate; open \
         it in a browser, and download the certificate again"
    )]
    WebPage,
    #[error("it is an archive (ZIP, gzip or the like): unpack it, and give a file of it")]
    Archive,
    #[error("it ends too soon, or is damaged: copy it again, as a whole and in binary mode")]
    Damaged,
    #[error("behind the certificate there are {0} octets that are no certificate")]
    Behind(usize),
    #[error("it has a PEM block {0:?}, and no certificate")]
    Block(String),
    #[error(
        "it is text without a certificate: that begins with the line -----BEGIN CERTIFICATE-----, \
         and `openssl x509 -in CERTIFICATE` prints it"
    )]
    Text,
    #[error(
        "it is no certificate, and none of the files that hold one (PEM, DER, PKCS#7); `openssl \
         storeutl -noout -text FILE` may say what it is"
    )]
    Unknown,
}

/// The beginnings of files by which their kind is known.
const BEGINNINGS: &[(&[u8], OtherFile)] = &[
    (b"\xff\xfe", OtherFile::Utf16),
    (b"\xfe\xff", OtherFile::Utf16),
    // Without a byte order mark: a dash, and a zero before or after it.
    (b"-\0", OtherFile::Utf16),
    (b"\0-", OtherFile::Utf16),
    (b"\xfe\xed\xfe\xed", OtherFile::JavaKeyStore),
    (b"\xce\xce\xce\xce", OtherFile::JavaKeyStore),
    (b"PK\x03\x04", OtherFile::Archive),
    (b"\x1f\x8b", OtherFile::Archive),
    (b"BZh", OtherFile::Archive),
    (b"\xfd7zXZ", OtherFile::Archive),
    (b"7z\xbc\xaf", OtherFile::Archive),
];

/// Words of texts by which their kind is known, in lower case.
const WORDS: &[(&[u8], OtherFile)] = &[
    (b"<html", OtherFile::WebPage),
    (b"<!doctype", OtherFile::WebPage),
    (b"content-type:", OtherFile::Smime),
    (b"---- begin ssh2", OtherFile::Ssh),
    (b"ssh-", OtherFile::Ssh),
    (b"ecdsa-sha2-", OtherFile::Ssh),
];

/// How much of a text is searched for [`WORDS`].
const BEGINNING_BYTES: usize = 1024;

impl OtherFile {
    /// Returns the kind of a file that is no DER and has no PEM block.
    pub(super) fn of_file(bytes: &[u8]) -> OtherFile {
        if bytes.trim_ascii().is_empty() {
            return OtherFile::Empty;
        }
        let begins = |(beginning, _): &&(&[u8], _)| bytes.starts_with(beginning);
        if let Some((_, kind)) = BEGINNINGS.iter().find(begins) {
            return kind.clone();
        }
        let beginning = bytes[..bytes.len().min(BEGINNING_BYTES)].to_ascii_lowercase();
        let has = |(word, _): &&(&[u8], _)| beginning.windows(word.len()).any(|it| it == *word);
        match WORDS.iter().find(has) {
            Some((_, kind)) => kind.clone(),
            None if beginning.contains(&0) => OtherFile::Unknown,
            None => OtherFile::Text,
        }
    }

    /// Returns the kind of a PEM block by its label, unless its contents decide.
    pub(super) fn of_label(label: &str) -> Option<OtherFile> {
        if label.contains("SSH") {
            Some(OtherFile::Ssh)
        } else if label.ends_with("PRIVATE KEY") {
            Some(OtherFile::PrivateKey)
        } else if label.starts_with("PGP") {
            Some(OtherFile::Pgp)
        } else if label.ends_with("PUBLIC KEY") {
            Some(OtherFile::PublicKey)
        } else if label.ends_with("CERTIFICATE REQUEST") {
            Some(OtherFile::Request)
        } else if label.ends_with(" CRL") {
            Some(OtherFile::RevocationList)
        } else if label.ends_with("PARAMETERS") {
            Some(OtherFile::Block(label.to_owned()))
        } else {
            None
        }
    }

    /// Returns the kind of a DER file that is neither a certificate nor PKCS#7, by its first
    /// elements.
    pub(super) fn of_der(file: Element<'_>) -> OtherFile {
        let mut tags = [0; 3];
        for (tag, child) in tags.iter_mut().zip(file.children()) {
            *tag = child.tag;
        }
        let mut children = file.children();
        let first = children.next();
        match tags {
            // PFX (RFC 7292 4): version 3, and a ContentInfo.
            [INTEGER, SEQUENCE, _] if first.is_some_and(|it| it.contents == [3]) => {
                OtherFile::Pkcs12
            }
            // PrivateKeyInfo (RFC 5208 5), ECPrivateKey (RFC 5915 3), RSAPrivateKey (RFC 8017
            // A.1.2), EncryptedPrivateKeyInfo (RFC 5208 6).
            [INTEGER, SEQUENCE, OCTET_STRING]
            | [INTEGER, OCTET_STRING, _]
            | [INTEGER, INTEGER, INTEGER]
            | [SEQUENCE, OCTET_STRING, 0] => OtherFile::PrivateKey,
            [SEQUENCE, BIT_STRING, 0] => OtherFile::PublicKey,
            [SEQUENCE, SEQUENCE, BIT_STRING] if file.children().nth(3).is_some() => {
                OtherFile::Damaged
            }
            [SEQUENCE, SEQUENCE, BIT_STRING] => OtherFile::of_signed(first),
            // Other contents of CMS, such as encrypted ones.
            [OBJECT_IDENTIFIER, tag, 0] if tag == context(0) => OtherFile::WithoutCertificates,
            _ => OtherFile::Unknown,
        }
    }

    /// Returns the kind of what a signature was made over.
    fn of_signed(signed: Option<Element<'_>>) -> OtherFile {
        let Some(signed) = signed else {
            return OtherFile::Unknown;
        };
        // CertificationRequestInfo (RFC 2986 4.1): version, subject, key, attributes.
        let mut request = signed.children().skip(1);
        let key = request.nth(1).and_then(Element::first_child);
        let has_key = key.is_some_and(|it| it.first_child().is_some_and(Element::is_identifier));
        if signed.children().any(Element::is_time) {
            OtherFile::RevocationList
        } else if has_key && signed.children().count() <= 4 {
            OtherFile::Request
        } else if signed.child(context(0)).is_some() {
            OtherFile::AttributeCertificate
        } else {
            OtherFile::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_their_beginning() {
        for (bytes, kind) in [
            (&b""[..], OtherFile::Empty),
            (b" \r\n", OtherFile::Empty),
            (b"\xff\xfe-\0-\0", OtherFile::Utf16),
            (b"-\0-\0-\0", OtherFile::Utf16),
            (b"\xfe\xed\xfe\xed\0\0\0\x02", OtherFile::JavaKeyStore),
            (b"\n<!DOCTYPE html>", OtherFile::WebPage),
            (b"<HTML><head>", OtherFile::WebPage),
            (b"PK\x03\x04", OtherFile::Archive),
            (b"ssh-ed25519 AAAAC3Nz me", OtherFile::Ssh),
            (
                b"MIME-Version: 1.0\nContent-Type: application/pkcs7-mime",
                OtherFile::Smime,
            ),
            (b"Certificate:\n    Data:\n", OtherFile::Text),
            (b"\x7fELF\0\0", OtherFile::Unknown),
        ] {
            assert_eq!(OtherFile::of_file(bytes), kind, "{}", bytes.escape_ascii());
        }
    }
}
