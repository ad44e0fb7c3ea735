//! `lyra trigger`: functions that are called by events, in batches.

use std::time::Duration;

use lyra_types::trigger::{
    HttpSource, NatsSource, S3Source, StartAt, TriggerPosted, TriggerRequest, TriggerSource, TriggerView,
};
use lyra_types::{SecretName, TriggerName};

use crate::args::{Ls, One, Several};
use crate::failure::{Failure, Result};
use crate::function::invoke::read_event;
use crate::output::print_line;
use crate::session::Session;
use crate::table::fields;

/// Verbs of `trigger`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra trigger create orders --function bill --nats nats://mq.example:4222 --subject 'orders.>'
  lyra trigger create uploads --function thumbnail --s3 --event 's3:ObjectCreated:*' --suffix .jpg
  lyra trigger send orders -d '{\"order\":17}'")]
pub enum Command {
    /// Make a trigger, or replace the one of this name
    #[command(after_help = "Examples:
  lyra trigger create orders --function bill@live
  lyra trigger create orders --function bill --id-field order_id
  lyra trigger create orders --function bill --nats nats://mq.example:4222 --subject 'orders.>' \\
    --stream ORDERS --batch 100 --batch-wait 500ms --credentials-secret nats-login
  lyra trigger create uploads --function thumbnail --s3 --bucket photos --prefix in/ --suffix .jpg

Events are posted to the trigger (`lyra trigger send`, POST /v1/triggers/NAME/events), or with
--nats taken from a stream of NATS JetStream. With --s3 they are notifications of a store that
speaks S3. The function gets {\"trigger\",\"source\",\"records\":[{\"id\",\"data\",…}]}, with up to
--batch records. With --partial-failures it may answer which of them failed:
{\"batchItemFailures\":[{\"itemIdentifier\":ID},…]}")]
    Create(Box<Create>),
    /// List triggers by name
    #[command(after_help = "Example:
  lyra trigger ls -o json")]
    Ls(Ls),
    /// Show a trigger: how it stands, its last error, what it has done
    #[command(after_help = "Example:
  lyra trigger get orders")]
    Get(One<TriggerName>),
    /// Delete triggers; jobs that they started go on
    #[command(after_help = "Example:
  lyra trigger rm orders")]
    Rm(Several<TriggerName>),
    /// Have a trigger take no more events
    #[command(after_help = "Example:
  lyra trigger pause orders")]
    Pause(One<TriggerName>),
    /// Have a paused trigger take events again
    #[command(after_help = "Example:
  lyra trigger resume orders")]
    Resume(One<TriggerName>),
    /// Post events to a trigger and print their jobs
    #[command(after_help = "Examples:
  lyra trigger send orders -d '{\"order\":17}'
  lyra trigger send orders -d @orders.json --idempotency-key import-7")]
    Send(Send),
}

/// Flags of `trigger create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Its name
    #[arg(value_name = "NAME")]
    name: TriggerName,
    /// What to call, with a version or an alias where it is not to be `live`
    #[arg(long, value_name = "NAME[@VERSION|@ALIAS]")]
    function: String,
    /// Take messages from this server of NATS: nats://HOST:PORT, or tls://HOST:PORT
    #[arg(long, value_name = "URL", requires = "subject")]
    nats: Option<String>,
    /// Of messages, take those with this subject, which may have wildcards
    #[arg(long, value_name = "SUBJECT", requires = "nats")]
    subject: Option<String>,
    /// The stream of JetStream [default: the one that has the subject]
    #[arg(long, value_name = "NAME", requires = "nats")]
    stream: Option<String>,
    /// Begin with all messages that the stream has, or with new ones: all, new
    #[arg(long, value_name = "WHERE", default_value = "all", value_parser = parse_start)]
    start: StartAt,
    /// Secret to log in to NATS by: a .creds file, JSON with user and password, or a token
    #[arg(long, value_name = "NAME", requires = "nats")]
    credentials_secret: Option<SecretName>,
    /// Take notifications of a store that speaks S3
    #[arg(long)]
    s3: bool,
    /// Of notifications, take those of this name, which may end in *; can be given several times
    #[arg(long = "event", value_name = "PATTERN", requires = "s3")]
    events: Vec<String>,
    /// Of notifications, take those of this bucket
    #[arg(long, value_name = "NAME", requires = "s3")]
    bucket: Option<String>,
    /// Of notifications, take those of objects whose key begins so
    #[arg(long, value_name = "TEXT", requires = "s3")]
    prefix: Option<String>,
    /// Of notifications, take those of objects whose key ends so
    #[arg(long, value_name = "TEXT", requires = "s3")]
    suffix: Option<String>,
    /// The field of a posted event that says which one it is, so that it is taken once
    #[arg(long, value_name = "FIELD", conflicts_with_all = ["nats", "s3"])]
    id_field: Option<String>,
    /// Most records of a batch
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: u32,
    /// With --nats: gather a batch for so long after its first message, at most 60s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = crate::duration::parse)]
    batch_wait: Duration,
    /// Tries of a batch before it is a dead letter, at least 2 [default: those of the function]
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// With --nats: batches that are under way at the same time
    #[arg(long, value_name = "N", default_value_t = 4)]
    max_in_flight: u32,
    /// The function may answer which records failed, so that only those are tried again
    #[arg(long)]
    partial_failures: bool,
    /// Make it paused
    #[arg(long)]
    paused: bool,
}

/// Flags of `trigger send`.
#[derive(Debug, clap::Args)]
pub struct Send {
    /// The trigger
    #[arg(value_name = "NAME")]
    name: TriggerName,
    /// The events: a JSON object or an array of them, @FILE, or - for stdin [default: {}]
    #[arg(long, short = 'd', value_name = "JSON|@FILE|-")]
    data: Option<String>,
    /// A key for this post: sent again with the same key, it starts nothing more
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

fn parse_start(text: &str) -> Result<StartAt, String> {
    StartAt::parse(text).ok_or_else(|| StartAt::ALL.map(StartAt::as_str).join(", "))
}

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = &session.client;
    match command {
        Command::Create(args) => {
            let name = args.name.clone();
            let made = client.put_event_trigger(&name, &request(*args)?).await?;
            session.show(&made, |it| it.name.to_string(), |it| format!("{} calls {}", it.name, it.trigger.function))
        }
        Command::Ls(Ls { limit }) => {
            let found = client.event_triggers(limit).await?;
            let header = ["name", "function", "source", "state", "records", "lag"];
            session.list(&found, |it| it.name.to_string(), &header, row)
        }
        Command::Get(One { name }) => {
            session.show(&client.event_trigger(&name).await?, |it| it.name.to_string(), shown)
        }
        Command::Rm(Several { names }) => {
            for name in names {
                client.delete_event_trigger(&name).await?;
                match (session.json(), session.quiet) {
                    (true, _) => {}
                    (false, true) => print_line(name.as_str())?,
                    (false, false) => print_line(&format!("{name} deleted"))?,
                }
            }
            Ok(())
        }
        Command::Pause(One { name }) => {
            let said = |it: &TriggerView| format!("{} paused", it.name);
            session.show(&client.pause_event_trigger(&name, true).await?, |it| it.name.to_string(), said)
        }
        Command::Resume(One { name }) => {
            let said = |it: &TriggerView| format!("{} takes events", it.name);
            session.show(&client.pause_event_trigger(&name, false).await?, |it| it.name.to_string(), said)
        }
        Command::Send(Send { name, data, idempotency_key }) => {
            let events = read_event(data.as_deref())?;
            let posted = client.post_events(&name, events.into(), idempotency_key.as_deref()).await?;
            let jobs = |it: &TriggerPosted| it.jobs.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            if posted.jobs.is_empty() && !session.json() {
                session.note("no job was started: all was filtered out, or was there before");
                return Ok(());
            }
            session.show(&posted, jobs, jobs)
        }
    }
}

fn request(args: Create) -> Result<TriggerRequest> {
    let wait = args.batch_wait.as_millis();
    let nats = match (args.nats, args.subject) {
        (Some(url), Some(subject)) => Some(NatsSource {
            url,
            subject,
            stream: args.stream,
            start: args.start,
            credentials_secret: args.credentials_secret,
        }),
        _ => None,
    };
    let source = match (args.s3, nats) {
        (true, nats) => TriggerSource::S3(S3Source {
            nats,
            events: args.events,
            bucket: args.bucket,
            prefix: args.prefix,
            suffix: args.suffix,
        }),
        (false, Some(nats)) => TriggerSource::Nats(nats),
        (false, None) => TriggerSource::Http(HttpSource { id_field: args.id_field }),
    };
    Ok(TriggerRequest {
        function: args.function,
        source,
        batch_size: args.batch,
        batch_wait_ms: u64::try_from(wait).map_err(|_| Failure::usage("--batch-wait is too long".to_owned()))?,
        max_attempts: args.max_attempts,
        max_in_flight: args.max_in_flight,
        partial_failures: args.partial_failures,
        paused: args.paused,
    })
}

/// Where events come from, in a few words.
fn from(source: &TriggerSource) -> String {
    match source.nats() {
        Some(nats) => format!("{} {}", source.kind(), nats.subject),
        None => source.kind().to_owned(),
    }
}

fn row(trigger: &TriggerView) -> Vec<String> {
    vec![
        trigger.name.to_string(),
        trigger.trigger.function.clone(),
        from(&trigger.trigger.source),
        trigger.state.as_str().to_owned(),
        trigger.counts.records.to_string(),
        trigger.lag.map(|lag| lag.to_string()).unwrap_or_default(),
    ]
}

fn shown(trigger: &TriggerView) -> String {
    let asked = &trigger.trigger;
    let mut rows = vec![
        ("name", trigger.name.to_string()),
        ("function", asked.function.clone()),
        ("source", asked.source.kind().to_owned()),
    ];
    if let TriggerSource::S3(s3) = &asked.source {
        rows.push(("events", s3.events.join(", ")));
        rows.push(("bucket", s3.bucket.clone().unwrap_or_default()));
        rows.push(("prefix", s3.prefix.clone().unwrap_or_default()));
        rows.push(("suffix", s3.suffix.clone().unwrap_or_default()));
    }
    if let TriggerSource::Http(http) = &asked.source {
        rows.push(("id field", http.id_field.clone().unwrap_or_default()));
    }
    rows.push(("batch", asked.batch_size.to_string()));
    if let Some(nats) = asked.source.nats() {
        rows.push(("wait", crate::table::short(Duration::from_millis(asked.batch_wait_ms))));
        rows.push(("in flight", format!("at most {}", asked.max_in_flight)));
        rows.push(("url", nats.url.clone()));
        rows.push(("subject", nats.subject.clone()));
        rows.push(("stream", nats.stream.clone().unwrap_or_default()));
        rows.push(("start", nats.start.as_str().to_owned()));
        rows.push(("credentials", nats.credentials_secret.as_ref().map(ToString::to_string).unwrap_or_default()));
    }
    let counts = &trigger.counts;
    rows.push(("tries", asked.max_attempts.map(|tries| tries.to_string()).unwrap_or_default()));
    rows.push(("failures", if asked.partial_failures { "by record".to_owned() } else { String::new() }));
    rows.push(("state", trigger.state.as_str().to_owned()));
    rows.push(("error", trigger.error.clone().unwrap_or_default()));
    rows.push(("lag", trigger.lag.map(|lag| lag.to_string()).unwrap_or_default()));
    rows.push(("records", counts.records.to_string()));
    rows.push(("left out", counts.left_out.to_string()));
    rows.push(("batches", counts.batches.to_string()));
    if asked.source.nats().is_some() {
        let ended = format!("{} succeeded, {} dead, {} failed", counts.succeeded, counts.dead, counts.failed);
        rows.push(("ended", ended));
    }
    fields(&rows)
}
