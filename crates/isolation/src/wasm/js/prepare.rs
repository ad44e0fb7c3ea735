//! Deploys a function: evaluates its source once and keeps the state that this leads to.
//!
//! Top-level code runs here and never again: each instance starts from the state after it. Timers that top-level code
//! leaves behind are dropped, as are its log lines; random numbers that it drew are the same in all instances.

use std::sync::Arc;
use std::time::Duration;

use lyra_kit::{Clock, Random};
use lyra_types::error::Thrown;
use lyra_types::function::ResultForm;
use lyra_types::{Code as ErrorCode, Error};

use super::base::Base;
use super::guest::{Ended, Form, Guest};
use super::host::Host;
use super::image::Image;
use super::source::{self, EXPORT, SCRIPT, refused, unusable};
use crate::Code;
use crate::wasm::governor::Governor;

/// How long top-level code may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// How one attempt to load a source ended.
enum Attempt {
    Loaded(Box<Guest>),
    Ended(Ended),
}

/// What a deploy needs.
pub(super) struct Preparation {
    pub(super) base: Arc<Base>,
    pub(super) clock: Clock,
    pub(super) random: Random,
}

impl Preparation {
    /// Makes the image of a function.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidCode`] when the source is no function that can be called; `Overloaded` when there is no
    /// room to evaluate it.
    pub(super) async fn run(&self, code: &Code) -> Result<Image, Error> {
        let text = std::str::from_utf8(&code.bytes).map_err(|error| not_text(&code.bytes, error.valid_up_to()))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let deadline = self.clock.instant() + DEADLINE;
        let loaded = tokio::time::timeout_at(deadline, self.load(code, text)).await;
        let mut guest = loaded.map_err(|_| too_slow())??;
        let pristine = self.guest(code).await?;
        let top = guest.stack_top().map_err(|error| internal(&error))?;
        Ok(Image::between(pristine.bytes(), guest.bytes(), top))
    }

    /// Loads the source as a module; if that is not what it is, as one function.
    async fn load(&self, code: &Code, text: &str) -> Result<Box<Guest>, Error> {
        let handler = code.key.handler.as_deref().unwrap_or_default();
        let script = match code.key.result {
            ResultForm::Json => None,
            ResultForm::Text => Some(Form::Text),
            ResultForm::String => Some(Form::String),
        };
        if let Some(form) = script {
            return self.load_script(code, text, form).await;
        }
        let first = match self.attempt(code, text, handler, Form::Module).await? {
            Attempt::Loaded(guest) => return Ok(guest),
            Attempt::Ended(ended) => ended,
        };
        let is_module = source::has_exports(text);
        if is_module || !matches!(first, Ended::NoExports | Ended::Unparsed(_) | Ended::Threw(_)) {
            return Err(refusal(first, handler, 0));
        }
        let wrapped = format!("{EXPORT}{text}");
        let shift = EXPORT.len() as u32;
        match self.attempt(code, &wrapped, "", Form::Expression).await? {
            Attempt::Loaded(_) if !handler.is_empty() && !names(text, handler) => {
                Err(unusable("handler", format!("the source exports nothing, so there is no export \"{handler}\"")))
            }
            Attempt::Loaded(guest) => Ok(guest),
            // As a module it parses, so what is wrong is that it exports nothing.
            Attempt::Ended(Ended::Unparsed(_)) if matches!(first, Ended::NoExports) => {
                Err(refusal(Ended::NoExports, handler, 0))
            }
            Attempt::Ended(_) if matches!(first, Ended::Threw(_)) => Err(refusal(first, handler, 0)),
            Attempt::Ended(second) => Err(refusal(second, handler, shift)),
        }
    }

    /// Loads the source as a script: one expression, whose value is called, then whatever it needs. Only what does not parse is
    /// refused; what else is wrong is the outcome of each call.
    async fn load_script(&self, code: &Code, text: &str, form: Form) -> Result<Box<Guest>, Error> {
        if code.key.handler.is_some() {
            return Err(unusable(
                "handler",
                "a function whose results are texts is one expression and exports nothing",
            ));
        }
        if text.trim().is_empty() {
            return Err(unusable("code.source", "SyntaxError: the source is empty"));
        }
        match self.attempt(code, &format!("{SCRIPT}{text}"), "", form).await? {
            Attempt::Loaded(guest) => Ok(guest),
            Attempt::Ended(ended) => Err(refusal(ended, "", SCRIPT.len() as u32)),
        }
    }

    async fn guest(&self, code: &Code) -> Result<Guest, Error> {
        let limit = (code.key.memory_mb as usize) << 20;
        let governor = Governor::new(&self.base.engine, limit);
        Guest::start(&self.base, Host::new(governor, self.clock.clone(), self.random.clone())).await
    }

    async fn attempt(&self, code: &Code, text: &str, handler: &str, form: Form) -> Result<Attempt, Error> {
        let mut guest = Box::new(self.guest(code).await?);
        let share = guest.share();
        let ended = share.run(guest.load(text.as_bytes(), handler, form)).await;
        let oom = guest.host().governor.oom();
        match ended {
            Ok(Ended::Done { .. }) => Ok(Attempt::Loaded(guest)),
            Ok(_) | Err(_) if oom => Err(unusable(
                "memory_mb",
                format!("the code needs more than its {} MiB of memory to be loaded", code.key.memory_mb),
            )),
            Ok(ended) => Ok(Attempt::Ended(ended)),
            Err(error) => {
                Err(unusable("code.source", format!("the code crashes while it is loaded: {}", error.root_cause())))
            }
        }
    }
}

/// Whether `handler` is another name for the one function of a source.
fn names(text: &str, handler: &str) -> bool {
    let declared = || {
        let after = text.split_once("function")?.1.trim_start_matches('*').trim_start();
        Some(after.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').next()? == handler)
    };
    matches!(handler, "default" | "handler") || declared().unwrap_or(false)
}

/// Why a source is refused.
fn refusal(ended: Ended, handler: &str, shift: u32) -> Error {
    match ended {
        Ended::Unparsed(thrown) | Ended::Threw(thrown) => refused(&thrown, shift),
        Ended::Stuck => unusable("code.source", "top-level code waits for a promise that nothing is left to settle"),
        Ended::NoHandler if handler.is_empty() => unusable(
            "code.source",
            "the module exports neither `default` nor `handler`; export the function to call as one of them",
        ),
        Ended::NoHandler => unusable("handler", format!("the module has no export \"{handler}\"")),
        Ended::NotFunction(what) => unusable(
            "code.source",
            format!("the handler is {what}, not a function; export `(event, context) => result`"),
        ),
        Ended::NoExports => unusable(
            "code.source",
            "the source exports nothing and is not a single function; put `export default` before the function to call",
        ),
        Ended::Done { .. } | Ended::BadResult(_) | Ended::TooLarge | Ended::BadEvent(_) => {
            Error::internal("the js guest answered a load as if it were a call")
        }
    }
}

fn too_slow() -> Error {
    unusable("code.source", format!("top-level code did not end within {} s", DEADLINE.as_secs()))
}

fn not_text(bytes: &[u8], valid: usize) -> Error {
    let before = &bytes[..valid];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let thrown = Thrown {
        name: "SyntaxError".into(),
        message: "the source is not UTF-8".into(),
        stack: format!("function.js:{line}:{}", before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1),
    };
    refused(&thrown, 0)
}

/// A fault of ours: the cause goes to the log.
pub(super) fn internal(error: &wasmtime::Error) -> Error {
    tracing::error!(error = format!("{error:#}"), "the js guest misbehaved");
    Error::new(ErrorCode::Internal, "the js runtime failed; the log of the worker says why")
}
