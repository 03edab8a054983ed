//! How many descriptors the process may have.

use std::io;

/// Two descriptors a client: the soft limit, often 1024, is raised to what is allowed. A process
/// that may not do so serves with what it has.
pub fn raise_limit() {
    let Ok(mut limit) = limit() else {
        return;
    };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: it reads the struct, which lives on this stack.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
}

fn limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: it fills the struct, which lives on this stack.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_are_allowed_can_be_used() {
        raise_limit();
        let limit = limit().unwrap();
        assert_eq!(limit.rlim_cur, limit.rlim_max);
    }
}
