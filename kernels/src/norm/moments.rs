//! Means and variances, from sums of blocks.

/// The mean of each channel and the sum of squared distances from it, in `f64`.
#[derive(Clone, Debug)]
pub struct Moments {
    count: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Returns the moments of nothing.
    pub fn new(channels: usize) -> Moments {
        Moments { count: 0.0, mean: vec![0.0; channels], squares: vec![0.0; channels] }
    }

    /// Adds `count` rows, given as `sums = sum(x - shift)` and `squares = sum((x - shift)^2)`.
    ///
    /// The shift should lie within a few standard deviations of the mean of these rows; any rows may
    /// have their own. Where slices are shorter than the channels, the first ones are meant.
    #[inline(always)]
    pub fn add(&mut self, count: usize, shift: &[f32], sums: &[f32], squares: &[f32]) {
        let count = count as f64;
        let total = self.count + count;
        if count == 0.0 {
            return;
        }
        let (share, both) = (count / total, self.count * count / total);
        let inverse = 1.0 / count;
        let state = self.mean.iter_mut().zip(&mut self.squares);
        for (((mean, square), shift), (sum, squares)) in state.zip(shift).zip(sums.iter().zip(squares)) {
            let (sum, squares) = (f64::from(*sum), f64::from(*squares));
            let distance = f64::from(*shift) + sum * inverse - *mean;
            *square += (squares - sum * sum * inverse) + distance * distance * both;
            *mean += distance * share;
        }
        self.count = total;
    }

    /// Adds the rows of `other`, of as many channels.
    pub fn merge(&mut self, other: &Moments) {
        self.merge_parts(other.count, &other.mean, &other.squares);
    }

    fn merge_parts(&mut self, count: f64, means: &[f64], squares: &[f64]) {
        let total = self.count + count;
        if count == 0.0 {
            return;
        }
        let (share, both) = (count / total, self.count * count / total);
        let state = self.mean.iter_mut().zip(&mut self.squares);
        for ((mean, square), (other_mean, other_square)) in state.zip(means.iter().zip(squares)) {
            let distance = other_mean - *mean;
            *square += other_square + distance * distance * both;
            *mean += distance * share;
        }
        self.count = total;
    }

    /// Adds wide rows, each of several rows of as many channels as there are here; the first `rest`
    /// columns of `wide` have one row more.
    pub(super) fn merge_folded(&mut self, wide: &Moments, rows: usize, rest: usize) {
        let channels = self.mean.len();
        for start in (0..wide.mean.len()).step_by(channels) {
            let columns = start..start + channels;
            let rows = rows + usize::from(start < rest);
            self.merge_parts(rows as f64, &wide.mean[columns.clone()], &wide.squares[columns]);
        }
    }

    /// Writes the mean, the variance `mean((x - mean)^2)` and `1 / sqrt(variance + epsilon)`.
    ///
    /// # Panics
    /// When a slice has not as many elements as there are channels.
    pub fn finish(&self, epsilon: f32, statistics: &mut super::Statistics<'_>) {
        let channels = self.mean.len();
        let super::Statistics { mean, var, inv_std } = statistics;
        assert!([mean.len(), var.len(), inv_std.len()] == [channels; 3], "statistics have {channels} channels");
        for channel in 0..channels {
            let variance = (self.squares[channel] / self.count).max(0.0);
            mean[channel] = self.mean[channel] as f32;
            var[channel] = variance as f32;
            inv_std[channel] = (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32;
        }
    }
}
