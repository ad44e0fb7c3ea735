//! The classic routes: their names and job ids in Lyra's terms, and what the gateway asks of control for them.
//!
//! A user of the classic system is a tenant; the user's functions are `js` functions of that tenant. Classic names may hold
//! what Lyra's may not, so each has one of its own in Lyra: itself where it can be, else one with its digest. Different classic
//! names have different ones.
//!
//! A classic job id is 24 hexadecimal digits: when the job was accepted (seconds), a number that tells it from the others of that
//! second, and the number of its user. The job's own id is made of the same, so each can be told from the other.

use std::fmt::{self, Write};

use lyra_types::{Code, Error, FunctionName, JobId, Result, TenantName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest name of a user or function, in bytes.
pub const MAX_NAME: usize = 64;

/// What Lyra's names begin with where they are not the classic ones.
const ENCODED: &str = "c--";
/// Characters of an encoded name that show the classic one.
const SHOWN: usize = 24;
/// The lowest bits of the ids of classic jobs.
const TAG: u128 = 0xC1A5;

/// The name of a user or function on the classic routes: 1 to 64 letters, digits, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClassicName(String);

impl ClassicName {
    /// Checks the naming rule.
    ///
    /// # Errors
    /// [`Code::InvalidName`].
    pub fn new(text: &str) -> Result<ClassicName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(allowed) {
            let detail = format!("a name must have 1 to {MAX_NAME} letters, digits, '_' and '-'");
            return Err(Error::new(Code::InvalidName, detail));
        }
        Ok(ClassicName(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tenant of the user of this name.
    pub fn tenant(&self) -> TenantName {
        TenantName::new(&self.in_lyra()).expect("what in_lyra makes is a name")
    }

    /// The function of this name.
    pub fn function(&self) -> FunctionName {
        FunctionName::new(&self.in_lyra()).expect("what in_lyra makes is a name")
    }

    fn in_lyra(&self) -> String {
        let name = &*self.0;
        if !name.starts_with(ENCODED) && TenantName::new(name).is_ok() {
            return name.to_owned();
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let shown: String = name.chars().take(SHOWN).map(plain).collect();
        let shown = shown.trim_matches('-');
        let digest = Sha256::digest(name);
        let mut made = format!("{ENCODED}{shown}");
        if !shown.is_empty() {
            made.push('-');
        }
        made.push_str(&hex::encode(&digest[..16]));
        made
    }
}

impl fmt::Display for ClassicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ClassicName {
    type Error = Error;
    fn try_from(text: String) -> Result<ClassicName> {
        ClassicName::new(&text)
    }
}

impl From<ClassicName> for String {
    fn from(name: ClassicName) -> String {
        name.0
    }
}

/// The id of a job on the classic routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClassicJob {
    /// When it was accepted, in seconds since the Unix epoch.
    pub seconds: u32,
    /// Which of the jobs of that second.
    pub sequence: u32,
    /// The number of its user.
    pub user: u32,
}

impl ClassicJob {
    /// Reads what stands in a path: 24 hexadecimal digits, or the 12 bytes that they would stand for.
    pub fn parse(text: &str) -> Option<ClassicJob> {
        let bytes: [u8; 12] = match text.len() {
            24 => hex::decode(text).ok()?.try_into().ok()?,
            _ => text.as_bytes().try_into().ok()?,
        };
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Some(ClassicJob { seconds: word(0), sequence: word(4), user: word(8) })
    }

    /// The job's id in Lyra.
    pub fn id(self) -> JobId {
        let rest = u128::from(self.sequence) << 48 | u128::from(self.user) << 16 | TAG;
        JobId::from_parts(u64::from(self.seconds) * 1_000, rest)
    }

    /// The classic id of a job; `None` for one that was given no such id.
    pub fn of(id: JobId) -> Option<ClassicJob> {
        let number = id.number();
        let millis = id.millis();
        let whole = millis.is_multiple_of(1_000) && number & 0xffff == TAG;
        let word = |shift: u32| u32::try_from(number >> shift & 0xffff_ffff).unwrap_or_default();
        let seconds = u32::try_from(millis / 1_000).ok().filter(|_| whole)?;
        Some(ClassicJob { seconds, sequence: word(48), user: word(16) })
    }
}

impl fmt::Display for ClassicJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(24);
        write!(text, "{:08x}{:08x}{:08x}", self.seconds, self.sequence, self.user)?;
        f.write_str(&text)
    }
}

/// The number under which a tenant's classic jobs are found, if no other tenant has it: one for each `attempt`.
pub fn user_number(tenant: &TenantName, attempt: u32) -> u32 {
    let digest = Sha256::new().chain_update(tenant.as_str()).chain_update(attempt.to_be_bytes()).finalize();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Settings of a function that the classic route lets be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClassicSettings {
    /// Deadline of a call, in ms; the default of all functions where `None`.
    pub timeout_ms: Option<u64>,
    /// Most memory of a call, in MiB; the default of all functions where `None`.
    pub memory_mb: Option<u32>,
    /// Objects and arrays leave as `String` shows them, not as JSON.
    pub exact: bool,
}

/// What the gateway asks of control.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ClassicRequest {
    /// Makes the user, or takes the functions and the time of the one that is there.
    PutUser(ClassicName),
    /// Removes the user with all functions; jobs stay. One that is not there is removed already.
    RemoveUser(ClassicName),
    /// Is there such a user?
    User(ClassicName),
    /// The execution time of the user's functions since the user was made or reset.
    Time(ClassicName),
    /// The user's functions by name, with their sources, from the first one after `after`.
    Functions {
        /// The user.
        user: ClassicName,
        /// Where the answer before ended.
        after: Option<FunctionName>,
    },
    /// One function's source.
    Function {
        /// The user.
        user: ClassicName,
        /// The function.
        function: ClassicName,
    },
    /// Makes or changes a function.
    PutFunction {
        /// The user.
        user: ClassicName,
        /// The function.
        function: ClassicName,
        /// Its source.
        source: String,
        /// How it runs.
        settings: ClassicSettings,
    },
    /// Removes a function; jobs that wait for it run to their end. One that is not there is removed already.
    RemoveFunction {
        /// The user.
        user: ClassicName,
        /// The function.
        function: ClassicName,
    },
    /// Whose jobs have this number?
    Owner(u32),
}

/// What control answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ClassicAnswer {
    /// It is done, or so. A gateway that has applied this revision routes by it.
    Done {
        /// The store's revision.
        revision: u64,
    },
    /// There is no such user.
    NoUser,
    /// The user has no such function.
    NoFunction,
    /// Execution time, in ms.
    Time(u64),
    /// Some functions: names and sources.
    Functions {
        /// By name in Lyra.
        functions: Vec<(String, String)>,
        /// Where to go on, if there may be more.
        next: Option<FunctionName>,
    },
    /// A source.
    Source(String),
    /// The tenant of that number, if there is one.
    Owner(Option<TenantName>),
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> ClassicName {
        ClassicName::new(text).unwrap()
    }

    #[test]
    fn names_that_lyra_takes_stay_as_they_are() {
        for plain in ["user1", "add", "a-b", "0"] {
            assert_eq!(name(plain).function().as_str(), plain);
        }
        assert!(name("addWith_Delay").function().as_str().starts_with("c--addwith-delay-"));
        for bad in ["", "a.b", "a b", "é", "$x", &"x".repeat(65)] {
            assert_eq!(ClassicName::new(bad).unwrap_err().code, Code::InvalidName, "{bad}");
        }
    }

    #[test]
    fn different_names_stay_different() {
        let mut seen = HashMap::new();
        let encoded = name("Add").function().to_string();
        let texts =
            ["add", "Add", "ADD", "a_b", "a-b", "-", "--", "_", "-a", "a-", &encoded, &"x".repeat(64), &"x".repeat(63)];
        for text in texts {
            if let Some(other) = seen.insert(name(text).function(), text) {
                panic!("{text} and {other} are the same");
            }
        }
    }

    proptest! {
        #[test]
        fn every_name_has_one_in_lyra(text in "[A-Za-z0-9_-]{1,64}") {
            let name = name(&text);
            prop_assert_eq!(name.tenant().to_string(), name.function().to_string());
        }

        #[test]
        fn job_ids_are_told_from_each_other(seconds: u32, sequence: u32, user: u32) {
            let job = ClassicJob { seconds, sequence, user };
            prop_assert_eq!(ClassicJob::parse(&job.to_string()), Some(job));
            prop_assert_eq!(ClassicJob::parse(&job.to_string().to_uppercase()), Some(job));
            prop_assert_eq!(ClassicJob::of(job.id()), Some(job));
            prop_assert_eq!(job.to_string().len(), 24);
        }
    }

    #[test]
    fn a_malformed_job_id_is_none() {
        for bad in ["", "x", "5ff867daccccb5e5167f5a0", "5ff867daccccb5e5167f5a0g", "5ff867daccccb5e5167f5a0f0"] {
            assert_eq!(ClassicJob::parse(bad), None, "{bad}");
        }
        assert!(ClassicJob::parse("twelve bytes").is_some());
        assert_eq!(ClassicJob::of(JobId::from_parts(1_001, 0xC1A5)), None);
    }
}
