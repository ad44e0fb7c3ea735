//! What the steps of the tour share: the node, the client, what one step leaves for another.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lyra_client::{Client, Config, Deployed, Invocation, Precondition};
use lyra_types::api::{CodeInput, DeployRequest};
use lyra_types::name::Qualifier;
use lyra_types::{Code, FunctionName, InvocationId, JobId};
use serde_json::Value;

use super::node::Running;
use super::stage::Stage;
use crate::table::millis;

/// Longest that a call of the tour may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// The tour, under way.
pub struct Tour<'a> {
    /// Where it is told.
    pub stage: &'a mut Stage,
    /// The platform.
    pub node: &'a mut Running,
    /// The client.
    pub client: Client,
    /// A call of `order-total`.
    pub order_call: Option<InvocationId>,
    /// A job that succeeded.
    pub done_job: Option<JobId>,
    /// The job in the dead-letter list.
    pub dead_job: Option<JobId>,
}

/// A function's name.
pub fn name(text: &str) -> Result<FunctionName> {
    Ok(FunctionName::new(text)?)
}

/// JavaScript to deploy, with defaults for the rest.
pub fn js(source: &str) -> DeployRequest {
    DeployRequest {
        runtime: "js".to_owned(),
        code: CodeInput { source: Some(source.to_owned()), ..CodeInput::default() },
        ..DeployRequest::default()
    }
}

impl<'a> Tour<'a> {
    /// Starts the platform.
    pub async fn begin(stage: &'a mut Stage, node: &'a mut Running) -> Result<Tour<'a>> {
        stage.step("Start the platform", "One process, one binary; nothing else is installed.");
        let begin = stage.now();
        node.start().await?;
        let url = format!("http://{}", node.address());
        let client = Client::new(Config { url: url.clone(), ..Config::default() })?;
        client.ready().await?;
        let took = stage.now() - begin;
        stage.command(&format!("lyra up --data-dir {} --listen {}", node.data_dir().display(), node.address()));
        stage.answer(&format!("lyra: ready on {url}"));
        stage.holds(&format!("takes calls after {}", millis(took)));
        stage.end().await;
        Ok(Tour { stage, node, client, order_call: None, done_job: None, dead_job: None })
    }

    /// Deploys, shows the command and what came of it, and checks the version's number.
    pub async fn deploy(
        &mut self,
        command: &str,
        name: &str,
        request: DeployRequest,
        version: u64,
    ) -> Result<Deployed> {
        self.stage.command(command);
        let begin = self.stage.now();
        let deployed = self.client.deploy(&self::name(name)?, &request, Precondition::None).await?;
        let took = self.stage.now() - begin;
        let function = &deployed.function;
        ensure!(function.version == version, "{name} has version {}, not {version}", function.version);
        let live = if function.live.contains_key(&version) { "live" } else { "not live" };
        let kind = crate::function::show::kind(&function.settings);
        self.stage.answer(&format!("deployed {name} version {version} ({kind}, {live}) in {}", millis(took)));
        Ok(deployed)
    }

    /// Calls a function.
    pub async fn invoke(&mut self, name: &str, event: &str) -> Result<Invocation, lyra_client::Error> {
        self.stage.count_calls(1);
        let name = FunctionName::new(name).map_err(|error| lyra_client::Error::Config(error.to_string()))?;
        self.client.invoke(&name, &Qualifier::Live, event.to_owned(), Some(CALL_LIMIT)).await
    }

    /// Calls a function, shows the command, the result and the times, and checks the result.
    pub async fn invoke_and_show(&mut self, name: &str, event: &str, expected: &Value) -> Result<Invocation> {
        self.stage.command(&format!("lyra invoke {name} -d '{event}'"));
        let invocation = self.invoke(name, event).await.with_context(|| format!("calling {name}"))?;
        self.stage.answer(&String::from_utf8_lossy(&invocation.body));
        self.stage.times(&invocation.call);
        let result: Value = serde_json::from_slice(&invocation.body)?;
        ensure!(&result == expected, "{name} gave {result}, not {expected}");
        Ok(invocation)
    }

    /// Calls a function that must fail with `code`; shows the command and the error.
    pub async fn fail_and_show(&mut self, name: &str, event: &str, code: Code) -> Result<lyra_types::Error> {
        self.stage.command(&format!("lyra invoke {name} -d '{event}'"));
        let error = match self.invoke(name, event).await {
            Ok(invocation) => bail!("{name} gave {}, not an error", String::from_utf8_lossy(&invocation.body)),
            Err(error) => error,
        };
        let call = error.call().cloned();
        let error = error.api().cloned().with_context(|| format!("calling {name}: {error}"))?;
        self.stage.answer(&format!("{}: {}", error.code, error.detail));
        if let Some(call) = call {
            self.stage.times(&call);
        }
        ensure!(error.code == code, "{name} failed with {}, not {code}: {}", error.code, error.detail);
        Ok(error)
    }
}
