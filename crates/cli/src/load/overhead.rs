//! `lyra load overhead`: what the worker itself costs on this machine.

use std::path::PathBuf;
use std::time::Duration;

use lyra_load::overhead::{self, Native, Reach};

use super::json;
use crate::failure::{Failure, Result};
use crate::output::print_line;
use crate::session::{Format, Global};
use crate::table::Table;

/// Flags of `load overhead`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra load overhead
  lyra load overhead --clients 1,8,32 --duration 5s -o json

Calls simulated functions that take no time, in this process. `floor` is the same loop around a
worker that only answers: what the measuring itself costs. With --native, a real program is called
as well, in real sandboxes: that of examples/native-rust, for example. With --rpc all are called
over gRPC, as a gateway calls workers on other machines.")]
pub struct Args {
    /// Numbers of clients, parted by commas
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 8, 32])]
    clients: Vec<usize>,
    /// How long each is measured
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = crate::duration::parse)]
    duration: Duration,
    /// Call over gRPC on this machine
    #[arg(long)]
    rpc: bool,
    /// A bootstrap to call as well, with the event {"a":2,"b":3}
    #[arg(long, value_name = "FILE")]
    native: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// When a call fails.
pub async fn run(args: Args, global: &Global) -> Result<()> {
    let reach = if args.rpc { Reach::Rpc } else { Reach::InProcess };
    let directory =
        tempfile::tempdir().map_err(|error| Failure::internal(format!("there is no temporary directory: {error}")))?;
    let native = match &args.native {
        Some(file) => {
            let program = std::fs::read(file)
                .map_err(|error| Failure::usage(format!("{} can't be read: {error}", file.display())))?;
            Some(Native { program: program.into(), directory: directory.path().to_owned() })
        }
        None => None,
    };
    let all = overhead::measure(&args.clients, args.duration, reach, native.as_ref()).await?;
    if global.format == Format::Json {
        for one in &all {
            print_line(&json(one)?)?;
        }
        return Ok(());
    }
    let mut table = Table::new(&["system", "clients", "per s", "p50 µs", "p99 µs", "p99.9 µs"]);
    for one in &all {
        table.row(vec![
            one.system.to_owned(),
            one.clients.to_string(),
            format!("{:.0}", one.rps),
            format!("{:.2}", one.p50_us),
            format!("{:.2}", one.p99_us),
            format!("{:.2}", one.p999_us),
        ]);
    }
    print_line(&table.to_string())
}
