//! Properties of slots, plans and rolls under random events.

mod authority_roll;
mod exclusion;
mod plan;
mod roll;
mod slots;
