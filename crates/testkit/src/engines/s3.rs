//! An S3 server: `s3s-fs`, which keeps buckets in a directory and checks signatures as S3 does.

use anyhow::Result;

use super::program::{Listen, Place, Program, answers};

/// A running S3 server. Killed when it is dropped.
#[derive(Debug)]
pub struct S3 {
    program: Program,
    listen: Listen,
}

impl S3 {
    /// The only key that it takes.
    pub const ACCESS_KEY: &'static str = "TESTACCESSKEY";
    /// The secret of that key.
    pub const SECRET_KEY: &'static str = "test-secret-key";
    /// The bucket that is there.
    pub const BUCKET: &'static str = "lyra";

    /// Starts a server with one empty bucket.
    ///
    /// # Errors
    /// When it is not installed, or does not become ready.
    pub async fn start() -> Result<S3> {
        S3::start_at(Place::Loopback).await
    }

    /// Starts a server with one empty bucket, at port 9000 where the place is a host.
    ///
    /// # Errors
    /// As [`S3::start`].
    pub async fn start_at(place: Place<'_>) -> Result<S3> {
        let install = "./test --install-only";
        let mut program = Program::new("s3s-fs", install, place)?;
        let listen = place.listen(9000).await?;
        let data = program.data();
        std::fs::create_dir_all(data.join(S3::BUCKET))?;
        let (host, port) = (listen.address.ip().to_string(), listen.address.port().to_string());
        let data = data.display().to_string();
        let keys = ["--access-key", S3::ACCESS_KEY, "--secret-key", S3::SECRET_KEY];
        program.args(["--host", &host, "--port", &port].into_iter().chain(keys).chain([data.as_str()]));
        program.env("RUST_LOG", "warn");
        let mut s3 = S3 { program, listen };
        s3.restart().await?;
        Ok(s3)
    }

    /// `http://ADDRESS:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen.address)
    }

    /// Where it keeps the objects of its bucket, one file each.
    pub fn bucket_dir(&self) -> std::path::PathBuf {
        self.program.data().join(S3::BUCKET)
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        self.program.log()
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.program.kill().await
    }

    /// Sends a signal by name: `STOP`, `CONT`, …
    ///
    /// # Errors
    /// When it does not run.
    pub async fn signal(&self, name: &str) -> Result<()> {
        self.program.signal(name).await
    }

    /// Starts it again, at the same address and on the same data.
    ///
    /// # Errors
    /// When it runs still, or does not become ready.
    pub async fn restart(&mut self) -> Result<()> {
        let address = self.listen.address;
        // It answers strangers with 403.
        self.program.start(move || answers(address, "/", |status| status < 500)).await
    }
}
