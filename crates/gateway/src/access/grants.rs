//! What each token allows, learned from the control role by watch.
//!
//! What must hold: a look-up takes no lock and asks nobody; what was revoked is gone here as soon as control has told; what is known is
//! kept while the watch is being made again, for a bounded time. Control says at least every [`BEAT`] that nothing was missed, so a
//! watch that is silent for longer is broken, whatever the connection looks like.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use lyra_kit::retry::Backoff;
use lyra_kit::{Clock, Random};
use lyra_types::{Code, Error, Result, Scopes, TenantName};
use lyra_wire::Accounts;
use lyra_wire::accounts::{BEAT, Grant, GrantEvent, TenantState, TokenHash};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{By, Identity};

/// Waits between tries to watch.
const RECONNECT: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(1) };
/// A watch that says nothing for so long is broken.
const SILENT: Duration = BEAT.saturating_mul(8);

/// Tokens and tenants.
pub(crate) struct Grants {
    tokens: papaya::HashMap<TokenHash, Arc<Identity>>,
    tenants: papaya::HashMap<TenantName, TenantState>,
    /// The revision that this has applied; `None` until it is complete for the first time.
    applied: watch::Sender<Option<u64>>,
    /// When control was last heard, in milliseconds from `start`; 0: never.
    heard: AtomicU64,
    start: Instant,
    clock: Clock,
    stale_after: Duration,
}

impl Grants {
    /// Nothing is known yet. What is known is used for `stale_after` when control is away.
    pub(crate) fn new(clock: Clock, stale_after: Duration) -> Grants {
        Grants {
            tokens: papaya::HashMap::new(),
            tenants: papaya::HashMap::new(),
            applied: watch::Sender::new(None),
            heard: AtomicU64::new(0),
            start: clock.instant(),
            clock,
            stale_after,
        }
    }

    /// How many tokens are known.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// How long control has not been heard; `None`: it never was.
    pub(crate) fn age(&self) -> Option<Duration> {
        let heard = self.heard.load(Ordering::Relaxed);
        (heard > 0)
            .then(|| self.clock.instant().duration_since(self.start).saturating_sub(Duration::from_millis(heard)))
    }

    fn note(&self) {
        let now = u64::try_from(self.clock.instant().duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        self.heard.store(now.max(1), Ordering::Relaxed);
    }

    /// Who holds a token; `None`: nobody that is known.
    ///
    /// # Errors
    /// [`Code::Unavailable`] where too little is known to say.
    pub(crate) fn find(&self, hash: &TokenHash) -> Result<Option<Arc<Identity>>> {
        let unsure = |detail: &str| Error::new(Code::Unavailable, detail).with_retry_after(Duration::from_secs(1));
        match self.age() {
            Some(age) if age <= self.stale_after => Ok(self.tokens.pin().get(hash).cloned()),
            Some(_) => Err(unsure("control has been away for too long to know whether this token is still good")),
            None => Err(unsure("the gateway is starting and does not know its tokens yet")),
        }
    }

    /// Whether a tenant is there and not being deleted.
    pub(crate) fn is_active(&self, tenant: &TenantName) -> bool {
        match self.tenants.pin().get(tenant) {
            Some(state) => *state == TenantState::Active,
            None => *tenant == TenantName::default_tenant(),
        }
    }

    /// Waits until this is complete for the first time, up to `wait`.
    pub(crate) async fn complete(&self, wait: Duration) {
        if self.applied.borrow().is_none() {
            self.wait_for(0, wait).await;
        }
    }

    /// Waits until `revision` is applied, up to `wait`. Says whether it is.
    pub(crate) async fn wait_for(&self, revision: u64, wait: Duration) -> bool {
        let reached = |applied: &Option<u64>| applied.is_some_and(|applied| applied >= revision);
        let mut applied = self.applied.subscribe();
        let reached = tokio::time::timeout(wait, applied.wait_for(reached)).await;
        matches!(reached, Ok(Ok(_)))
    }

    fn put(&self, grant: &Grant) {
        let (tokens, identity) = (self.tokens.pin(), identity(grant));
        // What is told again after a reconnection must not end what goes on.
        if tokens.get(&grant.hash).is_some_and(|known| known.is_same(&identity)) {
            return;
        }
        if let Some(before) = tokens.insert(grant.hash, Arc::new(identity)) {
            before.over.cancel();
        }
    }

    fn remove(&self, hash: &TokenHash) {
        if let Some(before) = self.tokens.pin().remove(hash) {
            before.over.cancel();
        }
    }

    /// Follows the control role for ever.
    pub(crate) async fn follow(&self, accounts: &dyn Accounts, random: &Random) {
        let mut tries = 0;
        loop {
            let begun = self.clock.instant();
            match self.follow_once(accounts).await {
                Ok(()) => tracing::debug!("the watch of tokens ended"),
                Err(error) => tracing::warn!(%error, "the watch of tokens broke"),
            }
            // One that lived for a while was a good one: begin with short waits again.
            tries = if self.clock.instant().duration_since(begun) > RECONNECT.max { 1 } else { tries + 1 };
            self.clock.sleep(RECONNECT.delay(tries, random)).await;
        }
    }

    async fn follow_once(&self, accounts: &dyn Accounts) -> Result<()> {
        let mut events = accounts.watch_grants().await?;
        let mut told = Some((HashSet::new(), HashSet::new()));
        loop {
            let event = tokio::time::timeout(SILENT, events.next()).await;
            let Some(event) = event.map_err(|_| Error::new(Code::Unavailable, "control says nothing any more"))? else {
                return Ok(());
            };
            let (revision, event) = event?;
            match event {
                GrantEvent::Put(grant) => {
                    if let Some((tokens, _)) = &mut told {
                        tokens.insert(grant.hash);
                    }
                    self.put(&grant);
                }
                GrantEvent::Remove(hash) => {
                    if let Some((tokens, _)) = &mut told {
                        tokens.remove(&hash);
                    }
                    self.remove(&hash);
                }
                GrantEvent::Tenant(tenant, state) => {
                    if let Some((_, tenants)) = &mut told {
                        tenants.insert(tenant.clone());
                    }
                    self.tenants.pin().insert(tenant, state);
                }
                GrantEvent::TenantGone(tenant) => {
                    if let Some((_, tenants)) = &mut told {
                        tenants.remove(&tenant);
                    }
                    self.tenants.pin().remove(&tenant);
                }
                GrantEvent::Synced => {
                    if let Some((tokens, tenants)) = told.take() {
                        let gone: Vec<TokenHash> =
                            self.tokens.pin().keys().filter(|hash| !tokens.contains(*hash)).copied().collect();
                        gone.iter().for_each(|hash| self.remove(hash));
                        self.tenants.pin().retain(|tenant, _| tenants.contains(tenant));
                    }
                }
                GrantEvent::Beat => {}
            }
            if told.is_none() {
                self.note();
                // A beat may be of before a change that came ahead of it.
                self.applied
                    .send_modify(|applied| *applied = Some(applied.map_or(revision, |known| known.max(revision))));
            }
        }
    }
}

/// Who holds a token.
fn identity(grant: &Grant) -> Identity {
    let token = &grant.token;
    let (name, scopes) = match (&token.tenant, &token.user) {
        (Some(tenant), Some(user)) => (format!("{tenant}/{user}"), token.scopes.and(Scopes::OF_TENANT)),
        (Some(tenant), None) => (format!("{tenant}/token:{}", token.name), token.scopes.and(Scopes::OF_TENANT)),
        (None, _) => (format!("operator:{}", token.name), token.scopes),
    };
    Identity {
        name,
        tenant: token.tenant.clone(),
        user: token.user.clone(),
        scopes,
        token: Some(token.id),
        by: if token.login { By::Login } else { By::Token },
        expires_at: token.expires_at,
        over: CancellationToken::new(),
    }
}

#[cfg(test)]
mod tests {
    use lyra_types::{Scope, Timestamp, TokenId};
    use lyra_wire::accounts::Token;
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    #[ignore = "a measurement: cargo test --release -p lyra-gateway cost_of_a_check -- --ignored --nocapture"]
    fn cost_of_a_check_among_ten_thousand_tokens() {
        const CHECKS: usize = 1_000_000;
        let (clock, tokens) = (Clock::system(), 10_000);
        let grants = Grants::new(clock.clone(), Duration::from_secs(60));
        let secret = |number: usize| format!("lyra_{number:043}");
        for number in 0..tokens {
            let token = Token {
                id: TokenId::from_parts(number as u64, 0),
                name: format!("t{number}"),
                tenant: Some(TenantName::default_tenant()),
                user: None,
                scopes: Scopes::of(&[Scope::Invoke]),
                login: false,
                created_at: Timestamp::default(),
                expires_at: None,
            };
            grants.put(&Grant { hash: Sha256::digest(secret(number)).into(), token });
        }
        grants.note();
        let secrets: Vec<String> = (0..tokens).map(secret).collect();
        let begun = clock.instant();
        for check in 0..CHECKS {
            let hash: TokenHash = Sha256::digest(&secrets[check % tokens]).into();
            assert!(grants.find(&hash).unwrap().is_some());
        }
        let each = begun.elapsed().as_nanos() / CHECKS as u128;
        println!("{each} ns a check");
    }
}
