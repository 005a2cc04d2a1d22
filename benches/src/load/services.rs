//! Kafka and PostgreSQL: topics and a database for one run, deleted after it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use streamkit::time::seconds;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

/// How long a server may take to answer.
pub const PATIENCE: Duration = seconds(30);

/// Where the servers are.
#[derive(Debug, Clone)]
pub struct Services {
    /// `KAFKA_BOOTSTRAP_SERVERS`.
    pub bootstrap: String,
    /// `DATABASE_URL`; the user may create databases.
    pub database: String,
}

/// What one run has there.
#[derive(Debug)]
pub struct Place {
    services: Services,
    name: String,
    runtime: Runtime,
}

impl Services {
    /// From the environment.
    ///
    /// # Errors
    /// If they are not set.
    pub fn from_env() -> Result<Self> {
        let get = |name: &str| {
            std::env::var(name).with_context(|| format!("{name} is not set: see dev/services env"))
        };
        Ok(Self { bootstrap: get("KAFKA_BOOTSTRAP_SERVERS")?, database: get("DATABASE_URL")? })
    }

    /// A client of Kafka.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }
}

impl Place {
    /// Makes the input topic and the database, in place of what an earlier run may have left.
    ///
    /// # Errors
    /// If a server refuses.
    pub fn make(services: &Services, name: &str, partitions: i32) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let place = Self { services: services.clone(), name: name.to_owned(), runtime };
        place.delete()?;
        let input = place.input();
        let new = NewTopic::new(&input, partitions, TopicReplication::Fixed(1));
        // No answer comes to a client that is gone.
        let admin = place.admin()?;
        let made = admin.create_topics([&new], &AdminOptions::new());
        for result in place.runtime.block_on(made)? {
            result.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
        }
        place.execute(&format!("CREATE DATABASE \"{name}\""))?;
        Ok(place)
    }

    /// The topic that the program reads.
    #[must_use]
    pub fn input(&self) -> String {
        format!("{}.in", self.name)
    }

    /// The topic of enriched records.
    #[must_use]
    pub fn enriched(&self) -> String {
        format!("{}.out", self.name)
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> String {
        let server = self.services.database.rsplit_once('/').map_or("", |(server, _)| server);
        format!("{server}/{}", self.name)
    }

    /// What the program is told.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        [
            ("--kafka-bootstrap-servers", self.services.bootstrap.clone()),
            ("--database-url", self.database()),
            ("--kafka-input-topic", self.input()),
            ("--kafka-output-topic", self.enriched()),
            ("--kafka-group-id", self.name.clone()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }

    /// Runs a query in the database of the run.
    ///
    /// # Errors
    /// If it fails.
    pub fn query(&self, sql: &str) -> Result<Vec<tokio_postgres::Row>> {
        self.runtime.block_on(async { Ok(connect(&self.database()).await?.query(sql, &[]).await?) })
    }

    /// Deletes all of it.
    ///
    /// # Errors
    /// If a server refuses.
    pub fn delete(&self) -> Result<()> {
        self.execute(&format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name))?;
        let (input, name) = (self.input(), &self.name);
        let topics = [
            input.clone(),
            self.enriched(),
            format!("{input}.dlq"),
            format!("{input}.late"),
            format!("{name}.progress"),
        ];
        let topics = topics.each_ref().map(String::as_str);
        let admin = self.admin()?;
        let deleted = admin.delete_topics(&topics, &AdminOptions::new());
        for result in self.runtime.block_on(deleted)? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => bail!("topic {topic} cannot be deleted: {code}"),
            }
        }
        Ok(())
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.services.client().create()?)
    }

    fn execute(&self, sql: &str) -> Result<()> {
        self.runtime.block_on(async {
            Ok(connect(&self.services.database).await?.batch_execute(sql).await?)
        })
    }
}

/// Connects to PostgreSQL.
///
/// # Errors
/// If it is not to be had.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("DATABASE_URL")?;
    tokio::spawn(connection);
    Ok(client)
}
