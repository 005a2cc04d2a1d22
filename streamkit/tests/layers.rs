//! The layer rule: which module may import which is written here, and so is where the crates of
//! other systems may be used. A `use` of anything else fails with its file and line.

use std::path::{Path, PathBuf};

/// A module, and the modules that it may import; in the order in which a record meets them.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("data", &[]),
    ("time", &[]),
    ("record", &["time"]),
    ("state", &["error", "data", "time"]),
    ("window", &["data", "time"]),
    // What connectors see: no watermark, no barrier, nothing of what runs.
    ("connector", &["error", "data", "time", "record"]),
    // What is stored, and when. Knows no operator and no sink.
    ("checkpoint", &["error", "time", "record", "state"]),
    // An operator is a link of a task, and a task drives operators: these two know each other.
    ("operator", &["error", "data", "time", "record", "state", "window", "task"]),
    (
        "task",
        &[
            "error",
            "data",
            "time",
            "record",
            "state",
            "window",
            "connector",
            "checkpoint",
            "operator",
            // `LateRecord`: what the late output of an exchange carries.
            "stream",
        ],
    ),
    // The plan holds sources and sinks as the runtime's cells: these two know each other.
    ("graph", &["error", "data", "record", "state", "checkpoint", "operator", "task", "runtime"]),
    (
        "runtime",
        &[
            "error",
            "data",
            "time",
            "record",
            "state",
            "connector",
            "checkpoint",
            "operator",
            "task",
            "graph",
        ],
    ),
    (
        "stream",
        &[
            "error",
            "data",
            "time",
            "record",
            "state",
            "window",
            "connector",
            "operator",
            "task",
            "graph",
            "runtime",
        ],
    ),
    ("job", &["error", "time", "connector", "graph", "stream", "runtime"]),
];

/// A crate, and the only places that may use it.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("rdkafka", &["connector/kafka"]),
    ("tokio_postgres", &["connector/postgres"]),
    ("rusqlite", &["connector/sqlite"]),
    ("parquet", &["connector/parquet"]),
    ("arrow_array", &["connector/parquet"]),
    ("arrow_schema", &["connector/parquet"]),
    ("flate2", &["connector/file"]),
    ("object_store", &["checkpoint", "runtime"]),
    ("postcard", &["state"]),
];

#[test]
fn modules_import_only_what_their_layer_allows() {
    let mut broken = vec![];
    for (path, line_number, line) in lines() {
        let module = path.split(['/', '.']).next().unwrap_or_default();
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else { continue };
        for used in line.split("crate::").skip(1).map(first_word) {
            let is_layer = LAYERS.iter().any(|(name, _)| *name == used);
            if is_layer && used != module && !allowed.contains(&used) {
                broken.push(format!("src/{path}:{line_number}: {module} imports {used}"));
            }
        }
    }
    assert!(broken.is_empty(), "the layer rule is broken:\n{}", broken.join("\n"));
}

#[test]
fn crates_of_other_systems_are_used_in_one_place() {
    let mut broken = vec![];
    for (path, line_number, line) in lines() {
        for (name, places) in OUTSIDE {
            let used = line.match_indices(&format!("{name}::")).any(|(at, _)| {
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c))
            });
            if used && !places.iter().any(|place| path.starts_with(place)) {
                broken.push(format!("src/{path}:{line_number}: {name}"));
            }
        }
    }
    assert!(broken.is_empty(), "used outside of its place:\n{}", broken.join("\n"));
}

#[test]
fn every_module_is_in_the_table() {
    let free = ["lib", "prelude", "testing"];
    for (path, _, _) in lines() {
        let module = path.split(['/', '.']).next().unwrap_or_default();
        let known = free.contains(&module) || LAYERS.iter().any(|(name, _)| *name == module);
        assert!(known, "say in tests/layers.rs what {module} may import");
    }
}

/// Every line of code under `src/`, with its path there and its number. Comments are left out, and
/// so is everything from a file's own tests on, which may use what they like.
fn lines() -> Vec<(String, usize, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = vec![];
    for file in rust_files(&src) {
        let path = file.strip_prefix(&src).expect("it is below").display().to_string();
        if path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a file of the crate");
        let code = text.lines().enumerate().take_while(|(_, line)| *line != "mod tests {");
        let code = code.filter(|(_, line)| !line.trim_start().starts_with("//"));
        found.extend(code.map(|(i, line)| (path.clone(), i + 1, line.to_owned())));
    }
    assert!(found.len() > 1_000, "where is the code?");
    found
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in std::fs::read_dir(folder).expect("a folder of the crate") {
        let path = entry.expect("an entry of it").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
