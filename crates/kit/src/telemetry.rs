//! Lyra's own logs (to stderr) and the metrics registry.

use std::str::FromStr;
use std::sync::Arc;

use parking_lot::RwLock;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use prometheus;

/// How Lyra's own log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = String;
    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            other => Err(format!("\"{other}\" is neither text nor json")),
        }
    }
}

/// Sends Lyra's own logs to stderr. `filter` as in `RUST_LOG`, for example `info` or `lyra_worker=debug,warn`.
///
/// Does nothing when logging is set up already (tests).
pub fn init(format: Format, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let done = match format {
        Format::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi)).try_init()
        }
        Format::Json => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init(),
    };
    drop(done);
}

/// Buckets of every phase histogram, in seconds: 10 µs to 60 s.
pub const PHASE_BUCKETS: [f64; 18] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    1.0, 5.0, 15.0, 60.0,
];

/// Where each service registers its metrics; one for each process (or for each test).
#[derive(Clone, Default)]
pub struct Metrics {
    registry: prometheus::Registry,
    gauges: Arc<RwLock<Vec<Refresh>>>,
}

/// Sets gauges to what they measure.
type Refresh = Box<dyn Fn() + Send + Sync>;

impl Metrics {
    /// An empty registry.
    pub fn new() -> Metrics {
        Metrics::default()
    }

    fn add<T: prometheus::core::Collector + Clone + 'static>(&self, metric: Result<T, prometheus::Error>) -> T {
        let metric = metric.expect("metric names and labels are constants that follow Prometheus' rules");
        if let Err(error) = self.registry.register(Box::new(metric.clone())) {
            tracing::warn!(%error, "metric registered twice");
        }
        metric
    }

    /// A counter with labels.
    pub fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::IntCounterVec {
        self.add(prometheus::IntCounterVec::new(prometheus::Opts::new(name, help), labels))
    }

    /// A gauge with labels.
    pub fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::IntGaugeVec {
        self.add(prometheus::IntGaugeVec::new(prometheus::Opts::new(name, help), labels))
    }

    /// A histogram of seconds with [`PHASE_BUCKETS`] and labels.
    pub fn histogram(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::HistogramVec {
        let opts = prometheus::HistogramOpts::new(name, help).buckets(PHASE_BUCKETS.to_vec());
        self.add(prometheus::HistogramVec::new(opts, labels))
    }

    /// Runs `refresh` each time before metrics are shown, for gauges that would cost too much to keep up to date.
    pub fn before_render(&self, refresh: impl Fn() + Send + Sync + 'static) {
        self.gauges.write().push(Box::new(refresh));
    }

    /// All metrics in Prometheus' text format 0.0.4.
    pub fn render(&self) -> String {
        for refresh in self.gauges.read().iter() {
            refresh();
        }
        let mut text = String::new();
        if let Err(error) = prometheus::TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics can't be rendered");
        }
        text
    }
}
