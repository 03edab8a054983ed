//! What the agent's own program says about files, on its standard output, in [`crate::length`]
//! frames.
//!
//! The host runs it as any process (`exec` of [`PROGRAM`]), so that its output is held up when
//! nobody reads and its input is granted: a file of any size takes no memory on the way. After the
//! first frame of `get` and `pack` come the bytes themselves, to the end; the exit code says whether
//! they are all.

use serde::{Deserialize, Serialize};

/// The program: what runs already, whatever the machine's disk holds.
pub const PROGRAM: &str = "/proc/self/exe";
/// Its first argument.
pub const SUBCOMMAND: &str = "files";

/// One frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FileMessage {
    /// A file, folder or other thing, as it is.
    Entry(Entry),
    /// How much of the file system at a path is used, bytes; `size` is what there can be.
    Usage { size: u64, used: u64 },
    /// It can't be. `code`: `not_found`, `is_folder`, `not_folder`, `not_empty`, `busy`, `permission`,
    /// `no_space`, `invalid` or `failed`.
    Refused { code: String, message: String },
    /// That was all; `truncated`: there are more entries than were asked for.
    Done { truncated: bool },
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Within its folder; what is not UTF-8 became U+FFFD.
    pub name: String,
    pub kind: Kind,
    /// In bytes; of a file whose size is not known before it is read (in /proc, say): none.
    pub size: Option<u64>,
    /// The permission bits, setuid, setgid and sticky among them.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// When it was last written, in seconds since 1970, UTC.
    pub mtime: i64,
    /// Where a symbolic link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    File,
    Folder,
    Link,
    Other,
}
