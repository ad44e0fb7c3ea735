//! Tokens: make, show, list, revoke.

use std::ops::Bound;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lyra_store::objects::{Change, Check};
use lyra_types::account::{MAX_TOKEN_NAME, TOKEN_BYTES, TOKEN_PREFIX};
use lyra_types::api::Page;
use lyra_types::{Code, Error, Result, Scope, Scopes, Secret, TokenId};
use lyra_wire::accounts::{Issued, NewToken, Token, TokenQuery, UserKey};
use lyra_wire::control::Changed;
use sha2::{Digest, Sha256};

use super::record::{self, TokenRecord};
use super::{Accounts, MAX_TOKENS, TRIES, begin, full, keys, page, too_many_changes};

/// Logins of a user that are kept; a further one ends the oldest.
const MAX_LOGINS: usize = 20;
/// Longest life of a token that ends by itself: 100 years, so that times stay readable.
const MAX_LIFE: Duration = Duration::from_secs(100 * 365 * 86_400);

impl Accounts {
    pub(crate) async fn create_token(&self, new: NewToken) -> Result<Changed<Issued>> {
        check_name(&new.name)?;
        let issued = self.issue(new, false).await?;
        let token = &issued.value.token;
        tracing::info!(id = %token.id, scopes = %token.scopes, "token made");
        Ok(issued)
    }

    /// Makes a token.
    pub(super) async fn issue(&self, new: NewToken, login: bool) -> Result<Changed<Issued>> {
        if new.expires_in.is_some_and(|life| life.is_zero() || life > MAX_LIFE) {
            return Err(Error::field(Code::InvalidField, "expires_in", "must be 1 second to 100 years"));
        }
        let of_tenant = |token: &&TokenRecord| token.tenant.as_ref().map(|(name, _)| name) == new.tenant.as_ref();
        if self.book.read(|accounts| accounts.tokens.values().filter(of_tenant).count()) >= MAX_TOKENS {
            return Err(full("tokens", MAX_TOKENS));
        }
        for _ in 0..TRIES {
            let mut bytes = [0; TOKEN_BYTES];
            self.random.fill(&mut bytes);
            let secret = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
            let id = self.ids.token();
            let (mut checks, mut changes) = (vec![Check::Absent(keys::token(id))], Vec::new());
            let now = self.clock.now();
            let mut record = TokenRecord {
                hash: Sha256::digest(&secret).into(),
                name: new.name.clone(),
                tenant: None,
                user: None,
                scopes: new.scopes.unwrap_or_default(),
                login,
                created_at: now,
                expires_at: new.expires_in.map(|life| now + life),
            };
            self.bind(&new, &mut record, &mut checks, &mut changes).await?;
            if login && let (Some(tenant), Some(name)) = (new.tenant.clone(), new.user.clone()) {
                let logins = self.tokens_of(&UserKey { tenant, name }, true);
                let over = (logins.len() + 1).saturating_sub(MAX_LOGINS);
                changes.extend(logins.iter().take(over).map(|id| Change::Delete(keys::token(*id))));
            }
            changes.push(record::put(keys::token(id), &record)?);
            let issued = Issued { secret: Secret::new(secret), token: record.show(id) };
            if let Some(made) = self.commit(checks, changes, issued).await? {
                return Ok(made);
            }
        }
        too_many_changes()
    }

    /// Binds a token to the tenant and user that are there now, and holds its scopes to what they can have.
    async fn bind(
        &self,
        new: &NewToken,
        record: &mut TokenRecord,
        checks: &mut Vec<Check>,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let refused = |reason: String| Err(Error::field(Code::InvalidField, "scopes", reason));
        let Some(tenant) = &new.tenant else {
            if new.user.is_some() {
                return Err(Error::field(Code::InvalidField, "user", "operators' tokens belong to no user"));
            }
            if record.scopes != Scopes::of(&[Scope::Operator]) {
                return refused("a token of no tenant is an operator's, and has the scope operator alone".to_owned());
            }
            return Ok(());
        };
        let (of, check, made) = self.tenant_record(tenant).await?;
        checks.push(check);
        changes.extend(made);
        record.tenant = Some((tenant.clone(), of.uid));
        let mut most = Scopes::OF_TENANT;
        if let Some(name) = &new.user {
            let user = self.user_record(tenant, name)?;
            checks.push(Check::Exists(keys::user(tenant, name)));
            record.user = Some((name.clone(), user.uid));
            most = user.role.scopes();
            record.scopes = new.scopes.unwrap_or(most);
        }
        if record.scopes.is_empty() {
            return refused("name at least one of deploy, invoke, read and admin".to_owned());
        }
        if !most.has_all(record.scopes) {
            return refused(match &new.user {
                Some(name) => format!("user {name} has {most} only"),
                None => format!("a tenant's token can have {most} only"),
            });
        }
        Ok(())
    }

    pub(crate) fn token(&self, id: TokenId) -> Result<Token> {
        let found = self.book.read(|accounts| accounts.tokens.get(&id).map(|token| token.show(id)));
        found.filter(|token| token.expires_at.is_none_or(|end| end > self.clock.now())).ok_or_else(|| missing(id))
    }

    pub(crate) fn tokens(&self, query: &TokenQuery) -> Result<Page<Token>> {
        let (limit, after) = begin(&query.page, str::parse::<TokenId>)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let now = self.clock.now();
        let found = self.book.read(|accounts| {
            let tokens = accounts.tokens.range((from, Bound::Unbounded)).filter(|(_, token)| !token.has_ended(now));
            let tokens = tokens
                .map(|(id, token)| token.show(*id))
                .filter(|token| token.tenant == query.tenant && (query.user.is_none() || token.user == query.user));
            tokens.take(limit + 1).collect()
        });
        Ok(page(found, limit, |token: &Token| token.id.to_string()))
    }

    pub(crate) async fn delete_token(&self, id: TokenId) -> Result<Changed<()>> {
        let key = keys::token(id);
        let gone = self.commit(vec![Check::Exists(key.clone())], vec![Change::Delete(key)], ()).await?;
        let gone = gone.ok_or_else(|| missing(id))?;
        tracing::info!(%id, "token revoked");
        Ok(gone)
    }
}

fn missing(id: TokenId) -> Error {
    Error::not_found("token", id)
}

fn check_name(name: &str) -> Result<()> {
    let fault = if name.is_empty() {
        "is empty"
    } else if name.chars().count() > MAX_TOKEN_NAME {
        "is longer than 100 characters"
    } else if name.chars().any(char::is_control) {
        "holds control characters"
    } else {
        return Ok(());
    };
    Err(Error::field(Code::InvalidField, "name", fault))
}
