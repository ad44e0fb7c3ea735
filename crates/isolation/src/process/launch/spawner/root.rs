//! The files that a sandbox sees.
//!
//! Two halves. [`Sources`] is filled by the launcher, with its rights: it opens what shall be seen as detached mounts and
//! makes them read-only, so that the sandbox's own user need not be able to get there. [`stage`] and [`fill`] run in
//! the sandbox's first process: a small memory file system becomes the root and the old one goes away, and what all
//! sandboxes see is put into it ahead; then what this one sees beside that, and the root becomes read-only.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use lyra_types::secret::SECRETS_DIRECTORY;
use serde::{Deserialize, Serialize};

use super::super::error::{Fault, Step};
use super::super::plan::{Bind, Device, Plan, SecretFile};
use super::super::system::{self, attribute};

/// Where the new root is put before it becomes the root: any directory will do that every machine has and every user
/// may enter.
const STAGE: &str = "/tmp";

/// Devices that every sandbox has.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Size of the memory file system that is the root; it holds directories and a few short files.
const ROOT_OPTIONS: &str = "size=1m,nr_inodes=4096,mode=755";

/// A bound that no file system of many small files can pass: each inode takes memory of the kernel.
const BYTES_PER_INODE: u64 = 4096;

/// Size of the memory file system with secrets: a page for each is lost at most.
const SECRETS_OPTIONS: &str = "size=512k,nr_inodes=256,mode=700";

const USERS: &str = "root:x:0:0::/:/usr/sbin/nologin\nsandbox:x:1000:1000::/tmp:/bin/sh\n";
const GROUPS: &str = "root:x:0:\nsandbox:x:1000:\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";
const NAMES: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// What is put where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Piece {
    /// The next of the mounts, over a directory or a file.
    Mount { target: PathBuf, is_directory: bool },
    /// A symbolic link.
    Link { target: PathBuf, to: PathBuf },
}

/// What a sandbox shall see, opened.
pub(super) struct Sources {
    /// In the order in which they are to be made.
    pub(super) pieces: Vec<Piece>,
    /// For each piece that is a mount, in the same order.
    pub(super) mounts: Vec<OwnedFd>,
}

impl Sources {
    /// Opens what every sandbox sees: places of the machine, and devices.
    pub(super) fn common(binds: &[Bind]) -> Result<Sources, Fault> {
        Sources::open(binds, &DEVICES.map(Device::same))
    }

    /// Opens places and devices.
    pub(super) fn open(binds: &[Bind], devices: &[Device]) -> Result<Sources, Fault> {
        let (mut pieces, mut mounts) = (Vec::new(), Vec::new());
        for bind in binds {
            let failed = || format!("mounting {} into a sandbox", bind.source.display());
            let kind = fs::symlink_metadata(&bind.source).step(&failed())?.file_type();
            if kind.is_symlink() && bind.source == bind.target {
                let to = fs::read_link(&bind.source).step(&failed())?;
                if to.is_relative() {
                    pieces.push(Piece::Link { target: bind.target.clone(), to });
                    continue;
                }
            }
            mounts.push(open(&bind.source, bind.writable).step(&failed())?);
            let is_directory = if kind.is_symlink() { bind.source.is_dir() } else { kind.is_dir() };
            pieces.push(Piece::Mount { target: bind.target.clone(), is_directory });
        }
        for Device { source, target } in devices {
            let failed = || format!("handing the device {} to a sandbox", source.display());
            mounts.push(open_device(source).step(&failed())?);
            pieces.push(Piece::Mount { target: target.clone(), is_directory: false });
        }
        Ok(Sources { pieces, mounts })
    }

    /// Puts each in its place, in a sandbox.
    fn place(&self) -> Result<(), Fault> {
        let mut mounts = self.mounts.iter();
        for piece in &self.pieces {
            place(piece, &mut mounts).step(match piece {
                Piece::Mount { .. } => "putting a mount in its place",
                Piece::Link { .. } => "making a link",
            })?;
        }
        Ok(())
    }
}

/// A detached mount of a place, without devices or programs that change the user.
pub(super) fn open(source: &Path, writable: bool) -> io::Result<OwnedFd> {
    let mount = system::open_tree(source)?;
    let write = if writable { 0 } else { attribute::READ_ONLY };
    system::restrict_mount(mount.as_fd(), attribute::NO_SUID | attribute::NO_DEVICES | write, true)?;
    Ok(mount)
}

/// A detached mount of a device node, and of nothing else.
fn open_device(source: &Path) -> io::Result<OwnedFd> {
    if !fs::metadata(source)?.file_type().is_char_device() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    let mount = system::open_tree(source)?;
    system::restrict_mount(mount.as_fd(), attribute::NO_SUID, true)?;
    Ok(mount)
}

/// Makes a root of what every sandbox sees and goes into it. Runs in the sandbox's first process, with all rights over its
/// own namespaces only, before it is known what the sandbox is for: taking the old root away makes the kernel wait.
pub(super) fn stage(common: &Sources) -> Result<(), Fault> {
    system::set_propagation(libc::MS_PRIVATE).step("making mounts private")?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    let stage = Path::new(STAGE);
    system::mount("tmpfs", stage, flags, ROOT_OPTIONS).step("mounting the root of a sandbox")?;
    std::env::set_current_dir(stage).step("going to the root of a sandbox")?;
    directory(Path::new("proc")).step("making /proc")?;
    // Before the old root goes: the kernel allows it only where an unhidden /proc is seen already.
    system::mount("proc", Path::new("proc"), flags | libc::MS_NOEXEC, "")
        .step("mounting /proc in a sandbox")
        .map_err(|fault| fault.advise("in a container, it must be started with /proc not masked"))?;
    system::replace_root().step("changing to the root of a sandbox")?;
    furnish().step("filling the root of a sandbox")?;
    common.place()
}

/// Puts into the root what this sandbox sees beside that, and makes it read-only.
pub(super) fn fill(sources: &Sources, plan: &Plan) -> Result<(), Fault> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    let inodes = (plan.tmp_bytes / BYTES_PER_INODE).clamp(1024, 1 << 20);
    let options = format!("size={},nr_inodes={inodes},mode=1777", plan.tmp_bytes.max(4096));
    directory(Path::new("/tmp")).step("making /tmp")?;
    system::mount("tmpfs", Path::new("/tmp"), flags, &options).step("mounting /tmp in a sandbox")?;
    sources.place()?;
    if !plan.secrets.is_empty() {
        hide(&plan.secrets).step("handing secrets to a sandbox")?;
    }
    for point in &plan.mount_points {
        directory(point).step("making a mount point")?;
    }
    let root = fs::File::open("/").step("opening the root of a sandbox")?;
    let restricted = attribute::READ_ONLY | attribute::NO_SUID | attribute::NO_DEVICES;
    system::restrict_mount(root.as_fd(), restricted, false).step("making the root of a sandbox read-only")
}

/// What programs expect to find and is not the machine's.
fn furnish() -> io::Result<()> {
    directory(Path::new("/dev"))?;
    directory(Path::new("/etc"))?;
    for (path, to) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        // Shared memory lies in /tmp and is bounded with it.
        ("/dev/shm", "/tmp"),
    ] {
        symlink(to, path)?;
    }
    for (path, text) in
        [("/etc/passwd", USERS), ("/etc/group", GROUPS), ("/etc/hosts", HOSTS), ("/etc/nsswitch.conf", NAMES)]
    {
        fs::write(path, text)?;
    }
    Ok(())
}

/// Puts secrets into a memory file system of their own, which only the sandbox's user can read and nobody can write to.
fn hide(secrets: &[SecretFile]) -> io::Result<()> {
    let (path, flags) = (Path::new(SECRETS_DIRECTORY), libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC);
    directory(path)?;
    system::mount("tmpfs", path, flags, SECRETS_OPTIONS)?;
    for secret in secrets {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o400).open(path.join(&secret.name))?;
        file.write_all(secret.contents().reveal())?;
    }
    let mounted = fs::File::open(path)?;
    let restricted = attribute::READ_ONLY | attribute::NO_SUID | attribute::NO_DEVICES;
    system::restrict_mount(mounted.as_fd(), restricted, false)
}

fn place<'a>(piece: &Piece, mounts: &mut impl Iterator<Item = &'a OwnedFd>) -> io::Result<()> {
    match piece {
        Piece::Mount { target, is_directory } => {
            let mount = mounts.next().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
            if *is_directory {
                directory(target)?;
            } else {
                file(target)?;
            }
            system::attach(mount.as_fd(), target)
        }
        Piece::Link { target, to } => {
            target.parent().map_or(Ok(()), directory)?;
            symlink(to, target)
        }
    }
}

fn directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn file(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    path.parent().map_or(Ok(()), directory)?;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map(drop)
}
