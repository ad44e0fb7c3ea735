//! Accounts on real files: what is stored, what gateways are told, what goes with a tenant.

use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use lyra_types::{Code, Role, Scope, Scopes, Secret, TenantName, TokenId, UserName};
use lyra_wire::Accounts;
use lyra_wire::accounts::{
    AuditEvent, AuditQuery, GrantEvent, Login, NewPassword, NewToken, NewUser, TenantState, TokenQuery, UserKey,
};
use lyra_wire::control::{Control, PageQuery, Precondition};
use tempfile::tempdir;

use super::{Site, js, name, start_of_time};
use crate::{AccountsConfig, Config};

fn acme() -> TenantName {
    TenantName::new("acme").unwrap()
}

fn user(name: &str) -> UserKey {
    UserKey { tenant: acme(), name: UserName::new(name).unwrap() }
}

fn new_user(name: &str, role: Role, password: Option<&str>) -> NewUser {
    let UserKey { tenant, name } = user(name);
    NewUser { tenant, name, role, password: password.map(Secret::new) }
}

fn new_token(user: Option<&str>, scopes: Option<&[Scope]>) -> NewToken {
    NewToken {
        name: "ci".to_owned(),
        tenant: Some(acme()),
        user: user.map(|user| UserName::new(user).unwrap()),
        scopes: scopes.map(Scopes::of),
        expires_in: None,
    }
}

fn login(name: &str, password: &str, address: &str) -> Login {
    Login { user: user(name), password: Secret::new(password), address: address.parse::<IpAddr>().unwrap() }
}

fn page() -> PageQuery {
    PageQuery { limit: 100, cursor: None }
}

impl Site {
    /// The scopes of each token that gateways would let in now.
    async fn granted(&self) -> Vec<(TokenId, Scopes)> {
        let mut events = self.service.watch_grants().await.unwrap();
        let mut granted = Vec::new();
        loop {
            match events.next().await.unwrap().unwrap().1 {
                GrantEvent::Put(grant) => granted.push((grant.token.id, grant.token.scopes)),
                GrantEvent::Synced => break,
                _ => {}
            }
        }
        granted.sort_by_key(|(id, _)| *id);
        granted
    }

    async fn tokens(&self) -> Vec<TokenId> {
        let query = TokenQuery { tenant: Some(acme()), user: None, page: page() };
        self.service.tokens(query).await.unwrap().items.iter().map(|token| token.id).collect()
    }

    async fn gone(&self, tenant: &TenantName) {
        let gone = async {
            while self.service.tenant(tenant).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(600), gone).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_allow_what_their_user_may_and_end_with_it() {
    let dir = tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    let service = &site.service;
    let error = service.create_user(new_user("ada", Role::Owner, None)).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound, "no tenant is made in passing");
    service.create_tenant(&acme()).await.unwrap();
    assert_eq!(service.create_tenant(&acme()).await.unwrap_err().code, Code::Conflict);
    service.create_user(new_user("ada", Role::Owner, None)).await.unwrap();
    assert_eq!(service.create_user(new_user("ada", Role::Viewer, None)).await.unwrap_err().code, Code::Conflict);

    // Ids are in the order of time, which moves by the sleeps only.
    let all = service.create_token(new_token(Some("ada"), None)).await.unwrap().value;
    tokio::time::sleep(Duration::from_millis(2)).await;
    let some = service.create_token(new_token(Some("ada"), Some(&[Scope::Read, Scope::Deploy]))).await.unwrap().value;
    tokio::time::sleep(Duration::from_millis(2)).await;
    let nobodys = service.create_token(new_token(None, Some(&[Scope::Invoke]))).await.unwrap().value;
    assert!(lyra_types::account::is_token(all.secret.reveal().as_bytes()));
    let (read, invoke) = (Scopes::of(&[Scope::Read]), Scopes::of(&[Scope::Invoke]));
    let deploy = Scopes::of(&[Scope::Deploy, Scope::Read]);
    let ids = [all.token.id, some.token.id, nobodys.token.id];
    assert_eq!(site.granted().await, [(ids[0], Scopes::OF_TENANT), (ids[1], deploy), (ids[2], invoke)]);

    service.set_role(&user("ada"), Role::Viewer).await.unwrap();
    assert_eq!(site.granted().await, [(ids[0], read), (ids[1], read), (ids[2], invoke)]);
    for (bad, why) in [
        (new_token(Some("ada"), Some(&[Scope::Deploy])), "more than the role"),
        (new_token(None, None), "no scopes"),
        (new_token(None, Some(&[Scope::Operator])), "an operator's"),
        (NewToken { tenant: None, ..new_token(None, Some(&[Scope::Read])) }, "of no tenant"),
        (NewToken { name: "a\nb".into(), ..new_token(None, Some(&[Scope::Read])) }, "a name with a line's end"),
        (NewToken { expires_in: Some(Duration::ZERO), ..new_token(None, Some(&[Scope::Read])) }, "no life"),
    ] {
        assert_eq!(service.create_token(bad).await.unwrap_err().code, Code::InvalidField, "{why}");
    }
    service.delete_token(ids[1]).await.unwrap();
    assert_eq!(service.delete_token(ids[1]).await.unwrap_err().code, Code::NotFound);
    service.delete_user(&user("ada")).await.unwrap();
    assert_eq!(site.granted().await, [(ids[2], invoke)]);
    assert_eq!(site.tokens().await, [ids[2]]);
    service.create_user(new_user("ada", Role::Owner, None)).await.unwrap();
    assert_eq!(site.granted().await.len(), 1, "another user of the same name has none of the old tokens");
    service.stop().await;
}

#[tokio::test]
async fn no_secret_is_stored_and_all_is_there_after_a_restart() {
    let dir = tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    site.service.create_tenant(&acme()).await.unwrap();
    site.service.create_user(new_user("ada", Role::Developer, Some("correct horse"))).await.unwrap();
    let issued = site.service.create_token(new_token(Some("ada"), None)).await.unwrap().value;
    let granted = site.granted().await;
    site.service.stop().await;
    for file in std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).unwrap();
        for secret in ["correct horse", issued.secret.reveal()] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a secret", file.display());
        }
    }
    drop(site);
    let site = Site::start(dir.path(), Config::default()).await;
    assert_eq!(site.granted().await, granted);
    site.service.login(login("ada", "correct horse", "10.0.0.1")).await.unwrap();
    site.service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_login_needs_the_password_and_wrong_ones_are_counted() {
    let dir = tempdir().unwrap();
    let config = Config {
        accounts: AccountsConfig { login_tries: 3, login_tries_of_address: 5, ..AccountsConfig::default() },
        ..Config::default()
    };
    let site = Site::start(dir.path(), config).await;
    let service = &site.service;
    service.create_tenant(&acme()).await.unwrap();
    service.create_user(new_user("ada", Role::Developer, Some("correct horse"))).await.unwrap();
    service.create_user(new_user("bob", Role::Invoker, None)).await.unwrap();

    let issued = service.login(login("ada", "correct horse", "10.0.0.1")).await.unwrap().value;
    assert!(issued.token.login && issued.token.scopes == Role::Developer.scopes());
    assert_eq!(issued.token.expires_at, Some(issued.token.created_at + Duration::from_secs(3_600)));

    let mut said = Vec::new();
    for (name, password) in [("ada", "wrong"), ("bob", ""), ("nobody", "correct horse")] {
        let error = service.login(login(name, password, "10.0.0.1")).await.unwrap_err();
        assert_eq!(error.code, Code::Unauthenticated);
        said.push(error);
    }
    assert!(said.windows(2).all(|pair| pair[0] == pair[1]), "what is wrong is not told");
    for _ in 0..2 {
        let error = service.login(login("ada", "wrong", "10.0.0.2")).await.unwrap_err();
        assert_eq!(error.code, Code::Unauthenticated);
    }
    let error = service.login(login("ada", "correct horse", "10.0.0.3")).await.unwrap_err();
    assert_eq!(error.code, Code::LimitReached, "the user's tries are used up, wherever from");
    assert!(error.retry_after.is_some());
    for name in ["a", "b"] {
        let error = service.login(login(name, "wrong", "10.0.0.1")).await.unwrap_err();
        assert_eq!(error.code, Code::Unauthenticated);
    }
    let error = service.login(login("c", "wrong", "10.0.0.1")).await.unwrap_err();
    assert_eq!(error.code, Code::LimitReached, "the address's tries are used up, whoever it tries");
    tokio::time::sleep(Duration::from_secs(10)).await;
    service.login(login("ada", "correct horse", "10.0.0.1")).await.unwrap();
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_password_ends_what_was_logged_in_by_the_old_one() {
    let dir = tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    let service = &site.service;
    service.create_tenant(&acme()).await.unwrap();
    service.create_user(new_user("ada", Role::Developer, Some("correct horse"))).await.unwrap();
    service.login(login("ada", "correct horse", "10.0.0.1")).await.unwrap();
    let kept = service.create_token(new_token(Some("ada"), None)).await.unwrap().value.token.id;
    let change = |password: &str, current: Option<&str>| NewPassword {
        user: user("ada"),
        password: Secret::new(password),
        current: current.map(|current| (Secret::new(current), "10.0.0.1".parse().unwrap())),
    };
    let error = service.set_password(change("battery staple", Some("wrong"))).await.unwrap_err();
    assert_eq!(error.code, Code::Unauthenticated);
    assert_eq!(service.set_password(change("short", None)).await.unwrap_err().code, Code::InvalidField);
    assert_eq!(site.tokens().await.len(), 2);
    service.set_password(change("battery staple", Some("correct horse"))).await.unwrap();
    assert_eq!(site.tokens().await, [kept]);
    assert!(service.login(login("ada", "correct horse", "10.0.0.1")).await.is_err());
    service.login(login("ada", "battery staple", "10.0.0.1")).await.unwrap();
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_tenant_goes_with_all_that_it_has_over_a_restart_in_between() {
    let dir = tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    let service = &site.service;
    service.create_tenant(&acme()).await.unwrap();
    service.create_user(new_user("ada", Role::Owner, None)).await.unwrap();
    service.create_token(new_token(Some("ada"), None)).await.unwrap();
    for function in ["a", "b"] {
        service.deploy(&acme(), &name(function), js("export default 1"), Precondition::None).await.unwrap();
    }
    let error = service.delete_tenant(&acme(), false).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert!(error.detail.contains("2 functions"), "{error}");
    let default = TenantName::default_tenant();
    assert_eq!(service.delete_tenant(&default, true).await.unwrap_err().code, Code::Conflict);

    let marked = service.delete_tenant(&acme(), true).await.unwrap().value;
    assert_eq!(marked.state, TenantState::Deleting);
    // What follows may be done already, or begin only with the next process.
    drop(site);
    let site = Site::start(dir.path(), Config::default()).await;
    assert!(site.granted().await.is_empty());
    site.gone(&acme()).await;
    let service = &site.service;
    assert!(service.functions(&acme(), page()).await.unwrap().items.is_empty());
    service.create_tenant(&acme()).await.unwrap();
    assert!(service.users(&acme(), page()).await.unwrap().items.is_empty());
    assert!(site.tokens().await.is_empty());
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_tenant_of_the_same_name_sees_no_job_of_the_one_before() {
    let dir = tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    let service = &site.service;
    service.create_tenant(&acme()).await.unwrap();
    service.deploy(&acme(), &name("a"), js("export default 1"), Precondition::None).await.unwrap();
    let route = service.function(&acme(), &name("a")).await.unwrap();
    for event in ["ok", "sleep:3600000", "throw"] {
        let version = route.versions.values().next().unwrap().clone();
        let submit = lyra_wire::control::Submit {
            id: None,
            version,
            event: event.as_bytes().into(),
            idempotency_key: None,
            user: None,
            destinations: None,
        };
        let id = service.submit(submit).await.unwrap().id;
        if event == "ok" {
            service.job(&acme(), id, Duration::from_secs(60)).await.unwrap();
        }
    }
    service.delete_tenant(&acme(), true).await.unwrap();
    site.gone(&acme()).await;
    let query = lyra_wire::control::JobQuery { limit: 10, ..Default::default() };
    assert!(service.jobs(&acme(), query).await.unwrap().items.is_empty());
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn tokens_that_have_ended_are_swept() {
    let dir = tempdir().unwrap();
    let site = Site::start(dir.path(), Config::default()).await;
    site.service.create_tenant(&acme()).await.unwrap();
    let short = NewToken { expires_in: Some(Duration::from_secs(60)), ..new_token(None, Some(&[Scope::Read])) };
    let id = site.service.create_token(short).await.unwrap().value.token.id;
    assert!(site.service.token(id).await.is_ok());
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(site.service.token(id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(site.granted().await.len(), 1, "gateways look at the clock by themselves");
    let swept = async {
        while !site.granted().await.is_empty() {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(900), swept).await.unwrap();
    site.service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_audit_log_is_read_newest_first_and_bounded_for_each_tenant() {
    let dir = tempdir().unwrap();
    let accounts = AccountsConfig {
        max_audit: 20,
        max_audit_of_tenant: 5,
        keep_audit: Duration::from_secs(86_400),
        sweep_every: Duration::from_secs(60),
        ..AccountsConfig::default()
    };
    let site = Site::start(dir.path(), Config { accounts, ..Config::default() }).await;
    let entry = |number: i64, tenant: &str| AuditEvent {
        time: start_of_time() + Duration::from_millis(number.unsigned_abs()),
        actor: "ada".into(),
        token: None,
        address: "10.0.0.1".into(),
        tenant: Some(TenantName::new(tenant).unwrap()),
        action: "PUT /v1/functions/{name}".into(),
        target: format!("{number}{}", "x".repeat(1_000)),
        outcome: "ok".into(),
        status: 200,
    };
    let list = async |tenant: Option<&str>, limit: usize, cursor: Option<String>| {
        let tenant = tenant.map(|tenant| TenantName::new(tenant).unwrap());
        let found = site.service.audit(AuditQuery { tenant, page: PageQuery { limit, cursor } }).await.unwrap();
        let shown: Vec<String> = found.items.iter().map(|entry| entry.target[..2].to_owned()).collect();
        assert!(found.items.iter().all(|entry| entry.target.len() == 300));
        (shown, found.next)
    };
    site.service.record(vec![entry(10, "quiet")]).await.unwrap();
    site.service.record((11..24).map(|number| entry(number, "busy")).collect()).await.unwrap();
    let (first, next) = list(Some("busy"), 2, None).await;
    assert_eq!(first, ["23", "22"]);
    assert_eq!(list(Some("busy"), 2, next).await.0, ["21", "20"]);
    assert_eq!(list(None, 100, None).await.0.len(), 14);
    tokio::time::sleep(Duration::from_secs(61)).await;
    let mut left = list(Some("busy"), 100, None).await.0;
    while left.len() > 5 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        left = list(Some("busy"), 100, None).await.0;
    }
    assert_eq!(left, ["23", "22", "21", "20", "19"]);
    assert_eq!(list(Some("quiet"), 100, None).await.0, ["10"], "one tenant does not push out another's");
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    while !list(None, 100, None).await.0.is_empty() {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    site.service.stop().await;
}
