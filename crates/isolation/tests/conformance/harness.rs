//! What a subject is, and what claims do with it: deploy, start, call, look for what was left behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_isolation::{CallContext, Code, ImageKey, Isolation, Sandbox, Template};
use lyra_kit::Clock;
use lyra_types::function::{Contract, Digest};
use lyra_types::{Error, FunctionVersion, InstanceId, InvocationId, Runtime};
use sha2::Digest as _;

use crate::lines::Lines;

/// A back end with one of its runtimes.
pub trait Subject: Send + Sync {
    /// The back end, always the same one.
    fn isolation(&self) -> &dyn Isolation;
    /// The runtime.
    fn runtime(&self) -> Runtime;
    /// How this program is written for it.
    fn program(&self, program: Program) -> Deed;
    /// Why an instance serves one call only, where that is so.
    fn serves_once(&self) -> Option<&'static str> {
        None
    }
    /// Bytes of memory that instances hold, as far as the back end knows.
    fn memory(&self) -> u64;
    /// Control groups that instances hold.
    fn cgroups(&self) -> usize {
        0
    }
    /// Files and directories that instances hold (not images).
    fn files(&self) -> usize {
        0
    }
}

/// What a function of a claim does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Answers with its event, `"ping"`.
    Echo,
    /// Answers with the number of calls that its instance has taken.
    Count,
    /// Waits for some 20 ms, then answers.
    Wait,
    /// Uses the processor, or just waits, without end.
    Forever,
    /// Takes memory without end.
    Hoard,
    /// Dies in the middle of the call.
    Crash,
    /// Fails in the way that functions of its runtime fail.
    Fail,
    /// Answers with more than [`MAX_RESULT`] bytes.
    Large,
    /// Writes lines, then answers.
    Lines,
}

impl Program {
    /// All of them.
    pub const ALL: [Program; 9] = [
        Program::Echo,
        Program::Count,
        Program::Wait,
        Program::Forever,
        Program::Hoard,
        Program::Crash,
        Program::Fail,
        Program::Large,
        Program::Lines,
    ];
}

/// How a program is written for a runtime.
pub enum Deed {
    /// This code, called with this event.
    Code { code: Bytes, event: Bytes, env: BTreeMap<String, String> },
    /// It can't be, and why.
    Never(&'static str),
}

impl Deed {
    /// Code with an event and no environment.
    pub fn code(code: impl Into<Bytes>, event: impl Into<Bytes>) -> Deed {
        Deed::Code { code: code.into(), event: event.into(), env: BTreeMap::new() }
    }
}

/// Largest result in claims, in bytes.
pub const MAX_RESULT: usize = 1 << 20;
/// Memory limit in claims, in MiB.
const MEMORY_MB: u32 = 64;
/// Longest a claim may take, and longest wait for what is to be gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that is deployed and loaded.
pub struct Deployed {
    template: Arc<dyn Template>,
    version: Arc<FunctionVersion>,
    event: Bytes,
    pub lines: Arc<Lines>,
    timeout: Duration,
}

/// Fails a claim that hangs.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("ends")
}

/// Code to be prepared as `runtime`.
pub fn code_of(subject: &dyn Subject, code: Bytes) -> Code {
    let digest = Digest(hex::encode(sha2::Sha256::digest(&code)));
    let key = ImageKey { runtime: subject.runtime(), digest, handler: None, memory_mb: MEMORY_MB };
    Code { key, bytes: code, reuse: subject.serves_once().is_none() }
}

/// Deploys a program; `None` when the subject can't have it.
pub async fn deploy(subject: &dyn Subject, program: Program) -> Option<Deployed> {
    deploy_with(subject, program, PATIENCE).await
}

/// The same with a deadline for its calls.
pub async fn deploy_with(subject: &dyn Subject, program: Program, timeout: Duration) -> Option<Deployed> {
    let (code, event, env) = match subject.program(program) {
        Deed::Code { code, event, env } => (code, event, env),
        Deed::Never(why) => {
            assert!(!why.is_empty(), "{program:?} does not apply, and nothing says why");
            return None;
        }
    };
    let code_size = code.len() as u64;
    let code = code_of(subject, code);
    let isolation = subject.isolation();
    let contract: Contract = isolation.prepare(&code).await.expect("deploys");
    let template = isolation.load(&code.key).await.expect("loads").expect("the image is there");
    let version = FunctionVersion {
        tenant: "acme".parse().expect("a name"),
        contract,
        code_size,
        memory_mb: MEMORY_MB,
        timeout_ms: u64::try_from(timeout.as_millis()).expect("small"),
        env,
        reuse: subject.serves_once().is_none(),
        concurrency: 10,
        max_instances: 10,
        max_attempts: 1,
        ..FunctionVersion::new("conforms".parse().expect("a name"), subject.runtime(), code.key.digest)
    };
    Some(Deployed { template, version: Arc::new(version), event, lines: Arc::default(), timeout })
}

impl Deployed {
    pub async fn start(&self) -> Box<dyn Sandbox> {
        self.template.start(InstanceId::from_parts(1, 1), &self.version).await.expect("starts")
    }

    pub async fn call(&self, sandbox: &mut dyn Sandbox) -> Result<Bytes, Error> {
        let clock = Clock::system();
        let context = CallContext {
            invocation: InvocationId::from_parts(1, 2),
            version: self.version.clone(),
            deadline: clock.instant() + self.timeout,
            deadline_ms: (clock.now() + self.timeout).millis(),
            logs: self.lines.clone(),
            max_result: MAX_RESULT,
        };
        sandbox.call(context, self.event.clone()).await
    }

    /// Calls a new instance.
    pub async fn call_new(&self) -> Result<Bytes, Error> {
        self.call(self.start().await.as_mut()).await
    }
}

/// What could be left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub memory: u64,
    pub cgroups: usize,
    pub files: usize,
    pub processes: usize,
    pub mounts: usize,
    pub descriptors: usize,
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// Processes that this one has started and that are still there, zombies included.
fn children() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks.flatten().map(|task| of(task).split_whitespace().count()).sum()
}

/// What is held now, by the back end and by this process.
pub fn held(subject: &dyn Subject) -> Held {
    Held {
        memory: subject.memory(),
        cgroups: subject.cgroups(),
        files: subject.files(),
        processes: children(),
        mounts: std::fs::read_to_string("/proc/self/mountinfo").map_or(0, |mounts| mounts.lines().count()),
        descriptors: entries("/proc/self/fd"),
    }
}

/// Waits until nothing more than `before` is held.
pub async fn returned_to(subject: &dyn Subject, before: Held) {
    let clock = Clock::system();
    let until = clock.instant() + PATIENCE / 2;
    loop {
        let now = held(subject);
        let is_gone = now.memory <= before.memory
            && now.cgroups <= before.cgroups
            && now.files <= before.files
            && now.processes <= before.processes
            && now.mounts <= before.mounts
            && now.descriptors <= before.descriptors;
        if is_gone {
            return;
        }
        assert!(clock.instant() < until, "left behind: {now:?}, before {before:?}");
        clock.sleep(Duration::from_millis(2)).await;
    }
}
