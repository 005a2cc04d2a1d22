//! `pipeline-app show`: the newest rows of any output as a table, wherever the outputs are.

mod lake;
mod records;
mod table;
mod tables;
pub(crate) mod topic;

use anyhow::Result;

use crate::cli::{ShowArgs, Shown};
use crate::config::{Config, KafkaConfig, Topics};
use crate::text::print;
use records::View;
pub(crate) use table::Table;

/// Prints what was asked for.
///
/// # Errors
/// If it cannot be read, or is not there: what to do.
pub async fn show(config: &Config, args: &ShowArgs) -> Result<()> {
    let table = table(config, args).await?;
    print(&table.to_string());
    Ok(())
}

async fn table(config: &Config, args: &ShowArgs) -> Result<Table> {
    let limit = args.limit;
    let topics = &config.topics;
    match args.what {
        Shown::PageViewCounts => tables::read(config, &tables::PAGE_VIEW_COUNTS, limit).await,
        Shown::ActiveUsers => tables::read(config, &tables::ACTIVE_USERS, limit).await,
        Shown::UserSessions => tables::read(config, &tables::USER_SESSIONS, limit).await,
        Shown::Lake => lake::read(&config.lake_path, limit),
        Shown::Enriched => records(config, &topics.output, &records::ENRICHED, limit).await,
        Shown::Late => records(config, &topics.late, &records::LATE, limit).await,
        Shown::Dlq => records(config, &topics.dlq, &records::DEAD, limit).await,
    }
}

/// From the topic, if there is a cluster, else from the file that stands for it.
async fn records(config: &Config, name: &str, view: &View, limit: usize) -> Result<Table> {
    let records = match config.kafka.clone() {
        Some(kafka) => newest_of_topic(kafka, name.to_owned(), limit).await?,
        None => records::newest_of_file(&Topics::file(&config.data_dir, name), limit)?,
    };
    Ok(view.table(&records))
}

async fn newest_of_topic(
    kafka: KafkaConfig,
    name: String,
    limit: usize,
) -> Result<Vec<records::Record>> {
    // The client blocks.
    tokio::task::spawn_blocking(move || topic::newest(&kafka, &name, limit)).await?
}
