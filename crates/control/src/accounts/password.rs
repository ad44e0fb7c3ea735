//! Passwords: Argon2id (RFC 9106) with the parameters that OWASP's cheat sheet of password storage recommends (19 MiB, 2 passes, 1 lane).
//!
//! Each hash needs its memory and tens of milliseconds, so few are made at once, off the threads that serve, and only so many wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use lyra_kit::{Random, tasks};
use lyra_types::{Code, Error, Result, Secret};
use tokio::sync::Semaphore;

/// Hashes that are made at once.
const AT_ONCE: usize = 2;
/// Those that wait for their turn; more are refused.
const MAX_WAITING: usize = 64;
/// Bytes of a salt.
const SALT: usize = 16;

/// Makes and checks hashes.
#[derive(Clone)]
pub(super) struct Passwords {
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    random: Random,
    /// A hash that no password has, so that the check of somebody who is not there takes as long as of somebody who is.
    nobody: Arc<str>,
}

struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn argon2() -> Argon2<'static> {
    Argon2::default()
}

impl Passwords {
    pub(super) fn new(random: Random) -> Passwords {
        let cost = (Params::DEFAULT_M_COST, Params::DEFAULT_T_COST, Params::DEFAULT_P_COST);
        // 16 bytes of salt and 32 of a hash, all zero.
        let nobody =
            format!("$argon2id$v=19$m={},t={},p={}${}${}", cost.0, cost.1, cost.2, "A".repeat(22), "A".repeat(43));
        Passwords { places: Arc::new(Semaphore::new(AT_ONCE)), waiting: Arc::default(), random, nobody: nobody.into() }
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let full = || {
            let detail = "too many passwords are being checked; try again";
            Error::new(Code::Overloaded, detail).with_retry_after(Duration::from_secs(1))
        };
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(Arc::clone(&self.waiting));
        if waiting >= MAX_WAITING {
            return Err(full());
        }
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| full())?;
        // The place is held by the work, which goes on when nobody waits for it any more.
        let done = tasks::blocking(move || {
            let done = work();
            drop(place);
            done
        });
        done.await.map_err(|_| Error::internal("a password could not be worked on"))
    }

    /// The hash of a password, with a salt of its own.
    pub(super) async fn hash(&self, password: Secret) -> Result<String> {
        let mut salt = [0; SALT];
        self.random.fill(&mut salt);
        let hashed = self.work(move || {
            let hash: PasswordHash = argon2().hash_password_with_salt(password.reveal().as_bytes(), &salt)?;
            Ok::<_, argon2::password_hash::Error>(hash.to_string())
        });
        hashed.await?.map_err(|error| {
            tracing::error!(%error, "a password can't be hashed");
            Error::internal("the password can't be stored")
        })
    }

    /// Whether `password` is the one of `hash`. Where there is no hash it is not, after the same work.
    pub(super) async fn check(&self, password: Secret, hash: Option<String>) -> Result<bool> {
        let there = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.to_string());
        let right = self
            .work(move || {
                let hash = PasswordHash::new(&hash);
                hash.is_ok_and(|hash| argon2().verify_password(password.reveal().as_bytes(), &hash).is_ok())
            })
            .await?;
        Ok(right && there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_no_other_is() {
        let passwords = Passwords::new(Random::seeded(1));
        let of = |text: &str| Secret::new(text);
        let hash = passwords.hash(of("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash(of("correct horse")).await.unwrap(), "each has its own salt");
        assert!(passwords.check(of("correct horse"), Some(hash.clone())).await.unwrap());
        assert!(!passwords.check(of("wrong horse"), Some(hash)).await.unwrap());
        assert!(!passwords.check(of(""), None).await.unwrap());
        assert!(PasswordHash::new(&passwords.nobody).is_ok(), "nobody's hash costs as much as anybody's");
    }
}
