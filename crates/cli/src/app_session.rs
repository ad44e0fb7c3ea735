//! `lyra session`: sessions of applications, each with an instance and an endpoint of its own.

use std::time::Duration;

use lyra_client::{Answer, Client, Error};
use lyra_types::Code;
use lyra_types::resources::{
    AccessEndPoint, ApplicationSession, ApplicationSessionSpec, ObjectMeta, Protocol, SessionStatus,
};

use crate::app::{CLOSING, parse_name};
use crate::failure::{Failure, Result};
use crate::logs;
use crate::output::print_line;
use crate::session::Session;
use crate::table::{age, fields};

/// Verbs of `session`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra session open chat
  lyra session ls --application chat")]
pub enum Command {
    /// Open a session and wait until it can be reached; print its name and where
    #[command(after_help = "Examples:
  lyra session open chat
  lyra session open chat --name room-1 --data '{\"title\":\"Tea\"}' --wait 30s
  NAME=$(lyra session open chat -q)

Exit codes: 3 no such application, 5 all its instances have a session, 6 not open in time.")]
    Open(Open),
    /// List sessions
    #[command(after_help = "Examples:
  lyra session ls
  lyra session ls --application chat -o json")]
    Ls(Ls),
    /// Show a session: what it is at and why, where it is reached, who is there
    #[command(after_help = "Example:
  lyra session get room-1")]
    Get(One),
    /// Show what a session's program wrote, also after its end
    #[command(after_help = "Examples:
  lyra session logs room-1
  lyra session logs room-1 --follow
  lyra session logs room-1 --limit 20 -o json")]
    Logs(Logs),
    /// Close a session, and wait until it is gone
    #[command(after_help = "Examples:
  lyra session close room-1
  lyra session close room-1 --wait 0s      do not wait until it is gone")]
    Close(Close),
}

/// Flags of `session open`.
#[derive(Debug, clap::Args)]
pub struct Open {
    /// The application
    #[arg(value_name = "APP", value_parser = parse_name)]
    application: String,
    /// What the program is given when the session opens
    #[arg(long, short = 'd', value_name = "STRING")]
    data: Option<String>,
    /// Name of the session [default: the application's, and some letters]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: Option<String>,
    /// Longest until it is open: then it is given up, and ends; with 0s, do not wait for it
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = crate::duration::parse)]
    wait: Duration,
}

/// Flags of `session ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Only sessions of this application
    #[arg(long, short = 'A', value_name = "APP", value_parser = parse_name)]
    application: Option<String>,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// A session by its name.
#[derive(Debug, clap::Args)]
pub struct One {
    /// The session
    #[arg(value_name = "NAME", value_parser = parse_name)]
    name: String,
}

/// Flags of `session logs`.
#[derive(Debug, clap::Args)]
pub struct Logs {
    #[command(flatten)]
    one: One,
    /// Only of the session of this identity, where there were several of the name
    #[arg(long, value_name = "UID")]
    uid: Option<String>,
    #[command(flatten)]
    which: logs::Which,
}

/// Flags of `session close`.
#[derive(Debug, clap::Args)]
pub struct Close {
    #[command(flatten)]
    one: One,
    /// Give up after so long [default: 60s, and the session's grace]
    #[arg(long, value_name = "TIME", value_parser = crate::duration::parse)]
    wait: Option<Duration>,
}

/// Time that the platform has to say that it gave a session up, after that time is over.
const VERDICT: Duration = Duration::from_secs(10);

/// When to try again where all instances have a session.
const RETRY: Duration = Duration::from_secs(1);

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    match command {
        Command::Open(args) => open(args, session).await,
        Command::Ls(args) => {
            let selector = args.application.map(|name| format!("spec.applicationName={name}")).unwrap_or_default();
            let list = session.client.objects::<ApplicationSession>(&selector, args.limit).await?;
            let header = ["name", "application", "status", "endpoint", "age"];
            session.list(&list, |of| of.metadata.name.clone(), &header, |of| row(session, of))
        }
        Command::Get(one) => show(session, &session.client.object(&one.name).await?),
        Command::Logs(args) => logs::of_session(args.one.name, args.uid, args.which, session).await,
        Command::Close(args) => close(&args, session).await,
    }
}

/// What a program is given to end by itself.
pub fn grace(of: &ApplicationSession) -> Duration {
    Duration::from_secs(of.spec.close_grace_period_seconds.into())
}

async fn open(args: Open, session: &Session) -> Result<()> {
    let wait = args.wait;
    let wanted = object(args);
    let made = session.client.create_object(&wanted).await?;
    if wait.is_zero() {
        return show(session, &made);
    }
    let opened = until_open(&session.client, made, wait).await?;
    show(session, &opened)
}

/// The object that asks for a session.
fn object(args: Open) -> ApplicationSession {
    let metadata = match args.name {
        Some(name) => ObjectMeta { name, ..ObjectMeta::default() },
        None => ObjectMeta { generate_name: format!("{}-", args.application), ..ObjectMeta::default() },
    };
    // In whole seconds, none too few; 0 is the server's own.
    let seconds = args.wait.as_secs() + u64::from(args.wait.subsec_nanos() > 0);
    let spec = ApplicationSessionSpec {
        application_name: args.application,
        session_data: args.data.unwrap_or_default(),
        open_timeout_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        ..ApplicationSessionSpec::default()
    };
    ApplicationSession { metadata, spec, ..ApplicationSession::default() }
}

/// Waits until a session that was just made is open.
///
/// # Errors
/// Why it was not, or not in time.
pub async fn until_open(
    client: &Client,
    made: Answer<ApplicationSession>,
    wait: Duration,
) -> Result<Answer<ApplicationSession>> {
    let (name, uid) = (made.metadata.name.clone(), made.metadata.uid.clone());
    let decided = |of: Option<&ApplicationSession>| match of {
        None => true,
        Some(of) => {
            let status = of.status.session_status;
            of.metadata.uid != uid
                || matches!(status, SessionStatus::Available | SessionStatus::InUse | SessionStatus::Closing)
                || status.has_ended()
        }
    };
    let seen = match client.wait_object(&name, wait + VERDICT, decided).await {
        Err(Error::Deadline { .. }) => {
            let detail = format!("session {name} is not open yet");
            return Err(Failure::new(Code::Timeout, detail).hint(format!("`lyra session get {name}` shows why")));
        }
        seen => seen?,
    };
    match seen {
        Some(of) if of.metadata.uid == uid => match refusal(&of) {
            None => Ok(of),
            Some(failure) => Err(failure),
        },
        _ => Err(Failure::new(Code::Cancelled, format!("session {name} was closed before it was open"))),
    }
}

/// Why a session that was to be open is not.
fn refusal(of: &ApplicationSession) -> Option<Failure> {
    let (name, status) = (&of.metadata.name, &of.status);
    let why = if status.message.is_empty() { &status.reason } else { &status.message };
    let (code, detail) = match (status.session_status, status.reason.as_str()) {
        (SessionStatus::Timeout, "Busy") => (Code::Overloaded, format!("session {name} got no instance: {why}")),
        (SessionStatus::Timeout, "ApplicationNotFound") => {
            (Code::NotFound, format!("session {name} was not opened: {why}"))
        }
        (SessionStatus::Timeout, _) => (Code::Timeout, format!("session {name} was not open in time: {why}")),
        (SessionStatus::Closing, _) => (Code::Cancelled, format!("session {name} was closed before it was open")),
        (SessionStatus::Closed, "WorkerLost") => (Code::WorkerLost, format!("session {name} has ended: {why}")),
        (SessionStatus::Closed, _) => (Code::SessionError, format!("session {name} has ended: {why}")),
        _ => return None,
    };
    let error = lyra_types::Error::new(code, detail);
    Some(Failure::from(if code == Code::Overloaded { error.with_retry_after(RETRY) } else { error }))
}

async fn close(args: &Close, session: &Session) -> Result<()> {
    let (client, name) = (&session.client, &args.one.name);
    let known: Answer<ApplicationSession> = client.object(name).await?;
    let wait = args.wait.unwrap_or_else(|| CLOSING + grace(&known));
    client.delete_object::<ApplicationSession>(name).await?;
    if !wait.is_zero() {
        // Another one of that name is another session.
        let uid = known.metadata.uid.clone();
        let gone = |of: Option<&ApplicationSession>| of.is_none_or(|of| of.metadata.uid != uid);
        client.wait_object(name, wait, gone).await?;
    }
    match (session.json(), session.quiet) {
        (true, _) => Ok(()),
        (false, true) => print_line(name),
        (false, false) if wait.is_zero() => print_line(&format!("session {name} is being closed")),
        (false, false) => print_line(&format!("session {name} closed")),
    }
}

/// Where clients reach a port: `10.0.0.7:20001`, and what there is to tell it from others.
fn endpoint(of: &AccessEndPoint) -> String {
    let address = match of.ip_address.contains(':') {
        true => format!("[{}]:{}", of.ip_address, of.port),
        false => format!("{}:{}", of.ip_address, of.port),
    };
    let udp = (of.protocol == Protocol::Udp).then_some("UDP");
    let more: Vec<&str> = of.name.as_deref().into_iter().chain(udp).collect();
    if more.is_empty() { address } else { format!("{address} ({})", more.join(", ")) }
}

fn endpoints(of: &ApplicationSession) -> String {
    of.status.access_end_points.iter().map(endpoint).collect::<Vec<_>>().join(", ")
}

/// Where HTTP clients reach it: as the server says, else at the gateway that this client speaks to.
fn url(client: &Client, of: &ApplicationSession) -> Option<String> {
    let ports = &of.status.access_end_points;
    let told = ports.iter().find_map(|port| port.url.clone());
    let has_tcp = ports.iter().any(|port| port.protocol == Protocol::Tcp);
    told.or_else(|| has_tcp.then(|| client.session_url(&of.metadata.name)))
}

fn row(session: &Session, of: &ApplicationSession) -> Vec<String> {
    let created = of.metadata.creation_timestamp.map(|time| age(&session.clock, time.timestamp()));
    vec![
        of.metadata.name.clone(),
        of.spec.application_name.clone(),
        of.status.session_status.as_str().to_owned(),
        endpoints(of),
        created.unwrap_or_default(),
    ]
}

/// Prints a session.
fn show(session: &Session, of: &Answer<ApplicationSession>) -> Result<()> {
    let people = |of: &ApplicationSession| {
        let status = &of.status;
        let ago = |time: lyra_types::resources::Time| format!("{time} ({} ago)", age(&session.clock, time.timestamp()));
        let version = if status.application_version == 0 {
            of.spec.application_name.clone()
        } else {
            format!("{} version {}", of.spec.application_name, status.application_version)
        };
        let at = match (status.session_status, status.message.as_str()) {
            (SessionStatus::Unset, _) => "not seen yet".to_owned(),
            (at, "") if at.has_ended() => format!("{} ({})", at.as_str(), status.reason),
            (at, "") => at.as_str().to_owned(),
            (at, message) => format!("{} ({message})", at.as_str()),
        };
        let clients: Vec<&str> = status.client_sessions.iter().map(|client| client.name.as_str()).collect();
        fields(&[
            ("name", of.metadata.name.clone()),
            ("application", version),
            ("status", at),
            ("endpoint", endpoints(of)),
            ("http", url(&session.client, of).unwrap_or_default()),
            ("clients", clients.join(", ")),
            ("instance", status.instance.clone()),
            (
                "open since",
                status.available_time.filter(|_| !status.session_status.has_ended()).map(ago).unwrap_or_default(),
            ),
            ("ended", status.close_time.map(ago).unwrap_or_default()),
        ])
    };
    session.show(of, |of| of.metadata.name.clone(), people)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(wait: Duration, name: Option<&str>) -> ApplicationSession {
        let name = name.map(str::to_owned);
        object(Open { application: "chat".to_owned(), data: Some("x".to_owned()), name, wait })
    }

    #[test]
    fn a_session_is_asked_for_with_a_name_or_the_beginning_of_one() {
        let object = asked(Duration::from_millis(1_500), None);
        assert_eq!((object.metadata.generate_name.as_str(), object.metadata.name.as_str()), ("chat-", ""));
        assert_eq!((object.spec.session_data.as_str(), object.spec.open_timeout_seconds), ("x", 2));
        let object = asked(Duration::ZERO, Some("room"));
        assert_eq!((object.metadata.name.as_str(), object.spec.open_timeout_seconds), ("room", 0));
        assert_eq!(object.metadata.generate_name, "");
    }

    #[test]
    fn how_an_open_ended_tells_the_exit_code() {
        let mut of = asked(Duration::ZERO, Some("room"));
        for (status, reason, exit) in [
            (SessionStatus::Available, "Open", None),
            (SessionStatus::InUse, "Open", None),
            (SessionStatus::Timeout, "OpenTimeout", Some(6)),
            (SessionStatus::Timeout, "Unschedulable", Some(6)),
            (SessionStatus::Timeout, "Busy", Some(5)),
            (SessionStatus::Timeout, "ApplicationNotFound", Some(3)),
            (SessionStatus::Closed, "RefusedByProgram", Some(1)),
            (SessionStatus::Closed, "WorkerLost", Some(7)),
            (SessionStatus::Closing, "Deleted", Some(1)),
        ] {
            of.status.session_status = status;
            reason.clone_into(&mut of.status.reason);
            assert_eq!(refusal(&of).map(|failure| failure.exit_code()), exit, "{reason}");
        }
    }

    #[test]
    fn endpoints_show_what_tells_them_apart() {
        let mut of = AccessEndPoint { ip_address: "::1".to_owned(), port: 7, ..AccessEndPoint::default() };
        assert_eq!(endpoint(&of), "[::1]:7");
        (of.protocol, of.name) = (Protocol::Udp, Some("game".to_owned()));
        assert_eq!(endpoint(&of), "[::1]:7 (game, UDP)");
    }
}
