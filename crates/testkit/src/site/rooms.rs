//! An application on a site whose sessions clients visit, and what must hold of it after whatever happened.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_client::Client;
use lyra_kit::Random;
use lyra_types::resources::{Application, ApplicationSession};

use super::{LOOK, PATIENCE, Site};
use crate::traffic::{PROGRAM, Visited, Visiting, Visits};

/// Its name, and that of its function.
const NAME: &str = "rooms";
/// The variable that tells its processes from all others on this machine.
const MARK: &str = "ROOMS_OF_TEST";
/// Longest wait for the application to be gone with all that it had: a worker that was away comes back first.
const GONE: Duration = Duration::from_secs(120);

/// The application, as long as it is there.
#[derive(Debug)]
pub struct Rooms {
    mark: String,
}

impl Site {
    /// Makes the application, with so many instances that stand ready, and waits until they do.
    ///
    /// # Errors
    /// When it can't be made, or they do not stand in time.
    pub async fn rooms(&self, standing: u32) -> Result<Rooms> {
        let directory = self.directory.join(NAME);
        let program = directory.join("bootstrap");
        if !program.exists() {
            std::fs::create_dir_all(&directory)?;
            std::fs::write(&program, PROGRAM)?;
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
            self.commands().run(["deploy", NAME, "--name", NAME, "--runtime", "http"]).await?.ok()?;
        }
        let mark = format!("{:016x}", Random::system().u64());
        let high = standing + 2;
        let manifest = serde_json::json!({
            "apiVersion": "lyra.dev/v1", "kind": "Application", "metadata": {"name": NAME},
            "spec": {
                "scalingPolicy": {
                    "maximumInstance": 100, "burst": 20, "scalingPolicyType": "idle_session_number",
                    "idleSessionNumThreshold": {"low": standing, "high": high},
                },
                "containers": [{
                    "name": "main", "function": NAME, "env": [{"name": MARK, "value": mark}],
                    "ports": [{"containerPort": 8080, "name": "main"}], "resources": {"limits": {"memory": "64Mi"}},
                }],
            },
        });
        std::fs::write(self.directory.join("rooms.yaml"), manifest.to_string())?;
        self.commands().run(["app", "apply", "-f", "rooms.yaml"]).await?.ok()?;
        let rooms = Rooms { mark };
        self.until_standing(standing).await?;
        Ok(rooms)
    }

    /// Waits until so many instances stand ready.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn until_standing(&self, standing: u32) -> Result<()> {
        let client = self.client("g1")?;
        let enough = |of: Option<&Application>| of.is_some_and(|of| of.status.idle_instances >= standing);
        let stood = client.wait_object::<Application>(NAME, PATIENCE * 2, enough).await;
        stood.with_context(|| format!("{standing} instances do not stand"))?;
        Ok(())
    }

    /// Visitors from now on, so many a second, each of whom stays so long.
    ///
    /// # Errors
    /// When there is no gateway.
    pub fn visit(&self, rate: f64, stay: Duration) -> Result<Visits> {
        let gateways: Result<Vec<_>> = self.names("gateway").iter().map(|name| self.client(name)).collect();
        Ok(Visits::start(gateways?, &Visiting { application: NAME.to_owned(), rate, stay }))
    }

    /// Ends the visits, takes the application away, and asks that all is as [`Visited::check`] says, that no session is left,
    /// and that no process of the application runs on any worker.
    ///
    /// # Errors
    /// With what does not hold.
    pub async fn check_rooms(&self, rooms: Rooms, visits: Visits, host_lost: bool) -> Result<Visited> {
        let visited = visits.end().await;
        visited.check(host_lost)?;
        let client = self.client("g1")?;
        let left = client.objects::<ApplicationSession>("", 10).await?;
        ensure!(left.items.is_empty(), "sessions are left: {:?}", left.items);
        self.remove(rooms, &client).await?;
        Ok(visited)
    }

    /// Takes the application away, and waits until none of its processes runs.
    async fn remove(&self, rooms: Rooms, client: &Client) -> Result<()> {
        client.delete_object::<Application>(NAME).await?;
        let gone = client.wait_object::<Application>(NAME, GONE, |of| of.is_none()).await;
        gone.context("the application was deleted and is there still")?;
        let ended = async {
            while !rooms.processes().is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        ended.with_context(|| format!("processes of it run on: {:?}", rooms.processes()))
    }
}

impl Rooms {
    /// Processes of its instances that run on this machine, on whatever host.
    pub fn processes(&self) -> Vec<u32> {
        let mark = format!("{MARK}={}", self.mark);
        let is_its = |pid: &u32| {
            let variables = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            variables.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_its).collect()
    }
}
