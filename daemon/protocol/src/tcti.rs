//! Parses the TCTI (TPM command transmission interface) of the configuration: how a TPM is reached.
//!
//! The text has the form of tpm2-tools. Only texts that this parser knows reach the library, so
//! that a typing error is refused when the configuration is read.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest text. The path of a device and the name of a bus are far shorter.
const TEXT_BYTES_MAX: usize = 256;

/// Longest host name (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Longest bus name (D-Bus specification, "Message protocol").
const BUS_NAME_BYTES_MAX: usize = 128;

/// The default bus name of tpm2-abrmd.
const BUS_NAME: &str = "com.intel.tss2.Tabrmd";

/// How one TPM is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tcti {
    /// `device:PATH`, a character device of the kernel.
    Device(PathBuf),
    /// `swtpm:host=HOST,port=PORT`, a software TPM. Its control channel is on the next port.
    Swtpm {
        host: String,
        /// The port of the command channel.
        port: u16,
    },
    /// `tabrmd:bus_name=NAME,bus_type=TYPE`, the resource manager tpm2-abrmd.
    Tabrmd {
        /// The resource manager's name on the bus.
        bus_name: String,
        /// True on the session bus, false on the system bus.
        session: bool,
    },
}

/// Why a text is not a TCTI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; give \"device:/dev/tpmrm0\", \"swtpm:host=127.0.0.1,port=2321\" or \
     \"tabrmd:bus_type=system\""
)]
pub struct NoTcti(&'static str);

impl Tcti {
    /// Returns true if a resource manager gives each program its own handles and flushes them when
    /// the program ends: the kernel behind `/dev/tpmrm*`, or tpm2-abrmd.
    pub fn is_managed(&self) -> bool {
        match self {
            Tcti::Device(path) => path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"tpmrm")),
            Tcti::Swtpm { .. } => false,
            Tcti::Tabrmd { .. } => true,
        }
    }
}

impl fmt::Display for Tcti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tcti::Device(path) => write!(f, "device:{}", path.display()),
            Tcti::Swtpm { host, port } => write!(f, "swtpm:host={host},port={port}"),
            Tcti::Tabrmd { bus_name, session } => {
                let bus_type = if *session { "session" } else { "system" };
                write!(f, "tabrmd:bus_name={bus_name},bus_type={bus_type}")
            }
        }
    }
}

impl FromStr for Tcti {
    type Err = NoTcti;

    fn from_str(text: &str) -> Result<Self, NoTcti> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(NoTcti("a TCTI of more than 256 bytes"));
        }
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "device" => device(rest),
            "swtpm" => swtpm(rest),
            "tabrmd" => tabrmd(rest),
            _ => Err(NoTcti("its prefix is none of the kinds that are known")),
        }
    }
}

fn device(path: &str) -> Result<Tcti, NoTcti> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b':' && byte != b',';
    if !path.starts_with('/') || !path.bytes().all(plain) {
        return Err(NoTcti("`device:` needs an absolute path"));
    }
    Ok(Tcti::Device(PathBuf::from(path)))
}

fn swtpm(settings: &str) -> Result<Tcti, NoTcti> {
    let mut host = None;
    let mut port = None;
    for (name, value) in pairs(settings)? {
        let taken = match name {
            "host" if is_host(value) => host.replace(value.to_owned()).is_some(),
            "port" => {
                let number = value
                    .parse()
                    .ok()
                    .filter(|port| (1..u16::MAX).contains(port));
                let number =
                    number.ok_or(NoTcti("a port is 1 to 65534: the next one is used too"))?;
                port.replace(number).is_some()
            }
            "host" => return Err(NoTcti("that is neither a host name nor an address")),
            _ => return Err(NoTcti("`swtpm:` knows `host` and `port`")),
        };
        if taken {
            return Err(NoTcti("a setting occurs twice"));
        }
    }
    match (host, port) {
        (Some(host), Some(port)) => Ok(Tcti::Swtpm { host, port }),
        _ => Err(NoTcti("`swtpm:` needs both `host` and `port`")),
    }
}

fn tabrmd(settings: &str) -> Result<Tcti, NoTcti> {
    let mut bus_name = None;
    let mut session = None;
    for (name, value) in pairs(settings)? {
        let taken = match (name, value) {
            ("bus_name", value) if is_bus_name(value) => {
                bus_name.replace(value.to_owned()).is_some()
            }
            ("bus_type", "session") => session.replace(true).is_some(),
            ("bus_type", "system") => session.replace(false).is_some(),
            ("bus_name" | "bus_type", _) => return Err(NoTcti("that is not a bus")),
            _ => return Err(NoTcti("`tabrmd:` knows `bus_name` and `bus_type`")),
        };
        if taken {
            return Err(NoTcti("a setting occurs twice"));
        }
    }
    Ok(Tcti::Tabrmd {
        bus_name: bus_name.unwrap_or_else(|| BUS_NAME.to_owned()),
        session: session.unwrap_or(false),
    })
}

/// Splits `NAME=VALUE` pairs at commas.
fn pairs(settings: &str) -> Result<Vec<(&str, &str)>, NoTcti> {
    let settings = settings.split(',').filter(|_| !settings.is_empty());
    settings
        .map(|it| it.split_once('=').ok_or(NoTcti("a setting is NAME=VALUE")))
        .collect()
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.parse::<IpAddr>().is_ok()
        || (text.len() <= HOST_BYTES_MAX && text.split('.').all(is_label))
}

fn is_bus_name(text: &str) -> bool {
    let is_element = |element: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !element.is_empty() && element.bytes().all(plain)
    };
    text.len() <= BUS_NAME_BYTES_MAX && text.contains('.') && text.split('.').all(is_element)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_operators_write_is_understood() {
        for (text, managed) in [
            ("device:/dev/tpm0", false),
            ("device:/dev/tpmrm0", true),
            ("swtpm:host=127.0.0.1,port=2321", false),
            ("swtpm:host=tpm.example,port=9", false),
            (
                "tabrmd:bus_name=com.intel.tss2.Tabrmd,bus_type=session",
                true,
            ),
        ] {
            let tcti: Tcti = text.parse().expect(text);
            assert_eq!(
                (tcti.to_string().as_str(), tcti.is_managed()),
                (text, managed)
            );
        }
        let tcti: Tcti = "tabrmd".parse().expect("on the system bus");
        assert_eq!(
            tcti.to_string(),
            "tabrmd:bus_name=com.intel.tss2.Tabrmd,bus_type=system"
        );
    }

    #[test]
    fn what_is_wrong_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "none of the kinds"),
            ("tpm0", "none of the kinds"),
            ("device:tpm0", "absolute path"),
            ("device:/dev/tpm0,x", "absolute path"),
            ("swtpm:host=127.0.0.1", "both"),
            ("swtpm:host=127.0.0.1,port=65535", "1 to 65534"),
            ("swtpm:host=a_b,port=1", "neither a host name"),
            ("swtpm:host=a,port=1,port=2", "twice"),
            ("swtpm:path=/run/tpm.sock", "knows `host`"),
            ("tabrmd:bus_type=both", "not a bus"),
            ("tabrmd:bus_name=x", "not a bus"),
            ("tabrmd:session", "NAME=VALUE"),
        ] {
            let error = text.parse::<Tcti>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        /// Nothing panics, and whatever is taken here is taken again in its own words.
        #[test]
        fn what_is_taken_is_written_so_that_it_is_taken(
            kind in "(device|swtpm|tabrmd|x)?:?",
            rest in "([a-z0-9_=,./-]{0,24}|/dev/[a-z0-9]{1,8}|host=[a-z0-9.-]{1,9},\
                     port=[0-9]{1,5}|bus_type=(system|session))",
        ) {
            let text = format!("{kind}{rest}");
            if let Ok(tcti) = text.parse::<Tcti>() {
                prop_assert_eq!(tcti.to_string().parse::<Tcti>(), Ok(tcti));
            }
        }

        #[test]
        fn whatever_the_text_is_it_never_panics(text in "\\PC{0,300}") {
            let _ = text.parse::<Tcti>();
        }
    }
}
