//! `hyperfleet-guest-agent files …`: reads, writes, lists and deletes, for the host, which runs it as
//! any process. What it says is in [`hyperfleet_wire::files`].
//!
//! ```text
//! get PATH                      the file's bytes
//! put PATH SIZE MODE OWNER      makes it of standard input; `-`: not known, or as before
//! put-in PATH SIZE MODE OWNER   the same, its folders too
//! stat PATH
//! usage PATH                    of its file system
//! list PATH MOST                the folder itself, then what is in it
//! delete PATH
//! delete-all PATH               with all that is in it
//! pack PATH                     a folder as a tar
//! unpack PATH                   a tar on standard input, into a folder
//! ```

mod archive;

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hyperfleet_wire::files::{Entry, FileMessage, Kind};
use hyperfleet_wire::{encode, length};
use rustix::fs::{linkat, AtFlags, Gid, Mode, OFlags, Uid, CWD};

/// How much is moved at once.
const PIECE: usize = 256 * 1024;
/// Of a file that is new, unless told otherwise.
const NEW_MODE: u32 = 0o644;
const PERMISSIONS: u32 = 0o7777;

/// Why it can't be; becomes [`FileMessage::Refused`].
struct Refusal {
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new("invalid", message)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => "not_found",
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "permission",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "no_space",
            io::ErrorKind::IsADirectory => "is_folder",
            io::ErrorKind::NotADirectory => "not_folder",
            io::ErrorKind::DirectoryNotEmpty => "not_empty",
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => "invalid",
            _ => "failed",
        };
        Self::new(code, error.to_string())
    }
}

impl From<rustix::io::Errno> for Refusal {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// Does what the arguments say; the exit code is 0 when it is done.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let mut out = io::stdout().lock();
    let refused = perform(arguments, &mut out).err();
    let done = refused.is_none();
    let said = refused.map_or(Ok(()), |Refusal { code, message }| {
        let code = code.to_owned();
        say(&mut out, &FileMessage::Refused { code, message })
    });
    match said.and_then(|()| out.flush()) {
        Ok(()) if done => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn perform(arguments: &[OsString], out: &mut impl Write) -> Result<(), Refusal> {
    let [what, path, rest @ ..] = arguments else {
        return Err(Refusal::invalid("no path"));
    };
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(Refusal::invalid("the path does not begin with /"));
    }
    let rest: Vec<&str> = rest.iter().filter_map(|word| word.to_str()).collect();
    match (what.to_str().unwrap_or_default(), &rest[..]) {
        ("get", []) => get(path, out),
        ("put", [size, mode, owner]) => put(path, &Wanted::parse(size, mode, owner)?, out),
        ("put-in", [size, mode, owner]) => {
            let wanted = Wanted::parse(size, mode, owner)?;
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            put(path, &wanted, out)
        }
        ("stat", []) => Ok(say(out, &FileMessage::Entry(entry(path)?))?),
        ("usage", []) => Ok(say(out, &usage(path)?)?),
        ("list", [most]) => list(path, number(most)?, out),
        ("delete", []) => delete(path, false, out),
        ("delete-all", []) => delete(path, true, out),
        ("pack", []) => {
            say(out, &FileMessage::Entry(folder(path)?))?;
            Ok(archive::pack(path, out)?)
        }
        ("unpack", []) => {
            fs::create_dir_all(path)?;
            archive::unpack(path, &mut io::stdin().lock())?;
            Ok(done(out, false)?)
        }
        _ => Err(Refusal::invalid("not understood")),
    }
}

/// As df(1) counts: what is kept for root alone is neither used nor to be had.
fn usage(path: &Path) -> Result<FileMessage, Refusal> {
    let told = rustix::fs::statvfs(path)?;
    let used = told.f_blocks.saturating_sub(told.f_bfree) * told.f_frsize;
    Ok(FileMessage::Usage {
        size: used + told.f_bavail * told.f_frsize,
        used,
    })
}

/// What a file is to be, as far as it was said.
struct Wanted {
    size: Option<u64>,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
}

impl Wanted {
    fn parse(size: &str, mode: &str, owner: &str) -> Result<Self, Refusal> {
        let told = |word: &str| (word != "-").then(|| word.to_owned());
        let owner = match told(owner) {
            None => None,
            Some(both) => match both.split_once(':') {
                Some((uid, gid)) => Some((number(uid)?, number(gid)?)),
                None => return Err(Refusal::invalid("the owner is not UID:GID")),
            },
        };
        let mode = told(mode).map(|mode| u32::from_str_radix(&mode, 8));
        Ok(Self {
            size: told(size).map(|size| number(&size)).transpose()?,
            mode: mode
                .transpose()
                .map_err(|_| Refusal::invalid("the mode is not octal"))?,
            owner,
        })
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, Refusal> {
    word.parse()
        .map_err(|_| Refusal::invalid(format!("{word:?} is no number")))
}

fn get(path: &Path, out: &mut impl Write) -> Result<(), Refusal> {
    // What is not a file may hold up whoever opens it.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    let found = file.metadata()?;
    if found.is_dir() {
        return Err(Refusal::new("is_folder", "it is a folder"));
    }
    if !found.is_file() {
        return Err(Refusal::invalid("it is neither a file nor a folder"));
    }
    let told = entry_of(path, &found, None);
    let size = told.size;
    say(out, &FileMessage::Entry(told))?;
    let sent = copy(&mut file, out, size.unwrap_or(u64::MAX))?;
    match size {
        // It has been cut while it was read: what is missing must not look like the whole.
        Some(size) if sent < size => Err(Refusal::new("failed", "it has become shorter")),
        _ => Ok(()),
    }
}

/// The file is there whole, under its name, or not at all: another one before it stays until then.
fn put(path: &Path, wanted: &Wanted, out: &mut impl Write) -> Result<(), Refusal> {
    let (path, before) = place(path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    // Without a name, so that nothing is left of it when this process is killed.
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(folder, flags, Mode::from_raw_mode(0o600))?);
    let taken = copy(&mut io::stdin().lock(), &mut &file, u64::MAX)?;
    if wanted.size.is_some_and(|size| size != taken) {
        return Err(Refusal::new("failed", "it did not come whole"));
    }
    if let Some((uid, gid)) = wanted
        .owner
        .or(before.as_ref().map(|found| (found.uid(), found.gid())))
    {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    // After the owner, whose change takes setuid and setgid away (chown(2)).
    let mode = wanted
        .mode
        .or(before.map(|found| found.mode() & PERMISSIONS));
    file.set_permissions(fs::Permissions::from_mode(mode.unwrap_or(NEW_MODE)))?;
    file.sync_all()?;
    name(&file, &path)?;
    Ok(say(out, &FileMessage::Entry(entry(&path)?))?)
}

/// Where a file of that name is to lie, links followed, and what lies there.
fn place(path: &Path) -> Result<(PathBuf, Option<Metadata>), Refusal> {
    if path.file_name().is_none() {
        return Err(Refusal::new("is_folder", "it is a folder"));
    }
    match fs::canonicalize(path) {
        Ok(real) => {
            let found = fs::metadata(&real)?;
            if found.is_dir() {
                return Err(Refusal::new("is_folder", "it is a folder"));
            }
            if !found.is_file() {
                return Err(Refusal::invalid("it is neither a file nor a folder"));
            }
            Ok((real, Some(found)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((path.to_owned(), None)),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file without a name its place, in one step: linkat(2) takes no name that is taken.
fn name(file: &File, path: &Path) -> Result<(), Refusal> {
    let own = PathBuf::from(format!(
        "/proc/self/fd/{}",
        rustix::fd::AsRawFd::as_raw_fd(file)
    ));
    let mut hidden = std::ffi::OsString::from(".hyperfleet-");
    hidden.push(std::process::id().to_string());
    let beside = path.with_file_name(hidden);
    linkat(CWD, &own, CWD, &beside, AtFlags::SYMLINK_FOLLOW)?;
    fs::rename(&beside, path).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })?;
    // The name is durable once its folder is.
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(())
}

fn list(path: &Path, most: usize, out: &mut impl Write) -> Result<(), Refusal> {
    let mut out = io::BufWriter::with_capacity(PIECE, out);
    say(&mut out, &FileMessage::Entry(folder(path)?))?;
    let mut names = Vec::new();
    for found in fs::read_dir(path)? {
        names.push(found?.file_name());
        if names.len() > most {
            break;
        }
    }
    let truncated = names.len() > most;
    names.truncate(most);
    names.sort();
    for name in names {
        let at = path.join(&name);
        // It may have gone since.
        let Ok(found) = fs::symlink_metadata(&at) else {
            continue;
        };
        let target = fs::read_link(&at).ok();
        say(&mut out, &FileMessage::Entry(entry_of(&at, &found, target)))?;
    }
    done(&mut out, truncated)?;
    Ok(out.flush()?)
}

fn delete(path: &Path, whole: bool, out: &mut impl Write) -> Result<(), Refusal> {
    let found = fs::symlink_metadata(path)?;
    if fs::canonicalize(path).is_ok_and(|real| real == Path::new("/")) {
        return Err(Refusal::new("busy", "it is the root folder"));
    }
    if !found.is_dir() {
        fs::remove_file(path)?;
    } else if whole {
        fs::remove_dir_all(path)?;
    } else {
        fs::remove_dir(path)?;
    }
    Ok(done(out, false)?)
}

fn folder(path: &Path) -> Result<Entry, Refusal> {
    let found = entry(path)?;
    if found.kind != Kind::Folder {
        return Err(Refusal::new("not_folder", "it is no folder"));
    }
    Ok(found)
}

/// What is at `path`, links followed.
fn entry(path: &Path) -> io::Result<Entry> {
    Ok(entry_of(path, &fs::metadata(path)?, None))
}

fn entry_of(path: &Path, found: &Metadata, target: Option<PathBuf>) -> Entry {
    let kind = found.file_type();
    let kind = if kind.is_file() {
        Kind::File
    } else if kind.is_dir() {
        Kind::Folder
    } else if kind.is_symlink() {
        Kind::Link
    } else {
        debug_assert!(
            kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device()
        );
        Kind::Other
    };
    let name = path.file_name().unwrap_or_default();
    Entry {
        name: name.to_string_lossy().into_owned(),
        kind,
        // The kernel's own files say 0 and hold something.
        size: (kind == Kind::File && found.size() > 0).then(|| found.size()),
        mode: found.mode() & PERMISSIONS,
        uid: found.uid(),
        gid: found.gid(),
        mtime: found.mtime(),
        target: target.map(|target| target.to_string_lossy().into_owned()),
    }
}

/// Moves up to `most` bytes; how many there were.
fn copy(from: &mut impl Read, to: &mut impl Write, most: u64) -> io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut moved = 0;
    while moved < most {
        let room = piece
            .len()
            .min(usize::try_from(most - moved).unwrap_or(usize::MAX));
        match from.read(&mut piece[..room]) {
            Ok(0) => break,
            Ok(count) => {
                to.write_all(&piece[..count])?;
                moved += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    to.flush()?;
    Ok(moved)
}

fn done(out: &mut impl Write, truncated: bool) -> io::Result<()> {
    say(out, &FileMessage::Done { truncated })
}

fn say(out: &mut impl Write, message: &FileMessage) -> io::Result<()> {
    let mut framed = Vec::new();
    length::write(&encode(message), &mut framed).map_err(io::Error::other)?;
    out.write_all(&framed)
}
