//! Folders as tar archives (POSIX pax), with modes and owners.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

/// Writes what is in `folder`, names relative to it. Sockets and devices are left out.
pub fn pack(folder: &Path, out: &mut impl Write) -> io::Result<()> {
    let mut builder = Builder::new(io::BufWriter::with_capacity(super::PIECE, out));
    // Folders before what is in them, and each in the order of its names.
    let mut waiting = vec![PathBuf::new()];
    while let Some(at) = waiting.pop() {
        let mut inside = Vec::new();
        for found in fs::read_dir(folder.join(&at))? {
            inside.push(at.join(found?.file_name()));
        }
        inside.sort();
        let mut folders = Vec::new();
        for path in inside {
            if add(&mut builder, folder, &path)? {
                folders.push(path);
            }
        }
        waiting.extend(folders.into_iter().rev());
    }
    builder.into_inner()?.flush()
}

/// Adds one; whether it is a folder. What has gone since is passed over.
fn add(builder: &mut Builder<impl Write>, folder: &Path, path: &Path) -> io::Result<bool> {
    let full = folder.join(path);
    let Some(found) = there(fs::symlink_metadata(&full))? else {
        return Ok(false);
    };
    let mut header = Header::new_gnu();
    header.set_metadata(&found);
    if found.is_dir() {
        builder.append_data(&mut header, path, io::empty())?;
        return Ok(true);
    }
    if found.is_symlink() {
        let Some(target) = there(fs::read_link(&full))? else {
            return Ok(false);
        };
        header.set_size(0);
        builder.append_link(&mut header, path, target)?;
    } else if found.is_file() {
        let Some(file) = there(File::open(&full))? else {
            return Ok(false);
        };
        // As long as its header says, whatever is written to it meanwhile.
        let size = found.len();
        header.set_size(size);
        builder.append_data(&mut header, path, file.chain(io::repeat(0)).take(size))?;
    }
    Ok(false)
}

/// None for what has gone meanwhile.
fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes what the archive holds in `folder`, which nothing of it leaves.
pub fn unpack(folder: &Path, from: &mut impl Read) -> io::Result<()> {
    let mut archive = Archive::new(from);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    for found in archive.entries()? {
        let mut found = found?;
        let kind = found.header().entry_type();
        if matches!(kind, EntryType::Char | EntryType::Block | EntryType::Fifo) {
            continue;
        }
        let name = found.path()?.display().to_string();
        if !found.unpack_in(folder)? {
            let message = format!("{name} leads out of the folder");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
    }
    Ok(())
}
