//! `lyra usage`: what calls used.

use lyra_client::UsageFilter;
use lyra_types::FunctionName;
use lyra_types::api::UsageView;
use lyra_types::usage::UsageGroup;

use crate::failure::Result;
use crate::output::{print, print_line};
use crate::session::Session;
use crate::table::Table;

/// Flags of `usage`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra usage
  lyra usage --group function,day --from 2026-01-01T00:00:00Z
  lyra usage --group hour --csv > usage.csv")]
pub struct Args {
    /// From the hour of this time on, 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Before the hour of this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// One sum for each of these: tenant, user, function, version, hour, day
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = parse_group)]
    group: Vec<UsageGroup>,
    /// Only of this function
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
    /// Of all tenants
    #[arg(long)]
    all: bool,
    /// Print CSV
    #[arg(long)]
    csv: bool,
}

fn parse_group(text: &str) -> std::result::Result<UsageGroup, String> {
    UsageGroup::parse(text).ok_or_else(|| format!("one of {}", UsageGroup::ALL.map(UsageGroup::as_str).join(", ")))
}

/// Shows usage.
///
/// # Errors
/// Those of the API.
pub async fn run(args: Args, session: &Session) -> Result<()> {
    let words: Vec<&str> = args.group.iter().map(|group| group.as_str()).collect();
    let filter = UsageFilter {
        from: args.from,
        to: args.to,
        group: (!words.is_empty()).then(|| words.join(",")),
        function: args.function.map(String::from),
        all: args.all,
    };
    if args.csv {
        return print(&session.client.usage_csv(&filter).await?);
    }
    let report = session.client.usage(&filter).await?;
    if session.json() {
        return print_line(report.json());
    }
    let mut groups = args.group.clone();
    groups.sort_unstable();
    groups.dedup();
    let mut header: Vec<&str> = groups.iter().map(|group| group.as_str()).collect();
    header.extend(["calls", "failed", "cold", "exec ms", "cpu ms", "gb ms", "bytes out"]);
    let mut table = Table::new(&header);
    if !groups.is_empty() {
        for item in &report.items {
            let of = groups.iter().map(|group| named(item, *group)).collect();
            table.row(row(of, item));
        }
    }
    let mut of = vec![String::new(); groups.len()];
    if let Some(first) = of.first_mut() {
        *first = "total".to_owned();
    }
    table.row(row(of, &report.total));
    print_line(&table.to_string())?;
    if report.next.is_some() {
        session.note("there are more sums than these; bound them with --from and --to");
    }
    Ok(())
}

fn named(item: &UsageView, group: UsageGroup) -> String {
    match group {
        UsageGroup::Tenant => item.tenant.clone().unwrap_or_default(),
        UsageGroup::User => item.user.clone().unwrap_or_default(),
        UsageGroup::Function => item.function.clone().unwrap_or_default(),
        UsageGroup::Version => item.version.map(|version| version.to_string()).unwrap_or_default(),
        UsageGroup::Hour | UsageGroup::Day => item.begin.map(|begin| begin.to_string()).unwrap_or_default(),
    }
}

fn row(mut cells: Vec<String>, item: &UsageView) -> Vec<String> {
    for number in [item.invocations, item.failures, item.cold_starts, item.exec_ms, item.cpu_ms] {
        cells.push(number.to_string());
    }
    cells.extend([format!("{:.1}", item.gb_ms), item.egress_bytes.to_string()]);
    cells
}
