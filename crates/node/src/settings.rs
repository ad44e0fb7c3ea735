//! What can be set on a node, and where each value comes from (interfaces, section 6).
//!
//! Four layers, each over the one before: built-in defaults, a TOML file, variables `LYRA__SECTION__KEY`, flags. A key
//! that does not exist is an error, with the layer that holds it. Nothing here reads a secret: tokens stay in a file of
//! their own, of which only the path is a setting.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use figment::providers::{Env, Format as _, Serialized, Toml};
use figment::value::{Dict, Value};
use figment::{Figment, Metadata, Provider};
use lyra_isolation::process;
use lyra_kit::telemetry::Format;
use lyra_wire::Role;
use serde::{Deserialize, Serialize};

pub use crate::classic::Classic;

/// What variables of settings begin with.
const PREFIX: &str = "LYRA__";

/// Name of the layer of variables.
const VARIABLES: &str = "environment variables";

/// Settings of a node that runs all roles.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where everything is kept; an empty path: where the user's own data is kept.
    pub data_dir: PathBuf,
    /// Where the gateway listens. Port 0: a free one.
    pub listen: SocketAddr,
    /// File of tokens; an empty path: none.
    pub token_file: PathBuf,
    /// How Lyra's own log looks.
    pub log: Format,
    /// What Lyra's own log holds.
    pub log_filter: String,
    /// The identity provider whose tokens gateways take.
    pub oidc: lyra_gateway::OidcConfig,
    /// The gateway.
    pub gateway: lyra_gateway::Config,
    /// The control role.
    pub control: lyra_control::Config,
    /// Quota of tenants that have none of their own; nothing is limited by default.
    pub quota: lyra_types::quota::Quota,
    /// Secrets of functions.
    pub secrets: Secrets,
    /// The worker.
    pub worker: lyra_worker::Config,
    /// How functions run as processes.
    pub process: process::Settings,
    /// The workflow role.
    pub workflow: lyra_workflow::Config,
    /// The logs role.
    pub logs: lyra_logs::Config,
    /// The scaler role.
    pub scaler: lyra_scaler::Config,
    /// What holds for nodes with some of the roles only.
    pub cluster: Cluster,
}

/// What holds for secrets of functions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Secrets {
    /// File with the keys that seal them, for the control role; an empty path: where all roles are in one process, `secrets.key` in
    /// the data directory, which is made where it is missing; else none, and there can be no secrets.
    pub key_file: PathBuf,
}

/// Settings of a node whose other roles are elsewhere (`lyra node`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The node's name, which is its worker's; an empty one: that of its first role.
    pub name: String,
    /// Where gRPC is served. Port 0: a free one, which is the default where control is not among the roles.
    pub listen_grpc: SocketAddr,
    /// Addresses of the control processes, `HOST:PORT`.
    pub control: Vec<String>,
    /// `sqlite`, `etcd://HOST:PORT[,…]` or `etcds://…`: where functions are kept.
    pub store: String,
    /// `sqlite`, `nats://HOST:PORT[,…]` or `tls://…`: where jobs are kept.
    pub jobs: String,
    /// A directory or `s3://BUCKET?endpoint=…`: where code is kept; empty: a directory in the data directory.
    pub blobs: String,
    /// Where others reach the worker, `HOST` or `HOST:PORT`; empty: where it listens.
    pub advertise: String,
    /// Certificates of the node; an empty path: none.
    pub tls_dir: PathBuf,
    /// Certificates for the stores; an empty path: those of the node.
    pub stores_tls_dir: PathBuf,
    /// Isolation back ends that the worker offers; empty: all.
    pub isolation: Vec<String>,
    /// How calls are spread over workers.
    pub fleet: lyra_fleet::Config,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster {
            name: String::new(),
            listen_grpc: SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            control: Vec::new(),
            store: "sqlite".to_owned(),
            jobs: "sqlite".to_owned(),
            blobs: String::new(),
            advertise: String::new(),
            tls_dir: PathBuf::new(),
            stores_tls_dir: PathBuf::new(),
            isolation: Vec::new(),
            fleet: lyra_fleet::Config::default(),
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        let embedded = crate::Config::new("", SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
        Settings {
            data_dir: PathBuf::new(),
            listen: embedded.listen,
            token_file: PathBuf::new(),
            log: Format::Text,
            log_filter: "info".to_owned(),
            oidc: lyra_gateway::OidcConfig::default(),
            gateway: embedded.gateway,
            control: embedded.control,
            quota: lyra_types::quota::Quota::default(),
            secrets: Secrets::default(),
            worker: lyra_worker::Config::default(),
            process: embedded.process,
            workflow: embedded.workflow,
            logs: embedded.logs,
            scaler: lyra_scaler::Config::default(),
            cluster: Cluster::default(),
        }
    }
}

impl Settings {
    /// What holds for a node of these roles where nothing is said; none: for one with all of them.
    fn of(roles: &[Role]) -> Settings {
        let mut settings = Settings::default();
        // Control is looked for at its address; where the others are, it is told.
        if !roles.is_empty() && !roles.contains(&Role::Control) {
            settings.cluster.listen_grpc.set_port(0);
        }
        settings
    }

    /// The embedded node with these settings and its data in `data_dir`; tokens are the caller's to read.
    pub fn embedded(&self, data_dir: impl Into<PathBuf>) -> crate::Config {
        let fresh = crate::Config::new(data_dir, self.listen);
        let logs = lyra_logs::Config { dir: fresh.logs.dir.clone(), ..self.logs.clone() };
        let (mut gateway, mut control, mut worker) = (self.gateway.clone(), self.control.clone(), self.worker.clone());
        let key_file = Some(self.secrets.key_file.clone()).filter(|path| !path.as_os_str().is_empty());
        control.secrets = lyra_control::SecretsConfig { key_file, make_key: false };
        gateway.oidc = self.oidc.clone();
        control.quota = self.quota.clone();
        worker.characteristics.file = worker.characteristics.file.or_else(|| fresh.worker.characteristics.file.clone());
        let (process, workflow) = (self.process.clone(), self.workflow.clone());
        crate::Config { gateway, control, worker, process, workflow, logs, ..fresh }
    }
}

/// Flags that were given: the uppermost layer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Flags {
    /// See [`Settings::data_dir`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// See [`Settings::listen`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// See [`Settings::token_file`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// See [`Settings::log`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Format>,
    /// See [`Settings::log_filter`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_filter: Option<String>,
    /// See [`Settings::gateway`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayFlags>,
    /// See [`Settings::secrets`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretsFlags>,
    /// See [`Settings::cluster`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterFlags>,
    /// See [`Settings::worker`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerFlags>,
    /// See [`Settings::scaler`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaler: Option<ScalerFlags>,
    /// See [`Settings::workflow`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<WorkflowFlags>,
}

/// Flags of the gateway.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GatewayFlags {
    /// See [`lyra_gateway::Config::tls_cert`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// See [`lyra_gateway::Config::tls_key`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
}

/// Flags of the workflow role.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WorkflowFlags {
    /// See [`lyra_workflow::Config::with_control`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_control: Option<bool>,
}

/// Flags of the scaler.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ScalerFlags {
    /// See [`lyra_scaler::Config::dry_run`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Flags of a node whose other roles are elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ClusterFlags {
    /// See [`Cluster::name`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// See [`Cluster::listen_grpc`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_grpc: Option<SocketAddr>,
    /// See [`Cluster::control`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<Vec<String>>,
    /// See [`Cluster::store`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// See [`Cluster::jobs`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<String>,
    /// See [`Cluster::blobs`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blobs: Option<String>,
    /// See [`Cluster::advertise`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// See [`Cluster::tls_dir`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_dir: Option<PathBuf>,
    /// See [`Cluster::stores_tls_dir`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stores_tls_dir: Option<PathBuf>,
    /// See [`Cluster::isolation`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Vec<String>>,
}

/// Flags about secrets.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SecretsFlags {
    /// See [`Secrets::key_file`].
    pub key_file: PathBuf,
}

/// Flags of the worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WorkerFlags {
    /// Its resources.
    pub resources: ResourceFlags,
}

/// What instances may have together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ResourceFlags {
    /// Memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processor time, in thousandths of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
}

/// Why settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is not there, or can't be read.
    #[error("the configuration file {path} can't be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A layer holds something that can't be a setting.
    #[error("{0}")]
    Invalid(String),
}

/// One setting with its origin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Origin {
    /// The value, as in TOML.
    pub value: serde_json::Value,
    /// `default`, `flag`, the variable's name, or the file's.
    pub source: String,
}

/// What is laid over the defaults.
#[derive(Debug, Default)]
pub struct Over<'a> {
    /// The file of settings.
    pub file: Option<&'a Path>,
    /// The roles that the node has, the first one first; none: all of them.
    pub roles: &'a [Role],
    /// The variables of the classic system, which stand between the file and Lyra's own variables.
    pub classic: Classic,
    /// What variables with names of their own set, which go before those that are named after settings.
    pub variables: Vec<(&'static str, Flags)>,
    /// Flags.
    pub flags: Flags,
}

/// All layers, put together.
pub struct Layers {
    figment: Figment,
}

impl Layers {
    /// Reads the file (if there is one to be read) and the environment.
    ///
    /// # Errors
    /// [`SettingsError::Read`]; [`SettingsError::Invalid`] for a variable of which nothing can be made.
    pub fn read(over: Over<'_>) -> Result<Layers, SettingsError> {
        let mut figment = Figment::from(layer("default", Settings::of(over.roles)));
        if let Some(path) = over.file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
            figment = figment.merge(Named { name: path.display().to_string(), inner: Toml::string(&text) });
        }
        for (name, flags) in over.classic.layers(&figment)? {
            figment = figment.merge(layer(&name, flags));
        }
        figment = figment.merge(Named { name: VARIABLES.to_owned(), inner: Env::prefixed(PREFIX).split("__") });
        for (name, flags) in over.variables {
            figment = figment.merge(layer(name, flags));
        }
        Ok(Layers { figment: figment.merge(layer("flag", over.flags)) })
    }

    /// The settings that hold.
    ///
    /// # Errors
    /// [`SettingsError::Invalid`] with every layer's faults.
    pub fn settings(&self) -> Result<Settings, SettingsError> {
        let settings: Settings = self.figment.extract().map_err(|error| {
            let all: Vec<String> = error.into_iter().map(|error| explain(&error)).collect();
            SettingsError::Invalid(all.join("; "))
        })?;
        settings.process.check().map_err(|reason| SettingsError::Invalid(format!("process.{reason}")))?;
        settings.worker.check().map_err(|reason| SettingsError::Invalid(format!("worker.{reason}")))?;
        settings.control.check().map_err(|reason| SettingsError::Invalid(format!("control.{reason}")))?;
        settings.scaler.check().map_err(|reason| SettingsError::Invalid(format!("scaler.{reason}")))?;
        Ok(settings)
    }

    /// Every setting by its dotted name, with its value and where that comes from.
    ///
    /// # Errors
    /// [`SettingsError::Invalid`] as for [`Layers::settings`].
    pub fn origins(&self) -> Result<BTreeMap<String, Origin>, SettingsError> {
        // What is printed is what holds, with nothing unknown in it.
        self.settings()?;
        let root = self.figment.find_value("").map_err(|error| SettingsError::Invalid(explain(&error)))?;
        let mut origins = BTreeMap::new();
        self.collect(String::new(), &root, &mut origins);
        Ok(origins)
    }

    fn collect(&self, name: String, value: &Value, origins: &mut BTreeMap<String, Origin>) {
        if let Some(dict) = value.as_dict().filter(|dict| !dict.is_empty() || name.is_empty()) {
            for (key, value) in dict {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                self.collect(name, value, origins);
            }
            return;
        }
        let source = self.figment.get_metadata(value.tag()).map_or_else(|| "default".to_owned(), |m| origin(m, &name));
        let value = serde_json::to_value(value).unwrap_or_default();
        origins.insert(name, Origin { value, source });
    }
}

/// The name of a layer's source of the setting `name`.
fn origin(metadata: &Metadata, name: &str) -> String {
    if metadata.name == VARIABLES { variable(name) } else { metadata.name.to_string() }
}

/// The variable that sets `name`.
fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('.', "__").to_uppercase())
}

fn explain(error: &figment::Error) -> String {
    let name = error.path.join(".");
    let at = match &error.metadata {
        Some(metadata) => format!(" (in {})", origin(metadata, &name)),
        None => String::new(),
    };
    let kind = &error.kind;
    if name.is_empty() { format!("{kind}{at}") } else { format!("{name}: {kind}{at}") }
}

/// A layer with a name of its own.
struct Named<P> {
    name: String,
    inner: P,
}

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<figment::value::Map<figment::Profile, Dict>, figment::Error> {
        self.inner.data()
    }
}

/// A layer made from a value.
fn layer<T: Serialize>(name: &str, value: T) -> Named<Serialized<T>> {
    Named { name: name.to_owned(), inner: Serialized::defaults(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        file
    }

    fn over(file: Option<&Path>, flags: Flags) -> Over<'_> {
        Over { file, flags, ..Over::default() }
    }

    fn read(text: &str, flags: &Flags) -> Result<Settings, SettingsError> {
        Layers::read(over(Some(file(text).path()), flags.clone()))?.settings()
    }

    #[test]
    fn the_defaults_are_those_of_the_embedded_node() {
        let settings = Layers::read(Over::default()).unwrap().settings().unwrap();
        assert_eq!(settings.worker, lyra_worker::Config::default());
        assert_eq!(settings.control, lyra_control::Config::default());
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    }

    #[test]
    fn only_control_waits_at_a_port_that_others_know() {
        for (roles, port) in [
            (&[][..], 7070),
            (&[Role::Control], 7070),
            (&[Role::Gateway, Role::Control], 7070),
            (&[Role::Worker], 0),
            (&[Role::Workflow, Role::Worker], 0),
        ] {
            let settings = Layers::read(Over { roles, ..Over::default() }).unwrap().settings().unwrap();
            assert_eq!(settings.cluster.listen_grpc, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "{roles:?}");
        }
    }

    #[test]
    fn a_variable_with_a_name_of_its_own_is_above_the_file_and_below_a_flag() {
        let file = file("log_filter = \"debug\"\ndata_dir = \"/file\"\n");
        let set = Flags { log_filter: Some("warn".into()), data_dir: Some("/variable".into()), ..Flags::default() };
        let flags = Flags { data_dir: Some("/flag".into()), ..Flags::default() };
        let variables = vec![("LYRA_ANY", set)];
        let layers = Layers::read(Over { file: Some(file.path()), variables, flags, ..Over::default() }).unwrap();
        let origins = layers.origins().unwrap();
        assert_eq!((&origins["log_filter"].value, &*origins["log_filter"].source), (&"warn".into(), "LYRA_ANY"));
        assert_eq!((&origins["data_dir"].value, &*origins["data_dir"].source), (&"/flag".into(), "flag"));
    }

    #[test]
    fn a_file_is_below_a_flag() {
        let text = "listen = \"127.0.0.1:1\"\nlog_filter = \"debug\"\n[control.jobs]\nlease_ttl = \"70s\"\n";
        let flags = Flags { listen: Some(SocketAddr::from(([127, 0, 0, 1], 2))), ..Flags::default() };
        let settings = read(text, &flags).unwrap();
        assert_eq!((settings.listen.port(), settings.log_filter.as_str()), (2, "debug"));
        assert_eq!(settings.control.jobs.lease_ttl.as_secs(), 70);
        assert_eq!(settings.control.jobs.heartbeat, lyra_control::Config::default().jobs.heartbeat);
    }

    #[test]
    fn what_is_not_a_setting_is_refused_by_name_and_place() {
        for (text, says) in [
            ("lisen = \"x\"", "lisen"),
            ("[worker]\nmax_runing = 1", "max_runing"),
            ("[gateway]\ntokens = []", "tokens"),
            ("[worker]\nmax_running = \"many\"", "worker.max_running"),
            ("[worker]\nqueue_timeout = \"soon\"", "worker.queue_timeout"),
            ("listen = ", "TOML parse error"),
        ] {
            let said = read(text, &Flags::default()).unwrap_err().to_string();
            assert!(said.contains(says) && said.contains("(in /"), "{text}: {said}");
        }
        let missing = Layers::read(over(Some(Path::new("/nonexistent/lyra.toml")), Flags::default()));
        assert!(matches!(missing, Err(SettingsError::Read { .. })));
    }

    #[test]
    fn processes_and_their_way_out_are_settings() {
        let text = "[process]\ncells = 1\npids = 64\ninit_timeout = \"3s\"\n\
                    [process.egress]\nallow = [\"*.example.com:443\", \"10.1.0.0/16\"]\ndeny = [\"a.example.com\"]\n";
        let process = read(text, &Flags::default()).unwrap().process;
        assert_eq!((process.cells, process.pids, process.init_timeout.as_secs()), (1, 64, 3));
        assert_eq!(process.egress.allow[0].to_string(), "*.example.com:443");
        assert!(process.egress.denies("a.example.com", 443) && !process.egress.denies("b.example.com", 443));
        let file = file(text);
        let origins = Layers::read(over(Some(file.path()), Flags::default())).unwrap().origins().unwrap();
        let lists = &origins["process.egress.allow"];
        assert_eq!(lists.value, serde_json::json!(["*.example.com:443", "10.1.0.0/16"]));
        assert_eq!(lists.source, file.path().display().to_string());
        for (text, says) in [
            ("[process]\npids = 1", "process.pids"),
            ("[process]\ncels = 1", "cels"),
            ("[process.egress]\nallow = [\"http://a\"]", "no rule of an egress policy"),
        ] {
            let said = read(text, &Flags::default()).unwrap_err().to_string();
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    #[test]
    fn every_value_says_where_it_comes_from() {
        let file = file("[worker]\nmax_running = 7\n");
        let flags = Flags { log_filter: Some("warn".into()), ..Flags::default() };
        let origins = Layers::read(over(Some(file.path()), flags)).unwrap().origins().unwrap();
        assert_eq!(origins["worker.max_running"].value, 7);
        assert_eq!(origins["worker.max_running"].source, file.path().display().to_string());
        assert_eq!(origins["log_filter"].source, "flag");
        assert_eq!(origins["control.jobs.lease_ttl"].source, "default");
        assert_eq!(origins["control.jobs.lease_ttl"].value, "30s");
    }

    #[test]
    fn a_variable_is_named_after_its_setting() {
        assert_eq!(variable("worker.queue.policy"), "LYRA__WORKER__QUEUE__POLICY");
    }
}
