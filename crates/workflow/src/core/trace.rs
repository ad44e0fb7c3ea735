//! Every token, in order, with the name and place of its task or datum; kept only when somebody asks.

use lyra_types::Timestamp;
use lyra_types::workflow::{Cause, TraceToken};

use super::{Core, DataKey, Path, TaskKey};

impl Core {
    pub(super) fn is_function(&self, key: &TaskKey) -> bool {
        self.plan.types[key.task.0 as usize].is_some()
    }

    fn token(&self, step: &str, node: &str, path: &Path) -> TraceToken {
        TraceToken {
            seq: 0,
            step: step.to_owned(),
            node: node.to_owned(),
            path: path.to_vec(),
            time: Timestamp::from_millis(self.now),
            attempt: None,
            resources: Vec::new(),
            cause: None,
        }
    }

    fn keep(&mut self, token: TraceToken) {
        if let Some(trace) = &mut self.trace {
            trace.push(token);
        }
    }

    pub(super) fn trace_data(&mut self, key: &DataKey) {
        if self.trace.is_some() {
            let token = self.token("T", &self.plan.graph.datum(key.data).name, &key.path);
            self.keep(token);
        }
    }

    pub(super) fn trace_task(&mut self, step: &str, key: &TaskKey) {
        if self.trace.is_some() {
            let token = self.token(step, &self.plan.graph.task(key.task).name, &key.path);
            self.keep(token);
        }
    }

    /// A try that begins, on resources by their numbers in the mapping.
    pub(super) fn trace_attempt(&mut self, key: &TaskKey, attempt: u32, picks: &[u32]) {
        if self.trace.is_some() {
            let mut token = self.token("E", &self.plan.graph.task(key.task).name, &key.path);
            let (function_type, _) = self.current_type(key);
            let ids = self.plan.resources.get(&*function_type);
            token.attempt = Some(attempt);
            token.resources = picks.iter().filter_map(|pick| ids?.get(*pick as usize).cloned()).collect();
            self.keep(token);
        }
    }

    pub(super) fn trace_end_of_attempt(
        &mut self,
        step: &str,
        key: &TaskKey,
        attempt: u32,
        resource: Option<String>,
        cause: Option<Cause>,
    ) {
        if self.trace.is_some() {
            let mut token = self.token(step, &self.plan.graph.task(key.task).name, &key.path);
            token.attempt = Some(attempt);
            token.resources = resource.into_iter().collect();
            token.cause = cause;
            self.keep(token);
        }
    }

    /// A token of the run itself.
    pub(super) fn trace_run(&mut self, step: &str, cause: Option<Cause>) {
        if self.trace.is_some() {
            let mut token = self.token(step, &self.plan.graph.name, &Path::new());
            token.cause = cause;
            self.keep(token);
        }
    }
}
