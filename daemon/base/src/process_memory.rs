//! Protects the memory of a process: no core dump, and no tracing by programs of the same user. A
//! worker holds a PIN, and `serve` and some commands hold access keys.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use std::io;

/// Protects this process. It MUST be called before the process reads a secret, and again after an
/// `exec`, which undoes the first half.
pub fn keep_private() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(setrlimit(Resource::Core, none)?)
}

/// Keeps this process out of swap, with all that it maps later. Returns false if its limit
/// (`RLIMIT_MEMLOCK`) is not unlimited: within a limit a later allocation would fail.
pub fn lock() -> io::Result<bool> {
    if getrlimit(Resource::Memlock).current.is_some() {
        return Ok(false);
    }
    // Pages count when they are used first: most of a thread's stack never is.
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::dumpable_behavior;

    #[test]
    fn a_private_process_leaves_no_core() {
        keep_private().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
