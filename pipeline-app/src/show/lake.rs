//! The newest rows of the lake.
//!
//! Files become visible whole and are never changed, so the newest ones have the newest rows; of
//! those only the last row groups are read.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use chrono::DateTime;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::table::Table;

/// How many files are looked into at most.
const FILES: usize = 16;
/// By which column rows are new.
const NEW_BY: &str = "processing_time";

const COLUMNS: [&str; 7] = [
    NEW_BY,
    "event_time",
    "user_id",
    "event_type",
    "page_url",
    "source_partition#",
    "source_offset#",
];

/// The newest rows.
pub(super) fn read(root: &Path, limit: usize) -> Result<Table> {
    if !root.is_dir() {
        bail!(
            "there is no lake in {} yet: its first files come 30 s (embedded) to 5 minutes after \
             the start; or the job's folder is another (--lake-path, --data-dir)",
            root.display()
        );
    }
    let mut files = parquet_files(root).with_context(|| format!("reading {}", root.display()))?;
    files.sort_by(|a, b| b.cmp(a));
    let mut rows: Vec<(i64, Vec<String>)> = Vec::new();
    for (_, file) in files.iter().take(FILES) {
        if rows.len() > limit {
            break;
        }
        newest_of(file, limit, &mut rows)
            .with_context(|| format!("{} cannot be read", file.display()))?;
    }
    rows.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    let mut table = Table::new(COLUMNS);
    rows.into_iter().take(limit).for_each(|(_, row)| table.push(row));
    Ok(table)
}

/// The files in `event_date=…/` folders, with the time of each.
fn parquet_files(root: &Path) -> std::io::Result<Vec<(SystemTime, PathBuf)>> {
    let mut files = vec![];
    for folder in std::fs::read_dir(root)? {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(folder.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "parquet") {
                // One that is gone by now was somebody else's to remove.
                if let Ok(time) = path.metadata().and_then(|metadata| metadata.modified()) {
                    files.push((time, path));
                }
            }
        }
    }
    Ok(files)
}

/// Adds the newest `limit` rows of a file's last row group.
fn newest_of(path: &Path, limit: usize, rows: &mut Vec<(i64, Vec<String>)>) -> Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let groups = builder.metadata().num_row_groups();
    let last: Vec<usize> = groups.checked_sub(1).into_iter().collect();
    let mut newest: Vec<(i64, Vec<String>)> = vec![];
    for batch in builder.with_row_groups(last).build()? {
        let batch = batch?;
        let times = batch.column_by_name(NEW_BY);
        let times = times.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let time = |row: &usize| times.map_or(0, |times| times.value(*row));
        // A million rows are read quickly, but not written out as text.
        let mut order: Vec<usize> = (0..batch.num_rows()).rev().collect();
        order.sort_by_key(|row| std::cmp::Reverse(time(row)));
        newest.extend(order.iter().take(limit).map(|row| (time(row), cells(&batch, *row))));
        newest.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        newest.truncate(limit);
    }
    rows.append(&mut newest);
    Ok(())
}

fn cells(batch: &RecordBatch, row: usize) -> Vec<String> {
    let cell = |column: &&str| {
        let array = batch.column_by_name(column.trim_end_matches('#'));
        array.map(|array| cell(array.as_ref(), row)).unwrap_or_default()
    };
    COLUMNS.iter().map(cell).collect()
}

fn cell(array: &dyn Array, row: usize) -> String {
    if array.is_null(row) {
        return String::new();
    }
    match array.data_type() {
        DataType::Timestamp(_, _) => array
            .as_primitive_opt::<TimestampMicrosecondType>()
            .and_then(|times| DateTime::from_timestamp_micros(times.value(row)))
            .map(|time| time.format("%Y-%m-%d %H:%M:%S%.3f").to_string())
            .unwrap_or_default(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        other => format!("({other})"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray, TimestampMicrosecondArray};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn write(path: &Path, rows: std::ops::Range<i64>) {
        let start = 1_767_225_600_000_000;
        let times = rows.clone().map(|n| start + n * 1_000_000).collect::<Vec<_>>();
        let pages = rows.clone().map(|n| (n % 2 == 0).then(|| format!("/{n}")));
        let batch = RecordBatch::try_from_iter_with_nullable([
            (NEW_BY, Arc::new(TimestampMicrosecondArray::from(times)) as Arc<dyn Array>, false),
            ("page_url", Arc::new(pages.collect::<StringArray>()), true),
            ("source_offset", Arc::new(Int64Array::from_iter_values(rows)), false),
        ])
        .unwrap();
        let mut writer =
            ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn the_newest_rows_of_the_newest_files() {
        let root = tempfile::tempdir().unwrap();
        assert!(read(&root.path().join("none"), 3).unwrap_err().to_string().contains("no lake"));
        assert!(read(root.path(), 3).unwrap().to_string().contains("nothing yet"));
        let folder = root.path().join("event_date=2026-01-01");
        std::fs::create_dir(&folder).unwrap();
        write(&folder.join("b.parquet"), 0..100);
        write(&folder.join("a.parquet"), 100..102);
        std::fs::write(root.path().join("_SUCCESS"), "").unwrap();
        let text = read(root.path(), 3).unwrap().to_string();
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(rows.len(), 4, "{text}");
        assert!(rows[0].starts_with("2026-01-01 00:01:41.000") && rows[0].ends_with("101"));
        assert!(rows[1].contains("/100"), "{text}");
        assert!(rows[2].ends_with("99"), "{text}");
    }
}
