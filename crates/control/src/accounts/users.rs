//! Users: make, show, list, change, delete.

use std::ops::Bound;

use lyra_store::objects::{Change, Check};
use lyra_types::api::Page;
use lyra_types::{Code, Error, Result, Role, TenantName, TokenId, UserName};
use lyra_wire::accounts::{NewPassword, NewUser, User, UserKey};
use lyra_wire::control::{Changed, PageQuery};

use super::record::{self, UserRecord};
use super::{Accounts, CHUNK, MAX_USERS, TRIES, begin, full, keys, page, too_many_changes};

impl Accounts {
    pub(crate) async fn create_user(&self, new: NewUser) -> Result<Changed<User>> {
        let NewUser { tenant, name, role, password } = new;
        let exists = || Error::new(Code::Conflict, format!("user {name} of tenant {tenant} exists already"));
        if self.user_record(&tenant, &name).is_ok() {
            return Err(exists());
        }
        if self.book.read(|accounts| accounts.users.get(&tenant).map_or(0, |users| users.len())) >= MAX_USERS {
            return Err(full("users of this tenant", MAX_USERS));
        }
        // Before the work of a hash.
        self.tenant_record(&tenant).await?;
        let password = match password {
            Some(password) => {
                password.check_password()?;
                Some(self.passwords.hash(password).await?)
            }
            None => None,
        };
        let key = keys::user(&tenant, &name);
        for _ in 0..TRIES {
            let (record, check, made) = self.tenant_record(&tenant).await?;
            if self.objects.get(&key).await?.is_some() {
                return Err(exists());
            }
            let user = UserRecord {
                uid: self.random.u64(),
                tenant_uid: record.uid,
                role,
                password: password.clone(),
                created_at: self.clock.now(),
            };
            let changes = made.into_iter().chain([record::put(key.clone(), &user)?]).collect();
            let checks = vec![check, Check::Absent(key.clone())];
            if let Some(made) = self.commit(checks, changes, user.show(&tenant, &name)).await? {
                tracing::info!(%tenant, user = %name, role = role.as_str(), "user made");
                return Ok(made);
            }
        }
        too_many_changes()
    }

    pub(super) fn user_record(&self, tenant: &TenantName, name: &UserName) -> Result<UserRecord> {
        let found = self.book.read(|accounts| accounts.user(tenant, name).cloned());
        found.ok_or_else(|| Error::not_found("user", format_args!("{name} of tenant {tenant}")))
    }

    pub(crate) fn user(&self, user: &UserKey) -> Result<User> {
        Ok(self.user_record(&user.tenant, &user.name)?.show(&user.tenant, &user.name))
    }

    pub(crate) fn users(&self, tenant: &TenantName, asked: &PageQuery) -> Result<Page<User>> {
        self.tenant(tenant)?;
        let (limit, after) = begin(asked, UserName::new)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.book.read(|accounts| {
            let users = accounts.users.get(tenant).map(|users| users.range((from, Bound::Unbounded)));
            users.into_iter().flatten().take(limit + 1).map(|(name, user)| user.show(tenant, name)).collect()
        });
        Ok(page(found, limit, |user: &User| user.name.to_string()))
    }

    /// Reads a user, changes it, and stores it with `more`; again from the start when another change came in between.
    async fn update_user(
        &self,
        user: &UserKey,
        more: impl Fn() -> Vec<Change>,
        mut change: impl FnMut(&mut UserRecord),
    ) -> Result<Changed<User>> {
        let key = keys::user(&user.tenant, &user.name);
        for _ in 0..TRIES {
            let (tenant, check, _) = self.tenant_record(&user.tenant).await?;
            let missing = || Error::not_found("user", format_args!("{} of tenant {}", user.name, user.tenant));
            let entry = self.objects.get(&key).await?.ok_or_else(missing)?;
            let mut record: UserRecord = record::read(&entry).ok_or_else(missing)?;
            if record.tenant_uid != tenant.uid {
                return Err(missing());
            }
            change(&mut record);
            let checks = vec![check, Check::Modified(key.clone(), entry.modified)];
            let changes = [record::put(key.clone(), &record)?].into_iter().chain(more()).collect();
            if let Some(made) = self.commit(checks, changes, record.show(&user.tenant, &user.name)).await? {
                return Ok(made);
            }
        }
        too_many_changes()
    }

    pub(crate) async fn set_role(&self, user: &UserKey, role: Role) -> Result<Changed<User>> {
        self.update_user(user, Vec::new, |record| record.role = role).await
    }

    pub(crate) async fn set_password(&self, new: NewPassword) -> Result<Changed<User>> {
        let NewPassword { user, password, current } = new;
        password.check_password()?;
        let known = self.user_record(&user.tenant, &user.name)?;
        if let Some((current, address)) = current {
            self.try_password(&user, address, current, known.password).await?;
        }
        let hash = self.passwords.hash(password).await?;
        // Whoever logged in with the old one may have no business here any more.
        let logins = || {
            let ids = self.tokens_of(&user, true).into_iter().take(CHUNK);
            ids.map(|id| Change::Delete(keys::token(id))).collect()
        };
        self.update_user(&user, logins, |record| record.password = Some(hash.clone())).await
    }

    /// The user's tokens, oldest first; of logins only, or all.
    pub(super) fn tokens_of(&self, user: &UserKey, logins: bool) -> Vec<TokenId> {
        self.book.read(|accounts| {
            let of = accounts.tokens.iter().filter(|(_, token)| token.is_of(&user.tenant, &user.name));
            of.filter(|(_, token)| token.login || !logins).map(|(id, _)| *id).collect()
        })
    }

    pub(crate) async fn delete_user(&self, user: &UserKey) -> Result<Changed<()>> {
        self.user_record(&user.tenant, &user.name)?;
        let key = keys::user(&user.tenant, &user.name);
        // The first transaction ends all of the user's tokens, since they are good with the user only; the rest tidies up, and the
        // leader does so where this process does not get to it.
        let changes = vec![Change::Delete(key.clone())];
        let gone = self.commit(vec![Check::Exists(key)], changes, ()).await?;
        let gone =
            gone.ok_or_else(|| Error::not_found("user", format_args!("{} of tenant {}", user.name, user.tenant)))?;
        if let Err(error) = self.drop_tokens(self.tokens_of(user, false)).await {
            tracing::warn!(%error, "tokens of a deleted user are left; they are good for nothing");
        }
        tracing::info!(tenant = %user.tenant, user = %user.name, "user deleted");
        Ok(gone)
    }

    /// Takes tokens out of the store.
    pub(super) async fn drop_tokens(&self, tokens: Vec<TokenId>) -> Result<()> {
        for chunk in tokens.chunks(CHUNK) {
            let changes = chunk.iter().map(|id| Change::Delete(keys::token(*id))).collect();
            self.commit(Vec::new(), changes, ()).await?;
        }
        Ok(())
    }
}
