//! Enrollments as DPS has them: ids, slots and what to do next. Pure.
