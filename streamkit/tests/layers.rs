//! Which module may import which. The modules are in the order in which a record meets them; each
//! may import those before it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each layer may import the layers above its line. Modules on one line may not import each other.
const LAYERS: &[&[&str]] = &[
    &["failpoint"],
    &["error", "time", "data"],
    &["record"],
    &["progress"],
    &["state"],
    &["window", "connector", "checkpoint"],
    &["flow"],
    &["operator"],
    &["task"],
    &["graph"],
    &["runtime"],
    &["stream"],
    &["job"],
    &["prelude", "testing"],
    // Tests only.
    &["protocol_models"],
];

/// Crates that only one place may use.
const CRATES: &[(&str, &[&str])] = &[
    ("rdkafka", &["connector/kafka"]),
    ("tokio_postgres", &["connector/postgres"]),
    ("tokio_postgres_rustls", &["connector/postgres"]),
    ("rustls", &["connector/postgres"]),
    ("postgres_types", &["connector/postgres"]),
    ("rusqlite", &["connector/sqlite"]),
    ("parquet::", &["connector/parquet"]),
    ("arrow_array", &["connector/parquet"]),
    ("arrow_schema", &["connector/parquet"]),
    ("rustix", &["connector/parquet"]),
    ("flate2", &["connector/file"]),
    ("object_store", &["checkpoint", "runtime/config.rs", "runtime/coordinator/setup.rs"]),
    ("hashbrown", &["state"]),
    ("xxhash_rust", &["state", "connector/file", "connector/parquet", "connector/postgres"]),
];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, all);
            } else if path.extension().is_some_and(|e| e == "rs") {
                all.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = vec![];
    walk(&src, &mut all);
    all.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let is_test =
            path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"));
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code: Vec<&str> =
            code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = if is_test { String::new() } else { code.join("\n") };
        (path.strip_prefix(&src).unwrap().to_owned(), code)
    };
    all.into_iter().map(read).collect()
}

fn module(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn imports(code: &str) -> BTreeSet<String> {
    let after = code.match_indices("crate::").map(|(at, found)| &code[at + found.len()..]);
    let word = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    after.map(word).filter(|word| !word.is_empty()).collect()
}

#[test]
fn modules_import_only_what_comes_before_them() {
    let layer: BTreeMap<&str, usize> =
        (0..).zip(LAYERS).flat_map(|(i, names)| names.iter().map(move |name| (*name, i))).collect();
    let mut wrong = vec![];
    for (path, code) in sources() {
        let from = module(&path);
        if from == "lib" {
            continue;
        }
        let of = *layer.get(from.as_str()).unwrap_or_else(|| panic!("{from} is in no layer"));
        for to in imports(&code) {
            let Some(&at) = layer.get(to.as_str()) else { continue };
            if to == from || at < of {
                continue;
            }
            wrong.push(format!("{} imports {to}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "against the order of the layers:\n{}", wrong.join("\n"));
}

#[test]
fn external_crates_stay_in_their_places() {
    let mut wrong = vec![];
    for (path, code) in sources() {
        let at = path.to_string_lossy().replace('\\', "/");
        for (name, places) in CRATES {
            // `use crate::connector::parquet::..` is ours.
            let uses = code.lines().any(|line| {
                let line = line.trim_start().trim_start_matches("pub ");
                line.starts_with(&format!("use {}", name.trim_end_matches(':')))
                    || (line.contains(&format!(" {}::", name.trim_end_matches(':')))
                        && !line.contains("crate::"))
            });
            if uses && !places.iter().any(|place| at.starts_with(place)) {
                wrong.push(format!("{at} uses {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_clock_asks_the_time() {
    for (path, code) in sources() {
        let asks = code.contains("Instant::now") || code.contains("SystemTime::now");
        assert!(!asks || path.ends_with("time/clock.rs"), "{} asks the time", path.display());
    }
}
