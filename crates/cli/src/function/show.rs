//! `fn ls`, `fn get`, `fn versions`.

use std::collections::BTreeMap;
use std::time::Duration;

use lyra_types::api::{FunctionView, Settings, VersionView};
use lyra_types::function::Contract;
use lyra_types::secret::SECRETS_DIRECTORY;
use lyra_types::{FunctionName, SecretUse};

use crate::failure::Result;
use crate::session::Session;
use crate::table::{age, fields, size};

/// Flags of `fn ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = crate::session::limit)]
    limit: usize,
}

/// Flags of `fn versions`.
#[derive(Debug, clap::Args)]
pub struct Versions {
    #[command(flatten)]
    function: super::Name,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// `1`, or `1:90, 2:10` where several versions share the calls.
pub fn weights(weights: &BTreeMap<u64, u32>) -> String {
    if let [version] = &*weights.keys().collect::<Vec<_>>() {
        return version.to_string();
    }
    let parts: Vec<String> = weights.iter().map(|(version, weight)| format!("{version}:{weight}")).collect();
    parts.join(", ")
}

fn contract(settings: &Settings) -> &'static str {
    match settings.contract {
        Contract::Handler => "handler",
        Contract::Http => "http",
        Contract::Command => "command",
    }
}

/// `js`, or for Wasm what kind: `wasm (http)`.
pub fn kind(settings: &Settings) -> String {
    match settings.contract {
        Contract::Handler => settings.runtime.to_string(),
        Contract::Http | Contract::Command => format!("{} ({})", settings.runtime, contract(settings)),
    }
}

/// `fn ls`.
///
/// # Errors
/// Those of the API.
pub async fn functions(args: &Ls, session: &Session) -> Result<()> {
    let list = session.client.functions(args.limit).await?;
    let header = ["name", "runtime", "version", "live", "memory", "timeout", "size", "deployed"];
    let row = |f: &FunctionView| {
        vec![
            f.name.clone(),
            kind(&f.settings),
            f.version.to_string(),
            weights(&f.live),
            format!("{} MiB", f.settings.memory_mb),
            timeout(&f.settings),
            size(f.settings.code_size),
            age(&session.clock, f.updated_at),
        ]
    };
    session.list(&list, |f| f.name.clone(), &header, row)
}

fn timeout(settings: &Settings) -> String {
    humantime::format_duration(Duration::from_millis(settings.timeout_ms)).to_string()
}

fn pairs(map: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(" ")
}

/// The names alone: values of an environment are often secrets.
fn names(map: &BTreeMap<String, String>) -> String {
    let names: Vec<&str> = map.keys().map(String::as_str).collect();
    names.join(", ")
}

/// Which secret is where.
fn secrets(uses: &[SecretUse]) -> String {
    let shown = |secret: &SecretUse| match (&secret.env, &secret.file) {
        (Some(env), _) => format!("{} in {env}", secret.name),
        (None, Some(file)) => format!("{} in {SECRETS_DIRECTORY}/{file}", secret.name),
        (None, None) => secret.name.to_string(),
    };
    uses.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// `fn get`.
///
/// # Errors
/// `not_found`.
pub async fn function(name: &FunctionName, session: &Session) -> Result<()> {
    let people = |f: &FunctionView| {
        let s = &f.settings;
        let instances = match s.reuse {
            true => format!("kept between calls, {} to {}", s.min_instances, s.max_instances),
            false => "a fresh one for every call".to_owned(),
        };
        fields(&[
            ("name", f.name.clone()),
            ("tenant", f.tenant.clone()),
            ("version", format!("{} ({})", f.version, f.state)),
            ("live", weights(&f.live)),
            ("runtime", kind(s)),
            ("handler", s.handler.clone().unwrap_or_default()),
            ("memory", format!("{} MiB", s.memory_mb)),
            ("timeout", timeout(s)),
            ("instances", instances),
            ("concurrency", s.concurrency.to_string()),
            ("balancing", s.balancing.map(|policy| policy.to_string()).unwrap_or_default()),
            ("sessions", s.sessions.as_ref().map(|s| format!("{} by {}", s.application, s.key)).unwrap_or_default()),
            ("job tries", s.max_attempts.to_string()),
            ("env", names(&s.env)),
            ("secrets", secrets(&s.secrets)),
            ("labels", pairs(&s.labels)),
            ("code", format!("{}, sha256 {}", size(s.code_size), s.code_sha256)),
            ("created", format!("{} ({} ago)", f.created_at, age(&session.clock, f.created_at))),
            ("deployed", format!("{} ({} ago)", f.updated_at, age(&session.clock, f.updated_at))),
            ("trigger", session.client.trigger_url(name)),
        ])
    };
    session.show(&session.client.function(name).await?, |f| f.name.clone(), people)
}

/// `fn versions`.
///
/// # Errors
/// `not_found`.
pub async fn versions(args: &Versions, session: &Session) -> Result<()> {
    let list = session.client.versions(&args.function.name, args.limit).await?;
    let row = |v: &VersionView| {
        vec![
            v.version.to_string(),
            v.state.clone(),
            v.aliases.join(", "),
            kind(&v.settings),
            size(v.settings.code_size),
            v.settings.code_sha256.chars().take(12).collect(),
            age(&session.clock, v.created_at),
        ]
    };
    let header = ["version", "state", "aliases", "runtime", "size", "sha256", "deployed"];
    session.list(&list, |v| v.version.to_string(), &header, row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_needs_no_weight() {
        assert_eq!(weights(&[(3, 1)].into()), "3");
        assert_eq!(weights(&[(1, 90), (2, 10)].into()), "1:90, 2:10");
        assert_eq!(weights(&BTreeMap::new()), "");
    }
}
