//! Sessions on the workers of a site, opened and closed through the resource API as any client does it; what a session takes
//! from the request that opens it until a watch says that it is available.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, TryStreamExt};
use lyra_kit::Clock;
use lyra_types::api::{CodeInput, DeployRequest};
use lyra_types::{FunctionName, Scopes, TenantName};
use lyra_wire::Control;
use lyra_wire::control::Precondition;
use lyra_wire::grpc::RemoteControl;
use lyra_wire::resources::{ResourceAnswer, ResourceRequest};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{failed, worker};
use crate::Error;
use crate::latency::Latencies;

/// Sessions of each application.
const OF_AN_APPLICATION: usize = 200;
/// Instances that each application keeps standing.
const STANDING: usize = 4;
/// Opens under way at once while the site is filled.
const FILLERS: usize = 64;
/// Longest wait for an application to be ready, or a session to be available.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often an application is looked at until it is ready.
const LOOK: Duration = Duration::from_millis(100);
const FUNCTION: &str = "site-session";
const APPLICATIONS: &str = "/apis/lyra.dev/v1/namespaces/default/applications";
const SESSIONS: &str = "/apis/lyra.dev/v1/namespaces/default/applicationsessions";

/// Who waits for which session.
type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Instant>>>>;

/// The sessions of a site, by number.
pub(super) struct Sessions<'a> {
    control: &'a RemoteControl,
    clock: &'a Clock,
    waiting: Waiting,
    applications: usize,
    watch: tokio::task::JoinHandle<()>,
}

impl Drop for Sessions<'_> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl<'a> Sessions<'a> {
    /// Makes the applications for so many sessions, and waits until their instances stand.
    pub(super) async fn new(control: &'a RemoteControl, clock: &'a Clock, sessions: usize) -> Result<Self, Error> {
        let tenant = TenantName::default_tenant();
        let function = FunctionName::new(FUNCTION).map_err(failed)?;
        let request = DeployRequest {
            runtime: "simulated".to_owned(),
            code: CodeInput { source: Some(worker::CODE.to_owned()), ..CodeInput::default() },
            memory_mb: Some(16),
            ..DeployRequest::default()
        };
        control.deploy(&tenant, &function, request, Precondition::None).await.map_err(failed)?;
        let waiting = Waiting::default();
        let mut events =
            control.resources(request_of("GET", &format!("{SESSIONS}?watch=true"), None)).await.map_err(failed)?;
        let (told, times) = (Arc::clone(&waiting), clock.clone());
        let watch = lyra_kit::tasks::spawn("watch of sessions", async move {
            let mut rest = BytesMut::new();
            while let Some(Ok(answer)) = events.next().await {
                let ResourceAnswer::Data(data) = answer else { continue };
                rest.extend_from_slice(&data);
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    tell(&told, &rest.split_to(end + 1), times.instant());
                }
            }
        });
        let applications = sessions.div_ceil(OF_AN_APPLICATION);
        let all = Sessions { control, clock, waiting, applications, watch };
        stream::iter(0..applications)
            .map(|number| all.apply(number))
            .buffer_unordered(FILLERS)
            .try_collect::<()>()
            .await?;
        Ok(all)
    }

    /// Makes an application and waits until it is ready.
    async fn apply(&self, number: usize) -> Result<(), Error> {
        let name = application(number);
        let body = json!({
            "apiVersion": "lyra.dev/v1", "kind": "Application", "metadata": {"name": name},
            "spec": {
                "scalingPolicy": {"maximumInstance": 2 * OF_AN_APPLICATION, "burst": OF_AN_APPLICATION,
                    "scalingPolicyType": "idle_session_number",
                    "idleSessionNumThreshold": {"low": STANDING, "high": STANDING}},
                "containers": [{"name": "main", "function": FUNCTION, "ports": [{"containerPort": 8080}],
                    "resources": {"limits": {"memory": "16Mi"}}}],
            },
        });
        self.ask("POST", APPLICATIONS, Some(&body)).await?;
        let began = self.clock.instant();
        loop {
            let object = self.ask("GET", &format!("{APPLICATIONS}/{name}"), None).await?;
            if object["status"]["idleInstances"].as_u64() >= Some(STANDING as u64) {
                return Ok(());
            }
            if self.clock.instant() - began > PATIENCE {
                return Err(Error::Runtime(format!("application {name} is not ready after {PATIENCE:?}")));
            }
            self.clock.sleep(LOOK).await;
        }
    }

    /// Opens the sessions from 0 to so many.
    pub(super) async fn fill(&self, sessions: usize) -> Result<Latencies, Error> {
        let opens = stream::iter(0..sessions).map(|number| self.open(number)).buffer_unordered(FILLERS);
        opens.try_fold(Latencies::new(), |all, took| async move { Ok(with(all, took)) }).await
    }

    /// Opens further ones at the rate, and closes as many of the first ones.
    pub(super) async fn turn_over(&self, sessions: usize, rate: f64, duration: Duration) -> Result<Latencies, Error> {
        let gap = Duration::from_secs_f64(1.0 / rate);
        let opens = (duration.as_secs_f64() * rate).ceil() as usize;
        let begin = self.clock.instant();
        let one = |number: usize| async move {
            let due = begin + gap.mul_f64(number as f64);
            self.clock.sleep(due.saturating_duration_since(self.clock.instant())).await;
            let took = self.open(sessions + number).await?;
            self.ask("DELETE", &format!("{SESSIONS}/{}", session(number)), None).await?;
            Ok::<_, Error>(took)
        };
        let all = futures::future::try_join_all((0..opens).map(one)).await?;
        Ok(all.into_iter().fold(Latencies::new(), with))
    }

    /// Opens a session; how long it took until the watch said that it is available.
    async fn open(&self, number: usize) -> Result<Duration, Error> {
        let name = session(number);
        let body = json!({
            "apiVersion": "lyra.dev/v1", "kind": "ApplicationSession", "metadata": {"name": name},
            "spec": {"applicationName": application(number % self.applications), "closeGracePeriodSeconds": 0},
        });
        let (tell, told) = oneshot::channel();
        self.waiting.lock().insert(name.clone(), tell);
        let began = self.clock.instant();
        self.ask("POST", SESSIONS, Some(&body)).await?;
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(at)) => Ok(at.saturating_duration_since(began)),
            _ => Err(Error::Runtime(format!("session {name} is not available after {PATIENCE:?}"))),
        }
    }

    async fn ask(&self, method: &str, uri: &str, body: Option<&Value>) -> Result<Value, Error> {
        let mut answer = self.control.resources(request_of(method, uri, body)).await.map_err(failed)?;
        let (mut status, mut all) = (0, BytesMut::new());
        while let Some(part) = answer.next().await {
            match part.map_err(failed)? {
                ResourceAnswer::Head(code, _) => status = code,
                ResourceAnswer::Data(data) => all.extend_from_slice(&data),
            }
        }
        if !(200..300).contains(&status) {
            let text = String::from_utf8_lossy(&all);
            return Err(Error::Runtime(format!("{method} {uri}: {status} {text}")));
        }
        serde_json::from_slice(&all).map_err(|error| Error::Runtime(format!("{method} {uri}: {error}")))
    }
}

fn application(number: usize) -> String {
    format!("site-{number}")
}

fn session(number: usize) -> String {
    format!("session-{number}")
}

fn with(mut all: Latencies, took: Duration) -> Latencies {
    all.add(took);
    all
}

fn request_of(method: &str, uri: &str, body: Option<&Value>) -> ResourceRequest {
    ResourceRequest {
        caller: "lyra load".to_owned(),
        tenants: None,
        scopes: Scopes::ALL,
        method: method.to_owned(),
        uri: uri.to_owned(),
        headers: vec![("content-type".to_owned(), b"application/json".to_vec())],
        body: body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string())),
    }
}

/// Tells who waits for the session that an event of the watch is about, where it is available.
fn tell(waiting: &Waiting, line: &[u8], at: Instant) {
    let Ok(event) = serde_json::from_slice::<Value>(line) else { return };
    let object = &event["object"];
    let is_there = object["status"]["accessEndPoints"][0].is_object();
    if let (true, Some(name)) = (is_there, object["metadata"]["name"].as_str())
        && let Some(tell) = waiting.lock().remove(name)
    {
        // It may have given up.
        let _ = tell.send(at);
    }
}
