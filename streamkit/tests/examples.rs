//! Every example prints what its header says it prints.

/// The example `$name`, and a test that compares the last `text` block of its header with what
/// its `run` returns.
macro_rules! example {
    ($name:ident, $path:literal) => {
        #[allow(dead_code, unreachable_pub, reason = "a program of its own, with a main")]
        #[path = $path]
        mod $name;

        #[tokio::test]
        async fn $name() {
            let header = header_output(include_str!($path));
            assert_eq!($name::run().await.unwrap(), header, "the header of {} differs", $path);
        }
    };
}

example!(hello_stream, "../../examples/hello_stream.rs");
example!(tumbling_counts, "../../examples/tumbling_counts.rs");
example!(sliding_active_users, "../../examples/sliding_active_users.rs");
example!(sessions, "../../examples/sessions.rs");
example!(late_and_dead_letters, "../../examples/late_and_dead_letters.rs");
example!(custom_source_operator_sink, "../../examples/custom_source_operator_sink.rs");

fn header_output(example: &str) -> String {
    let header: Vec<&str> = example.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let start = header.iter().rposition(|line| line.trim() == "```text").expect("a text block");
    let block = header[start + 1..].iter().take_while(|line| line.trim() != "```");
    block.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

#[test]
fn no_example_is_left_out() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    for name in files.filter_map(|name| Some(name.to_str()?.strip_suffix(".rs")?.to_owned())) {
        let tested = include_str!("examples.rs").contains(&format!("example!({name},"));
        assert!(tested, "tests/examples.rs does not run examples/{name}.rs");
    }
}
