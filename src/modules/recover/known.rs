//! The module paths that dotted names of initializers say.

use crate::modules::names::{dotted_owner, parent};
use std::collections::{HashMap, HashSet};

/// The owners of initializers with dotted names, and every path above them.
pub(super) struct Known<'a> {
    paths: HashSet<&'a str>,
    /// The paths that end in each sequence of parts, sorted.
    ends: HashMap<&'a str, Vec<&'a str>>,
}

impl<'a> Known<'a> {
    pub(super) fn new(names: impl Iterator<Item = &'a str>) -> Known<'a> {
        let mut paths = HashSet::new();
        for name in names {
            let mut path = dotted_owner(name);
            while let Some(above) = path.filter(|path| paths.insert(*path)) {
                path = parent(above);
            }
        }
        let mut ends: HashMap<&str, Vec<&str>> = HashMap::new();
        for path in &paths {
            let mut end = *path;
            while let Some((_, rest)) = end.split_once('.').filter(|_| parent(path).is_some()) {
                ends.entry(rest).or_default().push(path);
                end = rest;
            }
        }
        ends.values_mut().for_each(|paths| paths.sort_unstable());
        Known { paths, ends }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// Returns the only known path that lies deeper below `path` and ends in `part`.
    pub(super) fn hidden(&self, path: &str, part: &str) -> Option<&'a str> {
        let all = self.ends.get(part)?;
        let front = if path.is_empty() { String::new() } else { format!("{path}.") };
        let from = all.partition_point(|candidate| *candidate < front.as_str());
        let direct = front.len() + part.len();
        let mut found =
            all[from..].iter().take_while(|path| path.starts_with(&front)).filter(|path| path.len() > direct);
        match (found.next(), found.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    }
}
