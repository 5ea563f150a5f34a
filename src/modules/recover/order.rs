//! The order of registration.

use super::Merge;
use crate::graph::{Model, OpId};
use crate::modules::names::{dotted_owner, parent};
use crate::modules::signature;
use crate::modules::tree::ModuleId;

/// Puts children in registration order: those that the exported program's signature or dotted parameters
/// name in that order, numbered ones by number, others behind all of those that run before them.
pub(super) fn order(model: &Model, merge: &mut Merge<'_>) {
    let signed = signature::read(model);
    let count = merge.tree.iter().count();
    let (mut registered, mut used) = (vec![usize::MAX; count], vec![usize::MAX; count]);
    let mut by_index: Vec<(usize, &str)> = signed.iter().map(|(name, signed)| (signed.index, *name)).collect();
    by_index.sort_unstable();
    for (index, name) in &by_index {
        let mut owner = dotted_owner(name);
        while let Some(path) = owner {
            if let Some(id) = merge.tree.get(path) {
                up(merge, id, *index, &mut registered);
                break;
            }
            owner = parent(path);
        }
    }
    // ONNX Runtime writes a model that it has optimized with its initializers in no order.
    let in_order = !model.opsets.contains_key("com.microsoft.nchwc");
    for (index, param) in merge.params.iter().enumerate().filter(|_| in_order) {
        let Some(owner) = merge.owners[index] else { continue };
        if dotted_owner(&param.name).is_some() && !signed.contains_key(param.name.as_str()) {
            up(merge, owner, by_index.len() + index, &mut registered);
        }
    }
    let readers = merge.readers.iter().enumerate().filter_map(|(index, readers)| {
        let reader = readers.first()?;
        Some((reader.node.0, merge.owners[index]?))
    });
    let mut first: Vec<(usize, ModuleId)> = readers.collect();
    // Exporters put these at the front, whatever module they are of.
    let plumbing = |op: &OpId| op.is("Identity") || op.is("Constant");
    let running = merge.graph.node_ids().filter(|(_, node)| !plumbing(&node.op));
    first.extend(running.map(|(id, _)| (id.0, merge.tree.module_of_node(id))));
    first.sort_unstable();
    for (index, id) in first {
        up(merge, id, index, &mut used);
    }
    let ids: Vec<ModuleId> = merge.tree.iter().map(|(id, _)| id).collect();
    for id in ids {
        let ordered = ordered(merge, id, &registered, &used);
        merge.tree.module_mut(id).children = ordered;
    }
    if !signed.is_empty() {
        let key = |name: &String| signed.get(name.as_str()).map_or(usize::MAX, |signed| signed.index);
        let ids: Vec<ModuleId> = merge.tree.iter().map(|(id, _)| id).collect();
        for id in ids {
            let module = merge.tree.module_mut(id);
            if module.parameters.iter().all(|name| signed.contains_key(name.as_str())) {
                module.parameters.sort_by_key(key);
            }
        }
    }
}

fn ordered(merge: &Merge<'_>, id: ModuleId, registered: &[usize], used: &[usize]) -> Vec<ModuleId> {
    let children = &merge.tree.module(id).children;
    let number = |child: &ModuleId| merge.tree.module(*child).name.parse::<u64>();
    if children.iter().all(|child| number(child).is_ok()) {
        let mut ordered = children.clone();
        ordered.sort_by_key(|child| number(child).unwrap_or_default());
        return ordered;
    }
    let (mut named, mut rest): (Vec<ModuleId>, Vec<ModuleId>) =
        children.iter().copied().partition(|child| registered[child.0] != usize::MAX);
    named.sort_by_key(|child| registered[child.0]);
    rest.sort_by_key(|child| used[child.0]);
    // By use, to find for each of the others the last of the named siblings that run before it.
    let mut by_use: Vec<(usize, usize)> =
        named.iter().enumerate().map(|(place, child)| (used[child.0], place)).collect();
    by_use.sort_unstable();
    let mut last = 0;
    for (_, place) in &mut by_use {
        last = last.max(*place);
        *place = last;
    }
    let mut behind: Vec<Vec<ModuleId>> = vec![Vec::new(); named.len() + 1];
    for child in rest {
        let before = by_use.partition_point(|(first, _)| *first < used[child.0]);
        let place = before.checked_sub(1).map_or(0, |last| by_use[last].1 + 1);
        behind[place].push(child);
    }
    let mut ordered = std::mem::take(&mut behind[0]);
    for (child, behind) in named.into_iter().zip(behind.into_iter().skip(1)) {
        ordered.push(child);
        ordered.extend(behind);
    }
    ordered
}

/// Lowers the number of a module and of those above it. Numbers come in rising order, so the way up ends
/// at the first that has one.
fn up(merge: &Merge<'_>, id: ModuleId, index: usize, least: &mut [usize]) {
    let mut next = Some(id);
    while let Some(id) = next.filter(|id| least[id.0] > index) {
        least[id.0] = index;
        next = merge.tree.module(id).parent;
    }
}
