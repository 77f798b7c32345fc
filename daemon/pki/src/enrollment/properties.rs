//! Properties of slots, plans and rolls under random events.

mod authority_roll;
mod plan;
mod roll;
mod slots;
