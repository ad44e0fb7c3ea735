//! An S3 server: `s3s-fs`, which keeps buckets in a directory and checks signatures as S3 does.

use anyhow::Result;

use super::program::{Program, answers, free_port};

/// A running S3 server. Killed when it is dropped.
#[derive(Debug)]
pub struct S3 {
    program: Program,
    port: u16,
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
        let install = "./test --install-only";
        let mut program = Program::new("s3s-fs", install)?;
        let port = free_port().await?;
        let data = program.data();
        std::fs::create_dir_all(data.join(S3::BUCKET))?;
        let (port_text, data) = (port.to_string(), data.display().to_string());
        let keys = ["--access-key", S3::ACCESS_KEY, "--secret-key", S3::SECRET_KEY];
        program.args(["--host", "127.0.0.1", "--port", &port_text].into_iter().chain(keys).chain([data.as_str()]));
        program.env("RUST_LOG", "warn");
        let mut s3 = S3 { program, port };
        s3.restart().await?;
        Ok(s3)
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where it keeps the objects of its bucket, one file each.
    pub fn bucket_dir(&self) -> std::path::PathBuf {
        self.program.data().join(S3::BUCKET)
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.program.kill().await
    }

    /// Starts it again, at the same address and on the same data.
    ///
    /// # Errors
    /// When it runs still, or does not become ready.
    pub async fn restart(&mut self) -> Result<()> {
        let port = self.port;
        // It answers strangers with 403.
        self.program.start(move || answers(port, "/", |status| status < 500)).await
    }
}
