//! Names why a worker does not do what the daemon asks for.

use hallmark_pki::x509::lint::signable::NotSignable;

/// Why a worker does not do what it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the bytes are not signed: {0}")]
    Bytes(#[from] NotSignable),
    #[error("this worker serves one command, and signs test messages and assertions alone")]
    Private,
    #[error("the key has not shown by a test signature that the token holds it")]
    NotShown,
    #[error("another name than the one under which the key has signed before stands as the issuer")]
    Issuer,
    #[error(
        "the certificate is valid for longer than every [[profile]] and [token.limits] allow in \
         the file that the worker has read"
    )]
    Validity,
    #[error(
        "it begins too far in the future for the worker's clock; see starts_within in \
             [token.limits]"
    )]
    Begin,
    #[error(
        "[token.limits] of this token has authority_certificates = \"none\": no authority is \
         certified now"
    )]
    NoAuthorities,
    #[error(
        "the key of the authority to be certified is in no token of this installation; if the \
         authority is elsewhere, set authority_certificates = \"any\" in [token.limits]"
    )]
    KeyElsewhere,
    #[error("it would let a key that is in no token of this installation answer for the issuer")]
    ResponderElsewhere,
    #[error("the request is for another key than the one that would sign it")]
    AnothersRequest,
    #[error("the list would be valid for more than a year")]
    ListValidity,
    #[error("the key has signed as often in this hour as [token.limits] allows: {0}")]
    TooMany(&'static str),
    #[error(
        "only test keys are deleted, and new keys that have signed nothing; delete another one \
         by the token's own tool"
    )]
    NotThrowAway,
    #[error("only secrets for tests are deleted, and those that this very worker has imported")]
    SecretInUse,
    #[error("the name of the key's issuer cannot be recorded: {0}")]
    Unrecorded(String),
}
