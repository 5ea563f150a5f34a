//! Texts that stand for class indices.

use std::collections::{BTreeSet, HashMap};

/// The texts of classes 0, 1, ..
#[derive(Clone, Debug)]
pub(super) struct Classes {
    pub names: Vec<String>,
    indices: HashMap<String, i64>,
}

impl Classes {
    /// Returns the given classes, or where none are given the distinct texts in sorted order.
    pub fn of<'a>(given: &[String], found: impl Iterator<Item = &'a str>) -> Classes {
        let names: Vec<String> = if given.is_empty() {
            found.collect::<BTreeSet<&str>>().into_iter().map(str::to_string).collect()
        } else {
            given.to_vec()
        };
        let indices = names.iter().zip(0..).map(|(name, index)| (name.clone(), index)).collect();
        Classes { names, indices }
    }

    /// Returns the index of a text.
    pub fn index(&self, text: &str) -> Option<i64> {
        self.indices.get(text).copied()
    }
}

/// Returns the first texts of a list, for errors.
pub(super) fn list(names: &[String]) -> String {
    let few: Vec<String> = names.iter().take(10).map(|name| format!("\"{name}\"")).collect();
    let rest = if names.len() > 10 { format!(" or {} more", names.len() - 10) } else { String::new() };
    format!("{}{rest}", few.join(", "))
}
