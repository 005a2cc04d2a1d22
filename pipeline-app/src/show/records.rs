//! Records of topics, and of the files that stand for topics; which of their fields are shown.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::table::Table;

/// How much of a file is looked at, at a time, from its end.
const CHUNK: u64 = 256 << 10;
/// How much at most.
const MOST: u64 = 256 << 20;

/// A record: its headers without their prefix, and the members of its value if that is an object.
pub(super) type Record = BTreeMap<String, String>;

/// Which fields are shown.
pub(super) struct View {
    columns: &'static [&'static str],
}

pub(super) const ENRICHED: View = View {
    columns: &[
        "processing_time",
        "event_time",
        "user_id",
        "event_type",
        "page_url",
        "page_category",
        "event_date",
    ],
};

pub(super) const LATE: View =
    View { columns: &["aggregate", "event_time", "watermark", "partition#", "offset#", "value"] };

pub(super) const DEAD: View =
    View { columns: &["reason", "field", "topic", "partition#", "offset#", "error", "value"] };

impl View {
    /// The records as a table.
    pub(super) fn table(&self, records: &[Record]) -> Table {
        let mut table = Table::new(self.columns.iter().copied());
        for record in records {
            table.push(self.columns.iter().map(|column| {
                let name = column.trim_end_matches('#');
                let value = record.get(name).or_else(|| record.get(&format!("{name}_base64")));
                value.cloned().unwrap_or_default()
            }));
        }
        table
    }
}

/// The members of a JSON object as text; nothing, if it is none.
pub(super) fn members(json: &[u8]) -> Record {
    let Ok(Value::Object(members)) = serde_json::from_slice(json) else { return Record::new() };
    let text = |value| match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    };
    members.into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// The last records of a file of JSON lines, the last first.
pub(super) fn newest_of_file(path: &Path, limit: usize) -> Result<Vec<Record>> {
    if !path.is_file() {
        bail!(
            "there is no {} yet: nothing has been written to it, or the job's folder is another \
             (--data-dir)",
            path.display()
        );
    }
    let tail = tail(path, limit).with_context(|| format!("{} cannot be read", path.display()))?;
    let lines: Vec<&[u8]> =
        tail.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    Ok(lines.into_iter().rev().take(limit).map(members).collect())
}

/// The last lines of a file, at least `limit` if it has so many, and whole ones only.
fn tail(path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut size = CHUNK;
    loop {
        let start = length.saturating_sub(size);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.by_ref().take(length - start).read_to_end(&mut bytes)?;
        // What follows the last line feed is being written.
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        if start == 0 {
            return Ok(bytes);
        }
        if lines > limit || size >= MOST {
            let first = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            bytes.drain(..first);
            return Ok(bytes);
        }
        size *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_file_is_read_without_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jsonl");
        assert!(newest_of_file(&path, 2).unwrap_err().to_string().contains("--data-dir"));
        let line = |n: usize| format!("{{\"n\":{n},\"text\":\"{}\"}}\n", "x".repeat(100));
        let mut text: String = (0..20_000).map(line).collect();
        text.push_str("{\"n\":\"half");
        std::fs::write(&path, text).unwrap();
        let newest = |limit| {
            let records = newest_of_file(&path, limit).unwrap();
            records.iter().map(|record| record["n"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(newest(3), ["19999", "19998", "19997"]);
        assert_eq!(newest(15_000).len(), 15_000);
        assert_eq!(newest(30_000).len(), 20_000);
        assert!(newest(0).is_empty());
    }

    #[test]
    fn what_is_not_text_is_shown_as_it_is_stored() {
        let record =
            members(br#"{"reason":"bad_utf8","offset":7,"field":null,"value_base64":"/w=="}"#);
        let text = DEAD.table(&[record]).to_string();
        assert!(text.contains("bad_utf8") && text.contains("/w==") && text.contains('7'), "{text}");
        assert_eq!(members(b"[1]"), Record::new());
    }
}
