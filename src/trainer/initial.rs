//! The values that a job starts from.

use super::TrainerError;
use super::model::Note;
use crate::error::ErrorKind;
use crate::initial::{InitialError, fresh, read};
use crate::runner::Job;
use crate::runner::job::Weights;
use crate::training::Prepared;
use crate::training::stage::Stage;

/// Sets the weights of a model as `[init]` says, and tells what was done.
pub(super) fn initialize(
    job: &Job,
    prepared: &mut Prepared,
    stage: Option<&Stage>,
    note: Note<'_>,
) -> Result<(), TrainerError> {
    let Some(init) = job.init.as_ref().filter(|init| init.weights() != Weights::Model) else { return Ok(()) };
    let starts = stage.and_then(Stage::initialization).map(|(_, starts)| starts).unwrap_or_default();
    let parameters = prepared.trainable();
    if let Some((name, _)) = starts.iter().find(|(name, _)| parameters.contains(&name.as_str())) {
        let text = format!("[init] and the initialization of the model's training information both set \"{name}\"");
        return Err(TrainerError::new(ErrorKind::Usage, text).hint("leave out [init]"));
    }
    match init.weights() {
        Weights::Model => {}
        Weights::Fresh => {
            let seed = init.seed.unwrap_or(0);
            let drawn = fresh(prepared, seed, &init.only)?;
            let mut parts: Vec<String> =
                drawn.classes.iter().map(|(class, count)| format!("{count} {class}")).collect();
            parts.extend((!drawn.by_fallback.is_empty()).then(|| format!("{} other", drawn.by_fallback.len())));
            note(&format!("fresh weights, seed {seed}: {}", parts.join(", ")));
            if !drawn.by_fallback.is_empty() {
                note(&format!("no class is known of {}: see the fallback of [init]", names(&drawn.by_fallback)));
            }
            if !drawn.kept.is_empty() {
                note(&format!("the value of the model stays for {}", names(&drawn.kept)));
            }
        }
        Weights::File(path) => {
            let strict = init.strict.unwrap_or(true);
            let taken = read(prepared, &path, &init.only, strict).map_err(|error| hinted(error, strict))?;
            let count = taken.taken;
            let tensors = if count == 1 { "tensor" } else { "tensors" };
            note(&format!("weights of {}: {count} {tensors}", path.display()));
            if let Some(rest) = taken.rest() {
                note(&format!("the model keeps its own of the rest, {rest}"));
            }
        }
    }
    Ok(())
}

fn hinted(error: InitialError, strict: bool) -> TrainerError {
    let partly = matches!(error, InitialError::Missing { .. } | InitialError::Unfit { .. }) && strict;
    let told = TrainerError::from(error);
    if partly { told.hint("take what fits with init.strict = false, or name what to take in init.only") } else { told }
}

fn names(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    let more = names.len().saturating_sub(5);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
