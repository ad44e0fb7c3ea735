//! Load from `oha`: closed loop (each connection sends its next request when the answer is there) and open loop
//! (requests at a fixed rate, latency from when each was due, so that a slow server can't hide its waits).

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

/// One kind of request, sent again and again.
#[derive(Debug, Clone)]
pub struct Request {
    /// HTTP method.
    pub method: &'static str,
    /// Path, from `/`.
    pub path: String,
    /// Body, JSON.
    pub body: Option<String>,
}

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// As fast as answers allow, over so many connections.
    Closed {
        /// Connections.
        connections: u32,
    },
    /// So many in a second.
    Open {
        /// Connections at most.
        connections: u32,
        /// Requests per second.
        rate: f64,
    },
}

impl Arrivals {
    /// Connections.
    pub fn connections(self) -> u32 {
        match self {
            Arrivals::Closed { connections } | Arrivals::Open { connections, .. } => connections,
        }
    }
}

/// What one round of load saw.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Answers a second.
    pub rps: f64,
    /// Median latency, in µs.
    pub p50_us: f64,
    /// 99th percentile, in µs.
    pub p99_us: f64,
    /// 99.9th percentile, in µs.
    pub p999_us: f64,
    /// Answers.
    pub answers: u64,
}

/// Puts load on `address` for `seconds`. Every answer must have the status `expected`.
///
/// # Errors
/// When any has another one, or none comes.
pub async fn run(
    oha: &Path,
    address: SocketAddr,
    request: &Request,
    arrivals: Arrivals,
    seconds: u64,
    expected: u16,
) -> anyhow::Result<Sample> {
    let mut command = Command::new(oha);
    command
        .args(["--no-tui", "--output-format", "json", "--redirect", "0", "--worker-threads", "1"])
        .args(["-w", "-z", &format!("{seconds}s"), "-c", &arrivals.connections().to_string()])
        .args(["-m", request.method]);
    if let Arrivals::Open { rate, .. } = arrivals {
        command.args(["-q", &format!("{rate:.0}"), "--latency-correction"]);
    }
    if let Some(body) = &request.body {
        command.args(["-T", "application/json", "-d", body]);
    }
    command.arg(format!("http://{address}{}", request.path));
    let output = lyra_kit::tasks::blocking(move || command.output()).await?.context("oha")?;
    anyhow::ensure!(output.status.success(), "oha: {}", String::from_utf8_lossy(&output.stderr));
    sample(&serde_json::from_slice(&output.stdout).context("what oha printed")?, expected)
}

fn sample(printed: &Value, expected: u16) -> anyhow::Result<Sample> {
    let number = |path: &str| printed.pointer(path).and_then(Value::as_f64).with_context(|| format!("oha: no {path}"));
    let statuses = printed["statusCodeDistribution"].as_object().context("oha: no statusCodeDistribution")?;
    let expected = expected.to_string();
    let others: Vec<_> = statuses.iter().filter(|(status, _)| **status != expected).collect();
    let errors = printed["errorDistribution"].as_object().context("oha: no errorDistribution")?;
    anyhow::ensure!(others.is_empty() && errors.is_empty(), "answers that should not be: {statuses:?} {errors:?}");
    let answers = statuses.get(&expected).and_then(Value::as_u64).context("no answers")?;
    Ok(Sample {
        rps: answers as f64 / number("/summary/total")?,
        p50_us: number("/latencyPercentiles/p50")? * 1e6,
        p99_us: number("/latencyPercentiles/p99")? * 1e6,
        p999_us: number("/latencyPercentiles/p99.9")? * 1e6,
        answers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_fails_the_round() {
        let printed = |status: &str| {
            serde_json::json!({
                "summary": {"total": 2.0},
                "latencyPercentiles": {"p50": 0.001, "p99": 0.002, "p99.9": 0.003},
                "statusCodeDistribution": {status: 10},
                "errorDistribution": {},
            })
        };
        let seen = sample(&printed("200"), 200).expect("as it should be");
        assert_eq!((seen.rps, seen.p50_us, seen.answers), (5.0, 1_000.0, 10));
        assert!(sample(&printed("503"), 200).is_err());
    }
}
