//! TLS on listeners of HTTP: the certificate that is shown, read again when its files have changed.
//!
//! What must hold: where new files can't be used, the former certificate goes on; a connection keeps the certificate that it began
//! with. Roles speak with each other by certificates of their own, which have nothing to do with this one.

mod files;
mod handshake;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::{Clock, Tasks};
use lyra_types::{Code, Error, Result};
use lyra_wire::tls::Dates;
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;

use crate::config::Config;
use crate::metrics::Metrics;
pub(crate) use handshake::accept;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// When a file was written, as far as the file system tells.
type Stamp = Option<(i64, i64, u64, u64)>;

/// The certificate of a listener. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Certificates {
    inner: Arc<Inner>,
}

struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    clock: Clock,
    metrics: Metrics,
    current: RwLock<Arc<ServerConfig>>,
    /// Of the files that were read last, whatever came of it.
    seen: Mutex<[Stamp; 2]>,
}

impl Certificates {
    /// Reads the files that the settings name; `None` where they name none. Blocks.
    ///
    /// # Errors
    /// [`Code::InvalidField`] where they can't be used, with what to do.
    pub(crate) fn open(config: &Config, clock: &Clock, metrics: &Metrics) -> Result<Option<Certificates>> {
        let (certificate, key) = (&config.tls_cert, &config.tls_key);
        match (is_given(certificate), is_given(key)) {
            (false, false) => return Ok(None),
            (true, true) => {}
            (true, false) => return Err(alone("gateway.tls_key", "tls_key", "tls_cert")),
            (false, true) => return Err(alone("gateway.tls_cert", "tls_cert", "tls_key")),
        }
        // The stamps first: what is written meanwhile is read the next time.
        let seen = [stamp(certificate), stamp(key)];
        let read = files::read(certificate, key)?;
        let inner = Inner {
            certificate: certificate.clone(),
            key: key.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            current: RwLock::new(Arc::new(read.config)),
            seen: Mutex::new(seen),
        };
        inner.tell(read.dates);
        Ok(Some(Certificates { inner: Arc::new(inner) }))
    }

    /// What a connection that begins now is secured with.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.inner.current.read())
    }

    /// Looks at the files again and again until the tasks are told to stop.
    pub(crate) fn follow(&self, tasks: &Tasks) {
        let inner = Arc::clone(&self.inner);
        tasks.every("certificates", LOOK, move || {
            let inner = Arc::clone(&inner);
            async move {
                // An `Err` means that the process ends.
                drop(lyra_kit::tasks::blocking(move || inner.refresh()).await);
            }
        });
    }
}

impl Inner {
    fn refresh(&self) {
        let now = [stamp(&self.certificate), stamp(&self.key)];
        let mut seen = self.seen.lock();
        if *seen == now {
            return;
        }
        // Once for each change, good or bad.
        *seen = now;
        match files::read(&self.certificate, &self.key) {
            Ok(read) => {
                *self.current.write() = Arc::new(read.config);
                let until = read.dates.map(|dates| dates.until.to_string()).unwrap_or_default();
                tracing::info!(file = %self.certificate.display(), until, "a new certificate is shown from now on");
                self.tell(read.dates);
            }
            Err(error) => {
                tracing::error!(%error, "the new certificate can't be used; the former one still is");
            }
        }
    }

    /// Says in the metrics until when the certificate holds, and in the log where it does not.
    fn tell(&self, dates: Option<Dates>) {
        let Some(Dates { from, until }) = dates else { return };
        self.metrics.certificate_until.set(until.millis() / 1_000);
        let (now, file) = (self.clock.now(), self.certificate.display());
        if until <= now {
            tracing::warn!(%file, %until, "the certificate has expired: clients will refuse it");
        } else if from > now {
            tracing::warn!(%file, %from, "the certificate is not valid yet: clients will refuse it");
        }
    }
}

/// Whether a setting names a file.
pub(crate) fn is_given(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn alone(field: &str, missing: &str, given: &str) -> Error {
    let reason = format!(
        "gateway.{given} is set without gateway.{missing}: a certificate needs its key, and a key its certificate"
    );
    Error::field(Code::InvalidField, field, reason)
}

fn stamp(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok()?;
    Some((about.mtime(), about.mtime_nsec(), about.size(), about.ino()))
}

#[cfg(test)]
mod tests;
