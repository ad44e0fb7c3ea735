//! Makes the code of the protocol: calls from their .proto file, the other services from the list below. Neither needs
//! `protoc`.

use tonic_build::manual::{Builder, Method, Service};

/// How the messages of a method come.
#[derive(Clone, Copy)]
enum Kind {
    Unary,
    /// Many answers to one question.
    Watch,
    /// One answer to many messages.
    Feed,
    /// Both ways.
    Talk,
}
use Kind::{Feed, Talk, Unary, Watch};

/// Name of the route, then the Rust types of request and response, within `crate::grpc::messages`.
type Row = (&'static str, &'static str, &'static str, Kind);

const WORKER: &[Row] = &[
    ("Prepare", "Prepare", "Prepared", Unary),
    ("Prewarm", "Prewarm", "Nothing", Unary),
    ("Forget", "Forget", "Nothing", Unary),
    ("Status", "Nothing", "Status", Unary),
    ("Instances", "Nothing", "Instances", Unary),
    ("Health", "Nothing", "Health", Unary),
    ("Cordon", "Nothing", "Nothing", Unary),
    ("Uncordon", "Nothing", "Nothing", Unary),
    ("Drain", "Drain", "Drained", Unary),
    ("Instruct", "Instruct", "Nothing", Unary),
    ("Clean", "Nothing", "Cleaned", Unary),
];

const CONTROL: &[Row] = &[
    ("Deploy", "Deploy", "ChangedFunction", Unary),
    ("DeployCode", "DeployCode", "ChangedFunction", Unary),
    ("Function", "OfFunction", "Route", Unary),
    ("Functions", "PageOf", "RoutePage", Unary),
    ("DeleteFunction", "OfFunction", "Removed", Unary),
    ("PutAlias", "PutAlias", "ChangedAlias", Unary),
    ("DeleteAlias", "OfAlias", "Removed", Unary),
    ("Rollback", "OfFunction", "ChangedAlias", Unary),
    ("WatchRoutes", "Nothing", "RouteChange", Watch),
    ("WatchSessions", "Nothing", "SessionEvent", Watch),
    ("Resources", "ResourceRequest", "ResourceAnswer", Watch),
    ("ReachSession", "ReachSession", "SessionRoute", Unary),
    ("TouchSessions", "TouchSessions", "Nothing", Unary),
    ("Processes", "Nothing", "Processes", Unary),
    ("WatchWorkflows", "Nothing", "WorkflowProcesses", Watch),
    ("Submit", "Submit", "Submitted", Unary),
    ("Job", "OfJob", "Finished", Unary),
    ("Jobs", "JobsOf", "JobPage", Unary),
    ("CancelJob", "OfJob", "Job", Unary),
    ("Redrive", "OfJob", "Job", Unary),
    ("RedriveAll", "OfTenant", "Count", Unary),
    ("PurgeDead", "Purge", "Count", Unary),
    ("RemoveJob", "OfJob", "WasThere", Unary),
    ("RecordUsage", "UsageBatch", "Nothing", Unary),
    ("Usage", "UsageQuery", "UsageSums", Unary),
    ("Classic", "ClassicRequest", "ClassicAnswer", Unary),
    ("ScalerTurn", "ScalerTurn", "ScalerAnswer", Unary),
    ("Scaler", "Nothing", "ScalerStatus", Unary),
    ("SteerScaler", "ScalerChange", "ScalerStatus", Unary),
    ("PutSecret", "PutSecret", "SecretPut", Unary),
    ("Secret", "SecretKey", "SecretInfo", Unary),
    ("Secrets", "PageOf", "SecretPage", Unary),
    ("DeleteSecret", "DeleteSecret", "Nothing", Unary),
    ("FetchSecrets", "FetchSecrets", "SecretValues", Unary),
    ("SecretStamps", "SecretKeys", "Stamps", Unary),
    ("FetchCode", "OfCode", "CodePiece", Watch),
    ("SealingKeys", "Nothing", "SealingKeys", Unary),
    ("ResealSecrets", "Nothing", "Resealed", Unary),
    ("Hooks", "HookRequest", "HookAnswer", Unary),
    ("RunEnds", "RunEndAsk", "RunNotice", Unary),
];

const ACCOUNTS: &[Row] = &[
    ("CreateTenant", "OfTenant", "ChangedTenant", Unary),
    ("Tenant", "OfTenant", "Tenant", Unary),
    ("Tenants", "PageQuery", "TenantPage", Unary),
    ("DeleteTenant", "DeleteTenant", "ChangedTenant", Unary),
    ("CreateUser", "NewUser", "ChangedUser", Unary),
    ("User", "UserKey", "User", Unary),
    ("Users", "PageOf", "UserPage", Unary),
    ("SetRole", "SetRole", "ChangedUser", Unary),
    ("SetPassword", "NewPassword", "ChangedUser", Unary),
    ("DeleteUser", "UserKey", "Removed", Unary),
    ("CreateToken", "NewToken", "ChangedToken", Unary),
    ("Token", "OfToken", "Token", Unary),
    ("Tokens", "TokenQuery", "TokenPage", Unary),
    ("DeleteToken", "OfToken", "Removed", Unary),
    ("Login", "Login", "ChangedToken", Unary),
    ("WatchGrants", "Nothing", "GrantChange", Watch),
    ("Record", "AuditEvents", "Nothing", Unary),
    ("Audit", "AuditQuery", "AuditPage", Unary),
];

const QUOTAS: &[Row] = &[
    ("Quota", "QuotaKey", "QuotaView", Unary),
    ("Quotas", "PageQuery", "QuotaPage", Unary),
    ("SetQuota", "SetQuota", "QuotaView", Unary),
    ("RemoveQuota", "QuotaKey", "Nothing", Unary),
    ("Share", "Claim", "Shares", Unary),
];

const LOGS: &[Row] = &[
    ("Offer", "LogLine", "Nothing", Feed),
    ("Query", "Query", "Lines", Unary),
    ("Follow", "Query", "LogLine", Watch),
    ("Forget", "OfFunction", "Nothing", Unary),
];

const WORKFLOWS: &[Row] = &[
    ("Deploy", "DeployWorkflow", "Made", Unary),
    ("Workflows", "PageOf", "WorkflowPage", Unary),
    ("Workflow", "OfWorkflow", "WorkflowVersion", Unary),
    ("DeleteWorkflow", "OfWorkflow", "Nothing", Unary),
    ("Start", "StartRun", "Started", Unary),
    ("StartPart", "StartPart", "Started", Unary),
    ("Run", "OfRun", "Run", Unary),
    ("Runs", "RunsOf", "RunPage", Unary),
    ("Command", "CommandRun", "Run", Unary),
    ("DeleteRun", "OfRun", "Nothing", Unary),
    ("Usage", "OfTenant", "WorkflowUse", Unary),
    ("Trace", "TraceOf", "Tokens", Unary),
    ("Waiting", "OfRun", "WaitingTasks", Unary),
    ("Clear", "OfTenant", "Cleared", Unary),
    ("Complete", "CompleteTask", "Nothing", Unary),
    ("Members", "Nothing", "WorkflowMembers", Unary),
    ("Value", "ValueOf", "ValueText", Unary),
];

const REGISTRY: &[Row] = &[("Join", "FromNode", "ToNode", Talk), ("WatchWorkers", "Nothing", "MemberEvent", Watch)];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["lyra/calls.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    let services = [
        ("Worker", WORKER),
        ("Control", CONTROL),
        ("Accounts", ACCOUNTS),
        ("Quotas", QUOTAS),
        ("Logs", LOGS),
        ("Registry", REGISTRY),
        ("Workflows", WORKFLOWS),
    ];
    let paths =
        services.iter().flat_map(|(name, rows)| rows.iter().map(move |row| format!("/lyra.v1.{name}/{}", row.0)));
    let list = format!("{:?}", paths.collect::<Vec<_>>());
    let file = std::path::PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("methods.rs");
    std::fs::write(file, format!("&{list}"))?;
    Builder::new().compile(&services.map(|(name, rows)| service(name, rows)));
    Ok(())
}

fn service(name: &str, rows: &[Row]) -> Service {
    let builder = Service::builder().name(name).package("lyra.v1");
    rows.iter().fold(builder, |builder, row| builder.method(method(row))).build()
}

fn method((route, input, output, kind): &Row) -> Method {
    let path = |of: &str| format!("crate::grpc::messages::{of}");
    let builder = Method::builder()
        .name(snake(route))
        .route_name(route)
        .input_type(path(input))
        .output_type(path(output))
        .codec_path("crate::grpc::packed::Packed");
    match kind {
        Unary => builder,
        Watch => builder.server_streaming(),
        Feed => builder.client_streaming(),
        Talk => builder.client_streaming().server_streaming(),
    }
    .build()
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}
