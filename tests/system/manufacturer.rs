//! A manufacturer of devices: OpenSSL with a root, an issuing CA below it, CRLs of both, and
//! certificates that devices are born with (IDevID).

use crate::process::CommandOutput;
use crate::request::Holder;
use crate::test_env::TestEnv;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const CONFIGURATION: &str = "
[req]
distinguished_name = name
prompt = no
[name]
CN = none
[root]
database = root.index
crlnumber = root.number
private_key = root.key
certificate = root.pem
default_md = sha256
crl_extensions = crl
unique_subject = no
[issuing]
database = issuing.index
crlnumber = issuing.number
serial = issuing.serial
new_certs_dir = .
private_key = issuing.key
certificate = issuing.pem
default_md = sha256
policy = any
crl_extensions = crl
unique_subject = no
[any]
commonName = optional
serialNumber = optional
organizationName = optional
[crl]
authorityKeyIdentifier = keyid
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
";

/// The type of its hardware modules.
pub(crate) const HARDWARE_TYPE: &str = "1.3.6.1.4.1.99999.7";

pub(crate) struct Manufacturer<'a> {
    env: &'a TestEnv,
}

impl<'a> Manufacturer<'a> {
    pub(crate) fn on(env: &'a TestEnv) -> Self {
        let it = Self { env };
        fs::create_dir(env.path("maker")).unwrap();
        it.write("maker.cnf", CONFIGURATION);
        for name in ["root", "issuing"] {
            it.write(&format!("{name}.index"), "");
            it.write(&format!("{name}.number"), "01\n");
            it.make_key(name);
        }
        it.write("issuing.serial", "1001\n");
        it.openssl(
            "req -x509 -config maker.cnf -new -key root.key -days 36500 -subj /O=Maker/CN=Root \
             -extensions ca -out root.pem",
        );
        it.openssl(
            "req -config maker.cnf -new -key issuing.key -subj /O=Maker/CN=Issuing \
             -out issuing.csr",
        );
        it.openssl(
            "x509 -req -in issuing.csr -CA root.pem -CAkey root.key -CAcreateserial -days 36500 \
             -extfile maker.cnf -extensions ca -out issuing.pem",
        );
        it.publish("-crldays 300");
        it
    }

    /// The manufacturer that was made on it before.
    pub(crate) fn of(env: &'a TestEnv) -> Self {
        Self { env }
    }

    /// The configuration's table for it, with further lines.
    pub(crate) fn table(&self, more: &str) -> String {
        format!(
            "\n[[birth]]\nname = \"maker\"\nanchors = {:?}\ncrls = [{:?}, {:?}]\n{more}\n",
            self.path("root.pem"),
            self.path("root.crl"),
            self.path("issuing.crl")
        )
    }

    /// Signs new CRLs. They take the places of the old ones.
    pub(crate) fn publish(&self, life: &str) {
        for name in ["root", "issuing"] {
            self.openssl(&format!(
                "ca -config maker.cnf -name {name} -gencrl {life} -out new.crl"
            ));
            fs::rename(self.path("new.crl"), self.path(&format!("{name}.crl"))).unwrap();
        }
    }

    /// A device with the hardware serial number `serial` (hex), and with that in its subject.
    pub(crate) fn device(&self, serial: &str) -> Holder {
        self.write(
            "idevid.cnf",
            &format!(
                "[idevid]\nbasicConstraints = critical, CA:FALSE\n\
                 keyUsage = critical, digitalSignature\n\
                 subjectAltName = otherName:1.3.6.1.5.5.7.8.4;SEQUENCE:module\n\
                 [module]\nhwType = OID:{HARDWARE_TYPE}\nhwSerialNum = FORMAT:HEX,OCT:{serial}\n"
            ),
        );
        self.make_key(serial);
        self.openssl(&format!(
            "req -config maker.cnf -new -key {serial}.key -out {serial}.csr \
             -subj /O=Maker/serialNumber=press-{serial}"
        ));
        self.openssl(&format!(
            "ca -config maker.cnf -name issuing -batch -notext -in {serial}.csr \
             -extfile idevid.cnf -extensions idevid -enddate 99991231235959Z -out {serial}.pem"
        ));
        Holder {
            id: format!("press-{serial}"),
            key: self.read(&format!("{serial}.key")),
            certificate: self.read(&format!("{serial}.pem")),
            chain: vec![self.read("issuing.pem")],
            serial: String::new(),
            thumbprint: String::new(),
        }
    }

    pub(crate) fn revokes(&self, serial: &str) {
        self.openssl(&format!(
            "ca -config maker.cnf -name issuing -revoke {serial}.pem"
        ));
        self.publish("-crldays 300");
    }

    fn make_key(&self, name: &str) {
        self.openssl(&format!(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"
        ));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.env.path("maker").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace());
        let output = CommandOutput::of(command.current_dir(self.env.path("maker")));
        assert_eq!(output.code, Some(0), "{arguments}: {output:?}");
    }
}
