//! What holds for every policy, and helpers for the tests of single ones.

use super::*;
use crate::plan::testing::{Chain, chain, six_units};
use crate::plan::{Decision, FreezePlan, FrozenSet, History, Moment, Planner, Point, Preset, Run, build, read, write};

static NOTHING_MEASURED: History = History { epochs: Vec::new(), observations: Vec::new(), speeds: None };

/// Returns the policy of some options.
pub(super) fn policy(options: &PlanOptions) -> Box<dyn Policy> {
    find(options).unwrap()
}

/// Returns the moment after `step` steps of a run in which nothing was measured.
pub(super) fn at(chain: &Chain, run: Run, step: usize) -> Moment<'_> {
    Moment {
        units: &chain.units,
        costs: &chain.costs,
        step_costs: chain,
        epochs: run.epochs,
        completed: step / run.steps_per_epoch,
        steps_per_epoch: run.steps_per_epoch,
        step: step % run.steps_per_epoch,
        history: &NOTHING_MEASURED,
    }
}

/// Returns what is frozen after 0, 1, .. epochs: a `#` for a frozen unit, a point for another.
pub(super) fn frozen(policy: &dyn Policy, chain: &Chain, run: Run) -> Vec<String> {
    let shown = |set: &FrozenSet| (0..set.units()).map(|unit| if set.contains(unit) { '#' } else { '.' }).collect();
    let decided = |epoch: usize| policy.decide(&at(chain, run, epoch * run.steps_per_epoch)).frozen;
    (0..=run.epochs).map(|epoch| shown(&decided(epoch))).collect()
}

/// Returns options for every policy, several for those that can do very different things.
fn all() -> Vec<PlanOptions> {
    let default = |entry: &&Entry| entry.name != "steps";
    let mut all: Vec<PlanOptions> = POLICIES.iter().copied().filter(default).map(|e| PlanOptions::of(e.name)).collect();
    all.push(PlanOptions::of("steps").with("steps", "1:1,2:0"));
    all.push(PlanOptions::of("freezeout").with("t_0", 0.3).with("how", "square"));
    all.push(PlanOptions::of("freezeout").with("t_0", 0.3).with("anneal", false));
    all.push(PlanOptions::of("thaw").with("initial", 0.1).with("every", 2));
    for order in ["top-down", "random", "lisa"] {
        all.push(PlanOptions::of("cyclic").with("order", order).with("every", 3));
    }
    all
}

fn runs() -> impl Iterator<Item = Run> {
    [(1, 0), (2, 1), (7, 0), (7, 100)].into_iter().map(|(epochs, steps_per_epoch)| Run { epochs, steps_per_epoch })
}

/// Calls `judge` with each policy, each model of a few, and each length of a run that fits.
fn for_all(mut judge: impl FnMut(&PlanOptions, &Chain, Run)) {
    let models = [chain(0), chain(1), chain(2), six_units(), chain(20)];
    for options in all() {
        for model in &models {
            for run in runs().filter(|run| options.policy != "steps" || (run.epochs > 1 && !model.units.is_empty())) {
                judge(&options, model, run);
            }
        }
    }
}

fn planned(options: &PlanOptions, chain: &Chain, run: Run) -> FreezePlan {
    let mut inputs = chain.inputs(run.epochs);
    inputs.steps_per_epoch = run.steps_per_epoch;
    build(&inputs, options).unwrap_or_else(|error| panic!("{options:?} {run:?}: {error}"))
}

#[test]
fn every_file_is_in_the_list() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/policies");
    let source = include_str!("mod.rs");
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(module) = file.strip_suffix(".rs") else { continue };
        assert!(
            ["mod", "tests"].contains(&module) || source.contains(&format!("&{module}::ENTRY")),
            "{file} is in no list"
        );
    }
}

#[test]
fn a_policy_is_found_by_its_name_and_has_it() {
    for entry in POLICIES {
        assert_eq!(find(&PlanOptions::of(entry.name)).unwrap().name(), entry.name);
        assert!(entry.about().ends_with('.') && entry.text().contains("*Source.*"), "{}", entry.name);
    }
}

#[test]
fn no_setting_has_the_name_of_an_option_of_all_policies() {
    // In `[freeze]`, both stand in one table; in the plan file, settings stand beside the name of the policy.
    let taken = |name: &str| name == "name" || crate::plan::options::COMMON.contains(&name);
    for entry in POLICIES {
        for knob in entry.knobs {
            assert!(!taken(knob.name), "setting \"{}\" of {} cannot be given", knob.name, entry.name);
        }
    }
}

#[test]
fn an_unknown_policy_is_refused_with_the_nearest() {
    let text = |name: &str| find(&PlanOptions::of(name)).err().expect("no such policy").to_string();
    let known = POLICIES.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
    assert_eq!(text("linaer"), format!("there is no policy \"linaer\" (nearest: \"linear\"), expected one of {known}"));
    assert_eq!(text("quadratic"), format!("there is no policy \"quadratic\", expected one of {known}"));
}

#[test]
fn the_readme_lists_every_policy_with_its_settings() {
    let readme = include_str!("../../../README.md");
    for entry in POLICIES {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{}` |", entry.name)));
        let row = row.unwrap_or_else(|| panic!("{} is not in the README", entry.name));
        for knob in entry.knobs {
            assert!(row.contains(&format!("`{}", knob.name)), "{} of {} is not in {row}", knob.name, entry.name);
        }
    }
}

#[test]
fn the_card_lists_every_setting_with_its_default() {
    for entry in POLICIES {
        let card = entry.text();
        for knob in entry.knobs {
            let row = card.lines().find(|line| line.starts_with(&format!("| `{}` |", knob.name)));
            let row = row.unwrap_or_else(|| panic!("{} is not in the card of {}", knob.name, entry.name));
            let default = match knob.default {
                Preset::Unset(_) => continue,
                given => given.to_string(),
            };
            let shown = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default().replace('`', "");
            assert_eq!(shown.trim(), default, "{} of {}", knob.name, entry.name);
        }
    }
}

#[test]
fn the_same_moment_gives_the_same_decision() {
    for_all(|options, chain, Run { epochs, steps_per_epoch }| {
        let run = Run { epochs, steps_per_epoch: steps_per_epoch.max(1) };
        let (first, second) = (policy(options), policy(options));
        let steps = || (0..run.steps() + 1).step_by(7);
        let backwards: Vec<Decision> = steps().rev().map(|step| second.decide(&at(chain, run, step))).collect();
        for (step, again) in steps().zip(backwards.into_iter().rev()) {
            let moment = at(chain, run, step);
            let decision = first.decide(&moment);
            assert_eq!(decision, first.decide(&moment), "{options:?} {run:?} step {step}");
            assert_eq!(decision, again, "{options:?} {run:?} step {step}");
            assert_eq!(decision.frozen.units(), chain.units.len());
            assert!((0.0..=1.0).contains(&decision.fraction), "{options:?} {run:?} step {step}");
            assert_eq!(first.lr_scale(&moment), second.lr_scale(&moment));
        }
        assert_eq!(first.points(run, chain.units.len()), second.points(run, chain.units.len()));
    });
}

#[test]
fn a_plan_is_valid_and_survives_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    for_all(|options, chain, run| {
        let plan = planned(options, chain, run);
        assert_eq!(plan.epochs.len(), run.epochs);
        write(&path, &plan).unwrap();
        assert_eq!(read(&path).unwrap(), plan, "{options:?} {run:?}");
    });
}

#[test]
fn the_settings_of_a_plan_make_it_again() {
    for_all(|options, chain, run| {
        let plan = planned(options, chain, run);
        let again = PlanOptions { knobs: plan.policy.settings.clone(), ..PlanOptions::of(&plan.policy.name) };
        assert_eq!(planned(&again, chain, run), plan, "{options:?} {run:?}");
    });
}

#[test]
fn the_rest_of_a_plan_made_during_the_run_is_that_of_the_plan() {
    for_all(|options, chain, run| {
        let mut inputs = chain.inputs(run.epochs);
        inputs.steps_per_epoch = run.steps_per_epoch;
        let policy = policy(options);
        let planner = Planner::new(inputs, policy.as_ref(), &[], &[]).unwrap();
        let plan = planner.plan().unwrap();
        let steps = run.steps_per_epoch.max(1);
        let middle = planner.points().get(planner.points().len() / 2).copied().unwrap_or_default();
        for step in [0, (run.epochs / 2) * steps, (run.epochs / 2) * steps + steps / 2, middle] {
            let from = Point { epoch: step / steps + 1, after: step % steps };
            let again = planner.replan(&plan, from, &NOTHING_MEASURED, 0).unwrap();
            assert_eq!(again, plan, "{options:?} {run:?} from {from:?}");
        }
    });
}

/// In the limit of many equal units and epochs a schedule with the mean frozen fraction `m` saves `2 m / 3`, cached
/// `m`. With 200 units and epochs both are within 0.01: half an epoch and half a unit are 0.005.
#[test]
fn long_schedules_save_what_their_limits_say() {
    struct Case {
        options: PlanOptions,
        steps_per_epoch: usize,
        mean: f64,
    }
    let cubic = |start: f64| 1.0 - (1.0 - start.powi(4)) / (4.0 * (1.0 - start));
    let linear =
        |start: f64, level: f64| PlanOptions::of("linear").with("freeze_start", start).with("freeze_level", level);
    let freezeout = |how: &str, start: f64| PlanOptions::of("freezeout").with("how", how).with("t_0", start);
    let cases = [
        Case { options: PlanOptions::of("linear"), steps_per_epoch: 0, mean: 0.25 },
        Case { options: linear(0.0, 1.0), steps_per_epoch: 0, mean: 0.5 },
        Case { options: linear(0.1, 0.5), steps_per_epoch: 0, mean: 0.225 },
        Case { options: PlanOptions::of("svcca-linear"), steps_per_epoch: 4, mean: 0.5 },
        Case { options: PlanOptions::of("svcca-linear"), steps_per_epoch: 0, mean: 0.5 },
        Case { options: freezeout("linear", 0.5), steps_per_epoch: 4, mean: 0.25 },
        Case { options: freezeout("linear", 0.8), steps_per_epoch: 4, mean: 0.1 },
        Case { options: freezeout("cubic", 0.8), steps_per_epoch: 4, mean: cubic(0.8) },
        Case { options: freezeout("cubic", 0.5), steps_per_epoch: 0, mean: cubic(0.5) },
    ];
    assert!((cubic(0.8) - 0.262).abs() < 1e-12);
    let model = chain(200);
    for Case { options, steps_per_epoch, mean } in cases {
        let summary = planned(&options, &model, Run { epochs: 200, steps_per_epoch }).summary;
        for (saving, limit) in [(1.0 - summary.cost_ratio, 2.0 * mean / 3.0), (1.0 - summary.cached_cost_ratio, mean)] {
            assert!((saving - limit).abs() < 0.01, "{options:?}: saves {saving}, in the limit {limit}");
        }
    }
}

/// The discrete form of the limit above: with all units and `alpha` the mean over epochs 0 to E - 1.
#[test]
fn the_geometric_schedule_saves_what_its_limit_says() {
    let model = chain(200);
    for (alpha, epochs) in [(0.5_f64, 10), (0.1, 40), (0.2, 100)] {
        let mean = 1.0 - (1.0 - (1.0 - alpha).powi(epochs)) / (alpha * f64::from(epochs));
        let run = Run { epochs: usize::try_from(epochs).unwrap(), steps_per_epoch: 0 };
        let summary = planned(&PlanOptions::of("geometric").with("alpha", alpha), &model, run).summary;
        let saving = 1.0 - summary.cost_ratio;
        assert!((saving - 2.0 * mean / 3.0).abs() < 0.01, "alpha {alpha}: saves {saving}, in the limit {mean}");
    }
}
