//! One policy a file, and the list of them.

mod linear;
mod none;

pub use linear::Linear;
pub use none::Nothing;

use super::{PlanError, PlanOptions, Policy};
use crate::error::nearest;

/// A policy that can be asked for by name.
pub struct Entry {
    /// Its name in a job file and on the command line.
    pub name: &'static str,
    /// Makes it from options.
    pub new: fn(&PlanOptions) -> Result<Box<dyn Policy>, PlanError>,
}

/// Every policy, in the order in which they are shown.
pub static POLICIES: &[&Entry] = &[&linear::ENTRY, &none::ENTRY];

/// Returns the policy that `options` name.
///
/// # Errors
/// No policy has this name, or one of its knobs is out of range.
pub fn find(options: &PlanOptions) -> Result<Box<dyn Policy>, PlanError> {
    let names = || POLICIES.iter().map(|entry| entry.name);
    match POLICIES.iter().find(|entry| entry.name == options.policy) {
        Some(entry) => (entry.new)(options),
        None => Err(PlanError::UnknownPolicy {
            name: options.policy.clone(),
            nearest: nearest(&options.policy, names()).map(String::from),
            known: names().collect::<Vec<_>>().join(", "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_in_the_list() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/policies");
        let source = include_str!("mod.rs");
        for entry in std::fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let module = file.trim_end_matches(".rs");
            assert!(module == "mod" || source.contains(&format!("&{module}::ENTRY")), "{file} is in no list");
        }
    }

    #[test]
    fn a_policy_is_found_by_its_name_and_has_it() {
        for entry in POLICIES {
            let options = PlanOptions { policy: entry.name.into(), ..PlanOptions::default() };
            assert_eq!(find(&options).unwrap().name(), entry.name);
        }
    }

    #[test]
    fn an_unknown_policy_is_refused_with_the_nearest() {
        let text = |name: &str| {
            let options = PlanOptions { policy: name.into(), ..PlanOptions::default() };
            find(&options).err().expect("no such policy").to_string()
        };
        assert_eq!(text("linaer"), "there is no policy \"linaer\" (nearest: \"linear\"), expected one of linear, none");
        assert_eq!(text("quadratic"), "there is no policy \"quadratic\", expected one of linear, none");
    }
}
