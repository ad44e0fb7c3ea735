//! The file with the keys that seal secrets.
//!
//! One key a line, 32 random bytes in base64; the first one seals, all open. Empty lines and lines that begin with `#` are passed over.
//! What must hold: a file that others than its owner can read, or that is another user's, is refused; it is only ever replaced as a
//! whole, so that whoever reads it sees all of it.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lyra_kit::Random;
use zeroize::Zeroizing;

use super::seal::{KEY_BYTES, Key};

/// Most keys in a file.
const MAX_KEYS: usize = 16;
/// Largest file, in bytes.
const MAX_FILE: u64 = 16 << 10;

const HEAD: &str = "# Keys that seal Lyra's secrets, one a line. The first one seals, all open. Keep a copy elsewhere:\n\
                    # without it, what it has sealed can't be read by anybody.\n";

/// Why a key file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It is not there.
    #[error("the key file {path} is not there")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It can't be read or written.
    #[error("the key file {path} can't be {done}: {source}")]
    Access {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        done: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Others could have read it.
    #[error("the key file {path} has the mode {mode:03o}: only its owner may read it (chmod 600)")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is another user's.
    #[error("the key file {path} belongs to user {owner}, and Lyra runs as user {user}")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who reads it.
        user: u32,
    },
    /// What it holds are no keys. Says nothing of what it holds.
    #[error("the key file {path}: {fault}")]
    Contents {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
}

fn access(path: &Path, done: &'static str) -> impl FnOnce(std::io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |source| match source.kind() {
        ErrorKind::NotFound if done == "read" => KeyFileError::Missing { path },
        _ => KeyFileError::Access { path, done, source },
    }
}

/// Reads the keys in a file. Blocks.
///
/// # Errors
/// [`KeyFileError`]; there is at least one key otherwise.
pub fn read(path: &Path) -> Result<Vec<Key>, KeyFileError> {
    keys_of(path, &text_of(path)?)
}

fn text_of(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    // What is checked is what is read: the file is opened once.
    let file = std::fs::File::open(path).map_err(access(path, "read"))?;
    let about = file.metadata().map_err(access(path, "read"))?;
    let contents = |fault: &str| KeyFileError::Contents { path: path.to_owned(), fault: fault.to_owned() };
    if !about.is_file() {
        return Err(contents("is not a file"));
    }
    let (mode, user) = (about.mode() & 0o777, rustix::process::geteuid().as_raw());
    if about.uid() != user {
        return Err(KeyFileError::Owner { path: path.to_owned(), owner: about.uid(), user });
    }
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Mode { path: path.to_owned(), mode });
    }
    if about.len() > MAX_FILE {
        return Err(contents("is too large to be one"));
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE as usize));
    file.take(MAX_FILE).read_to_string(&mut text).map_err(access(path, "read"))?;
    Ok(text)
}

fn keys_of(path: &Path, text: &str) -> Result<Vec<Key>, KeyFileError> {
    let contents = |fault: String| KeyFileError::Contents { path: path.to_owned(), fault };
    let mut keys: Vec<Key> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let no_key = || contents(format!("line {} is not {KEY_BYTES} bytes in base64", number + 1));
        let bytes = Zeroizing::new(STANDARD.decode(line).map_err(|_| no_key())?);
        let key = Key::new(&bytes).ok_or_else(no_key)?;
        if keys.iter().any(|other| other.id() == key.id()) {
            return Err(contents(format!("line {} is a key that stands there already", number + 1)));
        }
        keys.push(key);
    }
    match keys.len() {
        0 => Err(contents("holds no key".to_owned())),
        1..=MAX_KEYS => Ok(keys),
        _ => Err(contents(format!("holds more than {MAX_KEYS} keys"))),
    }
}

/// Makes a file with one new key, if there is none yet. Blocks.
///
/// # Errors
/// [`KeyFileError::Access`].
pub fn make(path: &Path, random: &Random) -> Result<(), KeyFileError> {
    let text = Zeroizing::new(format!("{HEAD}{}\n", *line(random)));
    replace(path, &text)
}

/// Adds a new key to a file, or makes one; `first`: it shall seal from now on. Returns its id. Blocks.
///
/// # Errors
/// [`KeyFileError`].
pub fn add(path: &Path, first: bool, random: &Random) -> Result<String, KeyFileError> {
    let old = match text_of(path) {
        Ok(text) => {
            keys_of(path, &text)?;
            text
        }
        Err(KeyFileError::Missing { .. }) => Zeroizing::new(HEAD.to_owned()),
        Err(error) => return Err(error),
    };
    let line = line(random);
    let mut text = Zeroizing::new(String::with_capacity(old.len() + line.len() + 2));
    let (head, keys): (Vec<&str>, Vec<&str>) = old.lines().partition(|line| line.trim_start().starts_with('#'));
    let lines = head.into_iter().chain(first.then_some(line.as_str())).chain(keys);
    for line in lines.chain((!first).then_some(line.as_str())) {
        text.push_str(line);
        text.push('\n');
    }
    let keys = keys_of(path, &text)?;
    replace(path, &text)?;
    let new = if first { keys.first() } else { keys.last() };
    Ok(new.map(|key| key.id().to_owned()).unwrap_or_default())
}

/// A new key as a line.
fn line(random: &Random) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    random.fill(&mut *bytes);
    Zeroizing::new(STANDARD.encode(*bytes))
}

fn replace(path: &Path, text: &str) -> Result<(), KeyFileError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let written = || {
        // What a process that was killed has left.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        std::fs::File::open(parent)?.sync_all()
    };
    written().map_err(|source| KeyFileError::Access { path: path.to_owned(), done: "written", source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn ids(path: &Path) -> Vec<String> {
        read(path).unwrap().iter().map(|key| key.id().to_owned()).collect()
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.key");
        assert!(matches!(read(&path), Err(KeyFileError::Missing { .. })));
        make(&path, &Random::seeded(1)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(ids(&path).len(), 1);
        for mode in [0o640, 0o604, 0o620, 0o660, 0o644] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Mode { .. }), "{error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(ids(&path).len(), 1);
    }

    #[test]
    fn a_key_is_added_before_or_after_those_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let (path, random) = (dir.path().join("secrets.key"), Random::seeded(2));
        let one = add(&path, true, &random).unwrap();
        let two = add(&path, true, &random).unwrap();
        let three = add(&path, false, &random).unwrap();
        assert_eq!(ids(&path), [two, one, three]);
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("# Keys that seal"));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_key_is_refused_without_a_word_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.key");
        let key = STANDARD.encode([7; KEY_BYTES]);
        for (text, says) in [
            ("", "holds no key"),
            ("# a comment\n\n", "holds no key"),
            ("hunter2hunter2", "line 1"),
            (&*STANDARD.encode([7; 31]), "line 1"),
            (&format!("{key}\n{key}\n"), "line 2"),
        ] {
            replace(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("hunter2") && !error.contains(&key), "{error}");
        }
    }
}
