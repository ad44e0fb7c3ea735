//! From a version to what its instances are started with: paths, environment, limits.
//!
//! What must hold: the environment holds nothing of Lyra's own; what the platform sets can't be set by a function.

use std::path::{Path, PathBuf};

use lyra_types::{FunctionVersion, InstanceId, Network};

use super::Config;
use super::instance::resource_name;
use super::interpreter::Interpreter;
use super::launch::{Bind, Limits, Plan, Program, SecretFile};
use super::package::Package;
use crate::Grant;

/// Where a function's code is in its sandbox.
pub(super) const TASK_ROOT: &str = "/var/task";

/// Where Lyra's bootstraps are in a sandbox.
pub(super) const SUPPORT: &str = "/opt/lyra";

/// Port of the runtime interface, on the sandbox's own loopback.
pub(super) const API_PORT: u16 = 9001;

/// Port of the way out, on the sandbox's own loopback.
pub(super) const PROXY_PORT: u16 = 9002;

/// Where programs are looked for in a sandbox.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// What a sandbox is made of, whatever runs in it.
pub(super) struct Ground<'a> {
    pub(super) config: &'a Config,
    /// Where Lyra's bootstraps are on this machine.
    pub(super) support: &'a Path,
    /// Interpreters that the sandbox shall have.
    pub(super) interpreters: Vec<&'a Interpreter>,
}

impl Ground<'_> {
    /// A sandbox with its code at [`TASK_ROOT`], or with an empty directory there for code to come.
    pub(super) fn plan(
        &self,
        id: InstanceId,
        code: Option<&Path>,
        program: impl Into<Program>,
        env: Vec<(String, String)>,
    ) -> Plan {
        let mut binds = Bind::system();
        for interpreter in &self.interpreters {
            binds.extend(interpreter.binds.iter().cloned());
        }
        binds.push(Bind::new(self.support, SUPPORT));
        binds.extend(code.map(|code| Bind::new(code, TASK_ROOT)));
        Plan {
            id,
            program: program.into(),
            env,
            cwd: PathBuf::from(TASK_ROOT),
            binds,
            mount_points: if code.is_none() { vec![PathBuf::from(TASK_ROOT)] } else { Vec::new() },
            tmp_bytes: self.config.settings.tmp_bytes,
            limits: limits(
                self.config,
                self.config.settings.cell_memory,
                lyra_types::function::limit::DEFAULT_CPU_MILLIS,
            ),
            devices: Vec::new(),
            listen: Vec::new(),
            secrets: Vec::new(),
            lasting: None,
        }
    }

    /// A sandbox for instances of a version.
    pub(super) fn plan_for(
        &self,
        id: InstanceId,
        package: &Package,
        version: &FunctionVersion,
        program: impl Into<Program>,
        env: Vec<(String, String)>,
    ) -> Plan {
        let plan = self.plan(id, Some(&package.root), program, env);
        let limits = limits_of(self.config, version);
        // Cgroups count what is in it as memory; where there are none, this alone bounds it.
        let tmp_bytes = plan.tmp_bytes.min(limits.memory_bytes);
        Plan { limits, tmp_bytes, ..plan }
    }
}

/// The files with secrets that a sandbox shall have.
pub(super) fn secret_files(grant: &Grant) -> Vec<SecretFile> {
    let files = grant.secrets.iter().flat_map(|given| given.files());
    files.map(|(name, contents)| SecretFile::new(name, contents)).collect()
}

fn limits(config: &Config, memory_bytes: u64, cpu_millis: u32) -> Limits {
    Limits {
        memory_bytes,
        cpu_millis,
        pids: config.settings.pids,
        open_files: config.settings.open_files,
        file_bytes: config.settings.tmp_bytes,
    }
}

/// The limits of a version's instances.
pub(super) fn limits_of(config: &Config, version: &FunctionVersion) -> Limits {
    limits(config, version.memory_bytes() as u64, version.cpu_millis)
}

/// What every sandbox has in its environment.
pub(super) fn base_env() -> Vec<(String, String)> {
    [("PATH", PATH), ("HOME", "/tmp"), ("TMPDIR", "/tmp"), ("LANG", "C.UTF-8"), ("TZ", "UTC")].map(owned).to_vec()
}

fn owned<V: ToString>((name, value): (&str, V)) -> (String, String) {
    (name.to_owned(), value.to_string())
}

/// The whole environment of a version's instances: what is usual, what the function asked for, its secrets, what the platform says.
pub(super) fn env_of(id: InstanceId, version: &FunctionVersion, handler: &str, grant: &Grant) -> Vec<(String, String)> {
    let mut env = base_env();
    let mut set = |name: &str, value: String| match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => env.push((name.to_owned(), value)),
    };
    for (name, value) in &version.env {
        set(name, value.clone());
    }
    for (name, value) in grant.secret_env() {
        set(name, value.to_owned());
    }
    set("LAMBDA_TASK_ROOT", TASK_ROOT.to_owned());
    set("LAMBDA_RUNTIME_DIR", SUPPORT.to_owned());
    set("_HANDLER", handler.to_owned());
    set("AWS_LAMBDA_FUNCTION_NAME", version.function.to_string());
    set("AWS_LAMBDA_FUNCTION_VERSION", version.version.to_string());
    set("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", version.memory_mb.to_string());
    set("AWS_LAMBDA_LOG_GROUP_NAME", log_group(version));
    set("AWS_LAMBDA_LOG_STREAM_NAME", id.to_string());
    set("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned());
    set("LYRA_TENANT", version.tenant.to_string());
    if version.network == Network::Egress {
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            set(name, format!("http://127.0.0.1:{PROXY_PORT}"));
        }
        for name in ["ALL_PROXY", "all_proxy"] {
            set(name, format!("socks5h://127.0.0.1:{PROXY_PORT}"));
        }
        for name in ["NO_PROXY", "no_proxy"] {
            set(name, "127.0.0.1,localhost".to_owned());
        }
        // Node.js from 22.21 and 24.5 on goes by the variables above only when it is told to.
        set("NODE_USE_ENV_PROXY", "1".to_owned());
    }
    env
}

fn log_group(version: &FunctionVersion) -> String {
    format!("/lyra/{}/{}", version.tenant, version.function)
}

/// Whether an interpreter must have a variable from its first moment on, because it reads it only then.
pub(super) fn is_early(name: &str) -> bool {
    const NAMES: [&str; 5] = ["LANG", "LANGUAGE", "UV_THREADPOOL_SIZE", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    const PREFIXES: [&str; 8] = ["PYTHON", "NODE_", "LD_", "LC_", "MALLOC_", "GLIBC_", "OPENSSL_", "V8_"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// What one of Lyra's bootstraps is told of the version that it runs.
#[derive(serde::Serialize)]
pub(super) struct Assignment<'a> {
    task_root: &'a str,
    /// Path of the handler's file, below the task root.
    file: &'a str,
    /// The same as a Python module's name.
    module: String,
    function: &'a str,
    /// The file is an ES module, whatever its name says.
    is_module: bool,
    env: std::collections::BTreeMap<&'a str, &'a str>,
    function_name: &'a str,
    function_version: String,
    tenant: String,
    memory_mb: u32,
    arn: String,
    log_group: String,
    log_stream: String,
}

impl<'a> Assignment<'a> {
    pub(super) fn new(
        id: InstanceId,
        version: &'a FunctionVersion,
        file: &'a str,
        function: &'a str,
        env: &'a [(String, String)],
    ) -> Assignment<'a> {
        Assignment {
            task_root: TASK_ROOT,
            file,
            module: file.strip_suffix(".py").unwrap_or(file).replace('/', "."),
            function,
            is_module: file.ends_with(".mjs"),
            env: env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            function_name: version.function.as_str(),
            function_version: version.version.to_string(),
            tenant: version.tenant.to_string(),
            memory_mb: version.memory_mb,
            arn: resource_name(version),
            log_group: log_group(version),
            log_stream: id.to_string(),
        }
    }
}
