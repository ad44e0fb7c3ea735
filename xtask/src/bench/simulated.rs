//! `overhead-worker`, `overhead-rpc`, `queue-policies` and `keep-alive`: what `lyra load` measures and simulates in its own process.
//!
//! The worker's overhead is real time, of calls that take none; the policies are compared under virtual time, so their
//! figures do not depend on the machine.

use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use super::Bench;
use super::languages;
use super::report::Record;

/// Worker in, handler, out, for a function that does nothing, over the same loop around a worker that only answers; and
/// for a compiled program in real sandboxes.
pub async fn overhead(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    measure_overhead(bench, "overhead-worker", &[]).await
}

/// The same over gRPC; the floor is then a bare server of the same transport.
pub async fn overhead_rpc(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    measure_overhead(bench, "overhead-rpc", &["--rpc"]).await
}

async fn measure_overhead(bench: &Bench, scenario: &'static str, reach: &[&str]) -> anyhow::Result<Vec<Record>> {
    let seconds = format!("{}s", bench.seconds);
    let program = languages::native()?.display().to_string();
    let arguments = ["load", "overhead", "--clients", "1,8,32", "--duration", &seconds, "--native", &program];
    let arguments = [&arguments, reach].concat();
    let lines = run(bench, &arguments).await?;
    let mut records = Vec::new();
    for line in lines {
        let system = text(&line, "system")?;
        let mut record = Record::new(scenario, system)
            .with("clients", line["clients"].clone())
            .with_number("p999_us", number(&line, "p999_us")?);
        record.p50_us = Some(number(&line, "p50_us")?);
        record.p99_us = Some(number(&line, "p99_us")?);
        record.rps = Some(number(&line, "rps")?);
        records.push(record);
    }
    Ok(records)
}

/// Each queue policy on the generated day, with fewer places than the day could use.
pub async fn queue_policies(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let names = ["fcfs", "shortest-first", "earliest-deadline", "inter-arrival", "cold-priority", "fair-share"];
    let policies = names.map(|name| format!("queue={name},keep_alive=landlord"));
    compare(bench, "queue-policies", &policies, &["--memory-mb", "32768", "--max-running", "24,28,32,40"]).await
}

/// Each keep-alive policy on the generated day, with less memory than the day could use.
pub async fn keep_alive(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let names = ["ttl:600s", "lru", "greedy-dual", "landlord", "hybrid"];
    let policies = names.map(|name| format!("queue=fcfs,keep_alive={name}"));
    compare(bench, "keep-alive", &policies, &["--memory-mb", "16384,32768,65536"]).await
}

async fn compare(
    bench: &Bench,
    scenario: &'static str,
    policies: &[String],
    machine: &[&str],
) -> anyhow::Result<Vec<Record>> {
    let mut arguments = vec!["load", "compare"];
    arguments.extend(machine);
    for policy in policies {
        arguments.extend(["--policy", policy]);
    }
    let mut records = Vec::new();
    for line in run(bench, &arguments).await? {
        let at = |path: &str| line.pointer(path).and_then(Value::as_f64).with_context(|| format!("no {path}"));
        let mut record = Record::new(scenario, text(&line, "policy")?)
            .with("memory_mb", line["memory_mb"].clone())
            .with("max_running", line["max_running"].clone())
            .with("cold_starts", line["cold_starts"].clone())
            .with_number("cold_start_seconds", number(&line, "cold_start_seconds")?)
            .with_number("mean_us", at("/latency_ms/mean")? * 1e3)
            .with_number("slowdown", at("/slowdown/mean")?)
            .with_number("memory_gb_hours", number(&line, "memory_gb_hours")?);
        record.p50_us = Some(at("/latency_ms/p50")? * 1e3);
        record.p99_us = Some(at("/latency_ms/p99")? * 1e3);
        records.push(record);
    }
    Ok(records)
}

/// Runs `lyra … -o json` and reads its lines.
async fn run(bench: &Bench, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
    let mut command = Command::new(&bench.lyra);
    command.args(arguments).args(["-o", "json", "-q"]);
    let output = lyra_kit::tasks::blocking(move || command.output()).await?.context("lyra load")?;
    anyhow::ensure!(output.status.success(), "lyra load: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| serde_json::from_str(line).context("what lyra load printed")).collect()
}

fn number(line: &Value, name: &str) -> anyhow::Result<f64> {
    line[name].as_f64().with_context(|| format!("no {name}"))
}

fn text(line: &Value, name: &str) -> anyhow::Result<String> {
    Ok(line[name].as_str().with_context(|| format!("no {name}"))?.to_owned())
}
