//! Which processes run workflows: followed in the store, where each keeps itself seen, and told to whoever asks them.

use futures::stream::{self, BoxStream, StreamExt};
use lyra_kit::Clock;
use lyra_store::Objects;
use lyra_store::objects::presence;
use lyra_types::Result;
use lyra_wire::workflows::{PROCESSES, WorkflowProcess};
use tokio::sync::watch;

/// The processes, as they were last listed; none before the first list.
pub(crate) struct WorkflowProcesses {
    listed: watch::Sender<Option<Vec<WorkflowProcess>>>,
}

impl WorkflowProcesses {
    pub(crate) fn new() -> WorkflowProcesses {
        WorkflowProcesses { listed: watch::Sender::new(None) }
    }

    /// Keeps the list up to date, for ever. While the store is away the last list stays.
    pub(crate) async fn follow(&self, objects: &dyn Objects, clock: &Clock) {
        let tell = |values: Vec<bytes::Bytes>| {
            let read = |value: &bytes::Bytes| match serde_json::from_slice(value) {
                Ok(process) => Some(process),
                Err(error) => {
                    tracing::warn!(%error, "a process that runs workflows says of itself what can't be read");
                    None
                }
            };
            let list: Vec<WorkflowProcess> = values.iter().filter_map(read).collect();
            self.listed.send_if_modified(|listed| {
                let is_news = listed.as_ref() != Some(&list);
                *listed = Some(list);
                is_news
            });
        };
        presence::follow(objects, PROCESSES, clock, tell).await;
    }

    /// The list, once there is one, then again at each change. What comes faster than it is taken is left out but for the
    /// newest.
    pub(crate) fn watch(&self) -> BoxStream<'static, Result<Vec<WorkflowProcess>>> {
        let mut listed = self.listed.subscribe();
        listed.mark_changed();
        let next = |mut listed: watch::Receiver<Option<Vec<WorkflowProcess>>>| async move {
            loop {
                listed.changed().await.ok()?;
                let list = listed.borrow_and_update().clone();
                if let Some(list) = list {
                    return Some((Ok(list), listed));
                }
            }
        };
        stream::unfold(listed, next).boxed()
    }
}

#[cfg(test)]
mod tests {
    use lyra_types::Timestamp;
    use lyra_wire::Role;

    use super::*;

    fn list(owner: u64) -> Vec<WorkflowProcess> {
        let (name, address, since) = ("f1".to_owned(), "f1:7070".to_owned(), Timestamp::from_millis(1));
        vec![WorkflowProcess { name, address, role: Role::Workflow, owner, since, leaving: false }]
    }

    #[tokio::test]
    async fn who_watches_is_told_of_the_list_and_of_each_change() {
        let processes = WorkflowProcesses::new();
        let mut early = processes.watch();
        processes.listed.send_replace(Some(list(1)));
        assert_eq!(early.next().await.unwrap().unwrap(), list(1));
        let mut late = processes.watch();
        assert_eq!(late.next().await.unwrap().unwrap(), list(1));
        processes.listed.send_replace(Some(list(2)));
        processes.listed.send_replace(Some(list(3)));
        assert_eq!(late.next().await.unwrap().unwrap(), list(3));
        drop(processes);
        assert!(late.next().await.is_none());
    }
}
