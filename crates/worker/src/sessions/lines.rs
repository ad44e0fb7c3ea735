//! Lines that instances of applications write.

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
        deps.logs.offer(LogLine {
            time: deps.clock.now(),
            level,
            message: message.to_owned(),
            invocation: InvocationId::from_number(self.instance.number()),
            version: version.version,
            instance: Some(self.instance),
            tenant: version.tenant.clone(),
            function: version.function.clone(),
        });
    }
}
