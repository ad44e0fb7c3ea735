//! Lines that instances of applications write, without their secrets.

use std::sync::Arc;

use lyra_isolation::LogSink;
use lyra_types::log::{Level, LogLine};
use lyra_types::{InstanceId, InvocationId};
use lyra_wire::sessions::AppVersion;

use super::Shared;

/// Passes an instance's lines to the log service, under the name of its function. They belong to no call: in place of a call's id
/// they bear one that is the same for all lines of the instance.
pub(super) struct Lines {
    shared: Arc<Shared>,
    app: Arc<AppVersion>,
    instance: InstanceId,
}

impl Lines {
    pub(super) fn new(shared: Arc<Shared>, app: Arc<AppVersion>, instance: InstanceId) -> Lines {
        Lines { shared, app, instance }
    }
}

impl LogSink for Lines {
    fn line(&self, level: Level, message: &str) {
        let (deps, version) = (&self.shared.deps, &self.app.function);
        let message = match deps.secrets.masks_of_app(&self.app) {
            Some(masks) => masks.apply(message.to_owned()),
            None => message.to_owned(),
        };
        deps.logs.offer(LogLine {
            time: deps.clock.now(),
            level,
            message,
            invocation: InvocationId::from_number(self.instance.number()),
            version: version.version,
            instance: Some(self.instance),
            tenant: version.tenant.clone(),
            function: version.function.clone(),
        });
    }
}
