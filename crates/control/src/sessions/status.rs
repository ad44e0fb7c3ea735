//! What a session's status says next: a pure function of the object, of what its worker reports, and of the time.

use lyra_types::Timestamp;
use lyra_types::resources::{
    AccessEndPoint, ApplicationSession, ApplicationSessionStatus, Condition, ConditionStatus, LocalObjectReference,
    Protocol, SessionStatus, Time,
};
use lyra_wire::sessions::{SessionEnd, SessionPhase, SessionReport};

use super::config::SessionsConfig;

/// Why a session has no instance yet, or has ended: one word, and the same for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) word: &'static str,
    pub(super) message: String,
}

impl Reason {
    pub(super) fn new(word: &'static str, message: impl Into<String>) -> Reason {
        Reason { word, message: message.into() }
    }
}

/// Where a session stands, as the leader sees it.
#[derive(Debug, Clone)]
pub(super) enum Stage<'a> {
    /// It has no instance.
    Waiting(&'a Reason),
    /// A worker was told to open it.
    Bound {
        /// The version of the application that it has.
        version: u64,
        /// What the worker says of it, if it has said something.
        report: Option<&'a SessionReport>,
        /// Ports of gateways, one for each endpoint, where gateways lead to sessions.
        ports: &'a [Option<(Protocol, u16)>],
        /// Why some of them are missing.
        waits: &'a Reason,
    },
    /// It is over, without that its worker says so.
    Over(SessionStatus, &'a Reason),
}

/// The status that the object is to have.
pub(super) fn next(
    session: &ApplicationSession,
    stage: &Stage<'_>,
    config: &SessionsConfig,
    now: Timestamp,
) -> ApplicationSessionStatus {
    let mut status = session.status.clone();
    match stage {
        Stage::Waiting(reason) => {
            status.session_status = SessionStatus::Pending;
            say(&mut status, reason);
            condition(&mut status, "Scheduled", ConditionStatus::False, reason, now);
        }
        Stage::Bound { version, report, ports, waits } => {
            status.application_version = *version;
            let placed = Reason::new("Placed", "");
            condition(&mut status, "Scheduled", ConditionStatus::True, &placed, now);
            match report {
                // Its worker does not know of it any more. Whether that is its end is judged in time; it does not begin again.
                None if status.available_time.is_some() => {}
                None => starting(&mut status),
                Some(report) => follow(&mut status, session, report, (ports, waits), config, now),
            }
        }
        Stage::Over(how, reason) => over(&mut status, *how, reason, now),
    }
    if session.metadata.deletion_timestamp.is_some() && !status.session_status.has_ended() {
        status.session_status = SessionStatus::Closing;
        say(&mut status, &Reason::new("Deleted", "the session was told to close"));
        status.access_end_points.clear();
    }
    status
}

fn starting(status: &mut ApplicationSessionStatus) {
    status.session_status = SessionStatus::Starting;
    say(status, &Reason::new("Opening", "an instance was told to open the session"));
}

fn follow(
    status: &mut ApplicationSessionStatus,
    session: &ApplicationSession,
    report: &SessionReport,
    (ports, waits): (&[Option<(Protocol, u16)>], &Reason),
    config: &SessionsConfig,
    now: Timestamp,
) {
    if let Some(instance) = &report.instance {
        status.instance = instance.to_string();
    }
    match report.phase {
        SessionPhase::Starting => starting(status),
        // Clients would be sent to the worker, where they may not get.
        SessionPhase::Open
            if !config.ingress_address.is_empty()
                && status.available_time.is_none()
                && ports.iter().any(Option::is_none) =>
        {
            starting(status);
            say(status, waits);
        }
        SessionPhase::Open => {
            let in_use = !report.clients.is_empty();
            status.session_status = if in_use { SessionStatus::InUse } else { SessionStatus::Available };
            say(status, &Reason::new("Open", ""));
            let micros = report.available_micros.unwrap_or_else(|| now.millis() * 1_000);
            status.available_time_micro = micros;
            status.available_time = Some(Time::from(Timestamp::from_millis(micros / 1_000)));
            status.access_end_points = endpoints(session, report, ports, config);
            let clients = report.clients.iter().map(|name| LocalObjectReference { name: name.clone() });
            status.client_sessions = clients.collect();
            condition(status, "Available", ConditionStatus::True, &Reason::new("Open", ""), now);
        }
        SessionPhase::Closing => {
            status.session_status = SessionStatus::Closing;
            say(status, &Reason::new("Closing", "the program was told to close the session"));
            status.access_end_points.clear();
        }
        SessionPhase::Closed => {
            let (end, message) = report.end.clone().unwrap_or((SessionEnd::Closed, String::new()));
            let how = if end == SessionEnd::OpenTimeout { SessionStatus::Timeout } else { SessionStatus::Closed };
            over(status, how, &Reason::new(end.as_str(), message), now);
        }
    }
}

fn over(status: &mut ApplicationSessionStatus, how: SessionStatus, reason: &Reason, now: Timestamp) {
    if status.session_status.has_ended() {
        return;
    }
    status.session_status = how;
    say(status, reason);
    status.close_time = Some(Time::from(now));
    status.access_end_points.clear();
    status.client_sessions.clear();
    condition(status, "Available", ConditionStatus::False, reason, now);
}

fn endpoints(
    session: &ApplicationSession,
    report: &SessionReport,
    ports: &[Option<(Protocol, u16)>],
    config: &SessionsConfig,
) -> Vec<AccessEndPoint> {
    let mut has_url = false;
    let of = |(at, endpoint): (usize, &lyra_wire::sessions::NodeEndpoint)| {
        let protocol = endpoint.port.protocol;
        // By path, a gateway leads to the first port that takes connections.
        let first = protocol == Protocol::Tcp && !std::mem::replace(&mut has_url, true);
        let url = (first && !config.url.is_empty()).then(|| {
            let base = config.url.trim_end_matches('/');
            format!("{base}/s/{}/{}/", session.metadata.namespace, session.metadata.name)
        });
        let (ip_address, port) = match ports.get(at).copied().flatten() {
            Some((_, port)) => (config.ingress_address.clone(), port),
            None => (endpoint.address.ip().to_string(), endpoint.address.port()),
        };
        let name = Some(endpoint.port.name.clone()).filter(|name| !name.is_empty());
        AccessEndPoint { name, protocol, ip_address, port: port.into(), url }
    };
    report.endpoints.iter().enumerate().map(of).collect()
}

fn say(status: &mut ApplicationSessionStatus, reason: &Reason) {
    reason.word.clone_into(&mut status.reason);
    status.message.clone_from(&reason.message);
}

fn condition(
    status: &mut ApplicationSessionStatus,
    kind: &str,
    holds: ConditionStatus,
    reason: &Reason,
    now: Timestamp,
) {
    let condition = Condition {
        r#type: kind.to_owned(),
        status: holds,
        observed_generation: 0,
        last_transition_time: Time::from(now),
        reason: reason.word.to_owned(),
        message: reason.message.clone(),
    };
    Condition::set(&mut status.conditions, condition);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_was_open_does_not_begin_again_when_its_worker_says_nothing_of_it() {
        let (config, now) = (SessionsConfig::default(), Timestamp::from_millis(1_000));
        let waits = Reason::new("Placed", "");
        let bound = Stage::Bound { version: 1, report: None, ports: &[], waits: &waits };
        let mut session = ApplicationSession::default();
        assert_eq!(next(&session, &bound, &config, now).session_status, SessionStatus::Starting);
        session.status.session_status = SessionStatus::Available;
        session.status.available_time = Some(Time::from(now));
        assert_eq!(next(&session, &bound, &config, now).session_status, SessionStatus::Available);
        let lost = Reason::new("WorkerLost", "it does not have the session any more");
        let over = next(&session, &Stage::Over(SessionStatus::Closed, &lost), &config, now);
        assert_eq!((over.session_status, &*over.reason), (SessionStatus::Closed, "WorkerLost"));
    }
}
