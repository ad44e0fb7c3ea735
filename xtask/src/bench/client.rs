//! One connection, one request at a time, each measured: for deploys and for calls that happen only once.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use lyra_kit::Clock;
use tokio::net::TcpStream;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that is kept.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
}

/// An answer with the time from before the request until its whole body was there.
pub struct Answer {
    /// Head of the response.
    pub head: Response<()>,
    /// Its body.
    pub body: Bytes,
    /// How long it took.
    pub took: Duration,
}

impl Answer {
    /// Fails unless the status is one of 200 to 299.
    ///
    /// # Errors
    /// The status and the body, when it is not.
    pub fn ok(self) -> anyhow::Result<Answer> {
        let body = String::from_utf8_lossy(&self.body);
        anyhow::ensure!(self.head.status().is_success(), "{}: {body}", self.head.status());
        Ok(self)
    }

    /// A header's text; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.head.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A phase of `Server-Timing`, in µs.
    pub fn phase_us(&self, phase: &str) -> Option<f64> {
        let entries = self.header("server-timing").split(',');
        let durations = entries.filter_map(|entry| entry.trim().split_once(";dur="));
        let (_, millis) = durations.into_iter().find(|(name, _)| *name == phase)?;
        Some(millis.parse::<f64>().ok()? * 1e3)
    }
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nothing listens.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        lyra_kit::tasks::spawn("bench connection", connection);
        Ok(Client { sender, address })
    }

    /// Sends a request with a JSON body and reads the answer.
    ///
    /// # Errors
    /// When the connection breaks or a minute passes.
    pub async fn send(&mut self, method: Method, path: &str, body: impl Into<Bytes>) -> anyhow::Result<Answer> {
        self.send_as(method, path, "application/json", body).await
    }

    /// The same with a body of another media type.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_as(
        &mut self,
        method: Method,
        path: &str,
        media_type: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("content-type", media_type)
            .body(Full::new(body.into()))?;
        let began = Clock::system().instant();
        let exchange = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            anyhow::Ok((Response::from_parts(head, ()), body.collect().await?.to_bytes()))
        };
        let (head, body) = tokio::time::timeout(PATIENCE, exchange).await.context("no answer")??;
        Ok(Answer { head, body, took: began.elapsed() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read_from_server_timing() {
        let head = Response::builder().header("server-timing", "queue;dur=0.004, start;dur=0.012, exec;dur=1").body(());
        let answer = Answer { head: head.expect("a response"), body: Bytes::new(), took: Duration::ZERO };
        assert_eq!(answer.phase_us("start"), Some(12.0));
        assert_eq!(answer.phase_us("exec"), Some(1_000.0));
        assert_eq!(answer.phase_us("nothing"), None);
    }
}
