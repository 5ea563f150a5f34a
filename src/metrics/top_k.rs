//! Top-k accuracy
//!
//! Formula:   targets that are among the k classes of the highest scores / targets. Among equal scores the class
//!            that comes first is preferred, so that `top_1` is `accuracy`; scikit-learn prefers the last one.
//! Undefined: no target counts.

use super::{Better, Entry, Kind, Measure, NOTHING, Sample, Value, ratio};

pub(super) static ENTRY: Entry = Entry {
    name: "top_K",
    about: "fraction of the targets that are among the K highest scores",
    better: Some(Better::More),
    needs: "scores of at least K classes of which one is right",
    fits: |form, k| form.kind == Kind::Classes && form.width.is_none_or(|classes| k <= classes),
    new: |_, k| Box::new(TopK { k, right: 0, judged: 0 }),
};

struct TopK {
    k: usize,
    right: u64,
    judged: u64,
}

impl Measure for TopK {
    fn add(&mut self, sample: &Sample<'_>) {
        let Sample::Class { scores, label, .. } = sample else { return };
        let Some(own) = scores.get(*label) else { return };
        let before = |(class, score): &(usize, &f64)| *score > own || *score == own && class < label;
        self.judged += 1;
        self.right += u64::from(scores.iter().enumerate().filter(before).count() < self.k);
    }

    fn value(&self) -> Value {
        ratio(self.right, self.judged).map_or(Value::Undefined(NOTHING), Value::One)
    }
}
