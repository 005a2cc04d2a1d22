//! The lake, read back file by file.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// (partition, offset), event time, user, page, type, date of the folder.
pub type Row = ((i32, i64), i64, String, Option<String>, String, String);

/// Every row of every file.
pub fn rows(root: &Path) -> Vec<Row> {
    let mut rows = vec![];
    for folder in entries(root) {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let date = name.strip_prefix("event_date=").expect("a folder of a date").to_owned();
        for file in entries(&folder) {
            assert!(file.extension().is_some_and(|e| e == "parquet"), "{}", file.display());
            read(&file, &date, &mut rows);
        }
    }
    rows
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn read(file: &Path, date: &str, rows: &mut Vec<Row>) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        assert!(batch.num_rows() > 0, "an empty file: {}", file.display());
        let column = |name: &str| batch.column_by_name(name).expect(name);
        let times = column("event_time").as_primitive::<TimestampMicrosecondType>();
        let partitions = column("source_partition").as_primitive::<Int32Type>();
        let offsets = column("source_offset").as_primitive::<Int64Type>();
        let [users, pages, types] =
            ["user_id", "page_url", "event_type"].map(|name| texts(column(name)));
        for i in 0..batch.num_rows() {
            rows.push((
                (partitions.value(i), offsets.value(i)),
                times.value(i),
                users[i].clone().unwrap(),
                pages[i].clone(),
                types[i].clone().unwrap(),
                date.to_owned(),
            ));
        }
    }
}

/// A column of texts, whether it comes back plain or as a dictionary.
fn texts(column: &arrow_array::ArrayRef) -> Vec<Option<String>> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    if let Some(plain) = column.as_string_opt::<i32>() {
        return plain.iter().map(owned).collect();
    }
    let dictionary = column.as_dictionary::<Int32Type>();
    let values = dictionary.downcast_dict::<arrow_array::StringArray>().unwrap();
    values.into_iter().map(owned).collect()
}
