//! The reserved names of the graphs of a phase. They are fixed here and nowhere else.

/// Output of the train and eval graphs: the loss, a scalar.
pub const LOSS: &str = "loss";
/// Input of the train and eval graphs: what the prediction is compared with.
pub const TARGET: &str = "target";
/// Input of the train graph where something is random: the number of the batch over the run, from 1,
/// an int64 scalar.
pub const STEP: &str = "step";
/// Input of the optimizer graph: the learning rate, a scalar.
pub const LR: &str = "lr";
/// Input of the optimizer graph where the learning rates of single parameters vary: what `lr` is
/// multiplied with for them, a vector.
pub const LR_SCALE: &str = "lr_scale";

/// Input of a train graph whose loss is scaled: the gradients are computed of the loss times this, a scalar, and divided
/// by it.
pub const SCALE: &str = "loss.scale";

/// Input of a train graph that adds gradients up: the share of the batch in the update, a scalar.
pub const WEIGHT: &str = "accumulate.weight";
/// Input of a train graph that adds gradients up: whether to add to what is there, a bool.
pub const KEEP: &str = "accumulate.keep";

/// Returns the name of what a train graph adds a gradient to.
pub fn sum(grad: &str) -> String {
    format!("{grad}.sum")
}

/// Returns the input of the train and eval graphs that is a target: [`TARGET`] for the one without a
/// name.
pub fn target(name: Option<&str>) -> String {
    name.map_or_else(|| TARGET.to_string(), |name| format!("{TARGET}.{name}"))
}

/// Returns the name of a parameter's gradient.
pub fn grad(parameter: &str) -> String {
    format!("{parameter}.grad")
}

/// Returns the name of the next value of a parameter, slot or running statistic.
pub fn next(state: &str) -> String {
    format!("{state}.next")
}

/// Returns the name of a parameter's optimizer slot.
pub fn slot(parameter: &str, slot: &str) -> String {
    format!("{parameter}.{slot}")
}
