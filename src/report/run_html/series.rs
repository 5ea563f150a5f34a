//! Curves with more points than a page can show.

/// How many points a curve may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// For values that follow each other closely, such as those of epochs.
    Smooth,
    /// For values that scatter.
    Own,
    /// For values that scatter, beside other curves.
    Shared,
}

impl Detail {
    /// Returns the most points that are drawn one by one, and the parts that a longer curve is cut into.
    fn most(self) -> (usize, usize) {
        match self {
            Detail::Smooth => (1500, 500),
            Detail::Own => (500, 300),
            Detail::Shared => (160, 120),
        }
    }
}

/// A curve as it is drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Thin {
    /// The points, or the means of parts of them.
    pub(super) line: Vec<(f64, f64)>,
    /// Lowest and highest value in each part; nothing where all points are drawn.
    pub(super) band: Vec<(f64, f64, f64)>,
    /// Points that were given.
    pub(super) points: usize,
    /// Those of which the value is not finite.
    pub(super) lost: usize,
}

impl Thin {
    /// Returns how many points one that is drawn stands for, rounded; 1 where all are drawn.
    pub(super) fn each(&self) -> usize {
        if self.band.is_empty() { 1 } else { (self.points as f64 / self.line.len().max(1) as f64).round() as usize }
    }
}

/// Returns a curve whose points come in the order of x as it is or, where it has many points, the mean, the lowest and
/// the highest value in parts of equal width. A part in which no value is finite is a gap.
pub(super) fn thin(points: &[(f64, f64)], fine: Detail) -> Thin {
    let (most, bins) = fine.most();
    let lost = points.iter().filter(|(_, y)| !y.is_finite()).count();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Thin::default() };
    let width = (last.0 - first.0) / bins as f64;
    if points.len() <= most || width <= 0.0 || !width.is_finite() {
        return Thin { line: points.to_vec(), band: Vec::new(), points: points.len(), lost };
    }
    let mut thin = Thin { points: points.len(), lost, ..Thin::default() };
    let bin = |x: f64| (((x - first.0) / width) as usize).min(bins - 1);
    for part in points.chunk_by(|a, b| bin(a.0) == bin(b.0)) {
        let x = part.iter().map(|point| point.0).sum::<f64>() / part.len() as f64;
        let finite = || part.iter().map(|point| point.1).filter(|y| y.is_finite());
        let count = finite().count();
        let mean = if count == 0 { f64::NAN } else { finite().sum::<f64>() / count as f64 };
        thin.line.push((x, mean));
        thin.band.push((x, finite().fold(mean, f64::min), finite().fold(mean, f64::max)));
    }
    thin
}

/// Returns at most `most` positions of `0..count`: all, or the last one and others that are equally far apart.
pub(super) fn spaced(count: usize, most: usize) -> Vec<usize> {
    let every = count.div_ceil(most.max(1)).max(1);
    let mut chosen: Vec<usize> = (0..count).rev().step_by(every).collect();
    chosen.reverse();
    chosen
}

/// Returns the median; nothing of nothing.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(upper);
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_curve_is_drawn_as_it_is() {
        let points = [(1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0)];
        let thin = thin(&points, Detail::Own);
        assert_eq!((thin.line.len(), thin.band.len(), thin.lost, thin.each()), (3, 0, 1, 1));
        assert_eq!(super::thin(&[], Detail::Own), Thin::default());
    }

    #[test]
    fn no_value_of_a_long_curve_is_hidden() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|x| (f64::from(x), 1.0)).collect();
        points[12_345].1 = 9.0;
        points[70_001].1 = -3.0;
        points[99_999].1 = f64::INFINITY;
        let thin = thin(&points, Detail::Own);
        assert!(thin.line.len() <= 300 && thin.lost == 1, "{} {}", thin.line.len(), thin.lost);
        assert_eq!(thin.band.iter().map(|bin| bin.2).fold(f64::MIN, f64::max), 9.0);
        assert_eq!(thin.band.iter().map(|bin| bin.1).fold(f64::MAX, f64::min), -3.0);
        assert_eq!(thin.each(), 333);
        let at = thin.band.iter().position(|bin| bin.2 == 9.0).unwrap();
        assert!((thin.line[at].0 - 12_345.0).abs() < 334.0 && (thin.line[at].1 - 1.0 - 8.0 / 334.0).abs() < 1e-3);
    }

    #[test]
    fn rows_that_are_left_keep_the_last() {
        assert_eq!(spaced(3, 5), [0, 1, 2]);
        assert_eq!(spaced(7, 3), [0, 3, 6]);
        assert_eq!(spaced(8, 3), [1, 4, 7]);
        assert!(spaced(0, 3).is_empty());
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![1.0, 4.0]), median(vec![])), (Some(2.0), Some(2.5), None));
    }
}
