//! Keeps the log readable where many instances of an application fail for the same reason, again and again.

use std::collections::HashMap;
use std::time::Duration;

use lyra_wire::sessions::AppKey;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The same is said once in so long.
const PERIOD: Duration = Duration::from_secs(60);
/// Most applications that are remembered; then all that is old is forgotten.
const MOST: usize = 1_000;

/// An application, and what is said of it.
type What = (AppKey, &'static str);
/// When it was said, and how often it was not since.
type Said = (Instant, u64);

/// What was said, and when.
#[derive(Default)]
pub(super) struct Quiet {
    said: Mutex<HashMap<What, Said>>,
}

impl Quiet {
    /// Whether `what` is to be said of an application now: how often it was not since it was said before.
    pub(super) fn say(&self, app: &AppKey, what: &'static str, now: Instant) -> Option<u64> {
        let mut said = self.said.lock();
        if said.len() >= MOST {
            said.retain(|_, (at, _)| now - *at < PERIOD);
        }
        let is_full = said.len() >= MOST;
        match said.get_mut(&(app.clone(), what)) {
            Some((at, left_out)) if now - *at < PERIOD => {
                *left_out += 1;
                None
            }
            Some((at, left_out)) => {
                *at = now;
                Some(std::mem::take(left_out))
            }
            // What is not remembered is said: rather too much than nothing.
            None if is_full => Some(0),
            None => {
                said.insert((app.clone(), what), (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lyra_types::TenantName;

    use super::*;

    fn app(number: u64) -> AppKey {
        let (tenant, application) = (TenantName::default_tenant(), "game".to_owned());
        AppKey { tenant, application, uid: number.to_string(), version: 1 }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_is_said_once_in_a_while_with_what_was_left_out() {
        let quiet = Quiet::default();
        let start = lyra_kit::Clock::system().instant();
        assert_eq!(quiet.say(&app(1), "a", start), Some(0));
        assert_eq!(quiet.say(&app(1), "a", start), None);
        assert_eq!(quiet.say(&app(1), "a", start + PERIOD / 2), None);
        assert_eq!((quiet.say(&app(1), "b", start), quiet.say(&app(2), "a", start)), (Some(0), Some(0)));
        assert_eq!(quiet.say(&app(1), "a", start + PERIOD), Some(2));
        assert_eq!(quiet.say(&app(1), "a", start + PERIOD), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let quiet = Quiet::default();
        let start = lyra_kit::Clock::system().instant();
        for number in 0..3 * MOST as u64 {
            assert_eq!(quiet.say(&app(number), "a", start), Some(0));
        }
        assert!(quiet.said.lock().len() <= MOST);
        assert_eq!(quiet.say(&app(0), "a", start + PERIOD), Some(0));
        assert_eq!(quiet.said.lock().len(), 1);
    }
}
