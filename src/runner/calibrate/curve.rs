//! Seconds as a function of a predicted load, through what was measured.

/// Measured points, joined by lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Curve {
    /// Load and seconds, by load; each with more load and no fewer seconds than the one before.
    points: Vec<(f64, f64)>,
}

impl Curve {
    /// Returns the curve through these points. More load never takes less time: what a point has less than one of a
    /// lower load is noise. Of points of the same load the fastest counts.
    pub(super) fn through(mut points: Vec<(f64, f64)>) -> Curve {
        points.retain(|(load, seconds)| load.is_finite() && seconds.is_finite());
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        points.dedup_by(|later, first| later.0 <= first.0);
        let mut least = f64::NEG_INFINITY;
        for (_, seconds) in &mut points {
            least = least.max(*seconds);
            *seconds = least;
        }
        Curve { points }
    }

    /// Returns the seconds of a load: between two points on their line, below the first and above the last in
    /// proportion to its load.
    pub(super) fn at(&self, load: f64) -> f64 {
        let above = self.points.partition_point(|point| point.0 < load);
        let before = above.checked_sub(1).and_then(|index| self.points.get(index));
        match (before, self.points.get(above)) {
            (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * (load - x0) / (x1 - x0),
            (Some((x, y)), None) | (None, Some((x, y))) if *x > 0.0 => y * load / x,
            (Some((_, y)), None) | (None, Some((_, y))) => *y,
            (None, None) => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_through_its_points_and_on_in_proportion() {
        let curve = Curve::through(vec![(4.0, 10.0), (1.0, 2.0), (2.0, 6.0)]);
        for (load, expected) in
            [(1.0, 2.0), (2.0, 6.0), (4.0, 10.0), (1.5, 4.0), (3.0, 8.0), (0.5, 1.0), (8.0, 20.0), (0.0, 0.0)]
        {
            assert_eq!(curve.at(load), expected, "at {load}");
        }
        assert_eq!(Curve::default().at(3.0), 0.0);
        assert_eq!(Curve::through(vec![(0.0, 0.0), (2.0, 1.0)]).at(1.0), 0.5);
        assert_eq!(Curve::through(vec![(0.0, 3.0)]).at(5.0), 3.0);
    }

    #[test]
    fn noise_does_not_make_more_work_cheaper() {
        let curve = Curve::through(vec![(1.0, 3.0), (2.0, 2.5), (3.0, 5.0), (3.0, 4.0), (f64::NAN, 1.0)]);
        assert_eq!([1.0, 2.0, 2.5, 3.0].map(|load| curve.at(load)), [3.0, 3.0, 3.5, 4.0]);
    }
}
