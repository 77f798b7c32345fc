//! Properties under random events.

mod slots;
