//! One Parquet file that is being written.

use std::fs::File;
use std::path::PathBuf;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_writer::ArrowWriterOptions;
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use ::parquet::schema::types::ColumnPath;
use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};

use super::columns::{Columns, Fill};
use crate::connector::file::failed;
use crate::error::{Error, Result};

/// Rows are handed to the encoder in pieces of about this many, or this many bytes: small batches
/// would cost more for the call than for the rows.
const PIECE_ROWS: usize = 8_192;
const PIECE_BYTES: usize = 8 << 20;

/// Row groups of a million rows suit readers; fewer when the rows are large, since a whole group is
/// kept in memory until it is complete.
const GROUP_ROWS: usize = 1 << 20;
const GROUP_BYTES: usize = 64 << 20;

const ROLE: &str = "the lake's file";

/// How files are written.
#[derive(Debug, Clone)]
pub(super) struct Format {
    schema: SchemaRef,
    properties: WriterProperties,
}

impl Format {
    pub(super) fn new<T: 'static>(columns: &Columns<T>, schema_version: u32) -> Result<Self> {
        let schema = columns.schema();
        let zstd = ZstdLevel::try_new(1).map_err(|e| Error::internal("zstd").because(e))?;
        let version =
            KeyValue::new("streamkit.schema_version".to_owned(), Some(schema_version.to_string()));
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(zstd))
            .set_dictionary_enabled(true)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_max_row_group_bytes(Some(GROUP_BYTES))
            .set_created_by(concat!("streamkit version ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(vec![version]));
        for field in schema.fields() {
            // Hardly any value comes twice: a dictionary would be built only to be given up. But
            // each is near the one before, and differences leave little for zstd to do: files are
            // as small, and written half as fast again. (Spark reads them since 3.3.)
            if matches!(field.data_type(), DataType::Timestamp(..) | DataType::Int64) {
                let column = ColumnPath::new(vec![field.name().clone()]);
                properties = properties
                    .set_column_dictionary_enabled(column.clone(), false)
                    .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
            }
        }
        Ok(Self { schema, properties: properties.build() })
    }
}

/// An open file: rows of one date.
pub(super) struct Part<T> {
    path: PathBuf,
    schema: SchemaRef,
    columns: Vec<Box<dyn Fill<T>>>,
    waiting: usize,
    rows: u64,
    writer: ArrowWriter<File>,
}

/// A file that is complete and durable; its name is not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl<T: 'static> Part<T> {
    pub(super) fn create(path: PathBuf, columns: &Columns<T>, format: &Format) -> Result<Self> {
        let file = File::create_new(&path).map_err(|e| failed("create", ROLE, &path, e))?;
        // Arrow's own copy of the schema is left out: the file's says the same, and is the only one
        // that all readers know.
        let options = ArrowWriterOptions::new()
            .with_properties(format.properties.clone())
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(file, format.schema.clone(), options)
            .map_err(|e| encoding(&path, e))?;
        let schema = format.schema.clone();
        Ok(Self { path, schema, columns: columns.fillers(), waiting: 0, rows: 0, writer })
    }

    pub(super) fn append(&mut self, rows: &[&T]) -> Result<()> {
        for column in &mut self.columns {
            column.fill(rows);
        }
        self.waiting += rows.len();
        self.rows += rows.len() as u64;
        let weight = || self.columns.iter().map(|column| column.weight()).sum::<usize>();
        if self.waiting >= PIECE_ROWS || weight() >= PIECE_BYTES { self.encode() } else { Ok(()) }
    }

    fn encode(&mut self) -> Result<()> {
        let arrays = self.columns.iter_mut().map(|column| column.finish()).collect();
        self.waiting = 0;
        RecordBatch::try_new(self.schema.clone(), arrays)
            .map_err(|e| Error::internal("the lake's columns do not fit").because(e))
            .and_then(|batch| self.writer.write(&batch).map_err(|e| encoding(&self.path, e)))
    }

    /// About how large the file would be if it were closed now.
    pub(super) fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Writes the rest and the footer, and makes the content durable.
    pub(super) fn close(mut self) -> Result<Closed> {
        if self.waiting > 0 {
            self.encode()?;
        }
        let file = self.writer.into_inner().map_err(|e| encoding(&self.path, e))?;
        file.sync_all().map_err(|e| failed("sync", ROLE, &self.path, e))?;
        let bytes = file.metadata().map_err(|e| failed("sync", ROLE, &self.path, e))?.len();
        Ok(Closed { rows: self.rows, bytes })
    }
}

fn encoding(path: &std::path::Path, error: ParquetError) -> Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(io) => failed("write", ROLE, path, *io),
            Err(cause) => Error::internal(format!("cannot encode {ROLE}")).because(cause),
        },
        other => Error::internal(format!("cannot encode {ROLE}")).because(other),
    }
}
