//! The rows of the module tree: units under the modules that hold them, with sums.

use crate::cost::Flops;
use crate::plan::{FreezePlan, PlannedUnit};
use crate::report::human::Run;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Levels of a path that become rows of their own.
const LEVELS: usize = 24;

/// A module or unit.
#[derive(Default)]
pub(super) struct Row {
    /// What its name adds to that of the row above.
    pub(super) name: String,
    /// Whole path.
    pub(super) path: String,
    /// Class of the unit; empty for a module.
    pub(super) class: String,
    /// Units at and below it.
    pub(super) units: usize,
    pub(super) elements: u64,
    pub(super) flops: Flops,
    /// For each run of epochs.
    pub(super) cells: Vec<Cell>,
    pub(super) children: Vec<Row>,
}

/// A row in one run of epochs.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cell {
    /// Flops of the backward pass that remain.
    pub(super) left: u64,
    /// Parameters that are frozen.
    pub(super) frozen: usize,
    /// Parameters.
    pub(super) all: usize,
}

impl Cell {
    fn plus(self, other: Cell) -> Cell {
        Cell {
            left: self.left.saturating_add(other.left),
            frozen: self.frozen + other.frozen,
            all: self.all + other.all,
        }
    }
}

impl Row {
    /// Returns the backward flops while everything trains.
    pub(super) fn backward(&self) -> u64 {
        self.flops.backward()
    }
}

/// Returns the rows of a plan: each level of a path is a row, but one that holds a single other row is
/// joined with it.
pub(super) fn rows(plan: &FreezePlan, runs: &[Run<'_>]) -> Vec<Row> {
    let sets: Vec<HashSet<&str>> =
        runs.iter().map(|run| run.first().frozen.iter().map(String::as_str).collect()).collect();
    let mut root = Branch::default();
    for (index, unit) in plan.units.iter().enumerate() {
        root.insert(unit.path.splitn(LEVELS, '.').filter(|part| !part.is_empty()), index);
    }
    let build = Build { plan, runs, sets: &sets };
    let mut rows: Vec<Row> = root.units.iter().map(|index| build.unit(*index, "(model)")).collect();
    rows.extend(root.order.iter().filter_map(|name| Some(build.row(name, "", root.below.get(name)?))));
    rows
}

#[derive(Default)]
struct Branch {
    units: Vec<usize>,
    order: Vec<String>,
    below: HashMap<String, Branch>,
}

impl Branch {
    fn insert<'a>(&mut self, parts: impl Iterator<Item = &'a str>, unit: usize) {
        let mut branch = self;
        for part in parts {
            if !branch.below.contains_key(part) {
                branch.order.push(part.to_string());
            }
            branch = branch.below.entry(part.to_string()).or_default();
        }
        branch.units.push(unit);
    }
}

struct Build<'a> {
    plan: &'a FreezePlan,
    runs: &'a [Run<'a>],
    sets: &'a [HashSet<&'a str>],
}

impl Build<'_> {
    fn row(&self, name: &str, above: &str, branch: &Branch) -> Row {
        let path = if above.is_empty() { name.to_string() } else { format!("{above}.{name}") };
        match (branch.units.as_slice(), branch.order.as_slice()) {
            ([unit], []) => return self.unit(*unit, name),
            ([], [only]) => {
                if let Some(below) = branch.below.get(only) {
                    let joined = self.row(only, &path, below);
                    return Row { name: format!("{name}.{}", joined.name), ..joined };
                }
            }
            _ => {}
        }
        let mut children: Vec<Row> = branch.units.iter().map(|unit| self.unit(*unit, "(itself)")).collect();
        let below = branch.order.iter().filter_map(|name| Some((name, branch.below.get(name)?)));
        children.extend(below.map(|(child, branch)| self.row(child, &path, branch)));
        let mut row = Row { name: name.into(), path, cells: vec![Cell::default(); self.runs.len()], ..Row::default() };
        for child in &children {
            row.units += child.units;
            row.elements = row.elements.saturating_add(child.elements);
            row.flops = row.flops.plus(child.flops);
            row.cells.iter_mut().zip(&child.cells).for_each(|(sum, cell)| *sum = sum.plus(*cell));
        }
        Row { children, ..row }
    }

    fn unit(&self, index: usize, name: &str) -> Row {
        let Some(unit) = self.plan.units.get(index) else { return Row::default() };
        let cells = self.runs.iter().zip(self.sets).map(|(run, set)| cell(unit, run.first().epoch, set)).collect();
        Row {
            name: name.into(),
            path: unit.path.clone(),
            class: unit.class.clone(),
            units: 1,
            elements: unit.elements,
            flops: unit.flops,
            cells,
            children: Vec::new(),
        }
    }
}

fn cell(unit: &PlannedUnit, epoch: usize, set: &HashSet<&str>) -> Cell {
    let frozen = unit.parameters.iter().filter(|name| set.contains(name.as_str())).count();
    let all = unit.parameters.len();
    let left = match unit.backward.iter().rfind(|left| left.from_epoch <= epoch) {
        Some(left) => left.input_grad.saturating_add(left.weight_grad),
        None if frozen == all => 0,
        None => unit.flops.backward(),
    };
    Cell { left, frozen, all }
}

/// Returns when a row freezes: an epoch, the first and the last of its units, `part` or `never`.
pub(super) fn freezes(row: &Row, runs: &[Run<'_>]) -> String {
    let mut epochs = BTreeSet::new();
    collect(row, runs, &mut epochs);
    let known: Vec<usize> = epochs.iter().copied().flatten().collect();
    match (known.first(), known.last()) {
        (None, _) if row.cells.iter().any(|cell| cell.frozen > 0) => "part".into(),
        (Some(first), Some(_)) if epochs.contains(&None) => format!("from {first}"),
        (Some(first), Some(last)) if first != last => format!("{first}-{last}"),
        (Some(first), _) => first.to_string(),
        _ => "never".into(),
    }
}

fn collect(row: &Row, runs: &[Run<'_>], epochs: &mut BTreeSet<Option<usize>>) {
    if row.children.is_empty() {
        let whole = row.cells.iter().position(|cell| cell.all > 0 && cell.frozen == cell.all);
        epochs.insert(whole.and_then(|run| runs.get(run)).map(|run| run.first().epoch));
    }
    row.children.iter().for_each(|child| collect(child, runs, epochs));
}
