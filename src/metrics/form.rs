//! What a loss compares: it decides which metrics can be taken.

use crate::graph::{Dim, Fact};
use crate::losses::{LossKind, LossSpec};
use std::fmt;

/// What predictions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Scores of classes of which one is right.
    Classes,
    /// Scores of labels each of which is there or not.
    Labels,
    /// Numbers to be met.
    Numbers,
    /// Something of which only the loss can be taken.
    Other,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// What predictions are.
    pub kind: Kind,
    /// The loss.
    pub loss: LossKind,
    /// Classes, or labels, where that is known.
    pub width: Option<usize>,
}

impl Form {
    /// Returns what a loss compares with a prediction; `None` for a model whose only output is the loss.
    pub fn of(spec: &LossSpec, prediction: Option<&Fact>) -> Form {
        let kind = match spec.kind {
            LossKind::CrossEntropy | LossKind::Nll => Kind::Classes,
            LossKind::BinaryCrossEntropy => Kind::Labels,
            LossKind::Mse | LossKind::L1 | LossKind::Huber | LossKind::SmoothL1 => Kind::Numbers,
            _ => Kind::Other,
        };
        let Some(fact) = prediction else { return Form { kind: Kind::Other, loss: spec.kind, width: None } };
        let axis = fact.rank().map(|_| axis(spec, fact));
        let (kind, width) = match (kind, axis) {
            (Kind::Classes, Some(None)) => (Kind::Other, None),
            (Kind::Labels, Some(None)) => (kind, Some(1)),
            (Kind::Classes | Kind::Labels, Some(Some(axis))) => {
                (kind, fact.shape.as_ref().and_then(|shape| shape.get(axis)).and_then(Dim::known))
            }
            _ => (kind, None),
        };
        Form { kind, loss: spec.kind, width }
    }

    /// Returns the form with the number of classes or labels that was met.
    pub(super) fn wide(self, width: usize) -> Form {
        Form { width: Some(width), ..self }
    }
}

/// Returns the axis on which classes or labels lie; `None` where there is one label a row, or the axis is none of the
/// prediction's.
pub(super) fn axis(spec: &LossSpec, prediction: &Fact) -> Option<usize> {
    let one = spec.kind == LossKind::BinaryCrossEntropy && prediction.rank().is_some_and(|rank| rank < 2);
    if one { None } else { spec.axis(prediction).ok() }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |one: &str, many: &str| match self.width {
            None => String::new(),
            Some(1) => format!(" of 1 {one}"),
            Some(count) => format!(" of {count} {many}"),
        };
        match self.kind {
            Kind::Classes => write!(f, "scores{} ({})", width("class", "classes"), self.loss),
            Kind::Labels => write!(f, "scores{} that may be there at once ({})", width("label", "labels"), self.loss),
            Kind::Numbers => write!(f, "numbers ({})", self.loss),
            Kind::Other if self.loss == LossKind::Output => f.write_str("a loss that the model computes itself"),
            Kind::Other => write!(f, "the loss {}, of which no prediction is judged", self.loss),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::DType;

    #[test]
    fn the_loss_and_the_shape_of_its_prediction_decide() {
        let of = LossSpec::new;
        let along = |axis: i64| LossSpec { class_axis: Some(axis), ..of(LossKind::CrossEntropy) };
        let form = |spec: &LossSpec, shape: &[usize]| {
            let form = Form::of(spec, Some(&Fact::fixed(DType::F32, shape)));
            assert_eq!(form.loss, spec.kind);
            (form.kind, form.width)
        };
        assert_eq!(form(&of(LossKind::CrossEntropy), &[8, 10]), (Kind::Classes, Some(10)));
        assert_eq!(form(&of(LossKind::Nll), &[8, 5, 20]), (Kind::Classes, Some(20)));
        assert_eq!(form(&of(LossKind::CrossEntropy), &[8, 3, 4, 5]), (Kind::Classes, Some(3)));
        assert_eq!(form(&along(-1), &[8, 3, 4, 5]), (Kind::Classes, Some(5)));
        assert_eq!(form(&along(2), &[8, 10]), (Kind::Other, None));
        assert_eq!(form(&of(LossKind::BinaryCrossEntropy), &[8]), (Kind::Labels, Some(1)));
        assert_eq!(form(&of(LossKind::BinaryCrossEntropy), &[8, 4]), (Kind::Labels, Some(4)));
        assert_eq!(form(&of(LossKind::BinaryCrossEntropy), &[8, 2, 4, 4]), (Kind::Labels, Some(2)));
        assert_eq!(form(&of(LossKind::SmoothL1), &[8, 4]), (Kind::Numbers, None));
        assert_eq!(form(&of(LossKind::Ctc), &[8, 4, 5]), (Kind::Other, None));
        assert_eq!(form(&of(LossKind::Kl), &[8, 4]), (Kind::Other, None));
        assert_eq!(Form::of(&of(LossKind::CrossEntropy), None).kind, Kind::Other);
        let open = Fact { dtype: Some(DType::F32), shape: None };
        let found = Form::of(&of(LossKind::CrossEntropy), Some(&open));
        assert_eq!((found.kind, found.width), (Kind::Classes, None));
    }
}
