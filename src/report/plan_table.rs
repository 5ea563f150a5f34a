//! The preview in a terminal of 80 columns.

use super::human::{
    assumed, bytes, caches, clean, conduct, measured_on, parts, percent, plural, policy, runs, saving, seconds,
    time_saved, unit_name, whole_step,
};
use crate::plan::FreezePlan;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Columns of the terminal that the tables are made for.
pub(super) const WIDTH: usize = 80;

/// Returns the plan as text of at most 80 columns: the model, what a step costs with nothing frozen,
/// one row per run of steps with the same frozen set, and what it saves. Column `step cost` is the
/// flops of a step relative to nothing frozen, `cached` the same with a cached prefix once it is
/// filled, `kept` the bytes that the forward pass keeps for the backward pass, `grad+opt` those of
/// gradients and optimizer slots.
pub fn plan_table(plan: &FreezePlan) -> String {
    let model = &plan.model;
    let exporter = if model.exporter.is_empty() { "an unnamed exporter".into() } else { clean(&model.exporter) };
    let mut text = String::new();
    text += &wrap(&format!("{}: opset {}, written by {exporter}", clean(&model.file), model.opset));
    text += &wrap(&format!(
        "{}, {} ({})",
        plural(plan.units.len() as u64, "unit"),
        plural(model.parameters, "parameter"),
        bytes(model.bytes)
    ));
    text += &wrap(&format!("policy {}", policy(plan)));
    if let Some((which, [flops, bytes])) = whole_step(plan) {
        text += &wrap(&format!("per step at {}, {which}:", assumed(plan)));
        text += &format!("  {flops}\n  {bytes}\n");
    }
    if let Some(measured) = &plan.summary.measured {
        text += &wrap(&format!("measured on {}, with nothing frozen:", measured_on(measured)));
        text += &format!("  {}\n", parts(&measured.nothing));
    }
    text.push('\n');
    text += &rows(plan);
    text.push('\n');
    text += &wrap(&saving(plan));
    if let Some(measured) = &plan.summary.measured {
        text += &wrap(&time_saved(measured));
    }
    for note in plan.summary.notes.iter().chain(&conduct(plan)) {
        text += &wrap(&format!("note: {}", clean(note)));
    }
    text
}

fn rows(plan: &FreezePlan) -> String {
    let mut header = vec!["epochs", "frozen", "freezes up to", "step cost", "kept", "grad+opt"];
    let cached = caches(plan);
    if cached {
        header.insert(4, "cached");
    }
    let measured = plan.summary.measured.is_some();
    if measured {
        header.insert(4, "time");
    }
    let mut rows = Vec::new();
    for run in runs(plan) {
        let predicted = &run.first().predicted;
        let mut row = vec![
            run.numbers(),
            format!("{}/{}", run.first().frozen_units, plan.units.len()),
            run.newly.map_or("-".into(), |unit| unit_name(&unit.path)),
            percent(predicted.step_cost),
            bytes(predicted.activation_bytes),
            bytes(predicted.state_bytes),
        ];
        if cached {
            row.insert(4, percent(run.last().predicted.cached_step_cost));
        }
        if measured {
            row.insert(4, predicted.seconds.as_ref().map_or("-".into(), |step| seconds(step.total())));
        }
        rows.push(row);
    }
    render(&header, rows, &[2], &[2])
}

/// Returns what the steps of each run of epochs are predicted to take, as a table of at most 80 columns; `None` where
/// nothing was measured.
#[cfg(feature = "cli")]
pub fn steps_table(plan: &FreezePlan) -> Option<String> {
    let nothing = plan.summary.measured.as_ref()?.nothing.total();
    let mut rows = Vec::new();
    for run in runs(plan) {
        let step = run.first().predicted.seconds?;
        let share = if nothing > 0.0 { percent(step.total() / nothing) } else { "-".into() };
        let mut row = vec![run.numbers(), format!("{}/{}", run.first().frozen_units, plan.units.len())];
        row.extend([step.total(), step.data, step.forward, step.backward, step.update].map(seconds));
        row.extend([share, percent(run.first().predicted.step_cost)]);
        rows.push(row);
    }
    let header = ["epochs", "frozen", "step", "data", "forward", "backward", "update", "time", "flops"];
    Some(render(&header, rows, &[], &[]))
}

/// Returns a table without lines. The columns `paths` are cut in the middle so that a row has
/// [`WIDTH`] columns; the columns `left` are aligned left.
pub(super) fn render(header: &[&str], mut rows: Vec<Vec<String>>, paths: &[usize], left: &[usize]) -> String {
    const GAP: usize = 2;
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|name| name.chars().count())).max().unwrap_or(0)
    };
    let fixed: usize = (0..header.len()).filter(|column| !paths.contains(column)).map(width).sum();
    let gaps = GAP * header.len().saturating_sub(1);
    let room = WIDTH.saturating_sub(fixed + gaps) / paths.len().max(1);
    for row in &mut rows {
        for (column, cell) in row.iter_mut().enumerate().filter(|(column, _)| paths.contains(column)) {
            *cell = middle(cell, room.max(header.get(column).map_or(0, |name| name.len())));
        }
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec()).add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if index == 0 { 0 } else { GAP as u16 }, 0));
        let side = if left.contains(&index) { CellAlignment::Left } else { CellAlignment::Right };
        column.set_cell_alignment(side);
    }
    table.trim_fmt() + "\n"
}

/// Returns `text` in at most `width` characters, with `..` for what is left out of its middle.
pub(super) fn middle(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width || width < 5 {
        return text.into();
    }
    let kept = width - 2;
    let head: String = text.chars().take(kept / 2).collect();
    let tail: String = text.chars().skip(length - (kept - kept / 2)).collect();
    format!("{head}..{tail}")
}

/// Returns `text` in lines of at most [`WIDTH`] columns, each ended; later lines are indented.
pub(super) fn wrap(text: &str) -> String {
    let mut result = String::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.trim().is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            result += &line;
            result.push('\n');
            line = " ".into();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    result + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::units_table;
    use super::*;
    use crate::plan::testing::{Chain, six_units};
    use crate::plan::{PlanOptions, build};

    fn plan() -> FreezePlan {
        let model = Chain { alive: Some("stem.bn.bias"), ..six_units() };
        let keep = vec!["stem.bn.bias".into()];
        build(&model.inputs(12), &PlanOptions { keep, ..PlanOptions::default() }.with("freeze_start", 0.1)).unwrap()
    }

    #[test]
    fn the_preview_of_a_small_model() {
        let expected = r#"
small.onnx: opset 17, written by pytorch 2.9.0
6 units, 596,392 parameters (2.39 MB)
policy linear, freeze_start 0.1, freeze_level 1.0, arithmetic composer
per step at the sizes of the file, with nothing frozen:
  forward 703 MFLOP, input gradients 471 MFLOP, weight gradients 703 MFLOP
  kept for backward 703 MB, gradients 2.39 MB, optimizer 2.39 MB

epochs  frozen  freezes up to              step cost   cached     kept  grad+opt
   1-4     0/6  -                            100.0 %  100.0 %   703 MB   4.77 MB
   5-6     1/6  stem.conv                     87.1 %   74.5 %   467 MB   4.70 MB
   7-8     1/6  -                             87.1 %   74.5 %   467 MB   4.70 MB
  9-10     2/6  layer1.0.conv1                74.8 %   62.2 %   236 MB   4.40 MB
 11-12     3/6  layer1.0.a_..g_path.conv2     62.5 %   49.9 %  5.04 MB   4.11 MB

This schedule cannot save more than 14.8 % of the compute, a speedup of 1.17x;
  with a cached prefix 22.1 %, 1.28x, because parameter "stem.bn.bias" keeps the
  backward pass alive; frozen as well, it would save 25.1 %. Less where time
  goes to data, loss and optimizer.
note: parameter "stem.bn.bias" keeps the backward pass alive in epochs 5 to 12,
  so freezes that come after it in the model save only weight gradients
"#;
        assert_eq!(plan_table(&plan()), expected.trim_start_matches('\n'), "found\n{}", plan_table(&plan()));
    }

    #[test]
    fn the_units_of_a_small_model() {
        let expected = r#"
unit  path               class        elements  forward   input  weight  freezes
   0  stem.conv          Conv2d         9.41 k    236 M   236 M   236 M        5
   1  stem.bn            BatchNorm2d       128   3.21 M  6.42 M  3.21 M     part
   2  layer1.0.conv1     Conv2d         36.9 k    231 M   231 M   231 M        9
   3  layer1...th.conv2  Conv2d         36.9 k    231 M   231 M   231 M       11
   4  layer1.0.bn2       BatchNorm2d       128    803 k  1.61 M   803 k    never
   5  fc                 Linear          513 k   1.02 M  1.02 M  1.02 M    never
"#;
        assert_eq!(units_table(&plan()), expected.trim_start_matches('\n'), "found\n{}", units_table(&plan()));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut model = six_units();
        model.model.file = "a".repeat(60) + ".onnx \u{1b}[2J";
        model.model.exporter = "some exporter of a very long name ".repeat(4);
        for unit in &mut model.units {
            unit.path = format!("{}{}", "encoder.layers.block.".repeat(6), unit.path);
            unit.class = "torch.nn.modules.conv.Conv2d".into();
        }
        model.costs[0].flops.forward = u64::MAX / 8;
        let plan = build(&model.inputs(9000), &PlanOptions::default()).unwrap();
        let text = plan_table(&plan) + &units_table(&plan);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert!(!line.contains('\u{1b}'), "{line:?}");
        }
    }

    #[test]
    fn long_names_are_cut_in_the_middle() {
        assert_eq!(middle("layer1.0.conv1", 14), "layer1.0.conv1");
        assert_eq!(middle("layer1.0.conv1", 10), "laye..onv1");
        assert_eq!(middle("layer1.0.conv1", 9), "lay..onv1");
    }
}
