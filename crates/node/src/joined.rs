//! Counts the control processes that have let this node's worker join: without any it is not ready.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{BoxStream, Stream};
use lyra_types::Result;
use lyra_wire::Registry;
use lyra_wire::registry::{FromNode, MemberEvent, ToNode};

/// Control processes in which the worker is joined now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Joined(Arc<AtomicUsize>);

impl Joined {
    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// `registry`, with what it says to the worker being listened to.
    pub(crate) fn listening(&self, registry: Arc<dyn Registry>) -> Arc<dyn Registry> {
        Arc::new(Listening { registry, joined: self.clone() })
    }
}

struct Listening {
    registry: Arc<dyn Registry>,
    joined: Joined,
}

#[async_trait]
impl Registry for Listening {
    async fn join(&self, messages: BoxStream<'static, Result<FromNode>>) -> Result<BoxStream<'static, Result<ToNode>>> {
        let said = self.registry.join(messages).await?;
        Ok(Said { said, joined: self.joined.clone(), counted: false }.boxed())
    }

    async fn watch_workers(&self) -> Result<BoxStream<'static, Result<MemberEvent>>> {
        self.registry.watch_workers().await
    }
}

/// What control says in one conversation, which counts from the welcome to its end.
struct Said {
    said: BoxStream<'static, Result<ToNode>>,
    joined: Joined,
    counted: bool,
}

impl Stream for Said {
    type Item = Result<ToNode>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<ToNode>>> {
        let said = std::task::ready!(self.said.poll_next_unpin(context));
        if matches!(said, Some(Ok(ToNode::Welcome { .. }))) && !self.counted {
            self.counted = true;
            self.joined.0.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Ready(said)
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        if self.counted {
            self.joined.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Welcoming;

    #[async_trait]
    impl Registry for Welcoming {
        async fn join(&self, _: BoxStream<'static, Result<FromNode>>) -> Result<BoxStream<'static, Result<ToNode>>> {
            let welcome = ToNode::Welcome { heartbeat: Duration::ZERO, lease: Duration::ZERO };
            Ok(futures::stream::iter([Ok(welcome.clone()), Ok(welcome)]).chain(futures::stream::pending()).boxed())
        }

        async fn watch_workers(&self) -> Result<BoxStream<'static, Result<MemberEvent>>> {
            Ok(futures::stream::empty().boxed())
        }
    }

    #[tokio::test]
    async fn a_conversation_counts_from_its_welcome_to_its_end() {
        let joined = Joined::default();
        let registry = joined.listening(Arc::new(Welcoming));
        let mut one = registry.join(futures::stream::empty().boxed()).await.unwrap();
        let mut two = registry.join(futures::stream::empty().boxed()).await.unwrap();
        assert_eq!(joined.count(), 0);
        one.next().await;
        one.next().await;
        two.next().await;
        assert_eq!(joined.count(), 2);
        drop(one);
        assert_eq!(joined.count(), 1);
        drop(two);
        assert_eq!(joined.count(), 0);
    }
}
