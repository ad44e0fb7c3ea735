//! Ids that Lyra gives: a prefix that says what it is, and a ULID, so that ids sort by time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

use crate::{Code, Error};

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(u128);

        impl $type {
            /// What every id of this kind starts with.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id from the time (milliseconds since the epoch) and 80 random bits.
            pub fn from_parts(millis: u64, random: u128) -> $type {
                $type(Ulid::from_parts(millis, random).0)
            }

            /// The id of that number.
            pub const fn from_number(number: u128) -> $type {
                $type(number)
            }

            /// The id's number, as the store keeps it.
            pub const fn number(self) -> u128 {
                self.0
            }

            /// The time that the id was made at, in milliseconds since the epoch.
            pub fn millis(self) -> u64 {
                Ulid(self.0).timestamp_ms()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; ulid::ULID_LEN];
                Ulid(self.0).array_to_str(&mut text);
                text.make_ascii_lowercase();
                f.write_str($prefix)?;
                f.write_str(std::str::from_utf8(&text).unwrap_or_default())
            }
        }

        impl FromStr for $type {
            type Err = Error;
            fn from_str(text: &str) -> Result<$type, Error> {
                text.strip_prefix($prefix)
                    .filter(|rest| rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
                    .and_then(|rest| Ulid::from_string(rest).ok())
                    .map(|ulid| $type(ulid.0))
                    .ok_or_else(|| {
                        let shown: String = text.chars().take(64).collect();
                        Error::new(Code::NotFound, format!("\"{}\" is not an id of the form {}…", shown.escape_debug(), $prefix))
                    })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// One call of a function.
    InvocationId,
    "inv_"
);
id!(
    /// One durable job.
    JobId,
    "job_"
);
id!(
    /// One sandbox holding one version.
    InstanceId,
    "ins_"
);
id!(
    /// One token: what names it, and no secret.
    TokenId,
    "tok_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_and_sort_by_time() {
        let a = JobId::from_parts(1_000, 7);
        let b = JobId::from_parts(2_000, 3);
        assert!(a < b && a.to_string() < b.to_string());
        assert_eq!(a.to_string().parse::<JobId>().as_ref(), Ok(&a));
        assert!(a.to_string().starts_with("job_0"));
        for bad in ["", "job_", "inv_00000000000000000000000000", "job_0000000000000000000000000!", "JOB_1"] {
            assert_eq!(bad.parse::<JobId>().expect_err(bad).code, Code::NotFound);
        }
    }
}
