//! `lyra load run`: calls to a function of a running Lyra.

use std::time::Duration;

use lyra_kit::{Clock, Random};
use lyra_load::replay::{Arrivals, Outcome, Plan, run as send};
use lyra_types::Code;

use super::json;
use crate::failure::{Failure, Result};
use crate::function::invoke::{Target, parse_target, read_event};
use crate::output::print_line;
use crate::session::{Format, Global};
use crate::table::{fields, millis};

/// Flags of `load run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra load run hello --clients 8 --duration 10s
  lyra load run hello@2 --rate 500 --duration 30s -d '{\"name\":\"Ada\"}' -o json

With --clients, each client sends its next call when the answer is there. With --rate, calls are due
at that rate whatever the answers do, and a latency counts from when its call was due, so that a
stall shows all the waits that it causes.

Exit codes: 0 done, 1 no call had a result.")]
pub struct Args {
    /// Function to call, with @VERSION or @ALIAS where it is not `live`
    #[arg(value_name = "NAME[@VERSION|@ALIAS]", value_parser = parse_target)]
    function: Target,
    /// Clients of a closed loop
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "rate")]
    clients: usize,
    /// Calls a second of an open loop
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Open loop: calls come at random with that mean, not evenly
    #[arg(long, requires = "rate")]
    poisson: bool,
    /// Open loop: most calls under way; one that is due beyond waits, and its wait counts
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = crate::session::limit)]
    in_flight: usize,
    /// How long calls are sent
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = crate::duration::parse)]
    duration: Duration,
    /// Longest wait for one answer
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = crate::duration::parse)]
    timeout: Duration,
    /// Event of every call: JSON, @FILE, or - for stdin [default: {}]
    #[arg(long, short = 'd', value_name = "JSON|@FILE|-")]
    data: Option<String>,
}

/// Sends the calls and prints what was seen.
///
/// # Errors
/// When no call had a result.
pub async fn run(args: Args, global: &Global) -> Result<()> {
    let session = global.session()?;
    let arrivals = match args.rate {
        Some(rate) => Arrivals::Open { rate, random: args.poisson, in_flight: args.in_flight },
        None => Arrivals::Closed { clients: args.clients },
    };
    let plan = Plan {
        function: args.function.name,
        qualifier: args.function.qualifier,
        event: read_event(args.data.as_deref())?.into(),
        arrivals,
        duration: args.duration,
        timeout: args.timeout,
    };
    let outcome = send(&session.client, &plan, &Clock::system(), &Random::system()).await?;
    match global.format {
        Format::Json => print_line(&json(&outcome)?)?,
        Format::Table => print_line(&shown(&outcome))?,
    }
    if outcome.ok == 0 {
        let codes: Vec<String> = outcome.errors.iter().map(|(code, count)| format!("{count} {code}")).collect();
        return Err(Failure::new(Code::FunctionError, format!("no call had a result: {}", codes.join(", "))));
    }
    Ok(())
}

fn shown(outcome: &Outcome) -> String {
    let time = |us: f64| millis(Duration::from_secs_f64(us / 1e6));
    let counts = |of: &std::collections::BTreeMap<String, u64>| {
        of.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    };
    let (latency, phases) = (&outcome.latency_us, &outcome.phases_us);
    let asked = outcome.asked_rps.map(|rate| format!(" (asked for {rate:.1})")).unwrap_or_default();
    fields(&[
        ("results", format!("{} in {:.1} s", outcome.ok, outcome.seconds)),
        ("errors", counts(&outcome.errors)),
        ("starts", counts(&outcome.starts)),
        ("per second", format!("{:.1}{asked}", outcome.rps)),
        (
            "latency",
            format!(
                "p50 {} · p90 {} · p99 {} · p99.9 {} · max {} · mean {}",
                time(latency.p50),
                time(latency.p90),
                time(latency.p99),
                time(latency.p999),
                time(latency.max),
                time(latency.mean)
            ),
        ),
        (
            "worker",
            format!("mean queue {} · start {} · exec {}", time(phases.queue), time(phases.start), time(phases.exec)),
        ),
    ])
}
