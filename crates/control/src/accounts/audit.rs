//! The audit log: who changed what, when, and how it ended.
//!
//! Each entry stands there twice: for operators, and for its tenant. Both are bounded in number and age; a tenant that changes much
//! pushes out its own entries only.

use lyra_store::objects::{Change, Pages, Txn};
use lyra_store::{StoreError, TxnError};
use lyra_types::api::Page;
use lyra_types::{Code, Error, Result, TenantName};
use lyra_wire::accounts::{AuditEvent, AuditQuery};

use super::{Accounts, CHUNK, keys, record};
use crate::functions::page_limit;

/// Entries that are written at once.
const MAX_EVENTS: usize = 1_000;
/// Longest text of an entry, in characters.
const MAX_TEXT: usize = 300;
/// Entries that are looked through at once.
const PAGE: usize = 1_000;

fn cut(text: &mut String) {
    if let Some((at, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(at);
    }
}

impl Accounts {
    pub(crate) async fn record(&self, events: Vec<AuditEvent>) -> Result<()> {
        if events.len() > MAX_EVENTS {
            return Err(Error::new(Code::TooLarge, format!("at most {MAX_EVENTS} entries are written at once")));
        }
        let mut changes = Vec::with_capacity(events.len() * 2);
        for mut event in events {
            [&mut event.actor, &mut event.action, &mut event.target, &mut event.outcome].into_iter().for_each(cut);
            let suffix = keys::audit_suffix(event.time, self.random.u64());
            if let Some(tenant) = &event.tenant {
                changes.push(record::put(keys::audit_of(tenant) + &suffix, &event)?);
            }
            changes.push(record::put(format!("{}{suffix}", keys::AUDIT), &event)?);
        }
        self.change_in_chunks(changes).await
    }

    pub(crate) async fn audit(&self, query: &AuditQuery) -> Result<Page<AuditEvent>> {
        let prefix = query.tenant.as_ref().map_or_else(|| keys::AUDIT.to_owned(), keys::audit_of);
        let after = match &query.page.cursor {
            Some(cursor) if cursor.len() == 32 && cursor.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Some(format!("{prefix}{cursor}"))
            }
            Some(_) => return Err(Error::field(Code::BadRequest, "cursor", "is not one that a list gave")),
            None => None,
        };
        let found = self.objects.list(&prefix, page_limit(query.page.limit), after.as_deref()).await?;
        let next = found.entries.last().filter(|_| found.more).map(|entry| entry.key[prefix.len()..].to_owned());
        Ok(Page { items: found.entries.iter().filter_map(record::read).collect(), next })
    }

    /// Deletes entries that are too old or too many.
    pub(super) async fn sweep_audit(&self) -> Result<(), Error> {
        let newest_old = keys::audit_suffix(self.clock.now() - self.config.keep_audit, 0);
        let mut counted = 0;
        self.sweep_entries(keys::AUDIT, |suffix| {
            counted += 1;
            counted > self.config.max_audit || suffix > newest_old.as_str()
        })
        .await?;
        let mut of: Option<(TenantName, usize)> = None;
        self.sweep_entries(keys::AUDIT_OF, |rest| {
            let Some((tenant, suffix)) = rest.split_once('/') else { return true };
            match &mut of {
                Some((known, counted)) if known.as_str() == tenant => *counted += 1,
                _ => of = TenantName::new(tenant).ok().map(|tenant| (tenant, 1)),
            }
            let counted = of.as_ref().map_or(usize::MAX, |(_, counted)| *counted);
            counted > self.config.max_audit_of_tenant || suffix > newest_old.as_str()
        })
        .await
    }

    /// Deletes what `is_over` says, of all under `prefix`, in order.
    async fn sweep_entries(&self, prefix: &str, mut is_over: impl FnMut(&str) -> bool + Send) -> Result<(), Error> {
        let mut pages = Pages::of(self.objects.as_ref(), prefix, PAGE);
        while let Some(entries) = pages.next().await? {
            let over = entries.iter().filter(|entry| is_over(&entry.key[prefix.len()..]));
            let over = over.map(|entry| Change::Delete(entry.key.clone())).collect::<Vec<_>>();
            self.change_in_chunks(over).await?;
        }
        Ok(())
    }

    async fn change_in_chunks(&self, changes: Vec<Change>) -> Result<()> {
        for chunk in changes.chunks(CHUNK) {
            let txn = Txn { checks: Vec::new(), changes: chunk.to_vec() };
            self.objects.txn(txn).await.map_err(|error| match error {
                TxnError::Store(error) => Error::from(error),
                TxnError::Failed { key, .. } => Error::from(StoreError::InvalidKey { key }),
            })?;
        }
        Ok(())
    }
}
