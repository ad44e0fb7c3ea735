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
    /// Most memory of an instance, in MiB.
    fn memory_mb(&self) -> u32 {
        64
    }
    /// Whether what is kept ahead of calls is complete, so that it can be told from what was left behind.
    fn is_at_rest(&self) -> bool {
        true
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
    let key = ImageKey {
        runtime: subject.runtime(),
        digest,
        handler: None,
        memory_mb: subject.memory_mb(),
        result: Default::default(),
    };
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
        memory_mb: subject.memory_mb(),
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
            cpu: Default::default(),
            trace: None,
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

/// Descriptors that this process may open once and keep, such as those of a thread that had nothing to do before. What
/// each of eight instances leaves behind is more.
const LASTING: usize = 4;

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// Processes that one has started and that are still there, zombies included.
fn children(of: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let listed = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    listed.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The same with all that those have started.
fn descendants() -> usize {
    let mut found = children("self");
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let more = children(pid);
        found.extend(more);
        next += 1;
    }
    found.len()
}

/// What is held now, by the back end, by this process and by helpers that it has started.
fn held_now(subject: &dyn Subject) -> Held {
    // What is ended or listed at this moment is seen by the next look.
    let mut ours = children("self");
    ours.push("self".to_owned());
    let mounts =
        |pid: &String| std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).map_or(0, |of| of.lines().count());
    Held {
        memory: subject.memory(),
        cgroups: subject.cgroups(),
        files: subject.files(),
        processes: descendants(),
        mounts: ours.iter().map(mounts).sum(),
        descriptors: ours.iter().map(|pid| entries(&format!("/proc/{pid}/fd"))).sum(),
    }
}

/// What is held once the back end is at rest and two looks see the same: what has just ended takes a moment to go.
pub async fn held(subject: &dyn Subject) -> Held {
    let clock = Clock::system();
    let until = clock.instant() + PATIENCE / 2;
    let mut last = None;
    loop {
        clock.sleep(Duration::from_millis(5)).await;
        let now = held_now(subject);
        if !subject.is_at_rest() {
            assert!(clock.instant() < until, "it does not come to rest: {now:?}");
            last = None;
            continue;
        }
        if last == Some(now) && subject.is_at_rest() {
            return now;
        }
        last = Some(now);
    }
}

/// Waits until nothing more than `before` is held.
pub async fn returned_to(subject: &dyn Subject, before: Held) {
    let clock = Clock::system();
    let until = clock.instant() + PATIENCE / 2;
    loop {
        let now = held(subject).await;
        let is_gone = now.memory <= before.memory
            && now.cgroups <= before.cgroups
            && now.files <= before.files
            && now.processes <= before.processes
            && now.mounts <= before.mounts
            && now.descriptors <= before.descriptors + LASTING;
        if is_gone {
            return;
        }
        assert!(clock.instant() < until, "left behind: {now:?}, before {before:?}");
    }
}
