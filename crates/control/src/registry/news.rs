//! What happens to sessions and to their instances, one by one: for who keeps an index of them, and can't look at all that
//! workers hold whenever one session changes.

use lyra_wire::registry::Change;
use lyra_wire::sessions::{HostedReport, SessionReport, Stand};

use super::Inner;

/// A change, to be put in place of what was known.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// All that is known of a worker may be other than before.
    Worker(String),
    /// A worker has joined, is heard of again, is lost or gone, or has other load. What it holds is as before, unless it has
    /// just joined.
    State(String),
    /// An instance of an application has changed.
    Hosted(String, HostedReport),
    /// A session has changed.
    Session(String, Box<SessionReport>),
    /// A session is forgotten.
    Forgotten(String, String),
    /// A worker was told to hold other standing instances.
    Stand(String, Stand),
}

impl Inner {
    /// Tells of a change that was taken in. Nobody may be listening.
    pub(super) fn tell_change(&self, worker: &str, change: Change) {
        let worker = worker.to_owned();
        let news = match change {
            Change::Instance(_) | Change::Hold(_) => return,
            Change::Hosted(of) => News::Hosted(worker, of),
            Change::Session(of) => News::Session(worker, of),
            Change::Forgotten(uid) => News::Forgotten(worker, uid),
            Change::Stand(of) => News::Stand(worker, of),
        };
        let _ = self.news.send(news);
    }
}
