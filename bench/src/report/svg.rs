//! Lines, boxes and words of an SVG picture, and the scales that place them.
//!
//! A picture is 400 units wide, about the width of a phone: there it is shown at its size, elsewhere larger. Colours come
//! from classes, so that the page's style decides them for light and dark.

use std::fmt::Write as _;

pub const WIDTH: f64 = 400.0;

/// Text that may stand between tags and in attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub struct Svg {
    height: f64,
    label: String,
    body: String,
}

impl Svg {
    /// `label` is what a screen reader says.
    pub fn new(height: f64, label: &str) -> Self {
        Self { height, label: escape(label), body: String::new() }
    }

    pub fn line(&mut self, class: &str, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        let _ = writeln!(
            self.body,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    /// What `title` says is shown by a pointer that rests on it.
    pub fn rect(&mut self, class: &str, [x, y]: [f64; 2], [width, height]: [f64; 2], title: &str) {
        let width = width.max(0.4);
        let _ = writeln!(
            self.body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
             <title>{}</title></rect>",
            escape(title)
        );
    }

    pub fn dot(&mut self, class: &str, [x, y]: [f64; 2], radius: f64) {
        let _ = writeln!(self.body, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"/>");
    }

    pub fn path(&mut self, class: &str, points: &[[f64; 2]]) {
        let points: Vec<String> = points.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(self.body, "<polyline class=\"{class}\" points=\"{}\"/>", points.join(" "));
    }

    /// `anchor`: `start`, `middle` or `end`.
    pub fn text(&mut self, class: &str, anchor: &str, [x, y]: [f64; 2], text: &str) {
        let _ = writeln!(
            self.body,
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
            escape(text)
        );
    }

    pub fn finish(self) -> String {
        let Self { height, label, body } = self;
        format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{label}\">\n{body}</svg>\n")
    }
}

/// From values to places.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// The values at both ends; logarithms of them where `log` is.
    ends: [f64; 2],
    places: [f64; 2],
    log: bool,
}

impl Scale {
    /// All values have room; equal ones as well.
    pub fn linear(values: impl IntoIterator<Item = f64>, places: [f64; 2]) -> Self {
        Self::new(values, places, false)
    }

    /// In decades. Values that are not above zero are at its low end.
    pub fn log(values: impl IntoIterator<Item = f64>, places: [f64; 2]) -> Self {
        Self::new(values.into_iter().filter(|value| *value > 0.0).map(f64::log10), places, true)
    }

    fn new(values: impl IntoIterator<Item = f64>, places: [f64; 2], log: bool) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.into_iter().filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if low == high {
            (low, high) = (low - 0.5, high + 0.5);
        }
        Self { ends: [low, high], places, log }
    }

    pub fn at(&self, value: f64) -> f64 {
        let value = match self.log {
            true if value > 0.0 => value.log10(),
            true => self.ends[0],
            false => value,
        };
        let ([low, high], [from, to]) = (self.ends, self.places);
        from + (value.clamp(low, high) - low) / (high - low) * (to - from)
    }

    /// Round values within, at most about `most`.
    pub fn ticks(&self, most: usize) -> Vec<f64> {
        let [low, high] = self.ends;
        if self.log && high - low >= 1.0 {
            let step = ((high - low) / most as f64).ceil().max(1.0);
            let first = (low / step).ceil() as i64;
            return (first..).map(|n| n as f64 * step).take_while(|e| *e <= high).map(|e| 10f64.powf(e)).collect();
        }
        let [low, high] = if self.log { [low, high].map(|e| 10f64.powf(e)) } else { [low, high] };
        let rough = (high - low) / most as f64;
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * decade).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let first = (low / step - 1e-9).ceil() as i64;
        (first..).map(|n| n as f64 * step).take_while(|value| *value <= high + step * 1e-9).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_ticks() {
        let scale = Scale::linear([0.0, 37.0], [100.0, 300.0]);
        assert_eq!((scale.at(0.0), scale.at(37.0), scale.at(99.0)), (100.0, 300.0, 300.0));
        assert_eq!(scale.ticks(4), [0.0, 10.0, 20.0, 30.0]);
        let log = Scale::log([0.0, 1.0, 1000.0], [0.0, 3.0]);
        assert!((log.at(10.0) - 1.0).abs() < 1e-9 && log.at(-1.0) == 0.0);
        assert_eq!(log.ticks(4).len(), 4);
        assert_eq!(Scale::log([20.0, 60.0], [0.0, 1.0]).ticks(4), [20.0, 30.0, 40.0, 50.0, 60.0]);
        let same = Scale::linear([5.0, 5.0], [0.0, 10.0]);
        assert_eq!(same.at(5.0), 5.0);
        assert!(Scale::linear([], [0.0, 1.0]).at(f64::NAN).is_nan());
    }

    #[test]
    fn words_can_not_break_out() {
        let mut svg = Svg::new(10.0, "a \"b\"");
        svg.text("x", "start", [0.0, 0.0], "</text><script>");
        let text = svg.finish();
        assert!(!text.contains("<script") && text.contains("&lt;script&gt;") && text.contains("a &quot;b&quot;"));
    }
}
