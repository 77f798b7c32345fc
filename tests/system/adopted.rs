//! Tests that authorities from elsewhere stay usable: with any name, below a root that is offline,
//! with serial numbers that others have given, too. Each is rolled, for expiry and after a
//! compromise, and OpenSSL accepts what is issued below it.

use crate::authority_roll::begun;
use crate::elsewhere::Elsewhere;
use crate::external::asked;
use crate::old_authority::{
    EXTENSIONS, MADE_HERE, P256, import, import_both, make_key, openssl, run,
};
use crate::process::{CommandOutput, until};
use crate::relying_party::Relying;
use crate::request::{Request, der};
use crate::test_env::TestEnv;
use hallmark_pki::x509::certificate::Certificate;
use std::fs;

/// String types as older tools choose them, and attributes that this program does not write.
const NAMES: &str = "
string_mask = nombstr
utf8 = yes
";

/// Makes the key `name` and its certificate. `issuer` is the name of the signing one, or of itself.
fn make(env: &TestEnv, name: &str, issuer: &str, subject: &str, serial: u32, more: &str) {
    make_key(env, P256, name);
    certify(env, name, issuer, subject, serial, more);
}

fn certify(env: &TestEnv, name: &str, issuer: &str, subject: &str, serial: u32, more: &str) {
    openssl(
        env,
        &format!(
            "req -new -config openssl.cnf -utf8 -key {name}.key -subj {subject} -out {name}.csr"
        ),
    );
    let by = if issuer == name {
        format!("-signkey {name}.key")
    } else {
        format!("-CA {issuer}.pem -CAkey {issuer}.key")
    };
    openssl(
        env,
        &format!(
            "x509 -req -in {name}.csr {by} -set_serial {serial} -extfile openssl.cnf {more} \
             -out {name}.pem"
        ),
    );
}

fn configure(env: &TestEnv, mask: &str) {
    let named = EXTENSIONS.replacen("prompt = no", &format!("prompt = no{mask}"), 1);
    env.write("openssl.cnf", &named);
}

fn takeover(env: &TestEnv) -> String {
    let [root, plant] = ["root.pem", "plant.pem"].map(|it| env.path(it));
    format!(
        "name = \"takeover\"\n[[authority]]\nname = \"root\"\nkey = \"pkcs11:id=%01\"\n\
         certificate = {root:?}\n[[authority]]\nname = \"plant\"\nissuer = \"root\"\n\
         key = \"pkcs11:id=%02\"\ncertificate = {plant:?}\n{MADE_HERE}"
    )
}

/// The certificate of an authority's newest generation.
fn newest(env: &TestEnv, authority: &str) -> Certificate {
    let all = env.authority(authority);
    let (_, last) = all.rsplit_once("-----BEGIN").unwrap();
    Certificate::parse(&der(&format!("-----BEGIN{last}"))).unwrap()
}

/// The octets of its subject and of its issuer's name.
fn names_of(env: &TestEnv, authority: &str) -> [Vec<u8>; 2] {
    let certificate = newest(env, authority);
    [
        AsRef::<[u8]>::as_ref(certificate.subject_der()).to_vec(),
        AsRef::<[u8]>::as_ref(certificate.issuer_der()).to_vec(),
    ]
}

fn serves(env: &TestEnv, authority: &str, number: i64) {
    until("the successor serves", || {
        let row = format!(
            "generation WHERE authority = '{authority}' AND number = {number} AND state = 'serving'"
        );
        (env.count(&row) == 1).then_some(())
    });
}

/// Waits until the line is below this generation of the root, and this or a later one of the plant.
fn settles(env: &TestEnv, root: i64, plant: i64) {
    until("the line is below the successors", || {
        let serving = format!(
            "generation l JOIN generation p ON p.id = l.parent JOIN generation r ON r.id = p.parent
             WHERE l.authority = 'line-1' AND l.state = 'serving' AND p.state = 'serving'
               AND r.state = 'serving' AND r.number = {root} AND p.number >= {plant}"
        );
        (env.count(&serving) == 1).then_some(())
    });
}

/// Root and intermediate have names with string types and attributes that are not written here.
struct Named {
    env: TestEnv,
    root: Vec<u8>,
    plant: Vec<u8>,
}

impl Named {
    fn begun() -> Self {
        let env = TestEnv::new();
        configure(&env, NAMES);
        let root =
            "/C=DE/ST=Bayern/L=Ulm/O=Works/OU=Pumps/CN=Old-Root/emailAddress=ca@works.example";
        let plant =
            "/DC=example/DC=works/O=W\u{fc}rks+OU=Line/CN=Old-Plant/CN=Second/serialNumber=7";
        let long = "-days 7000 -extensions authority";
        make(&env, "root", "root", root, 1, long);
        make(
            &env,
            "plant",
            "root",
            plant,
            7,
            "-days 1800 -extensions below",
        );
        import_both(&env);
        env.write("ceremony.toml", &takeover(&env));
        let env = begun(env);
        let ([root, _], [plant, _]) = (names_of(&env, "root"), names_of(&env, "plant"));
        Self { env, root, plant }
    }

    /// The line is below these generations of root and plant. Asserts that their names are the old
    /// ones, octet by octet.
    fn keep_their_names(&self, root: i64, plant: i64) {
        settles(&self.env, root, plant);
        let names = |authority| names_of(&self.env, authority);
        assert_eq!(names("root"), [self.root.clone(), self.root.clone()]);
        assert_eq!(names("plant"), [self.plant.clone(), self.root.clone()]);
        assert_eq!(names("line-1")[1], self.plant);
    }

    /// Asserts that OpenSSL accepts a new leaf, by the lists of all authorities above.
    fn issue(&self, id: &str) {
        let request = Request::device(id);
        let station = self.env.station_called(&format!("station-{id}"));
        let leaf = until("a leaf is issued", || {
            let answer = station.try_ask(&request).ok()?;
            (answer.status == 201).then(|| request.holder(&answer.body))
        });
        until("OpenSSL accepts it", || {
            let judged = Relying::on(&self.env).judge(&leaf, &self.env.authority("root"));
            judged.map_err(|error| eprintln!("{error}")).ok()
        });
    }

    fn roll(&self, authority: &str, reason: &str) {
        let command = [
            "roll",
            "start",
            "--authority",
            authority,
            "--reason",
            reason,
        ];
        self.env.json(&command);
    }
}

/// Verifies: an adopted intermediate is rolled for expiry, and after a compromise; the subject of
/// each generation is that of the first one, octet by octet, and so are the issuer names of what
/// it signs; OpenSSL accepts leaves and lists below each of them.
#[test]
fn an_adopted_intermediate_keeps_its_name_through_every_roll() {
    let it = Named::begun();
    it.roll("plant", "expiry");
    it.keep_their_names(1, 2);
    it.issue("press-2");
    it.roll("plant", "compromise");
    it.keep_their_names(1, 3);
    it.issue("press-3");
}

/// The same of an adopted root.
#[test]
fn an_adopted_root_keeps_its_name_through_every_roll() {
    let it = Named::begun();
    it.roll("root", "expiry");
    it.keep_their_names(2, 2);
    it.issue("press-2");
    it.roll("root", "compromise");
    it.keep_their_names(3, 3);
}

/// Verifies: two roots whose certificates have the same serial number are adopted, and an authority
/// below an issuer elsewhere has that number, too, in a file where the chain that fits is not the
/// first; a second certificate for the key of an adopted authority is refused in words.
#[test]
fn issuers_that_have_given_the_same_serial_number_are_all_adopted() {
    let mut env = TestEnv::new();
    let more = ["older", "renewed", "branch"]
        .map(|name| format!("[[authority]]\nname = \"{name}\"\ntoken = \"factory\"\n"));
    let configuration = env.configuration();
    let configuration = configuration.replacen(
        "[[provisioning]]",
        &(more.concat() + "\n[[provisioning]]"),
        1,
    );
    env.configure(&configuration);
    configure(&env, "");
    make(
        &env,
        "root",
        "root",
        "/CN=Old-Root",
        1,
        "-days 3650 -extensions authority",
    );
    make(
        &env,
        "older",
        "older",
        "/CN=Older-Root",
        1,
        "-days 3650 -extensions authority",
    );
    make(
        &env,
        "away",
        "away",
        "/CN=Away",
        1,
        "-days 3650 -extensions authority",
    );
    make(
        &env,
        "branch",
        "away",
        "/CN=Branch",
        1,
        "-days 1800 -extensions below",
    );
    for (name, id) in [("root", "01"), ("older", "02"), ("branch", "03")] {
        import(&env, name, name, id);
    }
    env.start();
    let adopted = |name: &str, id: &str, certificates: &str| {
        let file = format!(
            "name = \"takeover\"\n[[authority]]\nname = \"{name}\"\nkey = \"pkcs11:id=%{id}\"\n\
             certificate = '''\n{certificates}'''\n"
        );
        run(&env, &file)
    };
    let read = |name: &str| fs::read_to_string(env.path(&format!("{name}.pem"))).unwrap();
    // A certificate by another root that is not in the file comes first.
    let away = read("away");
    let extensions = "-days 3650 -extensions authority";
    certify(&env, "away", "older", "/CN=Away", 5, extensions);
    let chain = read("away") + &read("branch") + &away;
    for (name, id, certificates) in [
        ("root", "01", read("root")),
        ("older", "02", read("older")),
        ("branch", "03", chain.clone()),
    ] {
        let output = adopted(name, id, &certificates);
        assert_eq!(output.code, Some(0), "{name}: {output:?}");
        assert!(output.out.contains("adopted"), "{output:?}");
    }
    assert_eq!(env.count("intent WHERE serial = x'01'"), 3);
    let ambiguous = env.hallmark(&["certificate", "revoke", "01", "--reason", "superseded"]);
    assert!(
        ambiguous.error.contains("certificate_ambiguous"),
        "{ambiguous:?}"
    );

    certify(
        &env,
        "root",
        "root",
        "/CN=Old-Root",
        2,
        "-days 7000 -extensions authority",
    );
    let renewed = adopted("renewed", "01", &read("root"));
    assert!(
        renewed.error.contains("key_in_use")
            && renewed.error.contains("generation 1 of authority root"),
        "{renewed:?}"
    );
    let again = adopted("root", "01", &read("root"));
    assert!(again.error.contains("another certificate"), "{again:?}");
    let incomplete = adopted("renewed", "03", &read("branch"));
    assert!(
        incomplete.error.contains("was issued by")
            && incomplete.error.contains("up to the self-signed"),
        "{incomplete:?}"
    );
}

/// An intermediate has its key on the token, an odd name, and a root that is offline. Verifies: it
/// is adopted with its chain and issues; its rolls, for expiry and after a compromise, ask for a
/// certificate with the same name, octet by octet, and go on when it is installed.
#[test]
fn an_intermediate_below_an_offline_root_is_adopted_and_rolled() {
    let env = asked();
    let elsewhere = Elsewhere::on(&env);
    let named = fs::read_to_string(env.path("openssl.cnf")).unwrap();
    env.write(
        "openssl.cnf",
        &named.replacen("prompt = no", &format!("prompt = no{NAMES}"), 1),
    );
    openssl(
        &env,
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out gateway.key",
    );
    openssl(
        &env,
        "req -new -config openssl.cnf -utf8 -key gateway.key -out gateway.csr -subj \
         /DC=example/ST=Bayern/CN=G\u{e4}teway/CN=Second",
    );
    import(&env, "gateway", "Old Gateway", "0a");
    let chain = elsewhere.signs("gateway.csr", "below", 1800, "root");
    let file = format!(
        "name = \"takeover\"\n[[authority]]\nname = \"gateway\"\nkey = \"pkcs11:id=%0a\"\n\
         certificate = '''\n{chain}'''\n[[authority]]\nname = \"cell\"\nissuer = \"gateway\"\n\
         subject = {{ common_name = \"Cell 7\" }}\nvalidity = \"1y\"\npath_length = 0\n"
    );
    let output = run(&env, &file);
    assert_eq!(output.code, Some(0), "{output:?}");
    let shown = env.json(&["authority", "show", "gateway"]);
    assert_eq!(shown[0]["foreign"][0]["subject"], "CN=Elsewhere,O=Works");
    let its = env.json(&["certificate", "show", shown[0]["serial"].as_str().unwrap()]);
    assert_eq!(
        its["authority"],
        serde_json::Value::Null,
        "it has not signed itself: {its}"
    );
    let below = env.json(&["certificate", "list", "--authority", "gateway"]);
    assert!(
        !below.to_string().contains(its["serial"].as_str().unwrap()),
        "{below}"
    );
    let [name, issuer] = names_of(&env, "gateway");
    let root = fs::read_to_string(env.path("root.pem")).unwrap();
    let station = env.station();
    let mut number = 0;
    let mut leaves_are_accepted = || {
        number += 1;
        let serving = format!("authority = 'gateway' AND number = {number} AND state = 'serving'");
        until("it serves", || {
            (env.count(&format!("generation WHERE {serving}")) == 1).then_some(())
        });
        assert_eq!(names_of(&env, "gateway"), [name.clone(), issuer.clone()]);
        serves(&env, "cell", number);
        for profile in ["behind", "in-cell"] {
            let request = Request::new(profile, &format!("{profile}-{number}"));
            let leaf = until("a leaf is issued", || {
                let answer = station.try_ask(&request).ok()?;
                (answer.status == 201).then(|| request.holder(&answer.body))
            });
            leaf.is_accepted_by_openssl(&root);
        }
    };
    leaves_are_accepted();
    let again = run(&env, &file);
    assert!(again.out.contains("existed"), "{again:?}");

    for reason in ["expiry", "compromise"] {
        env.json(&[
            "roll",
            "start",
            "--authority",
            "gateway",
            "--reason",
            reason,
        ]);
        let csr = until("the request is there", || {
            let output: CommandOutput = env.hallmark(&["authority", "csr", "gateway"]);
            (output.code == Some(0)).then_some(output.out)
        });
        env.write("next.csr", &csr);
        let answer = elsewhere.signs("next.csr", "below", 1800, "root");
        let bundle = env.write("bundle.pem", &answer);
        env.run(&["authority", "install", "gateway", bundle.to_str().unwrap()]);
        leaves_are_accepted();
    }
}

const PATH_LENGTH: &str = "
[two]
basicConstraints = critical, CA:TRUE, pathlen:2
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
";

/// The root ends before the intermediate, and has a path length, which the intermediate lacks.
/// Verifies: a rollover that could never end does not begin, and the answer says what to do; after
/// a compromise the exclusion does not wait, the answer says why there is no successor, and the
/// successor, made when that is gone, ends before the root and has the path length that is left.
#[test]
fn a_successor_that_cannot_be_made_is_refused_or_reported() {
    let env = TestEnv::new();
    configure(&env, "");
    let extensions = fs::read_to_string(env.path("openssl.cnf")).unwrap();
    env.write("openssl.cnf", &(extensions + PATH_LENGTH));
    make(
        &env,
        "root",
        "root",
        "/CN=Old-Root",
        1,
        "-days 400 -extensions two",
    );
    make(
        &env,
        "plant",
        "root",
        "/CN=Old-Plant",
        7,
        "-days 1800 -extensions authority",
    );
    import_both(&env);
    env.write("ceremony.toml", &takeover(&env));
    let env = begun(env);
    let roll = |reason: &str, more: &[&str]| {
        let command = [
            "--json",
            "roll",
            "start",
            "--authority",
            "plant",
            "--reason",
            reason,
        ];
        env.hallmark(&[&command, more].concat())
    };
    for (more, code, remedy) in [
        (&[][..], "outlives_issuer", "roll root first"),
        (
            &["--validity", "60y"],
            "validity_out_of_range",
            "at most 50y",
        ),
        (
            &["--validity", "2y"],
            "outlives_issuer",
            "shorter --validity",
        ),
    ] {
        let refused = roll("expiry", more);
        assert!(
            refused.error.contains(code) && refused.error.contains(remedy),
            "{code}: {refused:?}"
        );
    }
    assert_eq!(env.count("roll"), 0);

    let block = [
        "authority",
        "block",
        "root",
        "--generation",
        "1",
        "--reason",
        "a test",
    ];
    env.hallmark(&block);
    let started = roll("compromise", &[]);
    assert_eq!(started.code, Some(0), "{started:?}");
    let started: serde_json::Value = serde_json::from_str(&started.out).unwrap();
    let obstacle = started["obstacles"][0].as_str().unwrap_or_default();
    assert!(
        obstacle.contains("authority plant is excluded") && obstacle.contains("lift the block"),
        "{started}"
    );
    assert_eq!(
        env.count("generation WHERE authority = 'plant' AND number > 1"),
        0
    );
    env.hallmark(&[
        "authority",
        "unblock",
        "root",
        "--generation",
        "1",
        "--reason",
        "a test",
    ]);
    settles(&env, 1, 2);
    let ends = |authority: &str| {
        let certificate = newest(&env, authority);
        (certificate.not_after(), certificate.path_length())
    };
    assert!(ends("plant").0 < ends("root").0);
    assert_eq!(ends("plant").1, Some(1));
}
