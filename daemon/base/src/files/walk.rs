//! Resolves paths without trust in folders that another user can write.
//!
//! Root walks the path folder by folder and keeps each folder open, so a checked folder cannot be
//! exchanged afterwards. A symbolic link is followed only where root alone can have made it. From
//! the first folder of another user on, no link is followed, and only files of that user and of
//! root are accepted. For callers other than root the kernel resolves the path, because a link
//! gains nothing.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, open, openat, readlinkat, statat};
use rustix::process::{Gid, Uid, geteuid};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// Most symbolic links on a path, as in the kernel.
const LINKS_MAX: usize = 40;
/// Flags that name a file or folder without opening it for reading.
const NAME_ONLY: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Folder in which the kernel shows open files. Its links have no path.
const OPEN_FILES: [&str; 5] = [
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
    "/dev/fd",
    "/proc/self/fd",
];

pub(super) const LINK: &str = "is a symbolic link, and is not followed: remove it";
pub(super) const NO_FILE: &str = "is no regular file: remove it";

/// The treatment of a link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    /// An operator named the path, which may be a link.
    Followed,
    /// The name is ours, and must not be a link.
    Refused,
}

/// The user other than root who owns a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

/// A name in an open folder.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: OwnedFd,
    pub(super) name: OsString,
    /// The path, for messages.
    path: PathBuf,
    /// The owner of the folder, if the caller is root.
    owner: Option<Owner>,
    /// Whether another user than root or the caller can write the folder.
    is_shared: bool,
    /// A file that the caller has open already, such as a pipe.
    is_open_file: bool,
    links: Links,
}

impl Place {
    /// Resolves `path`. The last name need not exist.
    pub(super) fn of(path: &Path, links: Links) -> io::Result<Self> {
        let is_open_file = OPEN_FILES.iter().any(|it| path.starts_with(it));
        if geteuid().is_root() && !is_open_file {
            return Walk::begin(path)?.into_place(links);
        }
        let name = path.file_name().ok_or_else(|| no_file(path))?;
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            folder: open(folder.unwrap_or(Path::new(".")), flags, Mode::empty())?,
            name: name.to_owned(),
            path: path.to_owned(),
            owner: None,
            is_shared: false,
            is_open_file,
            links,
        })
    }

    /// Opens the file. The umask applies to the mode of a new file. A device is accepted only for
    /// writing, and only where no other user can place one.
    pub(super) fn open(&self, flags: OFlags, mode: Mode) -> io::Result<File> {
        let is_read = !flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        let must_be_file = self.is_guarded() || (is_read && !self.is_open_file);
        let mut flags = flags | OFlags::CLOEXEC | self.last_link();
        if must_be_file {
            // Opening a FIFO without a writer must not block.
            flags |= OFlags::NONBLOCK;
        }
        let opened = openat(&self.folder, &self.name, flags, mode);
        let file = File::from(opened.map_err(|error| self.failure(error))?);
        let found = fstat(&file)?;
        if must_be_file && FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(self.refusal(NO_FILE));
        }
        self.judge(&found)?;
        Ok(file)
    }

    /// Returns the status of the name. A link is not followed.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        Ok(statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Returns the flag for a link at the name.
    pub(super) fn last_link(&self) -> OFlags {
        if self.is_guarded() {
            OFlags::NOFOLLOW
        } else {
            OFlags::empty()
        }
    }

    fn is_guarded(&self) -> bool {
        self.links == Links::Refused || self.owner.is_some() || self.is_shared
    }

    /// Checks that the opened file is acceptable here.
    fn judge(&self, found: &Stat) -> io::Result<()> {
        let others_write = self.owner.is_some() || self.is_shared;
        if others_write && found.st_nlink > 1 {
            return Err(self.refusal(
                "has a second name (a hard link), and others can write its folder: remove it",
            ));
        }
        match self.owner {
            Some(owner) if ![0, owner.uid.as_raw()].contains(&found.st_uid) => {
                let why = format!(
                    "belongs to user {}, and its folder to user {}: remove it",
                    found.st_uid, owner.uid
                );
                Err(self.refusal(&why))
            }
            _ => Ok(()),
        }
    }

    fn refusal(&self, why: &str) -> io::Error {
        refusal(&self.path, why)
    }

    fn failure(&self, error: rustix::io::Errno) -> io::Error {
        match error {
            rustix::io::Errno::LOOP if self.is_guarded() => self.refusal(LINK),
            error => error.into(),
        }
    }
}

pub(super) fn refusal(path: &Path, why: &str) -> io::Error {
    io::Error::other(format!("{} {why}", path.display()))
}

fn no_file(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{} names no file", path.display()),
    )
}

/// An open folder on the path, and the rest of the path.
pub(super) struct Walk {
    folder: OwnedFd,
    found: Stat,
    /// The remaining names, the last one first.
    rest: Vec<OsString>,
    path: PathBuf,
    owner: Option<Owner>,
    links: usize,
}

impl Walk {
    pub(super) fn begin(path: &Path) -> io::Result<Self> {
        let whole = std::path::absolute(path)?;
        let folder = root()?;
        Ok(Self {
            found: fstat(&folder)?,
            folder,
            rest: names(&whole),
            path: path.to_owned(),
            owner: None,
            links: 0,
        })
    }

    /// Walks to the folder of the last name.
    fn into_place(mut self, links: Links) -> io::Result<Place> {
        loop {
            let Some(name) = self.rest.pop() else {
                return Err(no_file(&self.path));
            };
            let is_last = self.rest.is_empty();
            let entry = match self.entry(&name) {
                Ok(entry) => entry,
                Err(rustix::io::Errno::NOENT) if is_last => return Ok(self.place(name, links)),
                Err(error) => return Err(error.into()),
            };
            let found = fstat(&entry)?;
            match FileType::from_raw_mode(found.st_mode) {
                FileType::Symlink if is_last && links == Links::Refused => {
                    return Ok(self.place(name, links));
                }
                FileType::Symlink => self.follow(&entry, &found)?,
                _ if is_last => return Ok(self.place(name, links)),
                _ => self.enter(entry, found)?,
            }
        }
    }

    /// Walks to the last folder that exists, and returns its owner.
    pub(super) fn into_owner(mut self) -> io::Result<Option<Owner>> {
        while let Some(name) = self.rest.pop() {
            let entry = match self.entry(&name) {
                Ok(entry) => entry,
                Err(rustix::io::Errno::NOENT) => {
                    return self.decided(is_exchangeable(&self.found));
                }
                Err(error) => return Err(error.into()),
            };
            let found = fstat(&entry)?;
            match FileType::from_raw_mode(found.st_mode) {
                FileType::Symlink => self.follow(&entry, &found)?,
                _ => self.enter(entry, found)?,
            }
        }
        self.decided(is_shared(&self.found))
    }

    /// Checks that no other user can write a folder of root's, in which work is done as root. A
    /// folder of root's below another user's folder counts as root's.
    fn decided(&self, others_write: bool) -> io::Result<Option<Owner>> {
        if self.found.st_uid != 0 {
            return Ok(self.owner);
        }
        if others_write {
            return Err(refusal(
                &self.path,
                "belongs to root and can be written by others: chmod go-w, or chown it to the user \
                 that the daemon runs as",
            ));
        }
        Ok(None)
    }

    fn entry(&self, name: &OsStr) -> rustix::io::Result<OwnedFd> {
        openat(&self.folder, name, NAME_ONLY, Mode::empty())
    }

    fn place(self, name: OsString, links: Links) -> Place {
        Place {
            is_shared: is_shared(&self.found),
            folder: self.folder,
            name,
            path: self.path,
            owner: self.owner,
            is_open_file: false,
            links,
        }
    }

    /// Follows a link that only root can have made.
    fn follow(&mut self, link: &OwnedFd, found: &Stat) -> io::Result<()> {
        let is_roots = !is_shared(&self.found) || (found.st_uid == 0 && found.st_nlink == 1);
        if self.owner.is_some() || !is_roots {
            let why = "leads through a symbolic link in a folder that others can write, and root \
                       does not follow it: remove the link, or name the path without it";
            return Err(refusal(&self.path, why));
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(rustix::io::Errno::LOOP.into());
        }
        let target = readlinkat(link, "", Vec::new())?.into_bytes();
        let target = PathBuf::from(OsString::from_vec(target));
        if target.is_absolute() {
            self.folder = root()?;
            self.found = fstat(&self.folder)?;
        }
        self.rest.extend(names(&target));
        Ok(())
    }

    fn enter(&mut self, folder: OwnedFd, found: Stat) -> io::Result<()> {
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            return Err(rustix::io::Errno::NOTDIR.into());
        }
        let of = Owner {
            uid: Uid::from_raw(found.st_uid),
            gid: Gid::from_raw(found.st_gid),
        };
        match self.owner {
            Some(owner) if ![Uid::ROOT, owner.uid].contains(&of.uid) => {
                let why = format!(
                    "leads from a folder of user {} into one of user {}: move it",
                    owner.uid, of.uid
                );
                return Err(refusal(&self.path, &why));
            }
            Some(owner) if owner.uid == of.uid => self.owner = Some(of),
            None if !of.uid.is_root() => self.owner = Some(of),
            _ => {}
        }
        self.folder = folder;
        self.found = found;
        Ok(())
    }
}

fn root() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(open("/", flags, Mode::empty())?)
}

/// Returns the names of a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|it| match it {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

/// Returns true if the owner is not root, or another user can write the folder.
fn is_shared(folder: &Stat) -> bool {
    folder.st_uid != 0 || Mode::from_raw_mode(folder.st_mode).intersects(Mode::WGRP | Mode::WOTH)
}

/// Returns true if other users can move files in the folder, which a sticky bit prevents.
fn is_exchangeable(folder: &Stat) -> bool {
    is_shared(folder) && !Mode::from_raw_mode(folder.st_mode).contains(Mode::SVTX)
}
