//! ScatterElements
//!
//! Forward:  `y` = data, with `y[.., indices[.., q, ..], ..]` along `axis` replaced by, or reduced
//!           with, `updates[.., q, ..]`.
//! Backward: none: `ddata` = dy with zeros in these places, `dupdates` = dy gathered from them;
//!           add: `ddata = dy`, the same `dupdates`;
//!           mul: `ddata = dy * scatter_mul(1, updates)`, `dupdates = gather(dy * y) / updates`, and
//!           `gather(dy * y')` where an update is the only zero of its place, y' being made with 1
//!           in its stead;
//!           min, max: dy goes to what equals y, in equal shares.
//! Shapes:   data, indices and updates of one rank; dimensions may be symbols.
//! Opsets:   11 to 24 (reductions from 16, min and max from 18).
//! At kinks: equal extremes share evenly, as in PyTorch. With `none`, repeated indices have no
//!           defined result; each update gets the gradient of its place.
//! <https://onnx.ai/onnx/operators/onnx__ScatterElements.html>

use super::shared::zeros_like;
use crate::autodiff::{Ctx, InputRule, Inputs, Rule, RuleError};
use crate::graph::{Attributes, ValueId};

pub static RULE: Rule = Rule {
    domain: "",
    op: "ScatterElements",
    opsets: 11..=24,
    inputs: Inputs::Fixed(&[InputRule::Gradient(data), InputRule::Constant, InputRule::Gradient(updates)]),
};

/// A scatter along one axis.
pub struct Scatter {
    pub data: ValueId,
    pub places: ValueId,
    pub updates: ValueId,
    pub y: ValueId,
    pub dy: ValueId,
    pub axis: i64,
}

/// Returns the node's reduction.
///
/// # Errors
/// It is none that the operator has.
pub fn reduction(ctx: &Ctx<'_>) -> Result<String, RuleError> {
    let reduction = ctx.attributes().text("reduction", "none")?;
    if matches!(reduction.as_str(), "none" | "add" | "mul" | "min" | "max") {
        return Ok(reduction);
    }
    Err(RuleError::Unsupported(format!("reduction \"{reduction}\" is not known")))
}

impl Scatter {
    fn of(ctx: &mut Ctx<'_>) -> Result<Scatter, RuleError> {
        let axis = ctx.attributes().int("axis", 0)?;
        let (dy, y) = (ctx.dy()?, ctx.y(0)?);
        Ok(Scatter { data: ctx.x(0)?, places: ctx.x(1)?, updates: ctx.x(2)?, y, dy, axis })
    }

    /// Returns the gradient of the data.
    ///
    /// # Errors
    /// None; the pieces that the inputs share are built here.
    pub fn to_data(&self, ctx: &mut Ctx<'_>, reduction: &str) -> Result<ValueId, RuleError> {
        Ok(match reduction {
            "add" => self.dy,
            "mul" => {
                let one = ctx.b.like(self.data, 1.0);
                let ones = ctx.b.expand_like(one, self.data);
                let factor = self.scatter(ctx, ones, self.updates, "mul");
                ctx.b.mul(self.dy, factor)
            }
            "none" => {
                let zeros = zeros_like(ctx, self.updates);
                self.scatter(ctx, self.dy, zeros, "none")
            }
            _ => {
                let share = self.share(ctx)?;
                let kept = self.kept(ctx)?;
                ctx.b.mul(share, kept)
            }
        })
    }

    /// Returns the gradient of the updates.
    ///
    /// # Errors
    /// None; the pieces that the inputs share are built here.
    pub fn to_updates(&self, ctx: &mut Ctx<'_>, reduction: &str) -> Result<ValueId, RuleError> {
        Ok(match reduction {
            "none" | "add" => self.gather(ctx, self.dy),
            "mul" => self.to_factors(ctx),
            _ => {
                let share = self.share(ctx)?;
                let share = self.gather(ctx, share);
                let taken = self.taken(ctx)?;
                ctx.b.mul(share, taken)
            }
        })
    }

    fn to_factors(&self, ctx: &mut Ctx<'_>) -> ValueId {
        let dtype = ctx.dtype(self.updates);
        let zero = ctx.b.compare("Equal", self.updates, 0.0);
        let count = ctx.b.cast(zero, dtype);
        let none = zeros_like(ctx, self.data);
        let counts = self.scatter(ctx, none, count, "add");
        let counts = self.gather(ctx, counts);
        let single = ctx.b.compare("Equal", counts, 1.0);
        let only = ctx.b.op("And", &[zero, single], Attributes::none());
        let one = ctx.b.like(self.updates, 1.0);
        let others = ctx.b.select(only, one, self.updates);
        let others = self.scatter(ctx, self.data, others, "mul");
        let others = ctx.b.mul(self.dy, others);
        let others = self.gather(ctx, others);
        let all = ctx.b.mul(self.dy, self.y);
        let all = self.gather(ctx, all);
        let divisor = ctx.b.select(zero, one, self.updates);
        let quotient = ctx.b.div(all, divisor);
        ctx.b.select(only, others, quotient)
    }

    /// 1 where y is the data's element, 0 elsewhere.
    fn kept(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        let (data, y) = (self.data, self.y);
        ctx.once("kept", |ctx| {
            let kept = ctx.b.op("Equal", &[data, y], Attributes::none());
            let dtype = ctx.dtype(data);
            Ok(ctx.b.cast(kept, dtype))
        })
    }

    /// 1 where y is the update, 0 elsewhere.
    fn taken(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        ctx.once("taken", |ctx| {
            let y = self.gather(ctx, self.y);
            let taken = ctx.b.op("Equal", &[self.updates, y], Attributes::none());
            let dtype = ctx.dtype(self.data);
            Ok(ctx.b.cast(taken, dtype))
        })
    }

    /// dy, divided by how many elements equal y.
    fn share(&self, ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
        ctx.once("share", |ctx| {
            let kept = self.kept(ctx)?;
            let taken = self.taken(ctx)?;
            let count = self.scatter(ctx, kept, taken, "add");
            Ok(ctx.b.div(self.dy, count))
        })
    }

    fn gather(&self, ctx: &mut Ctx<'_>, from: ValueId) -> ValueId {
        ctx.b.op("GatherElements", &[from, self.places], Attributes::none().with("axis", self.axis))
    }

    fn scatter(&self, ctx: &mut Ctx<'_>, onto: ValueId, updates: ValueId, reduction: &str) -> ValueId {
        let attributes = Attributes::none().with("axis", self.axis).with("reduction", reduction);
        ctx.b.op("ScatterElements", &[onto, self.places, updates], attributes)
    }
}

fn data(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let reduction = reduction(ctx)?;
    Scatter::of(ctx)?.to_data(ctx, &reduction)
}

fn updates(ctx: &mut Ctx<'_>) -> Result<ValueId, RuleError> {
    let reduction = reduction(ctx)?;
    Scatter::of(ctx)?.to_updates(ctx, &reduction)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use crate::autodiff::harness::{Case, check};
    use crate::graph::Tensor;

    #[test]
    fn gradients() {
        let places = |shape: &[usize], values: Vec<i64>| Tensor::from_vec(shape, values);
        let columns = places(&[3, 2], vec![0, -1, 3, 1, 2, -4]);
        let repeated = places(&[2, 4], vec![2, 2, 0, 1, 2, 1, 0, -1]);
        let scatter = |name, reduction: &str| match reduction {
            "none" => Case::new(name, "ScatterElements"),
            _ => Case::new(name, "ScatterElements").text("reduction", reduction),
        };
        let symbols = [(0, 0, "a"), (0, 1, "b"), (1, 0, "c"), (1, 1, "b"), (2, 0, "c"), (2, 1, "b")];
        let mut cases = Vec::new();
        for reduction in ["none", "add", "mul", "min", "max"] {
            let case = scatter("columns", reduction).int("axis", -1).distinct(&[3, 4]);
            cases.push(case.fixed(columns.clone()).range(&[3, 2], 2.0, 3.0));
            if reduction != "none" {
                let case = scatter("rows, repeated", reduction).distinct(&[3, 4]);
                cases.push(case.fixed(repeated.clone()).range(&[2, 4], -3.0, 3.0));
            }
            let places = places(&[2, 4], vec![2, 2, 0, 1, 0, 1, 2, 2]);
            let case = scatter("symbols", reduction).distinct(&[3, 4]).fed(places);
            cases.push(case.range(&[2, 4], -3.0, 3.0).symbols(&symbols));
        }
        check(&cases);
    }

    #[test]
    fn zeros_and_ties_as_in_pytorch() {
        let scatter = |name, reduction: &str| {
            let case = Case::new(name, "ScatterElements").text("reduction", reduction);
            case.values(&[5], &[2.0, 1.0, 3.0, 0.0, 5.0])
                .fixed(Tensor::ints(&[0, 0, 2, 3, 3, 1, 0]))
                .values(&[7], &[2.0, 2.0, 1.0, 0.0, 4.0, 0.0, -1.0])
        };
        let third = 1.0 / 3.0;
        check(&[
            scatter("zeros", "mul")
                .expect(0, &[-4.0, 0.0, 1.0, 0.0, 1.0])
                .expect(2, &[-4.0, -4.0, 3.0, 0.0, 0.0, 1.0, 8.0]),
            scatter("ties", "max")
                .expect(0, &[third, 1.0, 1.0, 0.0, 1.0])
                .expect(2, &[third, third, 0.0, 0.0, 1.0, 0.0, 0.0]),
            scatter("ties", "min")
                .expect(0, &[0.0, 0.0, 0.0, 0.5, 1.0])
                .expect(2, &[0.0, 0.0, 1.0, 0.5, 0.0, 1.0, 1.0]),
            Case::new("several zeros in one place", "ScatterElements")
                .text("reduction", "mul")
                .values(&[3], &[2.0, 0.0, 3.0])
                .fixed(Tensor::ints(&[0, 0, 1, 1, 2, 2]))
                .values(&[6], &[3.0, 0.0, 4.0, 5.0, 0.0, 0.0])
                .expect(0, &[0.0, 20.0, 0.0])
                .expect(2, &[0.0, 6.0, 0.0, 0.0, 0.0, 0.0]),
        ]);
    }
}
