//! What is counted and told of sessions: once for each change of their status, when it is written.

use lyra_resources::EventType;
use lyra_types::resources::{ApplicationSession, ApplicationSessionStatus, SessionStatus};
use tokio::time::Instant;

use super::Shared;

impl Shared {
    /// Counts how opening a session came out, and tells of its end. `seen`: when this process first saw it.
    pub(super) fn observe(&self, before: &ApplicationSession, now: &ApplicationSessionStatus, seen: Instant) {
        let is_open = |of: SessionStatus| matches!(of, SessionStatus::Available | SessionStatus::InUse);
        let events = self.api.events();
        if is_open(before.status.session_status) || before.status.available_time.is_some() {
            if now.session_status.has_ended() {
                events.record(before, EventType::Normal, &now.reason, &now.message);
            }
        } else if is_open(now.session_status) {
            let at = now.access_end_points.first();
            let at = at.map_or(String::new(), |at| format!(" at {}:{}", at.ip_address, at.port));
            events.record(
                before,
                EventType::Normal,
                "Opened",
                &format!("instance {} has the session{at}", now.instance),
            );
            self.metrics.session_opens.with_label_values(&["available"]).inc();
            let took = self.clock.instant().saturating_duration_since(seen);
            self.metrics.session_open.observe(took.as_secs_f64());
        } else if now.session_status.has_ended() {
            events.record(before, EventType::Warning, &now.reason, &now.message);
            self.metrics.session_opens.with_label_values(&[&now.reason]).inc();
        }
    }
}
