//! `lyra node`: some of the roles in this process, the others elsewhere.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use lyra_kit::telemetry::{self, Format};
use lyra_node::apart::{Config, Node, Role};
use lyra_node::settings::{
    Classic, ClusterFlags, Flags, ResourceFlags, ScalerFlags, SecretsFlags, Settings, WorkerFlags, WorkflowFlags,
};
use lyra_node::{Access, S3Keys, Tokens};

use crate::config::{self, File};
use crate::failure::{Failure, Result};
use crate::output::print_line;
use crate::up;

/// Flags of `node`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra node --role control --name c1 --listen-grpc 127.0.0.1:7070
  lyra node --role worker --name w1 --control 127.0.0.1:7070
  lyra node --role gateway --control 127.0.0.1:7070 --listen 127.0.0.1:8080
  lyra node --role control --store etcd://127.0.0.1:2379 --jobs nats://127.0.0.1:4222 \\
      --blobs 's3://lyra?endpoint=http://127.0.0.1:9000'
  lyra node --role worker --name w1 --tls-dir tls/w1 --control 10.0.0.1:7070 \\
      --listen-grpc 10.0.0.11:7070 --blobs 's3://lyra?endpoint=https://s3.example'
  lyra node --role scaler --name s1 --control 127.0.0.1:7070 --config scaler.toml --dry-run
  lyra node --role workflow --name f1 --control 127.0.0.1:7070 \\
      --store etcd://127.0.0.1:2379 --jobs nats://127.0.0.1:4222 \\
      --blobs 's3://lyra?endpoint=http://127.0.0.1:9000'

Prints `lyra: ROLE ready on ADDRESS` for each role once it serves. A worker without --blobs fetches
code from control. Roles speak over gRPC: with --tls-dir by mutual TLS (`lyra tls init` makes the
files), without in plain text, which is for loopback addresses only. SIGTERM or Ctrl-C: the worker
takes leave, what runs ends, exit 0 within 30 s; a second one ends at once. The variables DB_URL,
JQ_URL and PORT of the classic system are honoured; docs/reference/configuration.md says how.")]
pub struct Args {
    #[command(flatten)]
    file: File,
    /// Roles of this process: control, worker, gateway, scaler, workflow
    #[arg(long = "role", value_name = "ROLE,…", value_delimiter = ',', required = true, value_parser = parse_role)]
    roles: Vec<Role>,
    /// Name of the node, and of its worker [default: that of its first role]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Addresses of the control processes
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    control: Option<Vec<String>>,
    /// Where control, worker and workflow serve gRPC; port 0 takes a free one [default:
    /// 127.0.0.1:7070 with control, else 127.0.0.1:0]
    #[arg(long, value_name = "ADDR:PORT", value_parser = up::parse_listen)]
    listen_grpc: Option<SocketAddr>,
    /// Where the gateway serves HTTP; port 0 takes a free one [default: 127.0.0.1:8080].
    /// Without a gateway: where /healthz, /readyz, /metrics and /version are served [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT", value_parser = up::parse_listen)]
    listen: Option<SocketAddr>,
    /// Where the node keeps what is its own [default: lyra/NAME in the user's data directory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where functions are kept: sqlite, etcd://HOST:PORT[,…], etcds://… [default: sqlite]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Where jobs are kept: sqlite, nats://HOST:PORT[,…], tls://… [default: sqlite]
    #[arg(long, value_name = "STORE")]
    jobs: Option<String>,
    /// Where code is kept: a directory, s3://BUCKET?endpoint=… [default: blobs in the data directory; a
    /// worker without control fetches what it lacks from control]
    #[arg(long, value_name = "STORE")]
    blobs: Option<String>,
    /// Where others reach this node [default: where it serves gRPC]
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// Certificates of this node, for gRPC and for the stores: ca.pem, cert.pem, key.pem
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// Certificates for the stores, where they are others: ca.pem, cert.pem, key.pem [default: as --tls-dir]
    #[arg(long, value_name = "DIR")]
    stores_tls_dir: Option<PathBuf>,
    /// Memory that the worker's instances may have together, in MiB
    #[arg(long, value_name = "N")]
    memory_mb: Option<u64>,
    /// Processors that the worker's instances may have together
    #[arg(long, value_name = "N")]
    cpus: Option<f64>,
    /// Isolation back ends that the worker offers: wasm, process, simulated [default: all]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    isolation: Option<Vec<String>>,
    /// File with a token, or sha256:HEX of one, on each line; needed to listen beyond loopback
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    public: up::Certificate,
    /// The scaler decides and does nothing
    #[arg(long)]
    dry_run: bool,
    /// Control runs no workflows: processes of the role workflow do
    #[arg(long)]
    no_workflows: bool,
    /// End in good order when stdin closes, for programs that start nodes and may die
    #[arg(long)]
    until_stdin_closes: bool,
    /// File with the keys that seal secrets of functions, the same for all control processes; `lyra
    /// secret new-key` makes one [default: none, and no secrets]
    #[arg(long, value_name = "FILE")]
    secrets_key: Option<PathBuf>,
    /// How Lyra's own log on stderr looks: text or json [default: text]
    #[arg(long, value_name = "FORMAT", value_parser = up::parse_format)]
    log: Option<Format>,
    /// What Lyra's own log holds: error, warn, info, debug, or by part [default: info]
    #[arg(long, env = "LYRA_LOG", value_name = "FILTER", hide_env_values = true)]
    log_filter: Option<String>,
}

/// A role by its name.
///
/// # Errors
/// When there is none.
pub fn parse_role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| {
        let known = Role::ALL.map(Role::as_str).join(", ");
        match text {
            "logs" => format!("logs run with the role control; the roles are {known}"),
            _ => format!("the roles are {known}"),
        }
    })
}

fn flags(args: &Args) -> Result<Flags> {
    let cpu_millis = match args.cpus {
        Some(cpus) if !(cpus.is_finite() && cpus > 0.0) => return Err(Failure::usage("--cpus is a number above 0")),
        cpus => cpus.map(|cpus| (cpus * 1_000.0).round() as u64),
    };
    let cluster = ClusterFlags {
        name: args.name.clone(),
        listen_grpc: args.listen_grpc,
        control: args.control.clone(),
        store: args.store.clone(),
        jobs: args.jobs.clone(),
        blobs: args.blobs.clone(),
        advertise: args.advertise.clone(),
        tls_dir: args.tls_dir.clone(),
        stores_tls_dir: args.stores_tls_dir.clone(),
        isolation: args.isolation.clone(),
    };
    Ok(Flags {
        data_dir: args.data_dir.clone(),
        listen: args.listen,
        token_file: args.token_file.clone(),
        log: args.log,
        log_filter: args.log_filter.clone(),
        gateway: args.public.flags(),
        secrets: args.secrets_key.clone().map(|key_file| SecretsFlags { key_file }),
        cluster: Some(cluster),
        worker: Some(WorkerFlags {
            resources: ResourceFlags { memory: args.memory_mb.map(|mb| mb.saturating_mul(1 << 20)), cpu_millis },
        }),
        scaler: args.dry_run.then_some(ScalerFlags { dry_run: Some(true) }),
        workflow: args.no_workflows.then_some(WorkflowFlags { with_control: Some(false) }),
    })
}

/// `listens`: where to listen was said.
fn config(args: &Args, settings: &Settings, listens: bool) -> Result<Config> {
    let cluster = &settings.cluster;
    let roles: BTreeSet<Role> = args.roles.iter().copied().collect();
    let name = match cluster.name.as_str() {
        "" => args.roles.first().map_or("node", |role| role.as_str()),
        name => name,
    };
    let data_dir = match settings.data_dir.as_os_str().is_empty() {
        false => settings.data_dir.clone(),
        true => up::default_data_dir()?.join(name),
    };
    let mut node = settings.embedded(data_dir);
    node.helper = Some(lyra_node::child::this_program());
    node.path = up::search_path();
    if !settings.token_file.as_os_str().is_empty() {
        node.gateway.tokens = Tokens::from_file(&settings.token_file)?;
    }
    let given = |dir: &PathBuf| Some(dir.clone()).filter(|dir| !dir.as_os_str().is_empty());
    let tls_dir = given(&cluster.tls_dir);
    let of_stores = given(&cluster.stores_tls_dir).or_else(|| tls_dir.clone());
    Ok(Config {
        roles,
        name: name.to_owned(),
        node,
        listen_grpc: cluster.listen_grpc,
        status: listens.then_some(settings.listen),
        control: cluster.control.clone(),
        store: cluster.store.clone(),
        jobs: cluster.jobs.clone(),
        blobs: cluster.blobs.clone(),
        advertise: cluster.advertise.clone(),
        tls_dir,
        access: Access { tls_dir: of_stores, s3_keys: s3_keys(), ..Access::default() },
        fleet: cluster.fleet,
        isolation: cluster.isolation.clone(),
        scaler: settings.scaler.clone(),
    })
}

/// The variables of the classic system, for the first of these roles.
pub fn classic(roles: &[Role]) -> Classic {
    let of = |name: &str| std::env::var_os(name)?.into_string().ok();
    match roles.first() {
        Some(role) => Classic { role: Some(*role), db_url: of("DB_URL"), jq_url: of("JQ_URL"), port: of("PORT") },
        None => Classic::default(),
    }
}

/// Cancels `shutdown` when stdin, which has to be a pipe, closes.
fn end_with_stdin(shutdown: &tokio_util::sync::CancellationToken) -> Result<()> {
    let fault = |error: std::io::Error| Failure::usage(format!("--until-stdin-closes needs a pipe as stdin: {error}"));
    let pipe = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().map_err(fault)?;
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe).map_err(fault)?;
    let shutdown = shutdown.clone();
    lyra_kit::tasks::spawn("stdin", async move {
        // What is written there means nothing.
        drop(tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await);
        shutdown.cancel();
    });
    Ok(())
}

/// Keys for S3, from the variables that every program for S3 reads.
fn s3_keys() -> Option<S3Keys> {
    let of = |name: &str| std::env::var_os(name)?.into_string().ok().filter(|value| !value.is_empty());
    let (access_key, secret_key) = (of("AWS_ACCESS_KEY_ID")?, of("AWS_SECRET_ACCESS_KEY")?);
    Some(S3Keys { access_key, secret_key, session_token: of("AWS_SESSION_TOKEN") })
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When a role can't start, or does not stop in time.
pub async fn run(args: Args) -> Result<()> {
    let layers = config::layers(&args.file, &args.roles, flags(&args)?)?;
    let (settings, origins) = (layers.settings().map_err(config::refused)?, layers.origins().map_err(config::refused)?);
    let listens = origins.get("listen").is_some_and(|origin| origin.source != "default");
    telemetry::init(settings.log, &settings.log_filter);
    let shutdown = lyra_kit::shutdown::on_signals()
        .map_err(|error| Failure::internal(format!("signals can't be handled: {error}")))?;
    if args.until_stdin_closes {
        end_with_stdin(&shutdown)?;
    }
    let config = config(&args, &settings, listens)?;
    let started = tokio::select! {
        started = Box::pin(Node::start(config)) => started,
        () = shutdown.cancelled() => return Ok(()),
    };
    let node = started.map_err(up::failure)?;
    for (role, address) in node.serving() {
        print_line(&format!("lyra: {} ready on {address}", role.as_str()))?;
    }
    if let Some(url) = node.status_url() {
        print_line(&format!("lyra: status ready on {url}"))?;
    }
    Box::pin(node.run_until(shutdown)).await.map_err(|error| Failure::internal(error.to_string()))
}
