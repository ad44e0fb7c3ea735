//! Tenants: make, show, list, mark as one to delete.

use lyra_store::objects::Check;
use lyra_types::api::Page;
use lyra_types::{Code, Error, Result, TenantName};
use lyra_wire::accounts::{Tenant, TenantState};
use lyra_wire::control::{Changed, PageQuery};

use super::record::{self, TenantRecord};
use super::{Accounts, MAX_TENANTS, TRIES, begin, book, full, keys, page, too_many_changes};

impl Accounts {
    pub(crate) async fn create_tenant(&self, name: &TenantName) -> Result<Changed<Tenant>> {
        let exists = || Error::new(Code::Conflict, format!("tenant {name} exists already"));
        if self.tenant(name).is_ok() {
            return Err(exists());
        }
        if self.book.read(|accounts| accounts.tenants.len()) >= MAX_TENANTS {
            return Err(full("tenants", MAX_TENANTS));
        }
        let (tenant, key) = (self.new_tenant(), keys::tenant(name));
        let change = record::put(key.clone(), &tenant)?;
        let made = self.commit(vec![Check::Absent(key)], vec![change], tenant.show(name)).await?;
        tracing::info!(tenant = %name, "tenant made");
        made.ok_or_else(exists)
    }

    pub(crate) fn tenant(&self, name: &TenantName) -> Result<Tenant> {
        match self.book.read(|accounts| accounts.tenants.get(name).map(|tenant| tenant.show(name))) {
            Some(tenant) => Ok(tenant),
            None if *name == TenantName::default_tenant() => Ok(unwritten_default()),
            None => book::no_tenant(name),
        }
    }

    pub(crate) fn tenants(&self, asked: &PageQuery) -> Result<Page<Tenant>> {
        let (limit, after) = begin(asked, TenantName::new)?;
        let default = TenantName::default_tenant();
        let mut found: Vec<Tenant> = self
            .book
            .tenants(after.clone(), limit + 1)
            .into_iter()
            .map(|(name, tenant): (TenantName, TenantRecord)| tenant.show(&name))
            .collect();
        let is_written = self.book.read(|accounts| accounts.tenants.contains_key(&default));
        if !is_written && after.is_none_or(|after| after < default) {
            let at = found.partition_point(|tenant| tenant.name < default);
            found.insert(at, unwritten_default());
        }
        Ok(page(found, limit, |tenant| tenant.name.to_string()))
    }

    pub(crate) async fn delete_tenant(&self, name: &TenantName, force: bool) -> Result<Changed<Tenant>> {
        if *name == TenantName::default_tenant() {
            return Err(Error::new(Code::Conflict, "the default tenant can't be deleted"));
        }
        for _ in 0..TRIES {
            let key = keys::tenant(name);
            let Some(entry) = self.objects.get(&key).await? else { return book::no_tenant(name) };
            let Some(mut tenant) = record::read::<TenantRecord>(&entry) else { return book::no_tenant(name) };
            if tenant.state == TenantState::Deleting {
                return Ok(Changed { value: tenant.show(name), revision: entry.modified });
            }
            if !force {
                self.check_empty(name).await?;
            }
            tenant.state = TenantState::Deleting;
            let change = record::put(key.clone(), &tenant)?;
            let check = Check::Modified(key, entry.modified);
            if let Some(marked) = self.commit(vec![check], vec![change], tenant.show(name)).await? {
                tracing::info!(tenant = %name, "tenant is being deleted");
                return Ok(marked);
            }
        }
        too_many_changes()
    }

    /// Refuses while there is something that would be lost.
    async fn check_empty(&self, name: &TenantName) -> Result<()> {
        let functions = self.functions.table().count_of(name);
        let (applications, sessions) = self
            .resources
            .get()
            .map_or((0, 0), |api| (api.applications().list(Some(name)).len(), api.sessions().list(Some(name)).len()));
        let workflows = self.workflows.lock().clone();
        let workflows = match workflows {
            Some(role) => role.workflows(name, PageQuery { limit: 1_000, cursor: None }).await?.items.len(),
            None => 0,
        };
        if functions + applications + sessions + workflows == 0 {
            return Ok(());
        }
        Err(Error::new(
            Code::Conflict,
            format!(
                "tenant {name} has {functions} functions, {workflows} workflows, {applications} applications and {sessions} \
                 sessions; delete them first, or force it (`?force=true`, `--force`)"
            ),
        ))
    }
}

/// The default tenant is there from the start.
fn unwritten_default() -> Tenant {
    Tenant { name: TenantName::default_tenant(), state: TenantState::Active, created_at: None }
}
