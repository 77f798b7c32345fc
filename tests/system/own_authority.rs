//! Authorities of a test's own, beside those of the ceremony that ships: each is valid for 30 days,
//! signs leaves of 20 days, and has a group, a profile and a device named after it.

use crate::authority_roll::{comes_to, slots, thumbprint};
use crate::configured::device_profile;
use crate::device::is_assigned;
use crate::invariants::held;
use crate::request::{Holder, Request};
use crate::test_env::{CEREMONY, TestEnv};
use dps_emulator::{Action, Aim, Fault};
use serde_json::Value;
use std::collections::BTreeSet;

/// The placeholder for the authority's name in a call's path.
const NAME: &str = "NAME";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Below the plant; its group holds its certificate.
    Intermediate,
    /// Verified by proof of possession; its group refers to its CA certificate.
    Root,
}

/// A call of a rollover: its operation, and a part of its path.
pub(crate) type Call = (&'static str, &'static str);

pub(crate) struct OwnAuthority {
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

impl OwnAuthority {
    pub(crate) fn new(kind: Kind, name: &str) -> Self {
        let name = name.to_owned();
        Self { kind, name }
    }

    pub(crate) fn profile(&self) -> String {
        format!("{}-device", self.name)
    }

    pub(crate) fn device(&self) -> String {
        format!("{}-press", self.name)
    }

    /// Sets this fault for the next such call about this authority.
    pub(crate) fn fault(&self, (operation, path): Call, action: Action) -> Fault {
        let fault = Fault::on(operation, action);
        let aim = Aim {
            path_contains: Some(path.replace(NAME, &self.name)),
            ..fault.aim
        };
        Fault { aim, ..fault }
    }

    /// Requests a leaf over the admin socket.
    pub(crate) fn obtain(&self, env: &TestEnv) -> Holder {
        env.enlist(&self.profile(), &self.device())
    }

    /// The same, if the daemon answers with one.
    pub(crate) fn try_to_obtain(&self, env: &TestEnv) -> Option<Holder> {
        let (profile, id) = (self.profile(), self.device());
        let request = Request::new(&profile, &id);
        env.try_to_issue(&request)
    }

    /// The only rollover of the authority.
    pub(crate) fn roll(&self, env: &TestEnv) -> Value {
        let rolls = env.json(&["roll", "list"]);
        let mut own = rolls.as_array().unwrap().clone();
        own.retain(|roll| roll["authority"] == self.name);
        assert_eq!(own.len(), 1, "{own:?}");
        own.remove(0)
    }

    pub(crate) fn comes_to(&self, env: &TestEnv, state: &str) {
        comes_to(env, &self.roll(env)["id"].to_string(), state);
    }

    /// Verifies the end of every rollover of an authority: it is done, there is one next
    /// generation, and that one alone is in the slot `slot` of the group.
    pub(crate) fn is_rolled_into(&self, env: &TestEnv, slot: &str) {
        self.comes_to(env, "done");
        let generations = format!("generation WHERE authority = '{}'", self.name);
        assert_eq!(env.count(&generations), 2, "{}", self.name);
        let mut expected = match self.kind {
            Kind::Intermediate => [thumbprint(env, &self.name, 2), None],
            Kind::Root => [Some(format!("{}-2", self.name)), None],
        };
        if slot == "secondary" {
            expected.reverse();
        }
        assert_eq!(self.slots(env), expected, "{}", self.name);
    }

    fn slots(&self, env: &TestEnv) -> [Option<String>; 2] {
        if self.kind == Kind::Intermediate {
            return slots(env, &self.name);
        }
        let group = env.emulator.group(&self.name).unwrap();
        let references = &group["attestation"]["x509"]["caReferences"];
        ["primary", "secondary"].map(|slot| references[slot].as_str().map(str::to_owned))
    }

    /// The disabled group that excludes the compromised certificate.
    pub(crate) fn is_blocked(&self, env: &TestEnv) {
        let name = format!("{}-blocked-1", self.name);
        if self.kind == Kind::Root {
            assert_eq!(env.emulator.group(&name), None);
            return;
        }
        let group = env.emulator.group(&name).unwrap();
        assert_eq!(group["provisioningStatus"], "disabled", "{name}");
        let first = thumbprint(env, &self.name, 1);
        assert_eq!(held(&group, "primary"), first, "{name}");
    }
}

/// Starts the daemon with these authorities; each has its group and a provisioned device.
pub(crate) fn env_with(authorities: &[OwnAuthority]) -> (TestEnv, Vec<Holder>) {
    let mut env = TestEnv::new().with_a_movable_clock();
    let mut ceremony = CEREMONY.to_owned();
    let mut configuration = env.configuration();
    for it in authorities {
        ceremony.push_str(&ceremony_of(it));
        configuration.push_str(&configuration_of(it));
        if it.kind == Kind::Root {
            let verified = format!("verified = [\"{}\", ", it.name);
            configuration = configuration.replace("verified = [", &verified);
        }
    }
    env.write("ceremony.toml", &ceremony);
    env.configure(&configuration);
    env.start();
    env.run_ceremony();
    for it in authorities {
        env.add_group(&it.name, &it.name);
    }
    let devices: Vec<Holder> = authorities.iter().map(|it| it.obtain(&env)).collect();
    env.wait_in_sync();
    for device in &devices {
        is_assigned(&env.emulator, device);
    }
    (env, devices)
}

fn ceremony_of(it: &OwnAuthority) -> String {
    let issuer = match it.kind {
        Kind::Intermediate => "issuer = \"plant\"\n",
        Kind::Root => "",
    };
    format!(
        "\n[[authority]]\nname = \"{0}\"\n{issuer}subject = {{ common_name = \"Example Works {0}\" \
         }}\n\
         validity = \"30d\"\npath_length = 0\n",
        it.name
    )
}

fn configuration_of(it: &OwnAuthority) -> String {
    let authority = format!(
        "\n[[authority]]\nname = \"{}\"\ntoken = \"factory\"\n",
        it.name
    );
    authority + &device_profile(&it.profile(), &it.name, "20d")
}

/// Verifies that the service and its hub know these devices and no others, each under its original
/// name, with this leaf.
pub(crate) fn these_alone_are_known(env: &TestEnv, devices: &[Holder]) {
    let ids: BTreeSet<&str> = devices.iter().map(|it| it.id.as_str()).collect();
    let world = env.emulator.world();
    let known = |list: &Value, member: &str| {
        let list = list.as_array().unwrap().iter();
        let mut names: Vec<String> = list
            .map(|it| it[member].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let hub = &world["hubs"][env.emulator.hub_host()];
    assert_eq!(
        known(&world["registrations"], "registrationId"),
        Vec::from_iter(ids.clone())
    );
    assert_eq!(known(hub, "deviceId"), Vec::from_iter(ids));
    for device in devices {
        let registration = env.emulator.registration(&device.id).unwrap();
        assert_eq!(registration["status"], "assigned", "{}", device.id);
        assert_eq!(registration["deviceId"], device.id);
        let identity = env.emulator.hub_identity(&device.id).unwrap();
        let shown = &identity["authentication"]["x509Thumbprint"]["primaryThumbprint"];
        assert_eq!(*shown, device.thumbprint, "{}", device.id);
    }
}
