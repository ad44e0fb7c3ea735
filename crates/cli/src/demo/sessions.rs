//! Step: an application, and two sessions that have a process each.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::stream;
use http::Method;
use lyra_client::{ApplyOptions, Precondition};
use lyra_types::api::{CodeInput, DeployRequest};
use lyra_types::function::Runtime;
use lyra_types::resources::{Application, ApplicationSession, ApplicationSessionSpec, ObjectMeta};
use serde_json::json;

use super::example;
use super::tour::{Tour, name};
use crate::app_session::until_open;
use crate::table::millis;

/// The function whose code the application has.
const CODE: &str = "session-count";
/// The application.
const APP: &str = "count";
/// Longest until a session is open.
const OPEN: Duration = Duration::from_secs(30);
/// Longest until what was closed or deleted is gone.
const GONE: Duration = Duration::from_secs(60);

/// Sessions: programs that are opened for somebody, keep their state, and are closed.
pub async fn two(tour: &mut Tour<'_>) -> Result<()> {
    tour.stage.step(
        "Sessions",
        "A game, a room, a notebook: a process of its own for each, ready before it is asked for, reached by an address.",
    );
    if let Some(why) = missing(tour).await? {
        tour.stage.answer(&format!("left out, since {why}"));
        tour.stage.holds("left out: sessions need sandboxed processes, and this one Python");
        tour.stage.end().await;
        return Ok(());
    }
    tour.stage.command("lyra app apply -f examples/session-count/application.yaml");
    let manifest = json!({
        "apiVersion": "lyra.dev/v1", "kind": "Application", "metadata": {"name": APP},
        "spec": {
            "containers": [{"name": "main", "function": CODE, "ports": [{"containerPort": 8080}]}],
            "scalingPolicy": {"maximumInstance": 4, "scalingPolicyType": "idle_session_number",
                "idleSessionNumThreshold": {"low": 1, "high": 2}},
        },
    });
    tour.client.apply_object::<Application>(APP, &manifest, ApplyOptions::default()).await?;
    let ready = |app: Option<&Application>| app.is_some_and(|app| app.status.idle_instances > 0);
    let app = tour.client.wait_object(APP, OPEN, ready).await.context("no instance stands ready")?;
    let status = &app.context("the application is gone")?.value.status;
    tour.stage.answer(&format!("version {}, {} idle, ready for a session", status.version, status.idle_instances));

    let mut instances = Vec::new();
    for session in ["room-1", "room-2"] {
        instances.push(open(tour, session).await?);
    }
    ensure!(instances[0] != instances[1], "both sessions are in instance {}", instances[0]);
    for (session, expected) in
        [("room-1", "room-1: visit 1\n"), ("room-1", "room-1: visit 2\n"), ("room-2", "room-2: visit 1\n")]
    {
        tour.stage.command(&format!("curl {}", tour.client.session_url(session)));
        let answer = tour.client.call_session(session, Method::GET, "/", stream::empty()).await?;
        let status = answer.status;
        let text = answer.text().await?;
        tour.stage.answer(&text);
        ensure!(text == expected, "status {status} with {text:?}");
    }
    for session in ["room-1", "room-2"] {
        tour.stage.command(&format!("lyra session close {session}"));
        tour.client.delete_object::<ApplicationSession>(session).await?;
        tour.client.wait_object::<ApplicationSession>(session, GONE, |of| of.is_none()).await?;
    }
    let after = tour.client.call_session("room-1", Method::GET, "/", stream::empty()).await?;
    ensure!(after.status.as_u16() == 404, "a closed session answers with {}", after.status);
    tour.client.delete_object::<Application>(APP).await?;
    tour.client.wait_object::<Application>(APP, GONE, |app| app.is_none()).await?;
    tour.client.delete_function(&name(CODE)?).await?;
    tour.stage.holds("each had a process and a count of its own, until it was closed");
    tour.stage.end().await;
    Ok(())
}

/// Deploys the code; else gives what this machine lacks.
async fn missing(tour: &mut Tour<'_>) -> Result<Option<String>> {
    let workers = tour.client.workers(10).await?;
    let offers = workers.items.iter().flat_map(|worker| worker.backends.iter().flat_map(|backend| &backend.offers));
    let python: Vec<_> = offers.filter(|offer| offer.runtime == Runtime::Python).collect();
    if !python.iter().any(|offer| offer.available) {
        return Ok(Some(python.first().map_or_else(|| "there is no Python".to_owned(), |offer| offer.detail.clone())));
    }
    let request = DeployRequest {
        runtime: "http".to_owned(),
        code: CodeInput { zip: Some(BASE64_STANDARD.encode(package()?)), ..CodeInput::default() },
        ..DeployRequest::default()
    };
    tour.stage.command("lyra deploy examples/session-count --runtime http");
    let begin = tour.stage.now();
    let outcome = tour.client.deploy(&name(CODE)?, &request, Precondition::None).await;
    if let Err(error) = &outcome
        && let Some(refused) = error.api().filter(|error| error.errors.iter().any(|field| field.field == "runtime"))
    {
        return Ok(Some(refused.detail.clone()));
    }
    outcome.with_context(|| format!("deploying {CODE}"))?;
    tour.stage.answer(&format!("deployed {CODE} (http) in {}", millis(tour.stage.now() - begin)));
    Ok(None)
}

/// The program as a package.
fn package() -> Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("bootstrap");
    std::fs::write(&program, example::SESSION_COUNT)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    crate::directory::pack(directory.path()).map_err(|failure| anyhow::anyhow!("{}", failure.error()))
}

/// Opens a session; gives its instance.
async fn open(tour: &mut Tour<'_>, session: &str) -> Result<String> {
    tour.stage.command(&format!("lyra session open {APP} --name {session}"));
    let begin = tour.stage.now();
    let wanted = ApplicationSession {
        metadata: ObjectMeta { name: session.to_owned(), ..ObjectMeta::default() },
        spec: ApplicationSessionSpec {
            application_name: APP.to_owned(),
            open_timeout_seconds: 30,
            ..ApplicationSessionSpec::default()
        },
        ..ApplicationSession::default()
    };
    let made = tour.client.create_object(&wanted).await?;
    let opened =
        until_open(&tour.client, made, OPEN).await.map_err(|failure| anyhow::anyhow!("{}", failure.error()))?;
    let took = millis(tour.stage.now() - begin);
    let status = &opened.status;
    let port = status.access_end_points.first().context("the session has no endpoint")?;
    tour.stage.answer(&format!("{} in {took}, at {}:{}", status.session_status.as_str(), port.ip_address, port.port));
    Ok(status.instance.clone())
}
