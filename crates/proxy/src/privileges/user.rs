//! From root to an ordinary user.

use std::ffi::{CStr, CString};
use std::io;
use std::ptr;

use rustix::process::{Gid, Uid};
use rustix::thread;

/// Most bytes of one user's entry.
const ENTRY: usize = 16 * 1024;

/// Gives up root, for good and with all groups. Only with one thread: it is that one's alone.
///
/// # Errors
/// One line: there is no such user, it is root, or the system refuses.
pub fn become_user(name: &str) -> Result<(), String> {
    let (uid, gid) = ids(name).map_err(|why| format!("--user {name}: {why}"))?;
    let refused = |error: rustix::io::Errno| format!("--user {name}: {error}");
    // The user last: without root nothing else can be changed.
    thread::set_thread_groups(&[]).map_err(refused)?;
    thread::set_thread_res_gid(gid, gid, gid).map_err(refused)?;
    thread::set_thread_res_uid(uid, uid, uid).map_err(refused)
}

/// The ids of a user's name, or of a number, which is both.
fn ids(name: &str) -> Result<(Uid, Gid), String> {
    let (uid, gid) = match name.parse() {
        Ok(number) => (number, number),
        Err(_) => look_up(name)?,
    };
    // The largest number means "as it was" to setresuid(2).
    if uid == 0 || gid == 0 || uid == u32::MAX || gid == u32::MAX {
        return Err("an ordinary user is wanted: root is what is given up".to_owned());
    }
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

fn look_up(name: &str) -> Result<(u32, u32), String> {
    let name = CString::new(name).map_err(|_| "not a user's name".to_owned())?;
    let mut buffer = vec![0; ENTRY];
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut found = ptr::null_mut();
    // SAFETY: all pointers are to what lives until after the call, and the buffer's length is
    // its own; `entry` is read only when `found` says that it was filled.
    let status = unsafe {
        libc::getpwnam_r(
            CStr::as_ptr(&name),
            entry.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &mut found,
        )
    };
    if status != 0 {
        return Err(io::Error::from_raw_os_error(status).to_string());
    }
    if found.is_null() {
        return Err("there is no such user; name another one or a number".to_owned());
    }
    // SAFETY: see above; only numbers are taken out, none of its pointers.
    let entry = unsafe { entry.assume_init_ref() };
    Ok((entry.pw_uid, entry.pw_gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_users_and_root_is_none() {
        let (uid, gid) = ids("nobody").unwrap();
        assert!(!uid.is_root() && !gid.is_root());
        let (uid, gid) = ids("4242").unwrap();
        assert_eq!((uid.as_raw(), gid.as_raw()), (4242, 4242));
        for wrong in ["root", "0", "4294967295", "", "no\0body", "no such user"] {
            assert!(ids(wrong).is_err(), "{wrong:?}");
        }
    }
}
