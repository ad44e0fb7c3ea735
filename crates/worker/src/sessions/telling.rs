//! What an instance's program is told while it runs: its configuration, its secrets and its session, as they are now.
//!
//! What must hold: files are written with all secrets or not at all, so none is taken away because it is not known; what could not be
//! written is tried again, later each time. An instance whose environment is not what one would be given now serves no other session.

use std::sync::Arc;
use std::time::Duration;

use lyra_kit::Random;
use lyra_kit::retry::Backoff;
use lyra_types::Result;
use lyra_wire::sessions::{AppConfig, SessionKey};
use tokio::time::Instant;

use super::health::Unit;
use super::life::Life;
use super::program;
use crate::secrets::{Delivered, wants_secrets};

/// Waits after files could not be written.
const WRITE_AGAIN: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(30) };
/// Waits after secrets could not be had.
const ASK_AGAIN: Backoff = Backoff { first: Duration::from_millis(500), max: Duration::from_secs(5) };

/// The session that an instance is told of, and its data.
pub(super) type Told<'a> = Option<(&'a SessionKey, &'a str)>;

/// Which configuration and which secrets there are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Revision {
    config: u64,
    secrets: Vec<u64>,
}

impl Revision {
    fn of(config: &AppConfig, secrets: Option<&Delivered>) -> Revision {
        Revision { config: config.revision, secrets: secrets.map(|of| of.loose.clone()).unwrap_or_default() }
    }
}

/// What an instance's files say, and when what could not be written is tried again.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// `None`: it is not known.
    revision: Option<Revision>,
    failures: u32,
    again: Option<Instant>,
}

impl Written {
    pub(super) fn of(config: &AppConfig, secrets: Option<&Delivered>) -> Written {
        Written { revision: Some(Revision::of(config, secrets)), ..Written::default() }
    }

    /// Waits until there is something to be tried again.
    pub(super) async fn due(&self) {
        match self.again {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

impl Life {
    fn random(&self) -> Random {
        // Its id was drawn, too.
        Random::seeded(self.id.number() as u64)
    }

    /// The configuration as it is now.
    fn config(&self) -> Arc<AppConfig> {
        let book = self.shared.book.lock();
        let app = book.apps.get(&self.app.key);
        Arc::clone(app.map_or(&self.app.config, |app| &app.version.config))
    }

    /// The secrets as far as they are known, which for some applications are none; `None`: they are not known yet.
    fn secrets(&self) -> Option<Option<Arc<Delivered>>> {
        if !wants_secrets(&self.app) {
            return Some(None);
        }
        self.shared.deps.secrets.known_of_app(&self.app.key).map(|(delivered, _)| Some(delivered))
    }

    /// The secrets for an instance that is to be started, or to have a session: for one that has a session already they are waited for, as
    /// long as that may.
    pub(super) async fn await_secrets(&self) -> Result<Option<Arc<Delivered>>> {
        let (deps, random) = (&self.shared.deps, self.random());
        let mut failures = 0;
        loop {
            match deps.secrets.of_app(&self.app).await {
                Err(error) if self.has_session() => {
                    *self.waits_for.lock() = Some(error.detail);
                    failures += 1;
                    deps.clock.sleep(ASK_AGAIN.delay(failures, &random)).await;
                }
                other => {
                    self.waits_for.lock().take();
                    return other;
                }
            }
        }
    }

    /// Whether one that was started now would be given something else for good, or could not be started at all.
    pub(super) fn is_outdated(&self, unit: &Unit) -> bool {
        if !wants_secrets(&self.app) {
            return false;
        }
        let known = self.shared.deps.secrets.known_of_app(&self.app.key);
        known.is_some_and(|(now, is_missing)| is_missing || now.fixed != program::given(unit.hosted.label()))
    }

    /// Has lines of an instance go to the log, without what is secret in them.
    pub(super) fn listen(&self, unit: &Unit) {
        unit.lines.listen(&*unit.hosted);
    }

    /// What an instance that ran before its worker did waits for: its secrets, without which its lines can't be logged. Goes on for ever.
    pub(super) async fn catch_up(&self, unit: &Unit) {
        if !self.is_found {
            return std::future::pending().await;
        }
        let (deps, random) = (&self.shared.deps, self.random());
        let mut failures = 0;
        while deps.secrets.of_app(&self.app).await.is_err() {
            failures += 1;
            deps.clock.sleep(WRITE_AGAIN.delay(failures, &random)).await;
        }
        self.listen(unit);
        self.shared.book.lock().ring(self.id);
        std::future::pending().await
    }

    /// Gives the program its files and its configuration, where they have changed since it was given them.
    pub(super) async fn refresh(&self, unit: &Unit, written: &mut Written, session: Told<'_>) {
        let config = self.config();
        // While its secrets are not known it keeps what it has.
        let Some(secrets) = self.secrets() else {
            written.again = None;
            return;
        };
        let wanted = Revision::of(&config, secrets.as_deref());
        if written.revision.as_ref() == Some(&wanted) {
            (written.failures, written.again) = (0, None);
            return;
        }
        let now = self.shared.deps.clock.instant();
        if written.again.is_some_and(|at| now < at) {
            return;
        }
        match self.tell(unit, &config, secrets.as_deref(), session).await {
            Ok(()) => *written = Written::of(&config, secrets.as_deref()),
            Err(error) => {
                written.failures = written.failures.saturating_add(1);
                written.again = Some(now + WRITE_AGAIN.delay(written.failures, &self.random()));
                if let Some(left_out) = self.may_say("files") {
                    tracing::warn!(instance = %self.id, app = %self.app.key, %error, left_out, "its files can't be changed yet");
                }
            }
        }
    }

    /// Tells the program of its session before it is opened.
    pub(super) async fn introduce(&self, unit: &Unit, written: &mut Written, session: Told<'_>) -> Result<()> {
        let config = self.config();
        let secrets = self.await_secrets().await?;
        self.tell(unit, &config, secrets.as_deref(), session).await?;
        *written = Written::of(&config, secrets.as_deref());
        Ok(())
    }

    /// Takes from the program what it was told of its session. False: it can't serve another one.
    pub(super) async fn clear(&self, unit: &Unit) -> bool {
        let config = self.config();
        let Some(secrets) = self.secrets().filter(|_| !self.is_outdated(unit)) else { return false };
        self.tell(unit, &config, secrets.as_deref(), None).await.is_ok()
    }

    async fn tell(
        &self,
        unit: &Unit,
        config: &AppConfig,
        secrets: Option<&Delivered>,
        session: Told<'_>,
    ) -> Result<()> {
        let session = session.map(|(key, data)| (key, &self.app.key, data));
        unit.hosted.write(&program::files(config, secrets, session)).await?;
        if let Some(service) = &unit.service {
            service.configure(config.revision, program::configuration(config));
        }
        Ok(())
    }

    /// A text that the program or its start may have a part in, without its secrets.
    pub(super) fn masked(&self, text: String) -> String {
        match self.shared.deps.secrets.masks_of_app(&self.app) {
            Some(masks) => masks.apply(text),
            None => text,
        }
    }
}
