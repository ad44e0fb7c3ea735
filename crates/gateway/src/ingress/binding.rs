//! Sessions that are found by a key: for functions that are bound to an application.
//!
//! What must hold: a key whose session is open is found in the table, without control; calls that come together for one that is
//! not ask control once; that a session is in use is told again and again for as long as it is.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use http::HeaderMap;
use http::uri::PathAndQuery;
use lyra_types::{Code, Error, KeySource, Result, SessionBinding, TenantName};
use lyra_wire::Control;
use lyra_wire::sessions::{SessionRoute, name_by_key};
use parking_lot::Mutex;

use super::Ingress;
use super::table::Session;

/// Longest key, in bytes.
const MAX_KEY: usize = 256;
/// Most sessions that are asked for at one time.
const MAX_ASKED: usize = 1_000;
/// How often control is told which sessions are in use.
const TELL: Duration = Duration::from_secs(5);
/// Most sessions that are told of at once.
const MAX_TOLD: usize = 1_000;

type Asked = BoxFuture<'static, Result<Arc<SessionRoute>>>;

/// What goes on for bound functions.
#[derive(Default)]
pub(super) struct Bindings {
    /// What control was asked for and has not answered.
    asked: Mutex<HashMap<(TenantName, String), WeakShared<Asked>>>,
    /// Sessions that were used since control was told last.
    used: Mutex<Vec<Arc<Session>>>,
}

impl Bindings {
    /// The session is in use.
    pub(super) fn touch(&self, session: &Arc<Session>) {
        if !session.touched.swap(true, Ordering::AcqRel) {
            self.used.lock().push(Arc::clone(session));
        }
    }
}

/// The key in a call.
///
/// # Errors
/// [`Code::BadRequest`] where there is none, or one that is too long. `path` is `None` where a call has none of its own.
pub(crate) fn key<'a>(
    source: &KeySource,
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    path: Option<&'a PathAndQuery>,
) -> Result<Cow<'a, str>> {
    let found = match source {
        KeySource::Header(name) => headers.get(name).and_then(|value| value.to_str().ok()).map(Cow::Borrowed),
        KeySource::Query(name) => form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .find_map(|(found, value)| (found == name.as_str()).then_some(value)),
        KeySource::Path(place) => path
            .and_then(|path| path.path().split('/').skip(1).nth(*place))
            .and_then(|part| percent_encoding::percent_decode_str(part).decode_utf8().ok()),
    };
    match found {
        Some(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(key),
        Some(key) if key.len() > MAX_KEY => Err(Error::new(
            Code::BadRequest,
            format!("the key of the session ({source}) is longer than {MAX_KEY} bytes"),
        )),
        _ => Err(Error::new(
            Code::BadRequest,
            format!("this function finds its session by {source}, which is not there"),
        )),
    }
}

impl Ingress {
    /// The session that a key means, which is opened where it is not; and whether it was there. Waits up to `wait`.
    ///
    /// # Errors
    /// As [`Control::reach_session`].
    pub(crate) async fn reach(
        &self,
        control: &Arc<dyn Control>,
        tenant: &TenantName,
        binding: &SessionBinding,
        key: &str,
        wait: Duration,
    ) -> Result<(Arc<Session>, bool)> {
        let name = name_by_key(&binding.application, key);
        if let Some(session) = self.table.get(tenant.as_str(), &name)
            && session.route.application == binding.application
        {
            session.bound.store(true, Ordering::Relaxed);
            return Ok((session, true));
        }
        let wait = wait.min(self.config.open_timeout);
        let begun = self.clock.instant();
        let late = || {
            Error::new(Code::Unavailable, format!("the session was not open within {} s", wait.as_secs_f64()))
                .with_retry_after(Duration::from_secs(1))
        };
        let place = (tenant.clone(), name);
        let asked = self.ask(control, &place, &binding.application, key, wait)?;
        let route = tokio::time::timeout(wait, asked).await.map_err(|_| late());
        // Whoever comes now asks anew.
        self.bindings.asked.lock().remove(&place);
        let route = route??;
        // What control says may be here before the watch has told it.
        let rest = wait.saturating_sub(self.clock.instant().duration_since(begun)).max(Duration::from_millis(100));
        let session = tokio::time::timeout(rest, self.table.appears(tenant.as_str(), &place.1, &route.key.uid));
        let session = session.await.map_err(|_| late())?;
        session.bound.store(true, Ordering::Relaxed);
        Ok((session, false))
    }

    fn ask(
        &self,
        control: &Arc<dyn Control>,
        place: &(TenantName, String),
        application: &str,
        key: &str,
        wait: Duration,
    ) -> Result<Shared<Asked>> {
        let mut asked = self.bindings.asked.lock();
        if let Some(going_on) = asked.get(place).and_then(WeakShared::upgrade) {
            return Ok(going_on);
        }
        if asked.len() >= MAX_ASKED {
            asked.retain(|_, going_on| going_on.upgrade().is_some());
            if asked.len() >= MAX_ASKED {
                return Err(Error::new(Code::Overloaded, "the gateway waits for as many new sessions as it may")
                    .with_retry_after(Duration::from_secs(1)));
            }
        }
        let (control, tenant) = (Arc::clone(control), place.0.clone());
        let (application, key) = (application.to_owned(), key.to_owned());
        let question: Asked = async move { control.reach_session(&tenant, &application, &key, wait).await }.boxed();
        let question = question.shared();
        if let Some(weak) = question.downgrade() {
            asked.insert(place.clone(), weak);
        }
        Ok(question)
    }

    /// Tells control which sessions are in use, for ever.
    pub(super) async fn tell_uses(&self, control: &dyn Control) {
        loop {
            self.clock.sleep(TELL).await;
            let used = std::mem::take(&mut *self.bindings.used.lock());
            for session in &used {
                session.touched.store(false, Ordering::Release);
                // What is carried still is use, too.
                let idle = session.places.available_permits() >= self.config.max_session_connections;
                if !idle && !session.life.is_cancelled() {
                    self.bindings.touch(session);
                }
            }
            for some in used.chunks(MAX_TOLD) {
                let key = |session: &Arc<Session>| (session.route.key.tenant.clone(), session.route.key.uid.clone());
                if let Err(error) = control.touch_sessions(some.iter().map(key).collect()).await {
                    tracing::debug!(%error, "control was not told which sessions are in use");
                    some.iter().for_each(|session| self.bindings.touch(session));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_where_the_binding_says() {
        let mut headers = HeaderMap::new();
        headers.insert("x-player", "ada".parse().unwrap());
        let path = PathAndQuery::from_static("/rooms/a%20b/x?player=bob+b&player=c");
        let find = |source: &str| {
            let key = key(&source.parse().unwrap(), &headers, path.query(), Some(&path));
            key.map(Cow::into_owned).map_err(|error| error.code)
        };
        assert_eq!(find("header:X-Player"), Ok("ada".into()));
        assert_eq!(find("query:player"), Ok("bob b".into()));
        assert_eq!(find("path:0"), Ok("rooms".into()));
        assert_eq!(find("path:1"), Ok("a b".into()));
        for missing in ["header:x-other", "query:other", "path:3"] {
            assert_eq!(find(missing), Err(Code::BadRequest), "{missing}");
        }
        assert!(key(&KeySource::Path(0), &headers, None, None).is_err());
        headers.insert("x-player", "x".repeat(257).parse().unwrap());
        assert!(key(&KeySource::Header("x-player".into()), &headers, None, None).is_err());
    }
}
