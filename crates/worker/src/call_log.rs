//! The log lines of one call, within the bounds of one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use lyra_isolation::LogSink;
use lyra_kit::Clock;
use lyra_types::log::{Level, LogLine};
use lyra_types::{Error, FunctionVersion, InstanceId, InvocationId};
use lyra_wire::Logs;

use crate::config::Config;
use crate::secrets::Masks;

/// Passes a call's lines to the log service until the call has used its share up; then one line says so.
pub(crate) struct CallLog {
    pub(crate) logs: Arc<dyn Logs>,
    pub(crate) clock: Clock,
    pub(crate) invocation: InvocationId,
    pub(crate) instance: InstanceId,
    pub(crate) version: Arc<FunctionVersion>,
    /// What no line shows.
    masks: Option<Arc<Masks>>,
    lines_left: AtomicU32,
    bytes_left: AtomicU64,
    full: AtomicBool,
}

impl CallLog {
    pub(crate) fn new(
        config: &Config,
        logs: Arc<dyn Logs>,
        clock: Clock,
        version: Arc<FunctionVersion>,
        invocation: InvocationId,
        instance: InstanceId,
        masks: Option<Arc<Masks>>,
    ) -> CallLog {
        CallLog {
            logs,
            clock,
            invocation,
            instance,
            version,
            masks,
            lines_left: AtomicU32::new(config.max_log_lines),
            bytes_left: AtomicU64::new(config.max_log_bytes),
            full: AtomicBool::new(false),
        }
    }

    /// Writes a line whatever is left of the call's share.
    pub(crate) fn write(&self, level: Level, message: String) {
        let message = match &self.masks {
            Some(masks) => masks.apply(message),
            None => message,
        };
        self.logs.offer(LogLine {
            time: self.clock.now(),
            level,
            message,
            invocation: self.invocation,
            version: self.version.version,
            instance: Some(self.instance),
            tenant: self.version.tenant.clone(),
            function: self.version.function.clone(),
            hosted: None,
        });
    }

    /// An error of the call, without the function's secrets.
    pub(crate) fn masked(&self, error: Error) -> Error {
        match &self.masks {
            Some(masks) => masks.apply_to(error),
            None => error,
        }
    }

    fn take_share(&self, bytes: u64) -> bool {
        let take = |left: u32| left.checked_sub(1);
        let take_bytes = |left: u64| left.checked_sub(bytes);
        self.lines_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
            && self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_bytes).is_ok()
    }
}

impl LogSink for CallLog {
    fn line(&self, level: Level, message: &str) {
        if self.full.load(Ordering::Relaxed) {
            return;
        }
        if self.take_share(message.len() as u64) {
            self.write(level, message.to_owned());
        } else if !self.full.swap(true, Ordering::Relaxed) {
            self.write(Level::Warn, "the log limit of one call is reached; its further lines are dropped".to_owned());
        }
    }
}
