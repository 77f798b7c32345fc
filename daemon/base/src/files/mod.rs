//! Opens, writes and removes files by their paths; no other module does.
//!
//! Operators run our programs as root on folders that the users of daemon and workers can write. A
//! link that such a user plants must not redirect a program: [`walk`] resolves paths, and [`owner`]
//! runs libraries that open paths themselves. The umask does not change a mode.

pub mod atomic;
mod owner;
mod secret;
#[cfg(test)]
mod tests;
mod walk;

pub use owner::{as_owner, become_owner, owner_of};
pub use secret::{SecretUnusable, only_line, secret, secret_line};
pub use walk::Owner;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, chmod, fchmod, fchown, fstat, mkdirat,
    openat, renameat, renameat_with, unlinkat,
};
use rustix::process::{Gid, Uid, geteuid};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use walk::{LINK, Links, NO_FILE, Place, refusal};

/// Opens a file that an operator named, for reading.
pub fn open(path: &Path) -> io::Result<File> {
    Place::of(path, Links::Followed)?.open(OFlags::RDONLY, Mode::empty())
}

/// Opens a folder, to lock it.
pub fn open_folder(path: &Path) -> io::Result<File> {
    folder_at(&Place::of(path, Links::Followed)?).map(File::from)
}

/// Opens a file of ours, for reading.
pub fn open_ours(path: &Path) -> io::Result<File> {
    Place::of(path, Links::Refused)?.open(OFlags::RDONLY, Mode::empty())
}

/// Reads a file that an operator named. More than `limit` bytes are an error.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    whole(open(path)?, limit)
}

/// Reads a text file that an operator named. More than `limit` bytes are an error.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    text(read(path, limit)?)
}

/// Reads a file of ours. More than `limit` bytes are an error.
pub fn read_ours(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    whole(open_ours(path)?, limit)
}

/// Reads a text file of ours. More than `limit` bytes are an error.
pub fn read_ours_text(path: &Path, limit: u64) -> io::Result<String> {
    text(read_ours(path, limit)?)
}

fn whole(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not text"))
}

/// Makes a new file with exactly this mode.
pub fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let mode = Mode::from_raw_mode(mode);
    let file = Place::of(path, Links::Refused)?.open(flags, mode)?;
    fchmod(&file, mode)?;
    Ok(file)
}

/// Opens a lock file, and makes it for its owner alone if it does not exist. On a read-only file
/// system, an existing file is opened for reading, which `flock` permits.
pub fn open_lock(path: &Path) -> io::Result<File> {
    let place = Place::of(path, Links::Refused)?;
    let flags = OFlags::RDWR | OFlags::CREATE;
    match place.open(flags, Mode::RUSR | Mode::WUSR) {
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
            place.open(OFlags::RDONLY, Mode::empty()).map_err(|_| error)
        }
        opened => opened,
    }
}

/// Opens a file in a folder that an operator named, for reading and for writing at its end, and
/// makes it if it does not exist. A new file gets its mode from the umask.
pub fn open_for_lines(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND;
    Place::of(path, Links::Followed)?.open(flags, Mode::from_raw_mode(0o666))
}

/// Opens a file of ours for writing at its end, and makes it for its owner alone if it does not
/// exist.
pub fn open_ours_for_lines(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND;
    Place::of(path, Links::Refused)?.open(flags, Mode::RUSR | Mode::WUSR)
}

/// Overwrites a file that an operator named. A new file gets its mode from the umask.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE;
    let mode = Mode::from_raw_mode(0o666);
    let mut file = Place::of(path, Links::Followed)?.open(flags, mode)?;
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    file.write_all(content)
}

/// Fails if [`write`] could not write the file. Changes no existing file, and leaves no new one. A
/// pipe or device is not tried: to open it could end its reader.
pub fn try_write(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    let place = Place::of(path, Links::Followed)?;
    let (flags, is_new) = match place.stat() {
        Err(error) if error.kind() == ErrorKind::NotFound => (OFlags::CREATE, true),
        Err(error) => return Err(error),
        Ok(found) => match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => (OFlags::empty(), false),
            _ => return Ok(()),
        },
    };
    place.open(OFlags::WRONLY | flags, Mode::from_raw_mode(0o666))?;
    if is_new {
        unlinkat(&place.folder, &place.name, AtFlags::empty())?;
    }
    Ok(())
}

/// Makes a file if it does not exist, and lets its owner alone use it.
pub fn make_private(path: &Path) -> io::Result<()> {
    if is_there(path)? {
        return restrict(path);
    }
    match create_new(path, 0o600) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => restrict(path),
        made => made.map(drop),
    }
}

/// Fails if a name of ours is a link, FIFO or device. An absent file is accepted.
pub fn check_regular(path: &Path) -> io::Result<()> {
    regular(path, &Place::of(path, Links::Refused)?).map(drop)
}

fn regular(path: &Path, place: &Place) -> io::Result<Option<Stat>> {
    let found = match place.stat() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => Ok(Some(found)),
        FileType::Symlink => Err(refusal(path, LINK)),
        _ => Err(refusal(path, NO_FILE)),
    }
}

/// Restricts an existing file of ours to its owner.
pub fn restrict(path: &Path) -> io::Result<()> {
    let place = Place::of(path, Links::Refused)?;
    let Some(found) = regular(path, &place)? else {
        return Ok(());
    };
    let open_to_others = Mode::RWXG | Mode::RWXO;
    if !Mode::from_raw_mode(found.st_mode).intersects(open_to_others) {
        return Ok(());
    }
    // Opened only if needed: closing a file releases SQLite's locks on it.
    let file = place.open(OFlags::RDONLY, Mode::empty())?;
    match fchmod(&file, Mode::RUSR | Mode::WUSR) {
        // A daemon that serves with a wider mode is better than none.
        Err(rustix::io::Errno::ROFS) => {
            tracing::warn!(
                path = %path.display(),
                "file mode cannot be restricted: read-only disk",
            );
        }
        restricted => {
            restricted?;
            tracing::warn!(path = %path.display(), "file mode restricted to 0600");
        }
    }
    Ok(())
}

/// Gives a socket of ours exactly this mode. A link in its place is an error.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let place = Place::of(path, Links::Refused)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = openat(&place.folder, &place.name, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&socket)?.st_mode) != FileType::Socket {
        return Err(refusal(path, "is no socket: remove it"));
    }
    // The open file is changed, even if another file has its name now.
    let open = format!("/proc/self/fd/{}", socket.as_raw_fd());
    Ok(chmod(open, Mode::from_raw_mode(mode))?)
}

/// Makes a folder and the folders above it. Each new folder gets exactly this mode.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if let Some(above) = path.parent().filter(|it| !it.as_os_str().is_empty())
        && !above.exists()
    {
        make_folder(above, mode)?;
    }
    match make_new_folder(path, mode) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(refusal(path, "is no folder: move it away"))
        }
        made => made,
    }
}

/// Makes a new folder with exactly this mode.
pub fn make_new_folder(path: &Path, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    let place = Place::of(path, Links::Followed)?;
    mkdirat(&place.folder, &place.name, mode)?;
    Ok(fchmod(folder_at(&place)?, mode)?)
}

/// Gives a folder of the caller's to another user. A link in its place is an error.
pub fn give_folder(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let folder = folder_at(&Place::of(path, Links::Refused)?)?;
    Ok(fchown(
        folder,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
    )?)
}

fn folder_at(place: &Place) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | place.last_link();
    Ok(openat(&place.folder, &place.name, flags, Mode::empty())?)
}

/// Returns true if a name of ours exists, even as a link.
pub fn is_there(path: &Path) -> io::Result<bool> {
    match Place::of(path, Links::Refused)?.stat() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        found => found.map(|_| true),
    }
}

/// Moves a file within a file system. A link is moved and not followed.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let from = Place::of(from, Links::Refused)?;
    let to = Place::of(to, Links::Refused)?;
    Ok(renameat(&from.folder, &from.name, &to.folder, &to.name)?)
}

/// Moves a file to a new name. An existing file at that name is an error.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let from = Place::of(from, Links::Refused)?;
    let to = Place::of(to, Links::Refused)?;
    let new = RenameFlags::NOREPLACE;
    Ok(renameat_with(
        &from.folder,
        &from.name,
        &to.folder,
        &to.name,
        new,
    )?)
}

/// Removes a file if it exists. A link is removed and not followed.
pub fn remove(path: &Path) -> io::Result<()> {
    let place = match Place::of(path, Links::Refused) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        place => place?,
    };
    match unlinkat(&place.folder, &place.name, AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        removed => Ok(removed?),
    }
}

/// Removes a regular file that belongs to the caller's user. Returns false, and removes nothing, if
/// the file is absent, a link or another user's.
pub fn remove_own(path: &Path) -> io::Result<bool> {
    let place = Place::of(path, Links::Refused)?;
    let found = match place.stat() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    if !is_file || found.st_uid != geteuid().as_raw() {
        return Ok(false);
    }
    match unlinkat(&place.folder, &place.name, AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(false),
        removed => Ok(removed.map(|()| true)?),
    }
}

/// Makes the names in the folder of `file` durable.
pub fn sync_folder(file: &Path) -> io::Result<()> {
    let place = Place::of(file, Links::Refused)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    File::from(openat(&place.folder, ".", flags, Mode::empty())?).sync_all()
}
