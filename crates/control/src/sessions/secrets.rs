//! Secrets that instances of applications are given: their own, and those that their functions were deployed with. Here is only whether
//! they are there; workers fetch them.
//!
//! What must hold: no version is made, and no session is given an instance, while one is missing; as soon as it is there it goes on.

use lyra_types::resources::ApplicationSpec;
use lyra_types::{SecretName, TenantName};
use lyra_wire::sessions::AppVersion;

use super::Shared;
use super::app::App;
use super::leading::Leading;
use super::versions::{Fault, Version};

/// A secret is missing.
pub(super) const SECRET_NOT_FOUND: &str = "SecretNotFound";

/// The secrets that a spec names.
pub(super) fn named(spec: &ApplicationSpec) -> Vec<SecretName> {
    // Checked when the object was written.
    spec.secrets.iter().filter_map(|name| SecretName::new(name).ok()).collect()
}

/// All that an instance is given.
fn wanted(version: &AppVersion) -> impl Iterator<Item = &SecretName> {
    version.secrets.iter().chain(version.function.secrets.iter().map(|of| &of.name))
}

impl Shared {
    fn missing<'a>(&self, tenant: &TenantName, names: impl Iterator<Item = &'a SecretName>) -> Option<Fault> {
        let missing = names.filter(|name| !self.secrets.has(tenant, name)).min()?;
        let message = format!("there is no secret {missing} in tenant {tenant}; set it: lyra secret set {missing}");
        Some(Fault { reason: SECRET_NOT_FOUND, message })
    }

    /// The version, where all is there that its instances are given.
    pub(super) fn with_secrets(&self, version: Version) -> Result<Version, Fault> {
        let of = &version.version;
        match self.missing(&of.key.tenant, wanted(of)) {
            Some(fault) => Err(fault),
            None => Ok(version),
        }
    }

    /// Why no instance of an application's current version can be started.
    pub(super) fn lacks_secret(&self, app: &App) -> Option<Fault> {
        self.missing(&app.key.tenant, wanted(&app.version()?.version))
    }
}

impl Leading {
    /// Secrets have been set or deleted: all applications that want some are looked at.
    pub(super) fn secrets_changed(&mut self) {
        for (uid, app) in &mut self.apps {
            if app.fault.as_ref().is_some_and(|fault| fault.reason == SECRET_NOT_FOUND) {
                app.not_before = None;
            } else if app.version().is_none_or(|of| wanted(&of.version).next().is_none()) {
                continue;
            }
            self.dirty_apps.insert(uid.clone());
        }
    }
}
