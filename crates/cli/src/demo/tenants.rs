//! Step: a tenant of its own, with a secret that no list shows, a quota, and what its calls used.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lyra_client::{Client, Config, Precondition, UsageFilter};
use lyra_types::api::DeployRequest;
use lyra_types::name::Qualifier;
use lyra_types::quota::Quota;
use lyra_types::{Code, SecretBytes, SecretName, SecretUse, TenantName};

use super::tour::{Tour, js, name};

const TENANT: &str = "acme";
const SECRET: &str = "swordfish-42";
/// Calls that may come at once.
const BURST: u32 = 5;
/// Calls that come.
const CALLS: u32 = 8;
/// Longest until calls are counted.
const COUNTED: Duration = Duration::from_secs(10);

/// A secret reaches its function and nobody else; a quota refuses what is too much; usage says what was done.
pub async fn limited(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step(
        "A tenant with a secret and a quota",
        "Tenants share nothing. Secrets are sealed on disk and opened where an instance starts; too many calls are told when to come back.",
    );
    let url = format!("http://{}", tour.node.address());
    let acme = Client::new(Config { url, tenant: Some(TenantName::new(TENANT)?), ..Config::default() })?;
    tour.stage.command(&format!("lyra tenant create {TENANT}"));
    acme.create_tenant(TENANT).await?;
    tour.stage.command(&format!("lyra secret set db-password --from-file password.txt --tenant {TENANT}"));
    acme.put_secret("db-password", &SecretBytes::new(SECRET.into())).await?;

    tour.stage.command(&format!("lyra deploy login.js --secret db-password=DB_PASSWORD --tenant {TENANT}"));
    let uses = SecretUse { name: SecretName::new("db-password")?, env: Some("DB_PASSWORD".to_owned()), file: None };
    let source = "export default (_, context) => `${context.env.DB_PASSWORD.length} letters`\n";
    let request = DeployRequest { secrets: vec![uses], ..js(source) };
    acme.deploy(&name("login")?, &request, Precondition::None).await?;
    let shown = format!("{:?}", acme.get_secret("db-password").await?);
    ensure!(!shown.contains(SECRET), "a secret is shown");
    tour.stage.count_calls(1);
    let answer = acme.invoke(&name("login")?, &Qualifier::Live, "null", None).await?;
    let answer = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!(answer == format!("\"{} letters\"", SECRET.len()), "{answer}");
    tour.stage.answer(&answer);

    tour.stage.command(&format!("lyra quota set --tenant {TENANT} --rate 1/min --burst {BURST}"));
    let quota = Quota { rate: Some(1.0 / 60.0), burst: Some(BURST), ..Quota::default() };
    acme.set_quota(None, &quota).await?;
    let (mut done, mut refused) = (0, None);
    for _ in 0..CALLS {
        tour.stage.count_calls(1);
        match acme.invoke(&name("login")?, &Qualifier::Live, "null", None).await {
            Ok(_) => done += 1,
            Err(error) => refused = Some(error.api().cloned().with_context(|| error.to_string())?),
        }
    }
    let Some(refused) = refused else { bail!("{CALLS} calls were let in, and {BURST} may be") };
    ensure!(refused.code == Code::LimitReached && done >= BURST, "{done} done, then {refused}");
    let after = refused.retry_after.context("nothing says when to try again")?;
    tour.stage.answer(&format!("{done} of {CALLS} let in, then: {} (in {} s)", refused.detail, after.as_secs()));

    tour.stage.command(&format!("lyra usage --tenant {TENANT}"));
    let counted = async {
        loop {
            let used = acme.usage(&UsageFilter::default()).await?.total.invocations;
            if used == u64::from(done) + 1 {
                return anyhow::Ok(used);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let used = tokio::time::timeout(COUNTED, counted).await.context("not all calls are counted")??;
    tour.stage.answer(&format!("{used} calls"));
    tour.stage.holds("each answered call is counted once; the secret is in no list, log or file");
    tour.stage.end().await;
    Ok(())
}
