//! A chart of curves. Shapes are SVG that stretches with the page, text is HTML that does not.

use super::numbers::Form;
use super::scale::{Scale, is_wide, places_of_x};
use super::series::{Detail, Thin, thin};
use crate::report::compare::{look, sample, spread};
use crate::report::human::{grouped, plural};
use crate::report::page::escape;
use std::fmt::Write;

/// Width and height of the drawing in its own units.
pub(super) const SIZE: f64 = 10_000.0;
/// The most points that get a dot, marks, and pieces that a run went back behind.
const DOTS: usize = 60;
const MARKS: usize = 60;
const PIECES: usize = 40;
/// Percent of the width within which curves end beside each other.
const BESIDE: f64 = 4.0;
/// The most runs that are named in each chart.
const NAMED: usize = 3;

/// A chart.
pub(super) struct Plot {
    pub(super) title: String,
    /// What is shown.
    pub(super) about: String,
    /// What the curves go over, such as `step`.
    pub(super) over: &'static str,
    pub(super) form: Form,
    pub(super) from: From,
    /// Whether the curves are those of runs, which have numbers.
    pub(super) numbered: bool,
    pub(super) lines: Vec<Line>,
    /// Where the frozen set changes.
    pub(super) marks: Vec<f64>,
}

/// Where the scale of a chart begins, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// Below the lowest value.
    Lowest,
    /// Below the lowest value; the scale is logarithmic where the curves reach over more than a decade and a half.
    Wide,
    /// At 0.
    Zero,
}

/// A curve.
pub(super) struct Line {
    /// Number of its look, from 0.
    pub(super) look: usize,
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Pieces that the run went back behind.
    pub(super) undone: Vec<Vec<(f64, f64)>>,
}

impl Line {
    /// Returns a curve without pieces that are set apart.
    pub(super) fn new(look: usize, name: impl Into<String>, points: Vec<(f64, f64)>) -> Line {
        Line { look, name: name.into(), points, undone: Vec::new() }
    }
}

struct Drawn<'a> {
    line: &'a Line,
    thin: Thin,
    undone: Vec<Thin>,
}

impl Plot {
    /// Returns true where a curve has a finite value.
    pub(super) fn has_values(&self) -> bool {
        self.lines.iter().flat_map(|line| &line.points).any(|point| point.1.is_finite())
    }

    /// Appends the chart; nothing where no curve has a finite value.
    pub(super) fn draw(&self, page: &mut String) {
        let drawn: Vec<Drawn<'_>> =
            self.lines.iter().filter(|line| !line.points.is_empty()).map(|line| self.drawn(line)).collect();
        let Some((x, y)) = self.scales(&drawn) else { return };
        let _ = write!(
            page,
            "<figure class=\"chart{}\">\n<figcaption><b>{}</b> <span class=\"dim\">{}{}</span></figcaption>\n",
            if self.numbered { " several" } else { "" },
            escape(&self.title),
            escape(&self.about),
            if y.is_log() { ", on a logarithmic scale" } else { "" }
        );
        self.legend(page, &drawn);
        page.push_str("<div class=\"plot\">");
        for (value, label) in y.ticks(self.form) {
            let _ = write!(page, "<span class=\"y\" style=\"bottom:{:.2}%\">{label}</span>", 100.0 * y.place(value));
        }
        let _ = write!(
            page,
            "<div class=\"area\" data-x=\"{} {}\" data-y=\"{} {}\" data-log=\"{}\" data-over=\"{}\" data-form=\"{}\">\
             <svg viewBox=\"0 0 {SIZE} {SIZE}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
            x.low,
            x.high,
            y.low,
            y.high,
            u8::from(y.is_log()),
            self.over,
            self.form.name(),
            escape(&self.told(&drawn))
        );
        for (value, _) in y.ticks(self.form) {
            let _ = write!(page, "<path class=\"grid\" d=\"M0 {:.0}H{SIZE}\"/>", SIZE - SIZE * y.place(value));
        }
        if self.marks.len() <= MARKS {
            for mark in self.marks.iter().filter(|mark| (x.low..=x.high).contains(*mark)) {
                let _ = write!(page, "<path class=\"mark\" d=\"M{:.0} 0V{SIZE}\"/>", SIZE * x.place(*mark));
            }
        }
        drawn.iter().for_each(|drawn| drawn.draw(page, &x, &y));
        page.push_str("</svg>");
        if self.numbered {
            ends(page, &drawn, &x, &y);
        }
        let _ = write!(
            page,
            "</div></div>\n<div class=\"axis\" aria-hidden=\"true\"><span class=\"unit\">{}</span>",
            self.over
        );
        for (place, label) in places_of_x(&x) {
            let class = if place > 0.93 { " class=\"last\"" } else { "" };
            let _ = write!(page, "<span{class} style=\"left:{:.2}%\">{label}</span>", 100.0 * place);
        }
        page.push_str("</div>\n");
        let notes = self.notes(&drawn);
        if !notes.is_empty() {
            let _ = writeln!(page, "<p class=\"dim small\">{}</p>", escape(&notes.join(" ")));
        }
        page.push_str("</figure>\n");
    }

    fn drawn<'a>(&self, line: &'a Line) -> Drawn<'a> {
        let fine = match (self.over, self.numbered) {
            ("step", true) => Detail::Shared,
            ("step", false) => Detail::Own,
            _ => Detail::Smooth,
        };
        let pieces = line.undone.iter().filter(|piece| !piece.is_empty()).rev().take(PIECES);
        let piece = |piece: &Vec<(f64, f64)>| {
            let before = piece.first().map_or(0, |first| line.points.partition_point(|point| point.0 < first.0));
            let before = before.checked_sub(1).and_then(|before| line.points.get(before));
            thin(&before.into_iter().chain(piece).copied().collect::<Vec<_>>(), fine)
        };
        Drawn { line, thin: thin(&line.points, fine), undone: pieces.map(piece).collect() }
    }

    fn scales(&self, drawn: &[Drawn<'_>]) -> Option<(Scale, Scale)> {
        let curves = || drawn.iter().flat_map(|drawn| drawn.undone.iter().chain([&drawn.thin]));
        let all = || curves().flat_map(|thin| thin.line.iter().copied());
        let bands = || curves().flat_map(|thin| &thin.band).flat_map(|(_, low, high)| [*low, *high]);
        let x = Scale::exact(all().map(|point| point.0))?;
        let values: Vec<f64> = all().map(|point| point.1).chain(bands()).filter(|value| value.is_finite()).collect();
        let log =
            self.from == From::Wide && is_wide(all().map(|point| point.1)) && values.iter().all(|value| *value > 0.0);
        Some((x, if log { Scale::log(&values)? } else { Scale::round(&values, self.from == From::Zero)? }))
    }

    fn legend(&self, page: &mut String, drawn: &[Drawn<'_>]) {
        if drawn.len() < 2 && drawn.iter().all(|drawn| drawn.undone.is_empty()) {
            return;
        }
        page.push_str("<div class=\"legend\">");
        for Drawn { line, .. } in drawn.iter().filter(|_| drawn.len() > 1) {
            page.push_str("<span>");
            if self.numbered {
                let _ = write!(page, "<b>{}</b>", line.look + 1);
            }
            sample(page, line.look);
            // The page has a list of the runs.
            let name = if self.numbered && drawn.len() > NAMED { "" } else { &line.name };
            let _ = write!(page, "{}</span>", escape(name));
        }
        if drawn.iter().any(|drawn| !drawn.undone.is_empty()) {
            page.push_str("<span>pale: the run went back behind it</span>");
        }
        page.push_str("</div>\n");
    }

    /// Returns what the chart shows, in words.
    fn told(&self, drawn: &[Drawn<'_>]) -> String {
        let curve = |drawn: &Drawn<'_>| {
            let finite = || drawn.thin.line.iter().filter(|point| point.1.is_finite());
            let (first, last) = (finite().next()?, finite().next_back()?);
            let ends = |point: &(f64, f64)| format!("{} at {} {}", self.form.show(point.1), self.over, short(point.0));
            Some(format!("{} from {} to {}", drawn.line.name, ends(first), ends(last)))
        };
        format!("{} by {}: {}", self.title, self.over, drawn.iter().filter_map(curve).collect::<Vec<_>>().join("; "))
    }

    fn notes(&self, drawn: &[Drawn<'_>]) -> Vec<String> {
        let mut notes = Vec::new();
        let each = drawn.iter().map(|drawn| drawn.thin.each()).max().unwrap_or(1);
        if drawn.iter().any(|drawn| !drawn.thin.band.is_empty()) {
            let points: usize = drawn.iter().map(|drawn| drawn.thin.points).sum();
            let stands =
                if each > 1 { format!(", each of about {}", plural(each as u64, "point")) } else { String::new() };
            notes.push(format!(
                "{} logged; the line is the mean of parts of equal length{stands}, the band reaches from the lowest to the \
                 highest value in each.",
                plural(points as u64, "point")
            ));
        }
        let lost: usize = drawn.iter().map(|drawn| drawn.thin.lost).sum();
        if lost > 0 {
            notes.push(format!("{} of them not finite and left out.", plural(lost as u64, "value")));
        }
        match self.marks.len() {
            0 => {}
            1..=MARKS => notes.push("Vertical lines: the frozen set changes.".into()),
            more => {
                notes.push(format!("The frozen set changes {} times; that is not drawn here.", grouped(more as u64)))
            }
        }
        notes
    }
}

impl Drawn<'_> {
    fn draw(&self, page: &mut String, x: &Scale, y: &Scale) {
        let (colour, dashes) = look(self.line.look);
        let place = |point: (f64, f64)| (SIZE * x.place(point.0), SIZE - SIZE * y.place(point.1));
        for piece in &self.undone {
            let path = path(piece.line.iter().copied().map(place));
            let _ = write!(page, "<path class=\"l l{colour} undone\" d=\"{path}\"/>");
            if self.thin.line.len() <= DOTS {
                dots(page, &format!("l{colour} undone"), piece.line.iter().skip(1).copied().map(place));
            }
        }
        for band in self.thin.band.split(|bin| !bin.1.is_finite()).filter(|band| !band.is_empty()) {
            let upper = path(band.iter().map(|bin| place((bin.0, bin.2))));
            let lower = path(band.iter().rev().map(|bin| place((bin.0, bin.1)))).replace('M', "L");
            let _ = write!(page, "<path class=\"band b{colour}\" d=\"{upper}{lower}Z\"/>");
        }
        let points = &self.thin.line;
        let _ = write!(
            page,
            "<path class=\"l l{colour}\" stroke-dasharray=\"{dashes}\" data-n=\"{}\" d=\"{}\"/>",
            escape(&self.line.name),
            path(points.iter().copied().map(place))
        );
        dots(page, &format!("l{colour}"), points.iter().copied().map(place));
    }
}

/// Appends a dot at each place, where they are few.
fn dots(page: &mut String, class: &str, places: impl Iterator<Item = (f64, f64)>) {
    let mut dots = String::new();
    for (index, (x, y)) in places.filter(|(x, y)| x.is_finite() && y.is_finite()).enumerate() {
        if index == DOTS {
            return;
        }
        let _ = write!(dots, "M{x:.0} {y:.0}h0");
    }
    let _ = write!(page, "<path class=\"l {class} dots\" d=\"{dots}\"/>");
}

/// The numbers of the runs where their curves end.
fn ends(page: &mut String, drawn: &[Drawn<'_>], x: &Scale, y: &Scale) {
    let end = |drawn: &Drawn<'_>| {
        let last = drawn.thin.line.iter().rev().find(|point| point.1.is_finite())?;
        Some((drawn.line.look, 100.0 * x.place(last.0), 100.0 * y.place(last.1)))
    };
    let mut ends: Vec<(usize, f64, f64)> = drawn.iter().filter_map(end).collect();
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    for beside in ends.chunk_by(|a, b| b.1 - a.1 < BESIDE) {
        let left = beside.iter().map(|end| end.1).fold(0.0, f64::max);
        let mut places: Vec<(usize, f64)> = beside.iter().map(|end| (end.0, end.2)).collect();
        places.sort_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        spread(&mut places);
        for (look, place) in places {
            let _ = write!(page, "<b class=\"end\" style=\"left:{left:.1}%;bottom:{place:.1}%\">{}</b>", look + 1);
        }
    }
}

/// Returns the outline of a curve; where a place is not finite, it has a gap.
fn path(places: impl Iterator<Item = (f64, f64)>) -> String {
    let (mut text, mut command) = (String::new(), 'M');
    for (x, y) in places {
        if !(x.is_finite() && y.is_finite()) {
            command = 'M';
            continue;
        }
        let _ = write!(text, "{command}{x:.0} {y:.0}");
        command = if command == 'M' { 'L' } else { ' ' };
    }
    text
}

fn short(x: f64) -> String {
    if x.fract() == 0.0 { format!("{x}") } else { format!("{x:.1}") }
}
