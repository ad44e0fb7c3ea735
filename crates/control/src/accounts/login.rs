//! Logging in by password.
//!
//! What must hold: whoever fails learns nothing of why, neither by words nor by time; and tries are bounded for each user and address
//! before any work is done for them.

use std::net::IpAddr;
use std::time::Duration;

use lyra_fleet::throttle::address_key;
use lyra_types::{Code, Error, Result, Secret};
use lyra_wire::accounts::{Issued, Login, NewToken, TenantState, UserKey};
use lyra_wire::control::Changed;

use super::Accounts;

/// One answer for all that can be wrong.
fn wrong() -> Error {
    Error::new(Code::Unauthenticated, "tenant, user or password is wrong")
}

fn too_many(wait: Duration) -> Error {
    Error::new(Code::LimitReached, "too many wrong passwords; wait before the next try").with_retry_after(wait)
}

impl Accounts {
    pub(crate) async fn login(&self, login: Login) -> Result<Changed<Issued>> {
        let outcome = self.log_in(login).await;
        let word = outcome.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok");
        self.metrics.logins.with_label_values(&[word]).inc();
        outcome
    }

    async fn log_in(&self, login: Login) -> Result<Changed<Issued>> {
        let Login { user, password, address } = login;
        let known = self.book.read(|accounts| {
            let tenant = accounts.tenants.get(&user.tenant)?;
            let known = accounts.user(&user.tenant, &user.name)?;
            let good = tenant.state == TenantState::Active && known.tenant_uid == tenant.uid;
            good.then(|| known.password.clone()).flatten()
        });
        self.try_password(&user, address, password, known).await?;
        let token = NewToken {
            name: "login".to_owned(),
            tenant: Some(user.tenant.clone()),
            user: Some(user.name.clone()),
            scopes: None,
            expires_in: Some(self.config.login_ttl),
        };
        // Between the check and now the user may have gone.
        self.issue(token, true).await.map_err(|error| if error.code == Code::NotFound { wrong() } else { error })
    }

    /// Succeeds where `password` is the one of `hash`; a failure uses up a try of the user and one of the address.
    pub(super) async fn try_password(
        &self,
        user: &UserKey,
        address: IpAddr,
        password: Secret,
        hash: Option<String>,
    ) -> Result<()> {
        let address = address_key(address);
        self.tries_of_address.take(address).map_err(too_many)?;
        if let Err(wait) = self.tries_of_user.take(user.clone()) {
            // What is refused costs nothing, so it uses up nothing.
            self.tries_of_address.give_back(&address);
            return Err(too_many(wait));
        }
        match self.passwords.check(password, hash).await {
            Ok(false) => Err(wrong()),
            outcome => {
                self.tries_of_address.give_back(&address);
                self.tries_of_user.give_back(user);
                outcome.map(drop)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let of = |text: &str| address_key(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.2"), of("10.0.0.1"));
    }
}
