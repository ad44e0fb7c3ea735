//! What the host gives a guest: WASI 0.2 and preview 1 without any authority.
//!
//! No files but those of a session, no sockets, no outgoing requests; clocks and randomness are allowed. Everything that a guest can make
//! the host hold in memory for it has a bound, named here.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use http::HeaderName;
use lyra_types::{Error, FunctionVersion};
use wasmtime::Store;
use wasmtime::component::Linker;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks, WasiHttpView,
};

use super::stdio::Stdio;
use crate::Grant;
use crate::session::DIRECTORY;
use crate::wasm::engine::Engine;
use crate::wasm::governor::{Governed, Governor, new_store};

/// Most things (streams, header fields, bodies, timers …) that a guest may have open.
const MAX_RESOURCES: usize = 512;

/// Most bytes that a guest may hand to the host in one call of a host function.
const MAX_HANDED_OVER: usize = 8 << 20;

/// Most random bytes at a time.
const MAX_RANDOM: u64 = 1 << 20;

/// Most bytes of one set of header fields, the map around them included.
const MAX_FIELDS: usize = 64 << 10;

/// Most bytes of one piece of a response body.
const BODY_CHUNK: usize = 16 << 10;

/// Pieces of a response body that wait for the client.
///
/// Enough for small responses to be written in full without a wait, and little enough for a guest with
/// [`MAX_RESOURCES`] bodies.
const BODY_CHUNKS: usize = 8;

/// Data of a guest's store.
pub(super) struct Host {
    governor: Governor,
    wasi: WasiP1Ctx,
    http: WasiHttpCtx,
    denied: NoNetwork,
}

impl Host {
    fn new(governor: Governor, mut wasi: WasiP1Ctx) -> Host {
        wasi.ctx().table.set_max_capacity(MAX_RESOURCES);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(MAX_FIELDS);
        Host { governor, wasi, http, denied: NoNetwork }
    }

    pub(super) fn wasi(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }
}

impl Governed for Host {
    fn governor(&mut self) -> &mut Governor {
        &mut self.governor
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.denied, table: self.wasi.ctx().table, ctx: &mut self.http }
    }
}

/// A store for one instance of `version`, or (`None`) for the trial at deploy. `files`: what an instance of a session can read.
pub(super) fn store(
    engine: &Engine,
    version: Option<&FunctionVersion>,
    memory: usize,
    stdio: &Stdio,
    grant: &Grant,
    files: Option<&Path>,
) -> Result<Store<Host>, Error> {
    let mut wasi = WasiCtx::builder();
    wasi.stdin(stdio.stdin())
        .stdout(stdio.stdout())
        .stderr(stdio.stderr())
        .max_random_size(MAX_RANDOM)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    if let Some(version) = version {
        wasi.arg(version.function.as_str());
        for (name, value) in &version.env {
            wasi.env(name, value);
        }
        for (name, value) in grant.secret_env() {
            wasi.env(name, value);
        }
    }
    if let Some(files) = files {
        let shown = wasi.preopened_dir(files, DIRECTORY, FsPerms::ReadOnly);
        shown.map_err(|error| Error::internal(format!("the session's files can't be shown: {error}")))?;
    }
    let mut store = new_store(engine, Host::new(Governor::new(engine, memory), wasi.build_p1()))?;
    store.set_hostcall_fuel(MAX_HANDED_OVER);
    Ok(store)
}

/// What components may import.
pub(super) fn component_linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// What core modules may import.
pub(super) fn core_linker(engine: &wasmtime::Engine) -> wasmtime::Result<wasmtime::Linker<Host>> {
    let mut linker = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, Host::wasi)?;
    Ok(linker)
}

/// Interfaces that a component may import, version 0.2 each.
pub(super) const PROVIDED: &[&str] =
    &["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:http/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// Refuses outgoing requests: a guest has no authority but what a call hands in.
struct NoNetwork;

impl WasiHttpHooks for NoNetwork {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        static FILTER: LazyLock<ForbiddenHeaderFilter> =
            LazyLock::new(|| Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name)));
        Arc::clone(&FILTER)
    }

    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>,
    ) -> Box<dyn Future<Output = wasmtime_wasi_http::Result<Sent>> + Send> {
        Box::new(std::future::ready(Err(wasmtime_wasi_http::Error::HttpRequestDenied)))
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }
}

/// What a request that was sent would give.
type Sent = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>);
