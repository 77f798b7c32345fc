//! Properties of slots and plans under random events.

mod plan;
mod slots;
