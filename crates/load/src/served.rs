//! A worker behind gRPC on a runtime of its own, as in a process of its own but for the memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::Clock;
use lyra_wire::Operated;
use lyra_wire::grpc::{self, RemoteWorker, Security};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// A worker that is served until this is dropped.
pub(crate) struct Served {
    address: SocketAddr,
    // Dropped on a thread of its own: a runtime may not be dropped within another.
    runtime: Option<Runtime>,
}

/// More than the workers here let a call wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Served {
    /// Serves `worker` on a free port of the loopback address.
    pub(crate) fn start(worker: Arc<dyn Operated>) -> Result<Served, Error> {
        let failed = |error: std::io::Error| Error::Runtime(error.to_string());
        let runtime = Builder::new_multi_thread().enable_all().build().map_err(failed)?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let within = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let mut routes = grpc::routes();
        grpc::add_worker(&mut routes, worker, LONGEST_WAIT, CancellationToken::new());
        lyra_kit::tasks::spawn("served-worker", async move {
            // It ends with its runtime.
            let _ = grpc::serve(listener, routes, &Security::Plain, CancellationToken::new()).await;
        });
        drop(within);
        Ok(Served { address, runtime: Some(runtime) })
    }

    /// A client of it.
    pub(crate) fn client(&self, clock: &Clock) -> Result<Arc<dyn Operated>, Error> {
        let refused = |source| Error::Refused { name: "no-op".to_owned(), source };
        let worker = RemoteWorker::new("served", &self.address.to_string(), &Security::Plain, clock.clone());
        let worker = worker.map_err(refused)?;
        Ok(Arc::new(worker))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
