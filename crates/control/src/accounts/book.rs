//! All accounts in memory, and what gateways are told of them.
//!
//! What must hold: a grant is told while, and only while, its token, its user and its tenant are there, the tenant is active, and all three
//! are those that the token was made for (their `uid`s agree); it never allows more than the user's role. Who has seen revision N has seen
//! every change up to N; a subscriber misses none, or its stream ends with an error.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use lyra_types::{Code, Error, Result, TenantName, TokenId, UserName};
use lyra_wire::accounts::{Grant, GrantEvent, TenantState, TokenHash};
use parking_lot::RwLock;
use tokio::sync::{broadcast, watch};

use super::keys::Part;
use super::record::{TenantRecord, TokenRecord, UserRecord};

/// Changes that a slow subscriber may be behind.
const BEHIND: usize = 4_096;

/// What an object of accounts holds now.
#[derive(Debug, Clone)]
pub(super) enum Held {
    Tenant(TenantName, Option<TenantRecord>),
    User(TenantName, UserName, Option<UserRecord>),
    Token(TokenId, Option<Box<TokenRecord>>),
}

impl Held {
    /// The object of that key is not there.
    pub(super) fn nothing(part: Part) -> Held {
        match part {
            Part::Tenant(tenant) => Held::Tenant(tenant, None),
            Part::User(tenant, user) => Held::User(tenant, user, None),
            Part::Token(id) => Held::Token(id, None),
        }
    }
}

#[derive(Default)]
pub(super) struct Accounts {
    pub(super) tenants: BTreeMap<TenantName, TenantRecord>,
    pub(super) users: BTreeMap<TenantName, BTreeMap<UserName, UserRecord>>,
    pub(super) tokens: BTreeMap<TokenId, TokenRecord>,
    granted: HashMap<TokenHash, Arc<Grant>>,
}

impl Accounts {
    pub(super) fn user(&self, tenant: &TenantName, user: &UserName) -> Option<&UserRecord> {
        self.users.get(tenant)?.get(user)
    }

    /// What a token really allows; `None`: it is not good.
    fn grant(&self, id: TokenId, token: &TokenRecord) -> Option<Grant> {
        let mut shown = token.show(id);
        if let Some((name, uid)) = &token.tenant {
            let tenant = self.tenants.get(name)?;
            if tenant.uid != *uid || tenant.state != TenantState::Active {
                return None;
            }
            if let Some((user, uid)) = &token.user {
                let user = self.user(name, user)?;
                if user.uid != *uid || user.tenant_uid != tenant.uid {
                    return None;
                }
                shown.scopes = shown.scopes.and(user.role.scopes());
            }
        }
        Some(Grant { hash: token.hash, token: shown })
    }

    /// Tokens of users or tenants that are gone, that nobody can use any more.
    pub(super) fn orphans(&self) -> impl Iterator<Item = TokenId> {
        self.tokens.iter().filter(|(id, token)| self.grant(**id, token).is_none()).map(|(id, _)| *id)
    }
}

/// The book, and who reads along.
pub(super) struct Book {
    accounts: RwLock<Accounts>,
    revision: watch::Sender<u64>,
    changes: broadcast::Sender<(u64, GrantEvent)>,
}

impl Default for Book {
    fn default() -> Book {
        Book { accounts: RwLock::default(), revision: watch::Sender::new(0), changes: broadcast::Sender::new(BEHIND) }
    }
}

impl Book {
    /// Looks something up.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Accounts) -> T) -> T {
        look(&self.accounts.read())
    }

    pub(super) fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Changes whenever an account may have changed.
    pub(super) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Waits until the book is complete up to `revision`.
    pub(super) async fn reaches(&self, revision: u64) {
        // Fails only when the sender is gone, and the sender is `self`.
        drop(self.revision.subscribe().wait_for(|now| *now >= revision).await);
    }

    /// How many tokens are good for something.
    pub(super) fn granted(&self) -> usize {
        self.accounts.read().granted.len()
    }

    /// Writes down what is there now, and tells of it; complete up to `revision` then.
    pub(super) fn apply(&self, revision: u64, changed: Vec<Held>) {
        let mut accounts = self.accounts.write();
        let before = self.revision();
        let mut events = Vec::new();
        for held in changed {
            let touched = enter(&mut accounts, held, &mut events);
            for id in touched {
                regrant(&mut accounts, id, &mut events);
            }
        }
        // Under the lock, so that a subscriber gets each change either with its first picture or after it.
        for event in events {
            drop(self.changes.send((before, event)));
        }
        self.revision.send_if_modified(|now| {
            let newer = revision > *now;
            *now = revision.max(*now);
            newer
        });
        drop(self.changes.send((self.revision(), GrantEvent::Synced)));
    }

    /// Every tenant and grant with the revision, and the changes from then on.
    pub(super) fn subscribe(&self) -> (u64, Vec<GrantEvent>, broadcast::Receiver<(u64, GrantEvent)>) {
        let accounts = self.accounts.read();
        let tenants = accounts.tenants.iter().map(|(name, tenant)| GrantEvent::Tenant(name.clone(), tenant.state));
        let grants = accounts.granted.values().map(|grant| GrantEvent::Put(Arc::clone(grant)));
        (self.revision(), tenants.chain(grants).collect(), self.changes.subscribe())
    }

    /// Keys of all that is known, to find what is gone when everything is read anew.
    pub(super) fn parts(&self) -> Vec<Part> {
        let accounts = self.accounts.read();
        let tenants = accounts.tenants.keys().cloned().map(Part::Tenant);
        let users = accounts
            .users
            .iter()
            .flat_map(|(tenant, users)| users.keys().map(|user| Part::User(tenant.clone(), user.clone())));
        let tokens = accounts.tokens.keys().copied().map(Part::Token);
        tenants.chain(users).chain(tokens).collect()
    }

    /// Up to `limit` tenants from the first one after `after`.
    pub(super) fn tenants(&self, after: Option<TenantName>, limit: usize) -> Vec<(TenantName, TenantRecord)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let accounts = self.accounts.read();
        accounts.tenants.range((from, Bound::Unbounded)).take(limit).map(|(n, t)| (n.clone(), t.clone())).collect()
    }
}

/// Writes one thing down; returns the tokens that it bears on.
fn enter(accounts: &mut Accounts, held: Held, events: &mut Vec<GrantEvent>) -> Vec<TokenId> {
    let of = |accounts: &Accounts, is: &dyn Fn(&TokenRecord) -> bool| {
        accounts.tokens.iter().filter(|(_, token)| is(token)).map(|(id, _)| *id).collect::<Vec<_>>()
    };
    match held {
        Held::Tenant(name, tenant) => {
            match tenant {
                Some(tenant) => {
                    if accounts.tenants.get(&name) == Some(&tenant) {
                        return Vec::new();
                    }
                    events.push(GrantEvent::Tenant(name.clone(), tenant.state));
                    accounts.tenants.insert(name.clone(), tenant);
                }
                None => {
                    accounts.tenants.remove(&name);
                    events.push(GrantEvent::TenantGone(name.clone()));
                }
            }
            of(accounts, &|token| token.tenant.as_ref().is_some_and(|(of, _)| *of == name))
        }
        Held::User(tenant, name, user) => {
            let users = accounts.users.entry(tenant.clone()).or_default();
            match user {
                Some(user) => {
                    users.insert(name.clone(), user);
                }
                None => {
                    users.remove(&name);
                }
            }
            if users.is_empty() {
                accounts.users.remove(&tenant);
            }
            of(accounts, &|token| token.is_of(&tenant, &name))
        }
        Held::Token(id, token) => {
            let before = match token {
                Some(token) => accounts.tokens.insert(id, *token),
                None => accounts.tokens.remove(&id),
            };
            if let Some(before) = before
                && !accounts.tokens.contains_key(&id)
                && accounts.granted.remove(&before.hash).is_some()
            {
                events.push(GrantEvent::Remove(before.hash));
            }
            vec![id]
        }
    }
}

/// Tells what a token allows, where that has changed.
fn regrant(accounts: &mut Accounts, id: TokenId, events: &mut Vec<GrantEvent>) {
    let Some(token) = accounts.tokens.get(&id) else { return };
    let hash = token.hash;
    match accounts.grant(id, token) {
        Some(grant) => {
            if accounts.granted.get(&hash).is_none_or(|known| **known != grant) {
                let grant = Arc::new(grant);
                accounts.granted.insert(hash, Arc::clone(&grant));
                events.push(GrantEvent::Put(grant));
            }
        }
        None => {
            if accounts.granted.remove(&hash).is_some() {
                events.push(GrantEvent::Remove(hash));
            }
        }
    }
}

/// What a subscriber that fell behind is told.
pub(super) fn too_slow(missed: u64) -> Error {
    Error::new(Code::Unavailable, format!("the watcher was too slow and missed {missed} changes; watch again"))
}

/// What somebody is told who asks for a tenant that is not there.
pub(super) fn no_tenant<T>(tenant: &TenantName) -> Result<T> {
    Err(Error::not_found("tenant", tenant))
}

#[cfg(test)]
mod tests {
    use lyra_types::{Role, Scope, Scopes, Timestamp};

    use super::*;

    fn tenant(uid: u64, state: TenantState) -> Option<TenantRecord> {
        Some(TenantRecord { uid, created_at: Timestamp::default(), state })
    }

    fn user(uid: u64, tenant_uid: u64, role: Role) -> Option<UserRecord> {
        Some(UserRecord { uid, tenant_uid, role, password: None, created_at: Timestamp::default() })
    }

    fn scopes(book: &Book) -> Option<Scopes> {
        book.read(|accounts| accounts.granted.values().next().map(|grant| grant.token.scopes))
    }

    #[test]
    fn a_token_is_good_only_with_the_user_and_tenant_that_it_was_made_for() {
        let (acme, ada) = (TenantName::new("acme").unwrap(), UserName::new("ada").unwrap());
        let token = TokenRecord {
            hash: [7; 32],
            name: "ci".into(),
            tenant: Some((acme.clone(), 1)),
            user: Some((ada.clone(), 2)),
            scopes: Scopes::OF_TENANT,
            login: false,
            created_at: Timestamp::default(),
            expires_at: None,
        };
        let book = Book::default();
        let id = TokenId::from_parts(1, 1);
        let (_, _, mut changes) = book.subscribe();
        let set_tenant = |tenant| book.apply(0, vec![Held::Tenant(acme.clone(), tenant)]);
        let set_user = |user| book.apply(0, vec![Held::User(acme.clone(), ada.clone(), user)]);

        book.apply(1, vec![Held::Token(id, Some(Box::new(token)))]);
        assert_eq!(scopes(&book), None, "neither user nor tenant is there");
        set_tenant(tenant(1, TenantState::Active));
        assert_eq!(scopes(&book), None, "no user is there");
        set_user(user(2, 1, Role::Owner));
        assert_eq!(scopes(&book), Some(Scopes::OF_TENANT));
        set_user(user(2, 1, Role::Viewer));
        assert_eq!(scopes(&book), Some(Scopes::of(&[Scope::Read])), "a role narrows at once");
        set_user(user(3, 1, Role::Owner));
        assert_eq!(scopes(&book), None, "another user of the same name");
        set_user(user(2, 1, Role::Owner));
        set_tenant(tenant(1, TenantState::Deleting));
        assert_eq!(scopes(&book), None, "nobody is let into a tenant that is being deleted");
        set_tenant(tenant(9, TenantState::Active));
        assert_eq!(scopes(&book), None, "another tenant of the same name");
        assert_eq!(book.read(|accounts| accounts.orphans().collect::<Vec<_>>()), [id]);
        set_tenant(tenant(1, TenantState::Active));
        assert_eq!(scopes(&book), Some(Scopes::OF_TENANT));
        book.apply(2, vec![Held::nothing(Part::Token(id))]);
        assert_eq!(scopes(&book), None);

        let mut told = Vec::new();
        while let Ok((_, event)) = changes.try_recv() {
            told.extend(match event {
                GrantEvent::Put(grant) => Some(grant.token.scopes.to_string()),
                GrantEvent::Remove(hash) => Some(format!("-{}", hash[0])),
                _ => None,
            });
        }
        let all = Scopes::OF_TENANT.to_string();
        assert_eq!(told, [&all, "read", "-7", &all, "-7", &all, "-7"]);
    }
}
