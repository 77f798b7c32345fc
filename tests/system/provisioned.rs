//! Stages on which devices are provisioned already: with a leaf, let in by the service, known to the
//! hub.

use crate::device::is_assigned;
use crate::request::{Holder, Request};
use crate::stage::Stage;

/// Devices with an enrollment of their own each.
pub(crate) fn individually(ids: &[&str]) -> (Stage, Vec<Holder>) {
    let stage = Stage::up();
    for id in ids {
        stage.told(&["enrollment", "add", "--individual", id]);
    }
    provisioned(stage, ids)
}

/// Devices below the group of `line-1`.
pub(crate) fn below_line_1(ids: &[&str]) -> (Stage, Vec<Holder>) {
    let stage = Stage::up();
    stage.add_group("line-1", "line-1");
    provisioned(stage, ids)
}

fn provisioned(stage: Stage, ids: &[&str]) -> (Stage, Vec<Holder>) {
    let station = stage.station();
    let requests = ids.iter().map(|id| Request::device(id));
    let devices: Vec<_> = requests.map(|request| station.obtain(&request)).collect();
    stage.is_in_step();
    for device in &devices {
        is_assigned(&stage.emulator, device);
    }
    (stage, devices)
}
