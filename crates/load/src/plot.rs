//! Plots of comparisons, as SVG: a line for each policy over the size of the machine.

use std::path::{Path, PathBuf};

use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::{Error, Report};

/// Width and height, in pixels.
const SIZE: (u32, u32) = (720, 400);
/// A y axis whose values span more than this factor is logarithmic.
const WIDE: f64 = 30.0;
/// Colours that people who see few colours can tell apart (Okabe and Ito, "Color Universal Design", 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// A figure of a report that is worth a plot.
struct Figure {
    file: &'static str,
    title: &'static str,
    unit: &'static str,
    of: fn(&Report) -> f64,
}

const FIGURES: [Figure; 5] = [
    Figure {
        file: "cold-start-seconds",
        title: "Time that calls waited for instances to start",
        unit: "seconds in a day",
        of: |report| report.cold_start_seconds,
    },
    Figure {
        file: "cold-starts",
        title: "Calls that waited for an instance to start",
        unit: "% of the calls",
        of: |report| report.cold_share * 100.0,
    },
    Figure {
        file: "latency-mean",
        title: "Latency, mean",
        unit: "ms from when the call was due",
        of: |report| report.latency_ms.mean,
    },
    Figure {
        file: "slowdown",
        title: "Slowdown, mean",
        unit: "latency / time on a warm instance",
        of: |report| report.slowdown.mean,
    },
    Figure {
        file: "memory",
        title: "Memory held on average",
        unit: "GiB",
        of: |report| report.mean_memory_mb / 1_024.0,
    },
];

/// What the reports differ in besides their policies.
#[derive(Clone, Copy, PartialEq)]
enum Axis {
    Memory,
    Running,
}

impl Axis {
    fn of(reports: &[Report]) -> Axis {
        let same = |of: fn(&Report) -> u64| reports.iter().all(|report| Some(of(report)) == reports.first().map(of));
        if same(|report| report.memory_mb) && !same(|report| report.max_running as u64) {
            Axis::Running
        } else {
            Axis::Memory
        }
    }

    fn value(self, report: &Report) -> f64 {
        match self {
            Axis::Memory => report.memory_mb as f64 / 1_024.0,
            Axis::Running => report.max_running as f64,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Axis::Memory => "memory for instances, GiB",
            Axis::Running => "calls that may run at once",
        }
    }
}

struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Draws a plot of each figure into `folder`, with names that begin with `prefix`; says which files were made.
///
/// # Errors
/// When a file can't be written.
pub fn draw(reports: &[Report], folder: &Path, prefix: &str) -> Result<Vec<PathBuf>, Error> {
    std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, "written", error))?;
    let axis = Axis::of(reports);
    let mut files = Vec::new();
    for figure in &FIGURES {
        let path = folder.join(format!("{prefix}{}.svg", figure.file));
        let series = series(reports, axis, figure);
        let drawn = chart(&path, figure, axis, &series);
        drawn.map_err(|reason| Error::Plot { path: path.clone(), reason })?;
        files.push(path);
    }
    Ok(files)
}

fn series(reports: &[Report], axis: Axis, figure: &Figure) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for report in reports {
        let point = (axis.value(report), (figure.of)(report));
        match all.iter_mut().find(|series| series.name == report.policy) {
            Some(series) => series.points.push(point),
            None => all.push(Series { name: report.policy.clone(), points: vec![point] }),
        }
    }
    for series in &mut all {
        series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    shorten(&mut all);
    all
}

/// Leaves out what all names have in common: `queue=fcfs,keep_alive=lru` → `lru` where only the last part differs.
fn shorten(all: &mut [Series]) {
    let parts: Vec<Vec<String>> =
        all.iter().map(|series| series.name.split(',').map(str::to_owned).collect()).collect();
    let Some(first) = parts.first() else { return };
    let differs = |at: usize| parts.iter().any(|parts| parts.get(at) != first.get(at));
    let kept: Vec<usize> = (0..first.len()).filter(|at| differs(*at)).collect();
    for (series, parts) in all.iter_mut().zip(&parts) {
        let left: Vec<&str> = kept.iter().filter_map(|at| parts.get(*at)).map(|part| value(part, kept.len())).collect();
        if !left.is_empty() {
            series.name = left.join(", ");
        }
    }
}

fn value(part: &str, parts: usize) -> &str {
    match part.split_once('=') {
        Some((_, value)) if parts == 1 => value,
        _ => part,
    }
}

fn chart(path: &Path, figure: &Figure, axis: Axis, series: &[Series]) -> Result<(), String> {
    let points = || series.iter().flat_map(|series| &series.points);
    let low = points().map(|point| point.1).fold(f64::MAX, f64::min);
    let high = points().map(|point| point.1).fold(0.0, f64::max);
    let (left, right) = points().fold((f64::MAX, 0.0), |(low, high), point| (point.0.min(low), point.0.max(high)));
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|error| error.to_string())?;
    let mut builder = ChartBuilder::on(&root);
    builder.caption(figure.title, ("sans-serif", 18)).margin(12).x_label_area_size(42).y_label_area_size(64);
    let margin = ((right - left) * 0.03).max(0.5);
    let across = left - margin..right + margin;
    let labels = (axis.label(), figure.unit);
    if low > 0.0 && high / low > WIDE {
        let chart = builder.build_cartesian_2d(across, (low / 1.5..high * 1.5).log_scale());
        lines(chart.map_err(|error| error.to_string())?, series, labels)?;
    } else {
        let chart = builder.build_cartesian_2d(across, 0.0..(high * 1.08).max(1e-9));
        lines(chart.map_err(|error| error.to_string())?, series, labels)?;
    }
    root.present().map_err(|error| error.to_string())
}

fn lines<'a, Y>(
    mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>,
    series: &[Series],
    (across, up): (&str, &str),
) -> Result<(), String>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let text = |error: DrawingAreaErrorKind<_>| error.to_string();
    let number = |value: &f64| {
        if *value >= 10.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
    };
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(across).y_desc(up).light_line_style(WHITE).bold_line_style(RGBColor(225, 225, 225));
    mesh.label_style(("sans-serif", 13)).x_label_formatter(&number).y_label_formatter(&number);
    mesh.draw().map_err(text)?;
    for (index, series) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let line = LineSeries::new(series.points.iter().copied(), colour.stroke_width(2));
        let drawn = chart.draw_series(line).map_err(text)?;
        let legend = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2));
        drawn.label(&series.name).legend(legend);
        let dots = series.points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
        chart.draw_series(dots).map_err(text)?;
    }
    let mut legend = chart.configure_series_labels();
    legend
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200));
    legend.label_font(("sans-serif", 13)).draw().map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(policy: &str, memory_mb: u64, cold_start_seconds: f64) -> Report {
        Report {
            policy: policy.to_owned(),
            memory_mb,
            cold_start_seconds,
            ..crate::report::Records::default().report(
                &crate::Policy::default(),
                &crate::simulation::Machine::default(),
                std::time::Duration::from_secs(1),
                lyra_isolation::simulated::Figures::default(),
            )
        }
    }

    #[test]
    fn a_plot_shows_each_policy_by_what_tells_it_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let reports = [
            report("queue=fcfs,keep_alive=lru", 4_096, 100.0),
            report("queue=fcfs,keep_alive=lru", 8_192, 50.0),
            report("queue=fcfs,keep_alive=landlord", 4_096, 9_000.0),
        ];
        let files = draw(&reports, folder.path(), "x-").expect("draws");
        assert_eq!(files.len(), FIGURES.len());
        let svg = std::fs::read_to_string(&files[0]).expect("is there");
        assert!(svg.contains("landlord") && !svg.contains("fcfs"), "{svg}");
        assert!(svg.len() < 40_000, "{}", svg.len());
    }
}
