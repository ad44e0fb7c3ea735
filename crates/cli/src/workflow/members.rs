//! `lyra workflow members`: which processes run workflows, and what each owns.

use lyra_types::api::workflows::WorkflowMemberView;

use crate::failure::Result;
use crate::session::Session;
use crate::table::age;

/// Flags of `workflow members`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Most to list
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,
}

/// Lists them.
///
/// # Errors
/// Those of the API.
pub async fn list(args: &Ls, session: &Session) -> Result<()> {
    let members = session.client.workflow_members(args.limit).await?;
    let number = |of: Option<u64>| of.map(|of| of.to_string()).unwrap_or_default();
    let row = |of: &WorkflowMemberView| {
        vec![
            of.name.clone(),
            of.state.clone(),
            of.role.clone(),
            number(of.runs),
            number(of.stuck),
            number(of.calls),
            of.address.clone().unwrap_or_default(),
            age(&session.clock, of.since),
        ]
    };
    let head = ["name", "state", "role", "runs", "stuck", "calls", "address", "up"];
    session.list(&members, |of| of.name.clone(), &head, row)
}
