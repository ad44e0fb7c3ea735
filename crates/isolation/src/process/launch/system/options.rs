//! Options of whole file systems, by the calls that take them one by one (`fsconfig(2)`, Linux 5.2).

use std::ffi::{CStr, CString, c_int};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::ptr::null;

use super::{check_long, owned, path_string};

const FSOPEN_CLOEXEC: u32 = 1;
const FSPICK_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;

/// Makes a file system of a kind with these options, mounted nowhere and gone with the call.
pub(in super::super) fn make_file_system(kind: &CStr, options: &[&str]) -> io::Result<()> {
    // SAFETY: the kind ends with a zero and lives on.
    let fd = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
    configure(&owned(c_int::try_from(fd).unwrap_or(-1))?, options, FSCONFIG_CMD_CREATE)
}

/// Gives the file system that is mounted at a place these options in place of those it has.
pub(in super::super) fn reconfigure_mount(point: &Path, options: &[&str]) -> io::Result<()> {
    let point = path_string(point)?;
    // SAFETY: the path ends with a zero and lives on.
    let fd = unsafe { libc::syscall(libc::SYS_fspick, libc::AT_FDCWD, point.as_ptr(), FSPICK_CLOEXEC) };
    configure(&owned(c_int::try_from(fd).unwrap_or(-1))?, options, FSCONFIG_CMD_RECONFIGURE)
}

fn configure(context: &OwnedFd, options: &[&str], command: u32) -> io::Result<()> {
    let (context, nothing) = (context.as_raw_fd(), null::<libc::c_char>());
    for option in options {
        let option = CString::new(*option).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: the name ends with a zero and lives on; a flag has no value.
        check_long(unsafe {
            libc::syscall(libc::SYS_fsconfig, context, FSCONFIG_SET_FLAG, option.as_ptr(), nothing, 0)
        })?;
    }
    // SAFETY: a command has no name and no value.
    check_long(unsafe { libc::syscall(libc::SYS_fsconfig, context, command, nothing, nothing, 0) }).map(drop)
}
