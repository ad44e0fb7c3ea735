//! A hyper server that does nothing but read a request and send fixed bytes: the floor under [`super::overhead`].

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::lyra::SUM;

/// Options of the hidden subcommand `bare-server`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
}

/// Serves until it is killed.
///
/// # Errors
/// When the address can't be had.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // As many threads as Lyra has.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(arguments.listen))
}

async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        lyra_kit::tasks::spawn("bare connection", async move {
            let service = service_fn(answer);
            // A client that goes away is no news.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // Reads the body as any server has to; what it says does not matter.
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(Bytes::from_static(SUM.as_bytes())));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}
