//! What a lake is told: where, by which date, which columns, how large.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::columns::Columns;
use super::layout::Layout;
use super::part::GROUP_ROWS;
use super::sink::LakeWriter;
use crate::connector::file::Failpoints;
use crate::connector::{Sink, SinkContext, SinkOptions, SinkWriter};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::time::{Timestamp, minutes};

/// Writes rows as Parquet files in folders by date: `<root>/event_date=2026-01-31/….parquet`.
///
/// Columns are added in the order in which they are to be stored. Times are stored as microseconds
/// in UTC. The date is that of a row's time in UTC; it is the folder's name, and not in the files.
///
/// ```
/// use streamkit::connector::parquet::LakeSink;
/// use streamkit::time::Timestamp;
///
/// struct Visit { at: Timestamp, user: String, page: Option<String>, line: i64 }
///
/// let lake = LakeSink::new("data/lake", |visit: &Visit| visit.at)
///     .timestamp("event_time", |visit| visit.at)
///     .text("user_id", |visit| &visit.user)
///     .text_or_null("page_url", |visit| visit.page.as_deref())
///     .int64("source_offset", |visit| visit.line);
/// ```
pub struct LakeSink<T> {
    root: PathBuf,
    config: Config<T>,
    options: SinkOptions,
    columns: Columns<T>,
}

/// What the writers of a lake share.
pub(super) struct Config<T> {
    pub(super) date: Arc<dyn Fn(&T) -> Timestamp + Send + Sync>,
    pub(super) folder: String,
    pub(super) schema_version: u32,
    pub(super) roll_bytes: usize,
    pub(super) open_dates: usize,
    pub(super) group_rows: usize,
    pub(super) failpoints: Failpoints,
}

impl<T> Clone for Config<T> {
    fn clone(&self) -> Self {
        Self {
            date: Arc::clone(&self.date),
            folder: self.folder.clone(),
            failpoints: self.failpoints.clone(),
            ..*self
        }
    }
}

impl<T: Data> LakeSink<T> {
    /// A lake in the folder `root`, partitioned by the UTC date of `date`.
    pub fn new(
        root: impl Into<PathBuf>,
        date: impl Fn(&T) -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        Self {
            root: root.into(),
            config: Config {
                date: Arc::new(date),
                folder: "event_date".to_owned(),
                schema_version: 1,
                roll_bytes: 128 << 20,
                open_dates: 32,
                group_rows: GROUP_ROWS,
                failpoints: Failpoints::default(),
            },
            options: SinkOptions::default()
                .commit_within(minutes(5))
                .note_within(minutes(5))
                .without_kept_rows(),
            columns: Columns::new(),
        }
    }

    /// The name of the partition column; `event_date` unless told.
    #[must_use]
    pub fn partition_name(mut self, name: impl Into<String>) -> Self {
        self.config.folder = name.into();
        self
    }

    /// A column of points in time.
    #[must_use]
    pub fn timestamp(
        mut self,
        name: &str,
        value: impl Fn(&T) -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        self.columns.timestamp(name, value);
        self
    }

    /// A column of text.
    #[must_use]
    pub fn text(
        mut self,
        name: &str,
        value: impl for<'a> Fn(&'a T) -> &'a str + Send + Sync + 'static,
    ) -> Self {
        self.columns.text(name, value);
        self
    }

    /// A column of text that may be missing.
    #[must_use]
    pub fn text_or_null(
        mut self,
        name: &str,
        value: impl for<'a> Fn(&'a T) -> Option<&'a str> + Send + Sync + 'static,
    ) -> Self {
        self.columns.text_or_null(name, value);
        self
    }

    /// A column of 32-bit integers.
    #[must_use]
    pub fn int32(mut self, name: &str, value: impl Fn(&T) -> i32 + Send + Sync + 'static) -> Self {
        self.columns.int32(name, value);
        self
    }

    /// A column of 64-bit integers.
    #[must_use]
    pub fn int64(mut self, name: &str, value: impl Fn(&T) -> i64 + Send + Sync + 'static) -> Self {
        self.columns.int64(name, value);
        self
    }

    /// The version of the columns, stored in every file as `streamkit.schema_version`; 1 unless
    /// told. Raise it when the columns of an existing lake change.
    #[must_use]
    pub fn schema_version(mut self, version: u32) -> Self {
        self.config.schema_version = version;
        self
    }

    /// How long the rows of the very first files may wait, so that a new lake does not look empty
    /// for long. Default: as all others.
    #[must_use]
    pub fn first_roll_within(mut self, time: Duration) -> Self {
        self.options = self.options.first_commit_within(time);
        self
    }

    /// How long rows may wait before they become visible; 5 minutes unless told. Shorter means
    /// more and smaller files.
    #[must_use]
    pub fn roll_every(mut self, time: Duration) -> Self {
        self.options = self.options.commit_within(time).note_within(time);
        self
    }

    /// How much may be written before it becomes visible; 128 MiB unless told.
    #[must_use]
    pub fn roll_at_bytes(mut self, bytes: usize) -> Self {
        self.config.roll_bytes = bytes;
        self
    }

    /// How many dates may have an open file, 32 unless told: with late events of many dates, the
    /// file that has waited longest is closed early, and that date gets another one.
    #[must_use]
    pub fn open_dates(mut self, dates: usize) -> Self {
        self.config.open_dates = dates.max(1);
        self
    }

    /// How many rows make a row group, which is what readers skip or read as a whole and what is kept
    /// in memory until it is complete; 524,288 unless told, and never more than 32 MiB.
    #[must_use]
    pub fn row_group_rows(mut self, rows: usize) -> Self {
        self.config.group_rows = rows.max(1);
        self
    }

    /// Calls `hook` at each named step of a commit; an error fails the step. For tests.
    #[doc(hidden)]
    #[must_use]
    pub fn failpoints(
        mut self,
        hook: impl Fn(&str) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.config.failpoints = Failpoints::new(hook);
        self
    }

    fn check_names(&self) -> Result<()> {
        let mut names: Vec<&str> = self.columns.names().collect();
        if names.is_empty() {
            return Err(Error::user("a lake needs at least one column"));
        }
        let folder = self.config.folder.as_str();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if folder.is_empty() || folder.starts_with('_') || !folder.chars().all(plain) {
            return Err(Error::user(format!(
                "{folder:?} cannot be a partition column: letters, digits and _ can, not _ first"
            )));
        }
        if names.contains(&folder) {
            return Err(Error::user(format!(
                "the lake's column {folder} is its partition column, too: that one is the folder's \
                 name, and readers do not agree on what to do if it is in the files as well"
            )));
        }
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::user(format!("the lake has two columns named {}", pair[0]))),
            None => Ok(()),
        }
    }
}

impl<T> fmt::Debug for LakeSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeSink").field("root", &self.root).finish_non_exhaustive()
    }
}

impl<T: Data> Sink<T> for LakeSink<T> {
    fn describe(&self) -> String {
        format!("parquet lake {}", self.root.display())
    }

    fn options(&self) -> SinkOptions {
        self.options
    }

    fn open(&mut self, context: &SinkContext) -> Result<Box<dyn SinkWriter<T>>> {
        self.check_names()?;
        let layout = Layout::create(&self.root, &context.sink)?;
        warn_of_spark(&layout.root);
        let (config, columns) = (self.config.clone(), self.columns.clone());
        Ok(Box::new(LakeWriter::new(layout, config, columns, &context.instance)))
    }
}

fn warn_of_spark(root: &Path) {
    if root.join("_spark_metadata").exists() {
        tracing::warn!(
            root = %root.display(),
            "this folder was written by Spark's streaming sink: while _spark_metadata is in it, \
             Spark sees only the files listed there and none of ours. Remove it, or use a new folder"
        );
    }
}
