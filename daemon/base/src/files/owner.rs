//! Runs work in another user's folder with the rights of that user.
//!
//! Libraries open files by their paths: SQLite its logs, a token's module its objects. As root they
//! would follow a link that the folder's owner has planted. With the owner's rights, such a link
//! gains nothing.

use super::walk::{Owner, Walk};
use rustix::process::{Gid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::thread;

/// Returns the user other than root who owns the place of `folder`; `None` if the caller is not
/// root. A folder of root's that others can write is an error.
pub fn owner_of(folder: &Path) -> io::Result<Option<Owner>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    Walk::begin(folder)?.into_owner()
}

/// Runs `work` with the rights of `owner` in a thread of its own, since Linux has rights per
/// thread. `work` MUST close everything that it opens.
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

/// Gives this process the rights of `owner` permanently. The process MUST have one thread.
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
    /// Returns the user id, for messages.
    pub fn uid(self) -> u32 {
        self.uid.as_raw()
    }

    fn adopt(self, groups: &[Gid]) -> io::Result<()> {
        set_thread_groups(groups)?;
        set_thread_res_gid(self.gid, self.gid, self.gid)?;
        Ok(set_thread_res_uid(self.uid, self.uid, self.uid)?)
    }

    /// Returns all groups of the user, by which devices of tokens are opened.
    fn groups(self) -> Vec<Gid> {
        let output = Command::new("id")
            .arg("-G")
            .arg(self.uid.to_string())
            .output();
        // A user without an entry in the database has no other group.
        let output = output.ok().filter(|it| it.status.success());
        let text = output.map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
        let numbers = text.iter().flat_map(|it| it.split_whitespace());
        let groups = numbers.filter_map(|it| it.parse().ok().map(Gid::from_raw));
        std::iter::once(self.gid).chain(groups).collect()
    }
}
