//! The four kinds of plots.

use super::svg::{Scale, Svg, WIDTH};
use super::{Difference, Differences, Distributions, Lane, Lines, Place, Series, Timelines, show};
use crate::stats::percentile;

/// Room for names at the left, of tick labels below, and at the right end.
const LEFT: f64 = 108.0;
const BELOW: f64 = 30.0;
const RIGHT: f64 = 12.0;
const AXIS_LEFT: f64 = 44.0;
/// More dots than this only make a plot heavy.
const DOTS: usize = 150;
const TICKS: usize = 5;

/// The class that a name's colour comes from: that of the side it begins with.
fn side(name: &str) -> &'static str {
    let sides = ["split", "loopback", "merged", "containerd"];
    sides.into_iter().find(|side| name.starts_with(side)).unwrap_or("other")
}

fn axis(svg: &mut Svg, scale: &Scale, top: f64, bottom: f64, unit: &str) {
    for tick in scale.ticks(TICKS) {
        let x = scale.at(tick);
        svg.line("grid", [x, top], [x, bottom]);
        svg.text("tick", "middle", [x, bottom + 12.0], &show(tick));
    }
    svg.text("unit", "end", [WIDTH - RIGHT, bottom + 25.0], unit);
}

/// A row a series: dots for samples, a box for the middle half, a line for the median.
pub fn distributions(plot: &Distributions) -> String {
    const ROW: f64 = 34.0;
    let height = ROW * plot.series.len() as f64 + 6.0;
    let all = || plot.series.iter().flat_map(|series| series.samples.iter().copied());
    let (low, high) = all().fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    let places = [LEFT, WIDTH - RIGHT];
    // Several decades can't be told apart on a linear scale.
    let log = low > 0.0 && high / low > 20.0;
    let scale = if log { Scale::log(all(), places) } else { Scale::linear(all().chain([0.0]), places) };
    let mut svg = Svg::new(height + BELOW, &plot.title);
    let unit = if log { format!("{}, logarithmic", plot.unit) } else { plot.unit.clone() };
    axis(&mut svg, &scale, 0.0, height, &unit);
    for (index, series) in plot.series.iter().enumerate() {
        spread(&mut svg, &scale, series, ROW * (index as f64 + 0.5) + 3.0, &plot.unit);
    }
    svg.finish()
}

fn spread(svg: &mut Svg, scale: &Scale, series: &Series, y: f64, unit: &str) {
    let colour = side(&series.name);
    let at = |p: f64| scale.at(percentile(&series.samples, p));
    svg.text("name", "end", [LEFT - 8.0, y - 1.0], &series.name);
    svg.text("small", "end", [LEFT - 8.0, y + 10.0], &format!("{} / {}", show(series.p50), show(series.p99)));
    let step = series.samples.len().div_ceil(DOTS).max(1);
    for (index, sample) in series.samples.iter().step_by(step).enumerate() {
        // Beside each other in a fixed pattern, so that equal ones show.
        let aside = (index * 7 % 11) as f64 - 5.0;
        svg.dot(&format!("dot {colour}"), [scale.at(*sample), y + aside], 1.4);
    }
    let title = format!("{}: p50 {} {unit}, p99 {} {unit}", series.name, show(series.p50), show(series.p99));
    svg.rect(&format!("box {colour}"), [at(0.25), y - 8.0], [at(0.75) - at(0.25), 16.0], &title);
    svg.line(&format!("median {colour}"), [at(0.5), y - 10.0], [at(0.5), y + 10.0]);
}

/// A row a difference: its name, below it the interval as a bar and the median as a dot, and a line at zero.
pub fn differences(plot: &Differences) -> String {
    const ROW: f64 = 32.0;
    let height = ROW * plot.rows.len() as f64 + 4.0;
    let values = plot.rows.iter().flat_map(|row| [row.low, row.high]).chain([0.0]);
    let scale = Scale::linear(values, [AXIS_LEFT, WIDTH - RIGHT - 8.0]);
    let mut svg = Svg::new(height + BELOW, &plot.title);
    axis(&mut svg, &scale, 0.0, height, &plot.unit);
    svg.line("zero", [scale.at(0.0), 0.0], [scale.at(0.0), height]);
    for (index, row) in plot.rows.iter().enumerate() {
        interval(&mut svg, &scale, row, ROW * index as f64, &plot.unit);
    }
    svg.finish()
}

fn interval(svg: &mut Svg, scale: &Scale, row: &Difference, top: f64, unit: &str) {
    let class = if row.distinguishable { side(&row.name) } else { "other" };
    svg.text("name", "start", [4.0, top + 12.0], &row.name);
    svg.text("small", "end", [WIDTH - 4.0, top + 12.0], &row.words(unit));
    let (low, high, y) = (scale.at(row.low), scale.at(row.high), top + 22.0);
    let title = format!("{}: {}", row.name, row.words(unit));
    svg.rect(&format!("interval {class}"), [low, y - 3.0], [high - low, 6.0], &title);
    svg.dot(&format!("mark {class}"), [scale.at(row.median), y], 4.0);
}

/// A curve a series, with what it is called below.
pub fn lines(plot: &Lines) -> String {
    const HEIGHT: f64 = 190.0;
    const LEGEND: f64 = 13.0;
    let points = || plot.series.iter().flat_map(|curve| curve.points.iter().copied());
    let x = Scale::linear(points().map(|(x, _)| x), [AXIS_LEFT, WIDTH - RIGHT]);
    let y = Scale::linear(points().map(|(_, y)| y).chain([0.0]), [HEIGHT, 16.0]);
    let mut svg = Svg::new(HEIGHT + BELOW + LEGEND * plot.series.len() as f64 + 4.0, &plot.title);
    axis(&mut svg, &x, 16.0, HEIGHT, &plot.x);
    for tick in y.ticks(TICKS) {
        svg.line("grid", [AXIS_LEFT, y.at(tick)], [WIDTH - RIGHT, y.at(tick)]);
        svg.text("tick", "end", [AXIS_LEFT - 4.0, y.at(tick) + 3.0], &show(tick));
    }
    svg.text("unit", "start", [4.0, 10.0], &plot.y);
    for (index, curve) in plot.series.iter().enumerate() {
        // Several curves of one side differ in their dashes.
        let before = plot.series[..index].iter().filter(|other| side(&other.name) == side(&curve.name)).count();
        let class = format!("{} dash{}", side(&curve.name), before.min(3));
        let places: Vec<[f64; 2]> = curve.points.iter().map(|(a, b)| [x.at(*a), y.at(*b)]).collect();
        svg.path(&format!("curve {class}"), &places);
        let row = HEIGHT + BELOW + LEGEND * (index as f64 + 0.7);
        svg.line(&format!("curve {class}"), [AXIS_LEFT, row - 3.0], [AXIS_LEFT + 24.0, row - 3.0]);
        svg.text("name", "start", [AXIS_LEFT + 30.0, row], &curve.name);
    }
    svg.finish()
}

/// One picture a lane, all on one scale: a bar a stage, below each other in the order in which they began.
pub fn timelines(plot: &Timelines) -> Vec<String> {
    let longest = plot.lanes.iter().map(|lane| lane.total_ms).fold(0.0, f64::max);
    plot.lanes.iter().map(|lane| timeline(lane, longest)).collect()
}

fn timeline(lane: &Lane, longest: f64) -> String {
    const ROW: f64 = 11.0;
    const TOP: f64 = 20.0;
    let bottom = TOP + ROW * (lane.stages.len() + 1) as f64;
    let scale = Scale::linear([0.0, longest], [LEFT + 20.0, WIDTH - RIGHT]);
    let mut svg = Svg::new(bottom + BELOW, &format!("the start of a pod in {}", lane.name));
    let (all, hop) = (show(lane.total_ms), show(lane.hop_ms));
    svg.text("name", "start", [4.0, 12.0], &format!("{}: {all} ms, of which {hop} ms on the way", lane.name));
    axis(&mut svg, &scale, TOP, bottom, "ms");
    svg.text("stagename", "start", [2.0, TOP + 9.0], "on the way");
    for (start, ms) in &lane.hops {
        let (from, to) = (scale.at(*start), scale.at(start + ms));
        svg.rect("stage hop", [from, TOP], [to - from, ROW - 1.0], &format!("on the way for {} ms", show(*ms)));
    }
    for (index, stage) in lane.stages.iter().enumerate() {
        let (class, indent) = match stage.place {
            Place::Request => ("request", 0.0),
            Place::Cri => ("cri", 4.0),
            Place::Seam => ("seam", 8.0),
            Place::Core => ("core", 12.0),
        };
        let y = TOP + ROW * (index + 1) as f64;
        let title = format!("{}: from {} ms, {} ms", stage.name, show(stage.start_ms), show(stage.ms));
        let (from, to) = (scale.at(stage.start_ms), scale.at(stage.start_ms + stage.ms));
        svg.rect(&format!("stage {class}"), [from, y + 2.0], [to - from, ROW - 3.0], &title);
        svg.text("stagename", "start", [2.0 + indent, y + 9.0], &stage.name);
    }
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Part, fixture};

    #[test]
    fn each_plot_draws_what_it_is_given() {
        let parts = fixture::report().experiments.remove(0).parts;
        let count = |text: &str, what: &str| text.matches(what).count();
        for part in &parts {
            match part {
                Part::Table(_) => {}
                Part::Differences(plot) => {
                    let text = differences(plot);
                    assert_eq!(
                        (count(&text, "class=\"interval split\""), count(&text, "mark other")),
                        (1, 1),
                        "{text}"
                    );
                    assert_eq!(count(&text, "class=\"zero\""), 1);
                }
                Part::Distributions(plot) => {
                    let text = distributions(plot);
                    assert_eq!((count(&text, "<circle"), count(&text, "class=\"median")), (16, 4), "{text}");
                }
                Part::Lines(plot) => assert_eq!(count(&lines(plot), "<polyline"), 1),
                Part::Timelines(plot) => {
                    let all = timelines(plot);
                    assert_eq!((all.len(), count(&all[0], "class=\"stage ")), (1, 6));
                }
            }
        }
        assert_eq!(parts.len(), 5);
    }

    #[test]
    fn nothing_to_draw_is_no_harm() {
        let text = distributions(&Distributions { title: String::new(), unit: String::new(), series: vec![] });
        assert!(text.ends_with("</svg>\n") && !text.contains("NaN"));
        let one = Series::new("split", &[]);
        let text = distributions(&Distributions { title: String::new(), unit: String::new(), series: vec![one] });
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
