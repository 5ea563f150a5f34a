//! What the keys of a job mean, for the comments of a job file.

/// The order of the sections.
pub const SECTIONS: [&str; 11] =
    ["data", "loss", "optimizer", "schedule", "eval", "freeze", "cache", "init", "ema", "checkpoint", "run"];

/// What a key with a default means.
pub const ABOUT: &[(&str, &str)] = &[
    ("dropout", "\"on\" or a ratio makes Dropout random that the file has in inference form"),
    ("data.seed", "seed of the order of rows"),
    ("data.shuffle", "false: every epoch in the order of the file"),
    ("data.last_batch", "rows that do not fill a batch; \"drop\", or \"pad\" with ignored ones"),
    ("schedule.lr_min", "the rate at the end"),
    ("schedule.warmup_steps", "steps over which the rate rises"),
    ("schedule.per", "\"epoch\": the rate is the same throughout an epoch"),
    ("eval.every", "epochs between two evaluations"),
    ("freeze.arithmetic", "\"exact\" computes with fractions instead of as Composer"),
    ("freeze.unit", "what freezes as one: leaf, composer, block or parameter"),
    ("freeze.freeze", "patterns of units or parameters that never train"),
    ("freeze.keep", "patterns of units or parameters that always train"),
    ("freeze.parameter", "patterns of initializers that train although the file does not look so"),
    ("freeze.buffer", "patterns of initializers that never train and are no parameters"),
    ("freeze.batch_norm", "\"frozen\": BatchNormalization in frozen units keeps its running statistics"),
    ("freeze.on_return", "slots of what trains again: \"reset\", \"keep\" or \"warm-up\""),
    ("freeze.warm_up_steps", "steps over which the rate rises with \"warm-up\""),
    ("freeze.dropout", "\"off\": Dropout in frozen units passes its input on"),
    ("freeze.prefix", "\"off\": what is frozen first is not run as a session of its own"),
    ("cache.mode", "\"memory\", \"disk\", \"device\" or \"auto\": the frozen prefix of a sample is computed once"),
    ("cache.limit", "the most that is kept"),
    ("init.weights", "\"fresh\" draws them by module class; or the path of a checkpoint or another model"),
    ("checkpoint.keep", "the last so many stay, and that of the best epoch"),
    ("checkpoint.export", "the weights of the trained model; \"best\" needs eval.best"),
    ("run.device", "where it trains"),
    ("run.precision", "on CUDA also \"tf32\", \"bf16\" and \"fp16\""),
    ("run.recompute", "\"auto\" or patterns of modules: compute activations again instead of keeping them"),
    ("run.accumulate", "batches of one step"),
    ("run.log_every", "steps between two events of a step"),
    ("run.nonfinite", "after a loss or gradient that is no number: \"stop\", \"skip\" the step or \"rollback\""),
    ("run.nonfinite_limit", "such steps in a row that stop the run all the same"),
    ("run.ceiling_steps", "steps measured first, to tell what freezing can save; 0 for none"),
    ("run.seed", "seed of everything random but the order of rows"),
    ("run.tensorboard", "true writes event files to DIR/tensorboard"),
];

/// Keys without a default, each with a value that it may have.
pub const OPTIONAL: &[(&str, &str, &str)] = &[
    ("data.eval", "\"eval.npz\"", "evaluated after each epoch"),
    ("data.sampler", "\"balanced\"", "as many rows of each class; also \"weighted\""),
    ("data.workers", "2", "threads that make batches ahead"),
    ("optimizer.clip_norm", "1.0", "largest norm of all gradients together"),
    ("optimizer.decay_1d", "false", "no weight decay on biases and norms"),
    ("eval.metrics", "[\"accuracy\"]", "metrics beside the loss"),
    ("eval.best", "\"loss\"", "the metric that says which epoch is the best"),
    ("eval.early_stopping", "{ metric = \"loss\", patience = 5 }", "ends the run when it does not get better"),
    ("freeze.rollback", "{ metric = \"loss\", drop = 0.01, delay = 1 }", "takes a bad freeze back"),
    ("cache.dir", "\"kept\"", "the folder of files that stay for other runs"),
    ("ema.decay", "0.999", "averages of the weights: what one keeps of itself in a step"),
    ("checkpoint.every", "1000", "steps between two checkpoints within an epoch"),
    ("run.threads", "4", "threads within one operator; all cores by default"),
];

/// Returns what a key means.
pub fn about(key: &str) -> Option<&'static str> {
    ABOUT.iter().find(|(name, _)| *name == key).map(|(_, text)| *text)
}
