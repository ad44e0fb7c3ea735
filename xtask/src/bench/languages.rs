//! The runtimes that run processes, as the scenarios measure them: one handler in three languages, how Lyra gets it, and
//! what the same handler costs without Lyra, as a process that is started for one call and as a server.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use lyra_kit::Clock;
use serde_json::json;

use super::client::Client;
use super::lyra::{EVENT, SUM};
use super::process::{Server, free_address};

const PYTHON: &str = "def handler(event, context):\n    return {\"sum\": event[\"a\"] + event[\"b\"]}\n";
const NODE: &str = "exports.handler = async (event) => ({ sum: event.a + event.b });\n";

/// Reads an event, calls the handler, prints the result.
const PYTHON_ONCE: &str = "import json, sys, main\nprint(json.dumps(main.handler(json.load(sys.stdin), None)))\n";
const NODE_ONCE: &str = "const { handler } = require('./index.js');
const event = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
handler(event).then((result) => console.log(JSON.stringify(result)));
";

/// A server of the standard library with the handler in it.
const PYTHON_SERVER: &str = "import http.server, json, sys, main
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    wbufsize = -1
    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers['content-length'])))
        body = json.dumps(main.handler(event, None), separators=(',', ':')).encode()
        self.send_response(200)
        self.send_header('content-type', 'application/json')
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
";
const NODE_SERVER: &str = "const { handler } = require('./index.js');
require('node:http').createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk)).on('end', async () => {
    const body = JSON.stringify(await handler(JSON.parse(Buffer.concat(chunks))));
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
    response.end(body);
  });
}).listen(+process.argv[2], '127.0.0.1');
";

/// A language with a runtime of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Python,
    Node,
    Native,
}

/// What is needed of a language, in a folder that goes when this is dropped.
pub struct Ground {
    pub language: Language,
    folder: tempfile::TempDir,
    /// The compiled program, of [`Language::Native`].
    program: Option<PathBuf>,
}

impl Language {
    /// The name of Lyra's runtime.
    pub fn runtime(self) -> &'static str {
        match self {
            Language::Python => "python",
            Language::Node => "nodejs",
            Language::Native => "native",
        }
    }

    /// Name of the peer that is started for each call.
    pub fn bare_start(self) -> &'static str {
        match self {
            Language::Python => "python3-process",
            Language::Node => "node-process",
            Language::Native => "native-process",
        }
    }

    /// Name of the peer that stays.
    pub fn bare_server(self) -> &'static str {
        match self {
            Language::Python => "python3-http.server",
            Language::Node => "node-http",
            Language::Native => "bare-hyper",
        }
    }
}

impl Ground {
    /// Writes the sources; builds the example `native-rust`.
    ///
    /// # Errors
    /// When that fails.
    pub fn new(language: Language) -> anyhow::Result<Ground> {
        let folder = tempfile::Builder::new().prefix("lyra-bench-").tempdir()?;
        let files: &[(&str, &str)] = match language {
            Language::Python => &[("main.py", PYTHON), ("once.py", PYTHON_ONCE), ("server.py", PYTHON_SERVER)],
            Language::Node => &[("index.js", NODE), ("once.js", NODE_ONCE), ("server.js", NODE_SERVER)],
            Language::Native => &[],
        };
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text)?;
        }
        let program = if language == Language::Native { Some(native()?) } else { None };
        Ok(Ground { language, folder, program })
    }

    /// Deploys the handler as a function. Its code is like no other's, but for `native`, whose package is the one program.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn deploy(&self, lyra: &Path, address: SocketAddr, name: &str) -> anyhow::Result<()> {
        let Some(program) = &self.program else {
            let source = match self.language {
                Language::Python => format!("{PYTHON}# {name}\n"),
                _ => format!("{NODE}// {name}\n"),
            };
            let body = json!({"runtime": self.language.runtime(), "code": {"source": source}});
            let path = format!("/v1/functions/{name}");
            Client::connect(address).await?.send(Method::PUT, &path, body.to_string()).await?.ok()?;
            return Ok(());
        };
        let mut command = Command::new(lyra);
        command.arg("deploy").arg(program).args(["--runtime", "native", "--name", name, "-q"]);
        command.args(["--url", &format!("http://{address}")]);
        let output = lyra_kit::tasks::blocking(move || command.output()).await??;
        anyhow::ensure!(output.status.success(), "lyra deploy: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// The interpreter that Lyra takes: the system's, or the first in `PATH`.
    fn interpreter(&self) -> Command {
        let name = if self.language == Language::Python { "python3" } else { "node" };
        let system = Path::new("/usr/bin").join(name);
        Command::new(if system.exists() { system } else { name.into() })
    }

    /// Starts the bare program for one call; the time from before its process is made to its answer.
    ///
    /// # Errors
    /// When it answers anything but the sum.
    pub fn start_once(&self) -> anyhow::Result<Duration> {
        match self.language {
            Language::Python => self.filter(self.interpreter().arg("once.py")),
            Language::Node => self.filter(self.interpreter().arg("once.js")),
            Language::Native => self.bootstrap(),
        }
    }

    /// Event on stdin, result on stdout.
    fn filter(&self, command: &mut Command) -> anyhow::Result<Duration> {
        let command = command.current_dir(self.folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let began = Clock::system().instant();
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        child.stdin.take().context("stdin is piped")?.write_all(EVENT.as_bytes())?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout is piped")?).read_line(&mut line)?;
        let took = began.elapsed();
        child.wait()?;
        let sum = line.split_whitespace().collect::<String>();
        anyhow::ensure!(sum == SUM, "{command:?} answers {line:?}");
        Ok(took)
    }

    /// Just enough of the Runtime API for one invocation.
    fn bootstrap(&self) -> anyhow::Result<Duration> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut command = Command::new(self.program.as_ref().context("the program is built")?);
        command.env("AWS_LAMBDA_RUNTIME_API", listener.local_addr()?.to_string()).stderr(Stdio::null());
        let began = Clock::system().instant();
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        read_message(&mut stream)?;
        let length = EVENT.len();
        let head = format!("HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id: 1\r\ncontent-length: {length}\r\n\r\n");
        stream.get_mut().write_all((head + EVENT).as_bytes())?;
        let result = read_message(&mut stream)?;
        let took = began.elapsed();
        drop(stream);
        child.wait()?;
        anyhow::ensure!(result == SUM.as_bytes(), "the bootstrap answers {:?}", String::from_utf8_lossy(&result));
        Ok(took)
    }

    /// Starts the peer that stays.
    ///
    /// # Errors
    /// When it does not take connections.
    pub fn serve(&self) -> anyhow::Result<Server> {
        let (address, folder) = (free_address()?, self.folder.path());
        let port = address.port().to_string();
        let mut command = match self.language {
            Language::Python => with(self.interpreter(), &["server.py", &port]),
            Language::Node => with(self.interpreter(), &["server.js", &port]),
            Language::Native => {
                with(Command::new(std::env::current_exe()?), &["bare-server", "--listen", &address.to_string()])
            }
        };
        command.current_dir(folder);
        Server::start_and_connect(command, address, &folder.join("server.log"))
    }
}

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

/// The body of an HTTP message, whose length its head says.
fn read_message(stream: &mut impl BufRead) -> anyhow::Result<Vec<u8>> {
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        anyhow::ensure!(stream.read_line(&mut line)? > 0, "the bootstrap ended");
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse()?,
            _ if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// Builds the example `native-rust`; where its program is.
///
/// # Errors
/// When it can't be built.
pub fn native() -> anyhow::Result<PathBuf> {
    let target = crate::repository().join("target/bench/native");
    let manifest = crate::repository().join("examples/native-rust/Cargo.toml");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--locked", "--quiet", "--manifest-path"]).arg(manifest);
    let status = cargo.arg("--target-dir").arg(&target).status().context("cargo")?;
    anyhow::ensure!(status.success(), "the example native-rust can't be built");
    Ok(target.join("release/bootstrap"))
}
