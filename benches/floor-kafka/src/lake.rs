//! The Parquet file, written by a thread of its own.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use arrow_array::builder::{
    Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::event::Event;

const ROWS_OF_A_BATCH: usize = 65_536;

pub struct Lake {
    schema: SchemaRef,
    rows: usize,
    event_time: TimestampMicrosecondBuilder,
    user_id: StringBuilder,
    page_url: StringBuilder,
    event_type: StringBuilder,
    processing_time: TimestampMicrosecondBuilder,
    source_partition: Int32Builder,
    source_offset: Int64Builder,
    batches: SyncSender<RecordBatch>,
    writer: JoinHandle<()>,
}

impl Lake {
    pub fn create(path: PathBuf) -> Self {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let schema = Arc::new(Schema::new(vec![
            Field::new("event_time", time.clone(), false),
            Field::new("user_id", DataType::Utf8, false),
            Field::new("page_url", DataType::Utf8, false),
            Field::new("event_type", DataType::Utf8, false),
            Field::new("processing_time", time, false),
            Field::new("source_partition", DataType::Int32, false),
            Field::new("source_offset", DataType::Int64, false),
        ]));
        let (batches, to_write) = sync_channel::<RecordBatch>(4);
        let of_file = Arc::clone(&schema);
        let writer = std::thread::spawn(move || {
            let level = ZstdLevel::try_new(1).expect("zstd has a level 1");
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(level))
                .set_dictionary_enabled(false)
                .set_column_dictionary_enabled("page_url".into(), true)
                .set_column_dictionary_enabled("event_type".into(), true)
                .build();
            let file = File::create(path).expect("the lake's file is created");
            let mut file =
                ArrowWriter::try_new(file, of_file, Some(properties)).expect("the schema fits");
            for batch in to_write {
                file.write(&batch).expect("rows are written");
            }
            file.close().expect("the file is closed");
        });
        Self {
            schema,
            rows: 0,
            event_time: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            user_id: StringBuilder::new(),
            page_url: StringBuilder::new(),
            event_type: StringBuilder::new(),
            processing_time: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            source_partition: Int32Builder::new(),
            source_offset: Int64Builder::new(),
            batches,
            writer,
        }
    }

    pub fn append(&mut self, event: &Event<'_>, now_ms: i64, partition: i32, offset: i64) {
        self.event_time.append_value(event.time * 1000);
        self.user_id.append_value(event.user);
        self.page_url.append_value(event.page);
        self.event_type.append_value(event.kind);
        self.processing_time.append_value(now_ms * 1000);
        self.source_partition.append_value(partition);
        self.source_offset.append_value(offset);
        self.rows += 1;
        if self.rows == ROWS_OF_A_BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.rows = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.event_time.finish()),
            Arc::new(self.user_id.finish()),
            Arc::new(self.page_url.finish()),
            Arc::new(self.event_type.finish()),
            Arc::new(self.processing_time.finish()),
            Arc::new(self.source_partition.finish()),
            Arc::new(self.source_offset.finish()),
        ];
        let batch =
            RecordBatch::try_new(Arc::clone(&self.schema), columns).expect("the columns fit");
        self.batches.send(batch).expect("the writer runs");
    }

    pub fn close(mut self) {
        self.flush();
        drop(self.batches);
        self.writer.join().expect("the writer ends well");
    }
}
