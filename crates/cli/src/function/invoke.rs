//! `lyra invoke`: calls a function and prints its result, or hands in a job.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use lyra_client::CallInfo;
use lyra_types::delivery::DestinationsRequest;
use lyra_types::function::limit;
use lyra_types::name::Qualifier;
use lyra_types::{Code, FunctionName};

use crate::failure::{Failure, Result};
use crate::job::{parse_id, print_result};
use crate::output::error_line;
use crate::paint::Paint;
use crate::session::Session;
use crate::webhook::Own;

/// Flags of `invoke`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra invoke hello -d '{\"name\":\"Ada\"}'
  lyra invoke hello@2 -d @event.json -v
  echo '[1,2]' | lyra invoke sum@beta -d -
  lyra fn invoke report --async
  lyra invoke report --async --wait 5m
  lyra invoke report --async --on-failure function:repair

The result goes to stdout as the function gave it. With -v, or on a terminal, a line on stderr says
which version ran, whether it had to be started, and where the time went. Ctrl-C cancels the call.")]
pub struct Args {
    /// The function, with a version or an alias if it is not to be `live`
    #[arg(value_name = "NAME[@VERSION|@ALIAS]", value_parser = parse_target)]
    target: Target,
    /// The event: JSON, @FILE, or - for stdin [default: {}]
    #[arg(long, short = 'd', value_name = "JSON|@FILE|-")]
    data: Option<String>,
    /// Hand in a job and print its id
    #[arg(long = "async")]
    detached: bool,
    /// Wait no longer than this for the result; with --async: wait for the job's
    #[arg(long, value_name = "TIME", value_parser = crate::duration::parse)]
    wait: Option<Duration>,
    /// Key that makes handing in the job again give the same job
    #[arg(long, value_name = "KEY", requires = "detached")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    told: Own,
    /// Say on stderr how the call went
    #[arg(long, short = 'v')]
    verbose: bool,
}

/// What is called.
#[derive(Debug, Clone)]
pub struct Target {
    /// The function.
    pub name: FunctionName,
    /// Which version of it.
    pub qualifier: Qualifier,
}

/// Reads `NAME[@VERSION|@ALIAS]`.
///
/// # Errors
/// When either part can't be one.
pub fn parse_target(text: &str) -> Result<Target, lyra_types::Error> {
    Qualifier::split(text).map(|(name, qualifier)| Target { name, qualifier })
}

/// Reads what `--data` says.
///
/// # Errors
/// When the file can't be read.
pub fn read_event(data: Option<&str>) -> Result<Vec<u8>> {
    let most = u64::try_from(limit::MAX_EVENT).unwrap_or(u64::MAX);
    let read = |from: &mut dyn Read| {
        let mut bytes = Vec::new();
        // One more than the server's limit, so that the server refuses what is too large, with its own words.
        from.take(most.saturating_add(1)).read_to_end(&mut bytes).map(|_| bytes)
    };
    let (event, from) = match data {
        None => return Ok(b"{}".to_vec()),
        Some("-") => (read(&mut std::io::stdin().lock()), "stdin".to_owned()),
        Some(text) => match text.strip_prefix('@') {
            Some(path) => (std::fs::File::open(path).and_then(|mut file| read(&mut file)), path.to_owned()),
            None => (Ok(text.as_bytes().to_vec()), "--data".to_owned()),
        },
    };
    event.map_err(|error| Failure::usage(format!("{from} can't be read: {error}")))
}

/// What helps when the server does not take `event`. Only it knows whether the function takes JSON alone.
fn event_hint(event: &[u8]) -> Option<String> {
    let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(event) else { return None };
    let quoted = serde_json::Value::from(String::from_utf8_lossy(event).trim()).to_string();
    Some(match event.len() {
        0..40 => format!("a string needs quotes of its own: -d '{quoted}'"),
        _ => format!("the event is not JSON: {error}"),
    })
}

/// Calls the function, or hands in the job.
///
/// # Errors
/// Those of the call.
pub async fn run(args: Args, session: &Session) -> Result<()> {
    let event = read_event(args.data.as_deref())?;
    let hint = event_hint(&event);
    let with_hint = |failure: Failure| match &hint {
        Some(hint) if failure.error().code == Code::BadRequest => failure.hint(hint),
        _ => failure,
    };
    let told = args.told.request()?;
    if args.detached {
        return submit(&args, event, told.as_ref(), session).await.map_err(with_hint);
    }
    if told.is_some() {
        return Err(Failure::usage("--on-success and --on-failure are for jobs: add --async"));
    }
    let Target { name, qualifier } = &args.target;
    let talk = args.verbose || (!session.quiet && !session.json() && std::io::stdout().is_terminal());
    match session.client.invoke(name, qualifier, event, args.wait).await {
        Ok(invocation) => {
            print_result(&invocation.body)?;
            if talk {
                say(&invocation.call);
            }
            Ok(())
        }
        Err(error) => {
            let call = error.call().cloned().filter(|_| talk);
            let failure = with_hint(call_failure(error, name));
            failure.report(session.json());
            if let Some(call) = call {
                say(&call);
            }
            Err(Failure::silent(failure.error().code))
        }
    }
}

fn say(call: &CallInfo) {
    let text = call.to_string();
    if !text.is_empty() {
        error_line(&Paint::stderr().dim(&text));
    }
}

/// Adds what to do to the failures of a call.
pub fn call_failure(error: lyra_client::Error, name: &FunctionName) -> Failure {
    let failed_in_function = error.api().is_some_and(|error| error.code.is_function_fault());
    let invocation = error.call().and_then(|call| call.invocation.clone());
    let limit_passed = matches!(error, lyra_client::Error::Deadline { .. });
    let failure = Failure::from(error);
    match (failed_in_function, invocation) {
        (true, Some(id)) => failure.hint(format!("`lyra logs {name} --invocation {id}` shows what it wrote")),
        _ if limit_passed => failure.hint("the call was cancelled; --async hands in a job that outlives this command"),
        _ => failure,
    }
}

async fn submit(args: &Args, event: Vec<u8>, told: Option<&DestinationsRequest>, session: &Session) -> Result<()> {
    let Target { name, qualifier } = &args.target;
    let client = &session.client;
    let job = client.submit_telling(name, qualifier, event, args.idempotency_key.as_deref(), told).await?;
    let Some(limit) = args.wait else {
        return session.show(&job, |job| job.id.clone(), |job| job.id.clone());
    };
    session.note(&format!("job {}", job.id));
    match client.wait_job_result(parse_id(&job.id)?, limit).await {
        Ok(result) => print_result(&result),
        Err(lyra_client::Error::Deadline { after }) => {
            let waited = humantime::format_duration(after);
            let detail = format!("job {} has not ended within {waited}; it goes on", job.id);
            Err(Failure::new(Code::Timeout, detail).hint(format!("`lyra job wait {}` waits on", job.id)))
        }
        Err(error) => Err(Failure::from(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_from_the_flag_or_a_file_and_is_an_empty_object_without() {
        assert_eq!(read_event(None).expect("default"), b"{}");
        assert_eq!(read_event(Some("[1]")).expect("JSON"), b"[1]");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("event.json");
        std::fs::write(&path, "{\"a\":1}\n").expect("written");
        assert_eq!(read_event(Some(&format!("@{}", path.display()))).expect("a file"), b"{\"a\":1}\n");
        assert_eq!(read_event(Some("@/no/such")).expect_err("missing").exit_code(), 2);
    }

    #[test]
    fn an_event_that_is_no_json_gets_a_proposal() {
        assert_eq!(event_hint(b"{}"), None);
        assert_eq!(event_hint(b"Ada").as_deref(), Some("a string needs quotes of its own: -d '\"Ada\"'"));
        assert!(event_hint(&[b'x'; 50]).expect("a hint").contains("not JSON"));
    }

    #[test]
    fn targets_name_a_version_or_an_alias() {
        assert!(matches!(parse_target("a@2").expect("parses").qualifier, Qualifier::Version(2)));
        assert!(matches!(parse_target("a").expect("parses").qualifier, Qualifier::Live));
        assert!(parse_target("A").is_err() && parse_target("a@").is_err());
    }
}
