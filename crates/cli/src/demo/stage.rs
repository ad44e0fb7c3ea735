//! How the tour is told: numbered steps, the command that does the same, the answer, the times.

use std::time::Duration;

use lyra_client::CallInfo;
use lyra_kit::Clock;
use tokio::time::Instant;

use crate::output::{error_line, harmless, print_line};
use crate::paint::Paint;
use crate::table::millis;

/// One step, for the summary and for programs.
#[derive(Debug)]
struct Step {
    title: String,
    begun: Instant,
    took: Option<Duration>,
}

/// Where the tour is told.
#[derive(Debug)]
pub struct Stage {
    paint: Paint,
    json: bool,
    quiet: bool,
    pause: bool,
    clock: Clock,
    begun: Instant,
    steps: Vec<Step>,
    calls: u64,
}

impl Stage {
    /// A stage for people, or (`json`) for programs, that tells nothing but the outcome if `quiet`.
    pub fn new(json: bool, quiet: bool, pause: bool) -> Stage {
        let clock = Clock::system();
        let begun = clock.instant();
        Stage { paint: Paint::stdout(), json, quiet, pause, clock, begun, steps: Vec::new(), calls: 0 }
    }

    fn print(&self, text: &str) {
        if !self.json && !self.quiet {
            // A terminal that can't be written to is no reason to stop checking.
            drop(print_line(text));
        }
    }

    /// The time, for measuring.
    pub fn now(&self) -> Instant {
        self.clock.instant()
    }

    /// Counts calls of functions, for the summary.
    pub fn count_calls(&mut self, calls: usize) {
        self.calls += u64::try_from(calls).unwrap_or_default();
    }

    /// Says what is about to come.
    pub fn intro(&self) {
        let title = self.paint.bold("Lyra, functions on your own machines: the tour");
        self.print(&format!("{title}\n"));
        self.print("Everything below is real: a platform in this process, called over HTTP. Each step is checked.");
    }

    /// Begins a step: what is done, and why it is worth a look.
    pub fn step(&mut self, title: &str, about: &str) {
        self.steps.push(Step { title: title.to_owned(), begun: self.now(), took: None });
        let number = format!("{:>2}", self.steps.len());
        self.print(&format!("\n{}  {}", self.paint.bold(&number), self.paint.bold(title)));
        for line in about.lines() {
            self.print(&format!("    {}", self.paint.dim(line)));
        }
    }

    /// The command that does the same.
    pub fn command(&self, command: &str) {
        self.print(&format!("    {} {}", self.paint.dim("$"), self.paint.cyan(command)));
    }

    /// The answer: line by line, under the command.
    pub fn answer(&self, answer: &str) {
        for line in harmless(answer.trim_end()).lines() {
            self.print(&format!("      {line}"));
        }
    }

    /// An answer that was painted by whoever made it.
    pub fn painted(&self, answer: &str) {
        for line in answer.lines() {
            self.print(&format!("      {line}"));
        }
    }

    /// How a call went.
    pub fn times(&self, call: &CallInfo) {
        let start = call.start.as_deref().unwrap_or("not started");
        let phases = call.phases.map(|phases| format!(": {phases}")).unwrap_or_default();
        self.print(&format!("      {}", self.paint.dim(&format!("{start}{phases}"))));
    }

    /// What was checked, and that it holds.
    pub fn holds(&self, what: &str) {
        self.print(&format!("    {} {what}", self.paint.green("✓")));
    }

    /// Colours for text that is made elsewhere.
    pub fn paint(&self) -> Paint {
        self.paint
    }

    /// Ends a step.
    pub async fn end(&mut self) {
        let now = self.now();
        if let Some(step) = self.steps.last_mut() {
            step.took = Some(now - step.begun);
        }
        if self.pause && !self.json {
            error_line(&self.paint.dim("    Enter goes on"));
            let read = lyra_kit::tasks::blocking(|| std::io::stdin().read_line(&mut String::new())).await;
            drop(read);
        }
    }

    /// Says how the tour ended. `fault`: what was not as promised.
    pub fn finish(&self, fault: Option<&str>) -> crate::failure::Result<()> {
        let took = self.now() - self.begun;
        if self.json {
            return print_line(&self.report(fault, took).to_string());
        }
        if let Some(fault) = fault {
            let step = self.steps.iter().position(|step| step.took.is_none());
            let at = step.map_or_else(String::new, |at| format!(" in step {}, \"{}\"", at + 1, self.steps[at].title));
            error_line(&format!("\n{} the tour ended{at}:\n  {}", self.paint.red("✗"), harmless(fault)));
            return Ok(());
        }
        let calls = self.calls;
        let summary =
            format!("All {} steps worked: {calls} calls of functions, in {}.", self.steps.len(), millis(took));
        print_line(&format!("\n{}", self.paint.bold(&summary)))?;
        self.print("\nNow with your own function:");
        for (command, about) in NEXT {
            self.print(&format!("    {}{about}", self.paint.cyan(&format!("{command:<40}"))));
        }
        Ok(())
    }

    fn report(&self, fault: Option<&str>, took: Duration) -> serde_json::Value {
        let ms = |duration: Duration| (duration.as_secs_f64() * 1e5).round() / 1e2;
        let steps: Vec<serde_json::Value> = self
            .steps
            .iter()
            .map(|s| serde_json::json!({"title": s.title, "ok": s.took.is_some(), "ms": s.took.map(ms)}))
            .collect();
        serde_json::json!({
            "ok": fault.is_none(), "ms": ms(took), "calls": self.calls, "steps": steps, "error": fault,
        })
    }
}

/// Where to go from here.
const NEXT: [(&str, &str); 4] = [
    ("lyra up", "start the platform, and leave it running"),
    ("lyra deploy hello.js --watch", "deploy, and again each time the file is saved"),
    ("lyra invoke hello -d '{\"name\":\"Ada\"}'", "call it"),
    ("lyra --help", "see the rest"),
];
