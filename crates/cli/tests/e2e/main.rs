//! The `lyra` binary against a real server, as a user runs it: every verb, wrong input, exit codes, JSON output.
//!
//! Each test starts a server of its own, so they may run in any order and at the same time.

mod accounts;
mod aliases;
mod balancing;
mod classic;
mod config;
mod dead_letters;
mod demo;
mod deploy;
mod docs;
mod functions;
mod invoke;
mod jobs;
mod leader;
mod load_site;
mod logs;
mod metering;
mod node;
mod placement;
mod processes;
mod quotas;
mod reference;
mod run_ends;
mod scaler;
mod schedules;
mod secrets;
mod session_logs;
mod session_secrets;
mod session_site;
mod sessions;
mod start;
mod status;
mod tls;
mod triggers;
mod units;
mod up;
mod usage;
mod watch;
mod worker;
mod workflow;
mod workflow_role;
mod workflow_runs;
mod workflows;
