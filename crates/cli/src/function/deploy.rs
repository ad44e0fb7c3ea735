//! `lyra deploy`: from code on disk to a version that can be called.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lyra_client::{Client, Deployed, Precondition};
use lyra_types::api::{CodeInput, DeployRequest};
use lyra_types::{FunctionName, Runtime, SecretName, SecretUse, SessionsRequest};

use crate::failure::{Failure, Result};
use crate::output::error_line;
use crate::session::Session;
use crate::source::{Loaded, Source};
use crate::table::millis;

/// Flags of `deploy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra deploy hello.js
  lyra deploy hello.js --watch                 and again each time it is saved
  lyra deploy ./resize --memory 256 --timeout 5s --env QUALITY=80
  lyra deploy report.py --secret db-password=DB_PASSWORD --secret tls-key:tls.key
  lyra deploy ./thumbnails --runtime python --handler app.run
  lyra fn deploy api.wasm --no-promote         `live` stays where it points
  echo 'export default e => e' | lyra deploy - --name echo --runtime js

A deploy says all about the new version: a flag that is left out has its default, whatever the
version before had.")]
pub struct Args {
    /// A .js, .mjs, .wasm, .py or .zip file, a directory, or - for stdin
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Name of the function [default: from the file's or directory's name]
    #[arg(long, value_name = "NAME")]
    name: Option<FunctionName>,
    /// What the code is written for: js, wasm, python, nodejs, native or http [default: from the
    /// file's ending, or from what is in the directory or archive]
    #[arg(long, value_name = "RUNTIME", value_parser = parse_runtime)]
    runtime: Option<Runtime>,
    /// The handler: an export's name for js [default: default, then handler], file.function for
    /// nodejs and python [default: index.handler, main.handler]
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// Most memory of an instance, in MiB [default: 128]
    #[arg(long, value_name = "MB")]
    memory: Option<u32>,
    /// Deadline of a call [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = crate::duration::parse)]
    timeout: Option<Duration>,
    /// Environment variable; may be given many times
    #[arg(long, value_name = "K=V", value_parser = parse_pair)]
    env: Vec<(String, String)>,
    /// File with a K=V on each line: keeps secrets off the command line
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Give instances a secret, as a variable (NAME=VARIABLE) or as the file /run/secrets/FILE
    /// (NAME:FILE; not for js and wasm); may be given many times
    #[arg(long, value_name = "NAME=VAR|NAME:FILE", value_parser = parse_secret)]
    secret: Vec<SecretUse>,
    /// Keep instances between calls, with their state [default for js and wasm: a fresh instance for
    /// every call; for the others: kept]
    #[arg(long)]
    reuse: bool,
    /// Processors of an instance that is a process: 0.5, 2 [default: 1]
    #[arg(long, value_name = "N")]
    cpus: Option<f64>,
    /// GPUs of an instance that is a process [default: 0]
    #[arg(long, value_name = "N")]
    gpus: Option<u32>,
    /// What an instance that is a process may reach: none or egress [default: none]
    #[arg(long, value_name = "POLICY")]
    network: Option<String>,
    /// Calls that run at once; more wait [default: 1000]
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Which of several workers gets a call: round-robin, least-loaded, least-queued, least-memory,
    /// least-cpu, least-load-average, power-of-two, bounded-hash, ch-rlu or locality-first [default:
    /// as the gateway is set]
    #[arg(long, value_name = "POLICY")]
    balancing: Option<String>,
    /// Have sessions of this application serve the calls; KEY is where a call names its session:
    /// header:NAME, query:NAME or path:NUMBER
    #[arg(long, value_name = "APP=KEY", value_parser = parse_pair)]
    sessions: Option<(String, String)>,
    /// Instances kept even when idle (with --reuse)
    #[arg(long, value_name = "N")]
    min_instances: Option<u32>,
    /// Most instances (with --reuse)
    #[arg(long, value_name = "N")]
    max_instances: Option<u32>,
    /// Tries of a job [default: 3]
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// Label; may be given many times
    #[arg(long, value_name = "K=V", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// Leave `live` where it points
    #[arg(long)]
    no_promote: bool,
    /// Stay, and deploy again each time the code changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

fn parse_runtime(text: &str) -> Result<Runtime, String> {
    Runtime::parse(text).ok_or_else(|| {
        let all: Vec<&str> = Runtime::ALL.iter().map(|runtime| runtime.as_str()).collect();
        format!("this build has the runtimes {}", all.join(", "))
    })
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a name, =, and a value: KEY=value".to_owned()),
    }
}

fn parse_secret(text: &str) -> Result<SecretUse, String> {
    let at = text.find(['=', ':']).ok_or("a secret's name, then =VARIABLE or :FILE")?;
    let (name, place) = (&text[..at], text[at + 1..].to_owned());
    let name = SecretName::new(name).map_err(|error| error.detail)?;
    Ok(match text.as_bytes()[at] {
        b'=' => SecretUse { name, env: Some(place), file: None },
        _ => SecretUse { name, env: None, file: Some(place) },
    })
}

/// Reads `K=V` lines as Docker's `--env-file` does: no quotes, no expansion; empty lines and `#` lines are left out.
fn read_env_file(path: &Path) -> Result<Vec<(String, String)>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("{shown} can't be read: {e}")))?;
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        // The line itself stays out of the message: it may hold a secret.
        let pair = parse_pair(line).map_err(|why| Failure::usage(format!("{shown} line {}: {why}", number + 1)))?;
        pairs.push(pair);
    }
    Ok(pairs)
}

/// All about a deploy but the code.
pub struct Plan {
    /// Function.
    pub name: FunctionName,
    settings: DeployRequest,
    asked: Option<Runtime>,
}

impl Plan {
    fn new(args: &Args, source: &Source, session: &Session) -> Result<Plan> {
        let name = match &args.name {
            Some(name) => name.clone(),
            None => {
                let (name, changed) = source.name()?;
                if let Some(raw) = changed {
                    session.note(&format!("the function is named {name} (made from \"{raw}\"; --name gives another)"));
                }
                name
            }
        };
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        if let Some(path) = &args.env_file {
            env.extend(read_env_file(path)?);
        }
        env.extend(args.env.iter().cloned());
        let settings = DeployRequest {
            handler: args.handler.clone(),
            memory_mb: args.memory,
            timeout_ms: args.timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
            env,
            secrets: args.secret.clone(),
            cpus: args.cpus,
            gpus: args.gpus,
            network: args.network.clone(),
            reuse: args.reuse.then_some(true),
            concurrency: args.concurrency,
            balancing: args.balancing.clone(),
            sessions: args.sessions.clone().map(|(application, key)| SessionsRequest { application, key }),
            min_instances: args.min_instances,
            max_instances: args.max_instances,
            max_attempts: args.max_attempts,
            labels: args.label.iter().cloned().collect(),
            promote: args.no_promote.then_some(false),
            ..DeployRequest::default()
        };
        Ok(Plan { name, settings, asked: args.runtime })
    }

    /// Reads the code at `source` and deploys it.
    ///
    /// # Errors
    /// When it can't be read or is refused; a place in the code comes with an excerpt.
    pub async fn deploy(&self, client: &Client, source: &Source) -> Result<Deployed> {
        let runtime = source.runtime(self.asked)?;
        self.deploy_code(client, source, runtime, source.load(runtime)?).await
    }

    /// The runtime that was asked for.
    pub fn asked(&self) -> Option<Runtime> {
        self.asked
    }

    /// The runtime of `source`.
    ///
    /// # Errors
    /// When nothing says which.
    pub fn runtime(&self, source: &Source) -> Result<Runtime> {
        source.runtime(self.asked)
    }

    /// Deploys code that was read.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn deploy_code(
        &self,
        client: &Client,
        source: &Source,
        runtime: Runtime,
        code: Loaded,
    ) -> Result<Deployed> {
        let mut request = DeployRequest { runtime: runtime.to_string(), ..self.settings.clone() };
        request.code = match code {
            Loaded::Text(text) => CodeInput { source: Some(text), ..CodeInput::default() },
            Loaded::Wasm(bytes) => CodeInput { wasm: Some(BASE64_STANDARD.encode(bytes)), ..CodeInput::default() },
            Loaded::Zip(bytes) => CodeInput { zip: Some(BASE64_STANDARD.encode(bytes)), ..CodeInput::default() },
        };
        client.deploy(&self.name, &request, Precondition::None).await.map_err(|error| {
            let failure = Failure::from(error);
            match &request.code.source {
                Some(text) => failure.in_code(&source.shown(), text),
                None => failure,
            }
        })
    }
}

/// Prints what was deployed.
///
/// # Errors
/// When stdout can't be written.
pub fn report(session: &Session, deployed: &Deployed, took: Duration) -> Result<()> {
    let people = |f: &lyra_types::api::FunctionView| {
        let live = if f.live.contains_key(&f.version) { "live" } else { "not live" };
        let kind = super::show::kind(&f.settings);
        format!("deployed {} version {} ({kind}, {live}) in {}", f.name, f.version, millis(took))
    };
    session.show(&deployed.function, |f| format!("{}@{}", f.name, f.version), people)
}

/// Deploys, and with `--watch` goes on.
///
/// # Errors
/// What is wrong with the flags or the code.
pub async fn run(args: Args, session: &Session) -> Result<()> {
    let source = Source::find(&args.path, args.runtime)?;
    if args.watch && source == Source::Stdin {
        return Err(Failure::usage("--watch needs a file or a directory, not stdin"));
    }
    let plan = Plan::new(&args, &source, session)?;
    if let Some(chosen) = source.chosen(args.runtime)
        && !session.json()
    {
        session.note(&chosen);
    }
    if args.watch {
        return super::watch::run(&args.path, &plan, session).await;
    }
    let begin = session.clock.instant();
    let deployed = plan.deploy(&session.client, &source).await?;
    report(session, &deployed, begin.elapsed())?;
    if deployed.created && !session.quiet && !session.json() {
        let how = match deployed.function.settings.contract {
            lyra_types::function::Contract::Http => format!("curl {}", session.client.trigger_url(&plan.name)),
            _ => format!("lyra invoke {}", plan.name),
        };
        error_line(&format!("call it: {how}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_given_as_a_variable_or_as_a_file() {
        let read = |text: &str| parse_secret(text).map(|of| (of.name.to_string(), of.env, of.file));
        assert_eq!(read("db=DB_PASSWORD"), Ok(("db".into(), Some("DB_PASSWORD".into()), None)));
        assert_eq!(read("tls-key:tls.key"), Ok(("tls-key".into(), None, Some("tls.key".into()))));
        assert!(read("db").is_err() && read("Db=A").is_err() && read("=A").is_err());
    }

    #[test]
    fn an_env_file_is_read_line_by_line_without_quoting() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("env");
        std::fs::write(&path, "# secrets\nA=1\n\nB=a b=\"c\"\nC=\n").expect("written");
        let pairs = read_env_file(&path).expect("reads");
        let expected = [("A", "1"), ("B", "a b=\"c\""), ("C", "")];
        assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        std::fs::write(&path, "A=1\nSECRET\n").expect("written");
        let failure = read_env_file(&path).expect_err("no value");
        assert!(failure.error().detail.contains("line 2") && !failure.error().detail.contains("SECRET"));
    }
}
