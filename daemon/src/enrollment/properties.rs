//! Properties of slots, plans and rolls under random events.

mod plan;
mod roll;
mod slots;
