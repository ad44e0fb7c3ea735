//! Checks a deploy request, every field of it, and fills in the defaults.
//!
//! All faults are told in one answer. Nothing here stores or compiles anything.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lyra_types::api::{CodeInput, DeployRequest};
use lyra_types::function::{ResultForm, label, limit};
use lyra_types::secret::{MAX_FUNCTION_SECRETS, MAX_SECRET_FILE, is_secret_file};
use lyra_types::{
    Balancing, Code, Error, FieldError, Network, Result, Runtime, SecretUse, SessionBinding, SessionsRequest,
};
use lyra_wire::control::RawCode;

use super::archive::{code_file, max_code, runtime_of};

/// Most calls of a function that may run at once.
const MAX_CONCURRENCY: u32 = 100_000;
/// Most instances of a function.
const MAX_INSTANCES: u32 = 100_000;
/// Longest handler name, label name, and label value, in bytes.
const MAX_TEXT: usize = 256;
/// Runtimes that Lyra's interface names and this build does not have.
const OTHER_RUNTIMES: [&str; 1] = ["image"];
/// Isolation back ends by name; which of them a worker has is for the worker to say.
const ISOLATIONS: [&str; 4] = ["auto", "wasm", "process", "simulated"];

/// A request that was checked, with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checked {
    pub(super) runtime: Runtime,
    pub(super) handler: Option<String>,
    pub(super) code: Bytes,
    pub(super) memory_mb: u32,
    pub(super) cpu_millis: u32,
    pub(super) gpus: u32,
    pub(super) network: Network,
    pub(super) timeout_ms: u64,
    pub(super) env: BTreeMap<String, String>,
    pub(super) secrets: Vec<SecretUse>,
    pub(super) isolation: String,
    pub(super) reuse: bool,
    pub(super) concurrency: u32,
    pub(super) balancing: Option<Balancing>,
    pub(super) sessions: Option<SessionBinding>,
    pub(super) min_instances: u32,
    pub(super) max_instances: u32,
    pub(super) max_attempts: u32,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) promote: bool,
}

/// Collects what is wrong.
#[derive(Default)]
struct Faults(Vec<FieldError>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(FieldError::new(field, reason));
    }

    fn range<T: PartialOrd + std::fmt::Display>(&mut self, field: &str, value: T, least: T, most: T) -> T {
        if value < least || value > most {
            self.add(field, format!("{value} is not between {least} and {most}"));
        }
        value
    }

    fn into_result<T>(self, value: Option<T>) -> Result<T> {
        match (self.0.first(), value) {
            (None, Some(value)) => Ok(value),
            (None, None) => Err(Error::internal("a request was refused without a reason")),
            (Some(first), _) => {
                let more = match self.0.len() {
                    1 => String::new(),
                    n => format!(" (and {} more)", n - 1),
                };
                let mut error = Error::new(Code::InvalidField, format!("{}: {}{more}", first.field, first.reason));
                error.errors = self.0;
                Err(error)
            }
        }
    }
}

/// Checks a request; tells every fault.
pub(super) fn check(request: DeployRequest) -> Result<Checked> {
    let mut faults = Faults::default();
    let runtime = check_runtime(&request.runtime, &mut faults);
    let code = check_code(request.code, runtime, &mut faults);
    check_handler(request.handler.as_deref(), runtime, &mut faults);
    check_env(&request.env, &mut faults);
    check_labels(&request.labels, &mut faults);
    let isolation = request.isolation.unwrap_or_else(|| "auto".to_owned());
    if !ISOLATIONS.contains(&&*isolation) {
        let known = ISOLATIONS.join(", ");
        faults.add("isolation", format!("{} is not one that this build has: {known}", quoted(&isolation)));
    }
    let cpu_millis = check_cpus(request.cpus, runtime, &mut faults);
    let gpus = check_gpus(request.gpus, runtime, &mut faults);
    let network = check_network(request.network.as_deref(), runtime, &mut faults);
    let balancing = check_balancing(request.balancing.as_deref(), &mut faults);
    let sessions = check_sessions(request.sessions.as_ref(), &mut faults);
    if sessions.is_some() && !request.secrets.is_empty() {
        faults.add("secrets", "sessions serve the calls: there are no instances that could be given secrets");
    }
    check_secrets(&request.secrets, runtime, &request.env, &mut faults);
    let memory = request.memory_mb.unwrap_or(limit::DEFAULT_MEMORY_MB);
    let timeout = request.timeout_ms.unwrap_or(limit::DEFAULT_TIMEOUT_MS);
    let concurrency = request.concurrency.unwrap_or(limit::DEFAULT_CONCURRENCY);
    let attempts = request.max_attempts.unwrap_or(limit::DEFAULT_MAX_ATTEMPTS);
    let reuse = request.reuse.unwrap_or_else(|| runtime.is_some_and(Runtime::default_reuse));
    let min = request.min_instances.unwrap_or(0);
    let max = request.max_instances.unwrap_or_else(|| concurrency.max(min));
    let most_memory = if is_process(runtime) { limit::MAX_PROCESS_MEMORY_MB } else { limit::MAX_MEMORY_MB };
    let memory_mb = faults.range("memory_mb", memory, limit::MIN_MEMORY_MB, most_memory);
    let timeout_ms = faults.range("timeout_ms", timeout, 1, limit::MAX_TIMEOUT_MS);
    let concurrency = faults.range("concurrency", concurrency, 1, MAX_CONCURRENCY);
    let max_attempts = faults.range("max_attempts", attempts, 1, limit::MAX_ATTEMPTS);
    let min_instances = faults.range("min_instances", min, 0, MAX_INSTANCES);
    let max_instances = faults.range("max_instances", max, 1, MAX_INSTANCES);
    if min > max {
        faults.add("min_instances", format!("{min} is more than max_instances, which is {max}"));
    }
    if min > 0 && !reuse {
        faults.add("min_instances", "instances are kept only with \"reuse\": true");
    }
    let checked = runtime.zip(code).map(|(runtime, code)| Checked {
        runtime,
        handler: request.handler,
        code,
        memory_mb,
        cpu_millis,
        gpus,
        network,
        timeout_ms,
        env: request.env,
        secrets: request.secrets,
        isolation,
        reuse,
        concurrency,
        balancing,
        sessions,
        min_instances,
        max_instances,
        max_attempts,
        labels: request.labels,
        promote: request.promote.unwrap_or(true),
    });
    faults.into_result(checked)
}

/// The request that a raw body stands for: the runtime, and the code in the form that [`check`] takes.
pub(super) fn raw_code(raw: RawCode, function_runtime: Option<Runtime>) -> Result<(Runtime, Bytes)> {
    let body = |reason: String| Error::field(Code::InvalidField, "body", reason);
    let (runtime, code) = match raw {
        // The same text may be written for either; what the function has been until now says which.
        RawCode::JavaScript(source) if function_runtime == Some(Runtime::Nodejs) => (Runtime::Nodejs, source),
        RawCode::JavaScript(source) => (Runtime::Js, source),
        RawCode::Python(source) => (Runtime::Python, source),
        RawCode::Wasm(wasm) => (Runtime::Wasm, wasm),
        RawCode::Zip(archive) => {
            let runtime = match function_runtime {
                Some(runtime) => runtime,
                None => runtime_of(&archive)?,
            };
            (runtime, unpacked(archive.into(), runtime).map_err(body)?)
        }
    };
    if let Some(expected) = function_runtime.filter(|expected| *expected != runtime) {
        return Err(body(format!(
            "is {runtime} code, and the function's runtime is {expected}; deploy the function with the other runtime to change it"
        )));
    }
    let mut faults = Faults::default();
    check_bytes("body", &code, runtime, &mut faults);
    faults.into_result(Some((runtime, code)))
}

fn check_runtime(text: &str, faults: &mut Faults) -> Option<Runtime> {
    let runtime = Runtime::parse(text);
    if runtime.is_none() {
        let known = Runtime::ALL.map(Runtime::as_str).join(", ");
        let reason = if OTHER_RUNTIMES.contains(&text) {
            format!("the runtime \"{text}\" is not in this build yet; it has {known}")
        } else {
            format!("there is no runtime {}; this build has {known}", quoted(text))
        };
        faults.add("runtime", reason);
    }
    runtime
}

fn check_code(input: CodeInput, runtime: Option<Runtime>, faults: &mut Faults) -> Option<Bytes> {
    let CodeInput { source, wasm, zip, image } = input;
    let forms = [("source", source), ("wasm", wasm), ("zip", zip), ("image", image)];
    let mut given = forms.into_iter().filter_map(|(form, text)| Some((form, text?)));
    let Some((form, text)) = given.next() else {
        faults.add("code", "has none of source, wasm, zip");
        return None;
    };
    if let Some((other, _)) = given.next() {
        faults.add("code", format!("has both {form} and {other}; give one"));
        return None;
    }
    let field = format!("code.{form}");
    if form == "image" {
        faults.add(field, "no runtime of this build takes an image");
        return None;
    }
    let runtime = runtime?;
    let expected = match runtime {
        Runtime::Js | Runtime::Python | Runtime::Nodejs => &["source", "zip"][..],
        Runtime::Wasm => &["wasm", "zip"],
        // A script; a program goes as `zip`, by itself or in an archive.
        Runtime::Native | Runtime::Http => &["source", "zip"],
        Runtime::Simulated => &["source"],
    };
    if !expected.contains(&form) {
        faults.add(field, format!("the runtime {runtime} takes code.{}", expected.join(" or code.")));
        return None;
    }
    let is_program = matches!(runtime, Runtime::Native | Runtime::Http);
    let code = match form {
        "source" if is_program && !text.starts_with("#!") => {
            Err(format!("is no script: for {runtime} its first line starts with #!, as in #!/bin/sh"))
        }
        "source" => Ok(Bytes::from(text)),
        _ => STANDARD
            .decode(text.as_bytes())
            .map_err(|error| format!("is not base64: {error}"))
            .and_then(|bytes| if form == "zip" { unpacked(bytes, runtime) } else { Ok(Bytes::from(bytes)) }),
    };
    match code {
        Ok(code) => check_bytes(&field, &code, runtime, faults).then_some(code),
        Err(reason) => {
            faults.add(field, reason);
            None
        }
    }
}

/// The code in an archive: its one file for the runtimes that take one file, else the archive itself.
fn unpacked(archive: Vec<u8>, runtime: Runtime) -> std::result::Result<Bytes, String> {
    match runtime {
        Runtime::Js | Runtime::Wasm => code_file(&archive, runtime),
        _ => Ok(Bytes::from(archive)),
    }
}

/// Whether instances are processes, which the settings for processor, devices and network are for.
fn is_process(runtime: Option<Runtime>) -> bool {
    !matches!(runtime, Some(Runtime::Js | Runtime::Wasm))
}

fn check_cpus(cpus: Option<f64>, runtime: Option<Runtime>, faults: &mut Faults) -> u32 {
    let Some(cpus) = cpus else { return limit::DEFAULT_CPU_MILLIS };
    let millis = (cpus * 1e3).round();
    if !is_process(runtime) {
        faults.add("cpus", "js and wasm code shares the processor; it has no share of its own");
    } else if !(10.0..=f64::from(limit::MAX_CPU_MILLIS)).contains(&millis) {
        faults.add("cpus", format!("{cpus} is not between 0.01 and {}", limit::MAX_CPU_MILLIS / 1_000));
    } else {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, as was just checked")]
        return millis as u32;
    }
    limit::DEFAULT_CPU_MILLIS
}

fn check_gpus(gpus: Option<u32>, runtime: Option<Runtime>, faults: &mut Faults) -> u32 {
    let gpus = gpus.unwrap_or(0);
    if gpus > 0 && !is_process(runtime) {
        faults.add("gpus", "js and wasm code reaches no device");
    }
    faults.range("gpus", gpus, 0, limit::MAX_GPUS)
}

fn check_network(network: Option<&str>, runtime: Option<Runtime>, faults: &mut Faults) -> Network {
    let Some(text) = network else { return Network::None };
    let Some(network) = Network::parse(text) else {
        faults.add("network", format!("{} is neither none nor egress", quoted(text)));
        return Network::None;
    };
    if network != Network::None && !is_process(runtime) {
        faults.add("network", "js and wasm code has no network");
    }
    network
}

fn check_balancing(balancing: Option<&str>, faults: &mut Faults) -> Option<Balancing> {
    let text = balancing?;
    let policy = Balancing::parse(text);
    if policy.is_none() {
        let known = Balancing::ALL.map(Balancing::as_str).join(", ");
        faults.add("balancing", format!("{} is not a policy; there are {known}", quoted(text)));
    }
    policy
}

fn check_sessions(sessions: Option<&SessionsRequest>, faults: &mut Faults) -> Option<SessionBinding> {
    match sessions?.check() {
        Ok(binding) => Some(binding),
        Err(found) => {
            found.into_iter().for_each(|(field, reason)| faults.add(field, reason));
            None
        }
    }
}

fn check_bytes(field: &str, code: &[u8], runtime: Runtime, faults: &mut Faults) -> bool {
    let max = max_code(runtime);
    if code.is_empty() {
        faults.add(field, "is empty");
    } else if code.len() > max {
        faults.add(field, format!("is {} bytes; at most {max} are taken", code.len()));
    } else if runtime == Runtime::Js && std::str::from_utf8(code).is_err() {
        faults.add(field, "is not UTF-8 text");
    } else {
        return true;
    }
    false
}

fn check_handler(handler: Option<&str>, runtime: Option<Runtime>, faults: &mut Faults) {
    let Some(handler) = handler else { return };
    let mut chars = handler.chars();
    let starts = |c: char| c.is_alphabetic() || c == '_' || c == '$';
    let is_name = chars.next().is_some_and(starts) && chars.all(|c| starts(c) || c.is_alphanumeric());
    let is_path =
        |part: &str| !part.is_empty() && part.chars().all(|c| starts(c) || c.is_alphanumeric() || "-/".contains(c));
    if matches!(runtime, Some(Runtime::Python | Runtime::Nodejs | Runtime::Native)) {
        let is_dotted = handler.split('.').all(is_path) && !handler.starts_with('/');
        if !is_dotted || handler.len() > MAX_TEXT {
            faults.add("handler", format!("{} is not of the form file.function", quoted(handler)));
        }
    } else if matches!(runtime, Some(Runtime::Wasm | Runtime::Simulated)) {
        faults.add("handler", format!("{} code has no handler name", runtime.map_or("", Runtime::as_str)));
    } else if !is_name || handler.len() > MAX_TEXT {
        faults.add("handler", format!("{} is not the name of an export", quoted(handler)));
    }
}

fn check_env(env: &BTreeMap<String, String>, faults: &mut Faults) {
    if env.len() > limit::MAX_ENV {
        faults.add("env", format!("has {} variables; at most {} are taken", env.len(), limit::MAX_ENV));
    }
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > limit::MAX_ENV_BYTES {
        faults.add("env", format!("is {bytes} bytes long; at most {} are taken", limit::MAX_ENV_BYTES));
    }
    for (name, value) in env.iter().take(limit::MAX_ENV) {
        if !is_variable(name) {
            faults.add(format!("env.{}", shortened(name)), NO_VARIABLE);
        } else if value.contains('\0') {
            // The value may be a secret: it is not shown.
            faults.add(format!("env.{}", shortened(name)), "the value holds a NUL character");
        }
    }
}

/// Why a text is not the name of a variable.
const NO_VARIABLE: &str = "the name may hold only letters, digits and '_', and must not start with a digit";

fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    let starts = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    bytes.next().is_some_and(starts) && bytes.all(|byte| starts(byte) || byte.is_ascii_digit())
}

/// Whether they are there is not looked at here.
fn check_secrets(secrets: &[SecretUse], runtime: Option<Runtime>, env: &BTreeMap<String, String>, faults: &mut Faults) {
    if secrets.len() > MAX_FUNCTION_SECRETS {
        faults.add("secrets", format!("has {} entries; at most {MAX_FUNCTION_SECRETS} are taken", secrets.len()));
    }
    let (mut variables, mut files) = (BTreeSet::new(), BTreeSet::new());
    for (at, secret) in secrets.iter().take(MAX_FUNCTION_SECRETS).enumerate() {
        let mut fault = |part: &str, reason: String| faults.add(format!("secrets[{at}]{part}"), reason);
        match (&secret.env, &secret.file) {
            (Some(_), _) if runtime == Some(Runtime::Simulated) => {
                fault("", "simulated functions have no environment".to_owned());
            }
            (Some(name), None) if !is_variable(name) || name.len() > MAX_TEXT => fault(".env", NO_VARIABLE.to_owned()),
            (Some(name), None) if env.contains_key(name) || !variables.insert(name) => {
                fault(".env", format!("the variable {name} is given twice"));
            }
            (Some(_), None) => {}
            (None, Some(_)) if matches!(runtime, Some(Runtime::Js | Runtime::Wasm | Runtime::Simulated)) => {
                let runtime = runtime.map_or("", Runtime::as_str);
                fault(".file", format!("{runtime} code sees no files: use env"));
            }
            (None, Some(name)) if !is_secret_file(name) => fault(
                ".file",
                format!(
                    "the name must be 1 to {MAX_SECRET_FILE} letters, digits, '.', '_', '-', and must not begin with '.'"
                ),
            ),
            (None, Some(name)) if !files.insert(name) => fault(".file", format!("the file {name} is given twice")),
            (None, Some(_)) => {}
            (Some(_), Some(_)) | (None, None) => fault("", "needs one of env and file".to_owned()),
        }
    }
}

fn check_labels(labels: &BTreeMap<String, String>, faults: &mut Faults) {
    if labels.len() > limit::MAX_LABELS {
        faults.add("labels", format!("has {} labels; at most {} are taken", labels.len(), limit::MAX_LABELS));
    }
    for (name, value) in labels.iter().take(limit::MAX_LABELS) {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        if name.is_empty() || name.len() > MAX_TEXT || !name.bytes().all(is_name) {
            faults.add(
                format!("labels.{}", shortened(name)),
                format!("the name must be 1 to {MAX_TEXT} letters, digits, '.', '_', '-', '/'"),
            );
        } else if value.len() > MAX_TEXT {
            faults.add(format!("labels.{name}"), format!("the value is longer than {MAX_TEXT} bytes"));
        } else if name == label::RESULT && ResultForm::parse(value).is_none() {
            faults.add(format!("labels.{name}"), "must be text or string");
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect::<String>().escape_debug().to_string()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
