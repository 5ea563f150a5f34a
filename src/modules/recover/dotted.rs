//! Ownership from the dotted names of initializers: `layer1.0.conv1.weight` belongs to the module
//! `layer1.0.conv1`.

use crate::modules::parameters::is_state_name;
use std::collections::HashSet;

/// Returns the path of the module that a dotted state name says; `None` for other names.
pub(super) fn owner(name: &str) -> Option<&str> {
    let (path, last) = name.rsplit_once('.')?;
    (is_state_name(name) && !path.is_empty() && !last.is_empty()).then_some(path)
}

/// Returns the owners of the given names and every path above them.
pub(super) fn known<'a>(names: impl Iterator<Item = &'a str>) -> HashSet<String> {
    let mut known = HashSet::new();
    for mut path in names.filter_map(owner) {
        while !path.is_empty() && known.insert(path.to_string()) {
            path = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        }
    }
    known
}
