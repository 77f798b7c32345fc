//! Environments with provisioned devices: each has a leaf, DPS has assigned it, and the hub has an
//! identity for it.

use crate::device::is_assigned;
use crate::request::{Holder, Request};
use crate::test_env::TestEnv;

/// Devices with an enrollment of their own each.
pub(crate) fn individually(ids: &[&str]) -> (TestEnv, Vec<Holder>) {
    let env = TestEnv::running();
    for id in ids {
        env.run(&["enrollment", "add", "--individual", id]);
    }
    provisioned(env, ids)
}

/// Devices below the group of `line-1`.
pub(crate) fn below_line_1(ids: &[&str]) -> (TestEnv, Vec<Holder>) {
    let env = TestEnv::running();
    env.add_group("line-1", "line-1");
    provisioned(env, ids)
}

fn provisioned(env: TestEnv, ids: &[&str]) -> (TestEnv, Vec<Holder>) {
    let station = env.station();
    let requests = ids.iter().map(|id| Request::device(id));
    let devices: Vec<_> = requests.map(|request| station.obtain(&request)).collect();
    env.wait_in_sync();
    for device in &devices {
        is_assigned(&env.emulator, device);
    }
    (env, devices)
}

/// A device below two groups: that of the plant, and that of the line below it, which DPS finds
/// first.
pub(crate) fn below_plant_and_line() -> (TestEnv, Holder) {
    let env = TestEnv::new().started();
    env.add_group("plant", "plant");
    env.add_group("line-1", "line-1");
    let device = env.station().obtain(&Request::device("press-7"));
    env.wait_in_sync();
    is_assigned(&env.emulator, &device);
    (env, device)
}
