//! The kind `ApplicationSession`: its names, columns and rules.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;
use lyra_types::Timestamp;
use lyra_types::resources::{
    ApplicationSession, ApplicationSessionSpec, ApplicationSessionStatus, GROUP, ObjectMeta, VERSION,
};
use serde_json::{Value, json};

use super::schema_of;
use crate::admission::{Admission, Review};
use crate::kind::{Column, Kind, Names};
use crate::validation::{Problems, is_label};
use crate::{ResourceApi, Resources, Status};

/// Seconds in which a session must become available when nothing, or 0, is given.
const DEFAULT_OPEN_TIMEOUT: u32 = 10;
/// Longest open timeout, close grace and time to live, in seconds (a day, and a year for the last).
const MAX_SECONDS: u32 = 86_400;
const MAX_TTL_SECONDS: u32 = 31_536_000;
/// Largest `sessionData`, in bytes (256 KiB).
const MAX_SESSION_DATA: usize = 256 << 10;

#[async_trait]
impl Kind for ApplicationSession {
    const NAMES: Names = Names {
        group: GROUP,
        version: VERSION,
        kind: "ApplicationSession",
        list_kind: "ApplicationSessionList",
        plural: "applicationsessions",
        singular: "applicationsession",
        short: &["as"],
        categories: &["all", "lyra"],
        description: "ApplicationSession is one instance of an application with an endpoint of its own. Creating the \
                      object opens it, deleting the object closes it.",
    };

    const SELECTABLE: &'static [&'static str] =
        &["spec.applicationName", "status.sessionStatus", "status.instance", "status.applicationVersion"];

    const KEYED_LISTS: &'static [(&'static str, &'static [&'static str])] = &[
        ("status.conditions", &["type"]),
        ("status.clientSessions", &["name"]),
        ("metadata.ownerReferences", &["uid"]),
    ];

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn same_spec(&self, other: &ApplicationSession) -> bool {
        self.spec == other.spec
    }

    fn take_status(&mut self, from: &ApplicationSession) {
        self.status.clone_from(&from.status);
    }

    fn keep_status(&mut self, old: &ApplicationSession) {
        let (status, old) = (&mut self.status, &old.status);
        // Ports of gateways are given out by these: a session that says another's would take its clients.
        status.access_end_points.clone_from(&old.access_end_points);
        status.instance.clone_from(&old.instance);
        status.application_version = old.application_version;
        status.available_time = old.available_time;
        status.available_time_micro = old.available_time_micro;
    }

    fn take_spec(&mut self, from: &ApplicationSession) {
        self.spec.clone_from(&from.spec);
    }

    fn fill_in(&mut self) {
        if self.spec.open_timeout_seconds == 0 {
            self.spec.open_timeout_seconds = DEFAULT_OPEN_TIMEOUT;
        }
    }

    fn validate(&self, old: Option<&ApplicationSession>, problems: &mut Problems) {
        let spec = &self.spec;
        if spec.application_name.is_empty() {
            problems.required("spec.applicationName", "");
        } else if !is_label(&spec.application_name) {
            problems.invalid("spec.applicationName", &spec.application_name, "must be the name of an application");
        }
        if spec.session_data.len() > MAX_SESSION_DATA {
            problems.too_long("spec.sessionData", spec.session_data.len(), MAX_SESSION_DATA, "");
        }
        for (name, value, most) in [
            ("closeGracePeriodSeconds", spec.close_grace_period_seconds, MAX_SECONDS),
            ("openTimeoutSeconds", spec.open_timeout_seconds, MAX_SECONDS),
            ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished, MAX_TTL_SECONDS),
        ] {
            if value > most {
                problems.invalid(format!("spec.{name}"), value, &format!("must be {most} or less"));
            }
        }
        if let Some(old) = old {
            if old.spec.application_name != spec.application_name {
                problems.invalid("spec.applicationName", &spec.application_name, "field is immutable");
            }
            if old.spec.session_data != spec.session_data {
                // The data may be a secret of the application: it is not shown.
                problems.forbidden("spec.sessionData", "field is immutable");
            }
        }
    }

    fn selectable(&self, path: &str) -> Option<Cow<'_, str>> {
        match path {
            "spec.applicationName" => Some(Cow::Borrowed(&self.spec.application_name)),
            "status.sessionStatus" => Some(Cow::Borrowed(self.status.session_status.as_str())),
            "status.instance" => Some(Cow::Borrowed(&self.status.instance)),
            "status.applicationVersion" => Some(self.status.application_version.to_string().into()),
            _ => None,
        }
    }

    fn columns() -> &'static [Column] {
        const fn text(name: &'static str, description: &'static str, priority: u8) -> Column {
            Column { name, r#type: "string", description, priority }
        }
        const COLUMNS: &[Column] = &[
            text("Application", "The application.", 0),
            text("Status", "What the session is at.", 0),
            text("Endpoint", "Where clients reach the session.", 0),
            text("Age", "Time since the session was created.", 0),
            text("Version", "The version of the application that the session has.", 1),
            text("Clients", "Clients that are in the session.", 1),
            text("Instance", "The instance that the session has.", 1),
            text("Reason", "Why the session is at what it is at.", 1),
        ];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let status = &self.status;
        let endpoints: Vec<String> =
            status.access_end_points.iter().map(|endpoint| address(&endpoint.ip_address, endpoint.port)).collect();
        vec![
            json!(self.spec.application_name),
            json!(status.session_status.as_str()),
            json!(endpoints.join(",")),
            json!(age(&self.metadata, now)),
            json!(if status.application_version == 0 { String::new() } else { status.application_version.to_string() }),
            json!(status.client_sessions.len().to_string()),
            json!(status.instance),
            json!(status.reason),
        ]
    }

    fn schemas() -> (Value, Value) {
        (schema_of::<ApplicationSessionSpec>(), schema_of::<ApplicationSessionStatus>())
    }

    async fn admit(admission: &dyn Admission, review: Review<'_, ApplicationSession>) -> Result<(), Status> {
        admission.session(review).await
    }

    fn of(api: &ResourceApi) -> &Resources<ApplicationSession> {
        api.sessions()
    }
}

/// An endpoint as text.
fn address(ip: &str, port: u32) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// Time since the object was created, as `kubectl` shows it.
pub(super) fn age(meta: &ObjectMeta, now: Timestamp) -> String {
    match meta.creation_timestamp {
        Some(created) => short(now.since(created.timestamp())),
        None => "<unknown>".to_owned(),
    }
}

/// A duration in two units at most, fewer digits the longer it is: 45s, 3m10s, 4h5m, 3d2h, 2y40d.
pub(crate) fn short(duration: Duration) -> String {
    let two = |whole: u64, unit: &str, rest: u64, part: &str| match rest {
        0 => format!("{whole}{unit}"),
        rest => format!("{whole}{unit}{rest}{part}"),
    };
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(new: Value, old: Option<Value>) -> Vec<String> {
        let read = |spec: Value| -> ApplicationSession { serde_json::from_value(json!({"spec": spec})).unwrap() };
        let mut problems = Problems::default();
        read(new).validate(old.map(read).as_ref(), &mut problems);
        problems.into_causes().into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn each_rule_of_sessions_is_kept() {
        assert_eq!(faults(json!({"applicationName": "a"}), None), Vec::<String>::new());
        assert_eq!(faults(json!({}), None), ["spec.applicationName"]);
        assert_eq!(faults(json!({"applicationName": "A"}), None), ["spec.applicationName"]);
        for name in ["closeGracePeriodSeconds", "openTimeoutSeconds", "ttlSecondsAfterFinished"] {
            assert_eq!(faults(json!({"applicationName": "a", name: 99_999_999}), None), [format!("spec.{name}")]);
        }
        let old = json!({"applicationName": "a", "sessionData": "x"});
        let changed = json!({"applicationName": "b", "sessionData": "y", "closeGracePeriodSeconds": 1});
        assert_eq!(faults(changed, Some(old.clone())), ["spec.applicationName", "spec.sessionData"]);
        let editable = json!({"applicationName": "a", "sessionData": "x", "ttlSecondsAfterFinished": 1});
        assert_eq!(faults(editable, Some(old)), Vec::<String>::new());
    }

    #[test]
    fn an_open_timeout_of_0_means_the_default() {
        let mut session = ApplicationSession::default();
        session.spec.open_timeout_seconds = 0;
        session.fill_in();
        assert_eq!(session.spec.open_timeout_seconds, 10);
    }

    #[test]
    fn ages_are_shown_as_kubectl_shows_them() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (130, "2m10s"),
            (599, "9m59s"),
            (3_600, "60m"),
            (10_860, "3h1m"),
            (172_700, "47h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
            (63_072_000, "2y"),
        ] {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
    }
}
