//! Tells followers that there is news of what they follow.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use lyra_types::log::LogLine;
use lyra_types::{InstanceId, TenantName};
use lyra_wire::logs::Query;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::queue::Source;
use crate::writer::Wrote;

/// What a follower has been told and has not read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct News {
    /// The last `seq` before the first batch that may hold something for it; none: there is none.
    pub after: Option<i64>,
    /// The last `seq` of the last such batch.
    pub up_to: i64,
    /// Nothing more will come.
    pub closed: bool,
}

/// A follower's bell. It remembers what it was rung for until somebody looks.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    news: Mutex<News>,
    rung: Notify,
}

impl Bell {
    fn ring(&self, wrote: Wrote) {
        let mut news = self.news.lock();
        // One batch may ring several times.
        if news.up_to == wrote.up_to {
            return;
        }
        news.after.get_or_insert(wrote.after);
        news.up_to = wrote.up_to;
        drop(news);
        self.rung.notify_one();
    }

    fn close(&self) {
        self.news.lock().closed = true;
        self.rung.notify_one();
    }

    /// Takes the news.
    pub(crate) fn look(&self) -> News {
        let mut news = self.news.lock();
        News { after: news.after.take(), ..*news }
    }

    /// Waits for more.
    pub(crate) async fn wait(&self) {
        self.rung.notified().await;
    }
}

/// Bells by what they are rung for.
type Bells<K> = HashMap<K, Vec<Weak<Bell>>>;

/// What is followed now: each follower stands under one topic, and is rung for each batch with a line of it.
#[derive(Default)]
struct Topics {
    functions: Bells<Source>,
    sessions: Bells<(TenantName, String)>,
    applications: Bells<(TenantName, String)>,
    instances: Bells<InstanceId>,
}

fn tidy<K: Eq + Hash>(bells: &mut Bells<K>) {
    bells.retain(|_, bells| {
        bells.retain(|bell| bell.strong_count() > 0);
        !bells.is_empty()
    });
}

fn each<K>(bells: &Bells<K>) -> impl Iterator<Item = Arc<Bell>> {
    bells.values().flatten().filter_map(Weak::upgrade)
}

fn ring<K: Eq + Hash>(bells: &Bells<K>, key: &K, wrote: Wrote) {
    bells.get(key).into_iter().flatten().filter_map(Weak::upgrade).for_each(|bell| bell.ring(wrote));
}

impl Topics {
    fn tidy(&mut self) {
        tidy(&mut self.functions);
        tidy(&mut self.sessions);
        tidy(&mut self.applications);
        tidy(&mut self.instances);
    }

    fn all(&self) -> impl Iterator<Item = Arc<Bell>> {
        each(&self.functions).chain(each(&self.sessions)).chain(each(&self.applications)).chain(each(&self.instances))
    }

    fn bells_of(&mut self, query: &Query) -> Option<&mut Vec<Weak<Bell>>> {
        let tenant = &query.tenant;
        Some(if let Some(function) = &query.function {
            self.functions.entry((tenant.clone(), function.clone())).or_default()
        } else if let Some(session) = &query.session {
            self.sessions.entry((tenant.clone(), session.clone())).or_default()
        } else if let Some(instance) = query.instance {
            self.instances.entry(instance).or_default()
        } else {
            let application = query.application.as_ref()?;
            self.applications.entry((tenant.clone(), application.clone())).or_default()
        })
    }
}

/// Followers, and what each follows.
#[derive(Default)]
pub(crate) struct Tails {
    followed: Mutex<Topics>,
}

impl Tails {
    /// Whether anybody follows anything.
    pub(crate) fn any(&self) -> bool {
        self.followed.lock().all().next().is_some()
    }

    /// These lines were written.
    pub(crate) fn wrote(&self, lines: &[LogLine], wrote: Wrote) {
        let mut topics = self.followed.lock();
        topics.tidy();
        if topics.all().next().is_none() {
            return;
        }
        for line in lines {
            let tenant = || line.tenant.clone();
            if !topics.functions.is_empty() {
                ring(&topics.functions, &(tenant(), line.function.clone()), wrote);
            }
            if let Some(session) = line.session().filter(|_| !topics.sessions.is_empty()) {
                ring(&topics.sessions, &(tenant(), session.name.clone()), wrote);
            }
            if let Some(application) = line.application().filter(|_| !topics.applications.is_empty()) {
                ring(&topics.applications, &(tenant(), application.to_owned()), wrote);
            }
            if let Some(instance) = &line.instance {
                ring(&topics.instances, instance, wrote);
            }
        }
    }

    /// The function was deleted: its streams end.
    pub(crate) fn close(&self, source: &Source) {
        let bells = self.followed.lock().functions.remove(source).unwrap_or_default();
        bells.iter().filter_map(Weak::upgrade).for_each(|bell| bell.close());
    }

    /// The service stops: all streams end.
    pub(crate) fn close_all(&self) {
        let topics = std::mem::take(&mut *self.followed.lock());
        topics.all().for_each(|bell| bell.close());
    }

    /// A bell for the query; `None` when there are `most` already, or it asks for nothing that can be followed.
    pub(crate) fn subscribe(&self, query: &Query, most: usize) -> Option<Arc<Bell>> {
        let mut topics = self.followed.lock();
        topics.tidy();
        if topics.all().count() >= most {
            return None;
        }
        let bell = Arc::<Bell>::default();
        topics.bells_of(query)?.push(Arc::downgrade(&bell));
        Some(bell)
    }
}
