//! The lists of failpoints and of rules are what the source has.
#![cfg(feature = "failpoints")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use streamkit::failpoint::{FAILPOINTS, RULES};

/// Every text in the sources but the lists themselves that looks like the name of a step: the
/// areas that names begin with, a dot, and words.
fn names_in(folder: &Path, areas: &BTreeSet<&str>, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names_in(&path, areas, found);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("failpoint.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let word = |c: char| c.is_ascii_lowercase() || c == '_';
            found.extend(code.split('"').filter_map(|text| {
                let (area, step) = text.split_once('.')?;
                let is_one = areas.contains(area) && !step.is_empty() && step.chars().all(word);
                is_one.then(|| text.to_owned())
            }));
        }
    }
}

#[test]
fn every_listed_failpoint_and_rule_is_in_the_source_and_the_other_way_round() {
    let rules = RULES.iter().map(|(name, _)| *name);
    let listed: BTreeSet<&str> = FAILPOINTS.iter().copied().chain(rules).collect();
    assert_eq!(listed.len(), FAILPOINTS.len() + RULES.len(), "a name is there twice");
    let areas = listed.iter().filter_map(|name| Some(name.split_once('.')?.0)).collect();
    let mut found = BTreeSet::new();
    names_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &areas, &mut found);
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    let unused: Vec<_> = listed.difference(&found).collect();
    let unlisted: Vec<_> = found.difference(&listed).collect();
    assert!(unused.is_empty() && unlisted.is_empty(), "unused {unused:?}, unlisted {unlisted:?}");
}
