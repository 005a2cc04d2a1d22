//! One Parquet file that is being written.

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
use super::staged::Staged;
use crate::connector::file::Failpoints;
use crate::error::{Error, Result};
use crate::failpoint::bound;

/// Rows are handed to the encoder in pieces of about this many, or this many bytes: small batches
/// would cost more for the call than for the rows.
const PIECE_ROWS: usize = 8_192;
const PIECE_BYTES: usize = 8 << 20;

/// Row groups of half a million rows suit readers; fewer when the rows are large, since a whole group
/// is kept in memory until it is complete.
pub(super) const GROUP_ROWS: usize = 1 << 19;
const GROUP_BYTES: usize = 32 << 20;

/// The name under which a file says which version of the columns it has.
pub(super) const SCHEMA_VERSION: &str = "streamkit.schema_version";

/// How files are written.
#[derive(Debug, Clone)]
pub(super) struct Format {
    schema: SchemaRef,
    properties: WriterProperties,
}

impl Format {
    pub(super) fn new<T: 'static>(
        columns: &Columns<T>,
        schema_version: u32,
        group_rows: usize,
    ) -> Result<Self> {
        Self::of(columns.schema(), schema_version.to_string(), group_rows)
    }

    /// For files with this schema.
    pub(super) fn of(schema: SchemaRef, schema_version: String, group_rows: usize) -> Result<Self> {
        let zstd = ZstdLevel::try_new(1).map_err(|e| Error::internal("zstd").because(e))?;
        let version = KeyValue::new(SCHEMA_VERSION.to_owned(), Some(schema_version));
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(zstd))
            .set_dictionary_enabled(true)
            .set_max_row_group_row_count(Some(group_rows))
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

    /// Begins a file.
    pub(super) fn writer(&self, file: Staged) -> Result<ArrowWriter<Staged>> {
        // Arrow's own copy of the schema is left out: the file's says the same, and is the only one
        // that all readers know.
        let options = ArrowWriterOptions::new()
            .with_properties(self.properties.clone())
            .with_skip_arrow_metadata(true);
        ArrowWriter::try_new_with_options(file, self.schema.clone(), options).map_err(encoding)
    }
}

/// An open file: rows of one date.
pub(super) struct Part<T> {
    schema: SchemaRef,
    columns: Vec<Box<dyn Fill<T>>>,
    waiting: usize,
    rows: u64,
    writer: ArrowWriter<Staged>,
}

/// A file whose last byte has been encoded.
pub(super) struct Finished {
    file: Staged,
    rows: u64,
}

/// A file that is complete and durable; its name is not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) hash: String,
}

impl<T: 'static> Part<T> {
    /// A file that does not exist yet. Nothing of the disk is asked here: see [`Staged`].
    pub(super) fn new(
        path: PathBuf,
        columns: &Columns<T>,
        format: &Format,
        failpoints: &Failpoints,
    ) -> Result<Self> {
        let writer = format.writer(Staged::new(path, failpoints.clone()))?;
        let schema = format.schema.clone();
        Ok(Self { schema, columns: columns.fillers(), waiting: 0, rows: 0, writer })
    }

    pub(super) fn append(&mut self, rows: &[&T]) -> Result<()> {
        for column in &mut self.columns {
            column.fill(rows);
        }
        self.waiting += rows.len();
        self.rows += rows.len() as u64;
        let weight = || self.columns.iter().map(|column| column.weight()).sum::<usize>();
        if self.waiting >= bound(PIECE_ROWS, 16) || weight() >= PIECE_BYTES {
            self.encode()
        } else {
            Ok(())
        }
    }

    fn encode(&mut self) -> Result<()> {
        let arrays = self.columns.iter_mut().map(|column| column.finish()).collect();
        self.waiting = 0;
        RecordBatch::try_new(self.schema.clone(), arrays)
            .map_err(|e| Error::internal("the lake's columns do not fit").because(e))
            .and_then(|batch| self.writer.write(&batch).map_err(encoding))
    }

    /// About how large the file would be if it were closed now.
    pub(super) fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Whether the disk has refused something.
    pub(super) fn is_behind(&self) -> bool {
        self.writer.inner().is_behind()
    }

    /// Encodes the rest and the footer.
    pub(super) fn finish(mut self) -> Result<Finished> {
        if self.waiting > 0 {
            self.encode()?;
        }
        let file = self.writer.into_inner().map_err(encoding)?;
        Ok(Finished { file, rows: self.rows })
    }
}

impl Finished {
    pub(super) fn new(writer: ArrowWriter<Staged>, rows: u64) -> Result<Self> {
        Ok(Self { file: writer.into_inner().map_err(encoding)?, rows })
    }

    /// Makes the content durable.
    ///
    /// # Errors
    /// A retriable one leaves everything as it was, to be called again. Any other: it is lost.
    pub(super) fn seal(&mut self) -> Result<Sealed> {
        self.file.seal()?;
        let (bytes, hash) = self.file.content();
        Ok(Sealed { rows: self.rows, bytes, hash })
    }
}

fn encoding(error: ParquetError) -> Error {
    Error::internal("cannot encode the lake's file").because(error)
}
