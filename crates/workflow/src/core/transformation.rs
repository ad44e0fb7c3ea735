//! F: a helper has decided which scopes are entered: the iterations of a parallelFor, the next one of a while.
//!
//! Apollo rewrites the graph here; Lyra enters scopes instead, a few iterations at a time.

use super::{Core, TaskKey};

impl Core {
    pub(super) fn transform_token(&mut self, key: &TaskKey, change: impl FnOnce(&mut Core, &TaskKey)) {
        self.trace_task("F", key);
        self.trace_task("X", key);
        let scope = self.plan.graph.task(key.task).scope;
        let is_end = matches!(self.plan.graph.task(key.task).kind, lyra_afcl::graph::TaskKind::While(_));
        change(self, key);
        // A loop's end is not counted among the tasks of its scope: it runs when they have all ended.
        if !is_end {
            self.task_ended(key);
            self.one_less(scope, &key.path);
        }
    }
}
