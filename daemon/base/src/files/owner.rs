//! Work in another user's folder, with that user's rights and no more.
//!
//! Libraries open files by their paths: SQLite its logs, a token's module its objects. Root must
//! not let them do so in a folder where another user can plant a link. So that work is done as the
//! folder's owner, who gains nothing by a planted link.

use super::walk::{Owner, Walk};
use rustix::process::{Gid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::thread;

/// The user other than root in whose folder `folder` lies, or would lie; nothing to a caller who is
/// not root. A folder of root's that others can write is an error.
pub fn owner_of(folder: &Path) -> io::Result<Option<Owner>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    Walk::begin(folder)?.into_owner()
}

/// Does `work` with the rights of `owner`, in a thread of its own: Linux gives each thread its own.
/// All that `work` opens MUST end with it.
pub fn as_owner<T: Send>(owner: Option<Owner>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let Some(owner) = owner else {
        return Ok(work());
    };
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            owner.adopt(&[owner.gid])?;
            Ok(work())
        });
        worker.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Gives this process the rights of `owner`, for good; it MUST have one thread.
pub fn become_owner(owner: Owner) -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "{threads} threads run already, and each has rights of its own"
        )));
    }
    owner.adopt(&owner.groups())
}

impl Owner {
    /// Its number, for messages.
    pub fn uid(self) -> u32 {
        self.uid.as_raw()
    }

    fn adopt(self, groups: &[Gid]) -> io::Result<()> {
        set_thread_groups(groups)?;
        set_thread_res_gid(self.gid, self.gid, self.gid)?;
        Ok(set_thread_res_uid(self.uid, self.uid, self.uid)?)
    }

    /// All groups of this user: devices of tokens are opened by group.
    fn groups(self) -> Vec<Gid> {
        let told = Command::new("id")
            .arg("-G")
            .arg(self.uid.to_string())
            .output();
        // A user without an entry has no other group.
        let told = told.ok().filter(|it| it.status.success());
        let text = told.map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
        let numbers = text.iter().flat_map(|it| it.split_whitespace());
        let groups = numbers.filter_map(|it| it.parse().ok().map(Gid::from_raw));
        std::iter::once(self.gid).chain(groups).collect()
    }
}
