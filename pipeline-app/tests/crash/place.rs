//! Where a job reads and writes: a folder, or a folder and real services.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::disk::Disk;
use super::fate::{Mode, Server};
use super::proxy::Proxy;
use super::reader::Reader;
use crate::oracle::generate::{Random, file_content, file_split};
use crate::oracle::{Expected, InputSplit, Settings, expect};
use crate::support::embedded;
use crate::support::kafka::{self, Topic};
use crate::support::services::{self, Database};

/// The surroundings of one job.
pub struct Place {
    folder: TempDir,
    /// What the lake and the checkpoints are on, if it is to get full.
    disk: Option<Disk>,
    splits: Vec<InputSplit>,
    /// How much of each split is there for the program.
    fed: Vec<usize>,
    /// Splits that get nothing at the moment.
    quiet: Vec<bool>,
    pub expected: Expected,
    kind: Kind,
}

enum Kind {
    Embedded { inputs: Vec<PathBuf> },
    Services(Box<Services>),
}

struct Services {
    kafka: String,
    name: String,
    topic: Topic,
    database: Option<Database>,
    /// In front of the services.
    kafka_proxy: Proxy,
    database_proxy: Proxy,
    runtime: Runtime,
}

impl Place {
    /// An empty place for these splits, with a small disk if that is needed and can be had. `None`:
    /// there are no services.
    pub fn new(mode: Mode, mut splits: Vec<InputSplit>, seed: u64, disk: bool) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let kind = match mode {
            Mode::Embedded => {
                let mut inputs = vec![];
                for (i, split) in splits.iter_mut().enumerate() {
                    let name = format!("part{i}.jsonl");
                    let path = folder.path().join(&name);
                    File::create(&path).unwrap();
                    let content = file_content(&split.records);
                    *split = file_split(&name, split.partition, &content, None);
                    inputs.push(path);
                }
                Kind::Embedded { inputs }
            }
            Mode::Services => {
                let (kafka, admin) = services::services()?;
                let runtime = Runtime::new().unwrap();
                // A name of its own, whatever else runs or was left behind.
                static PLACES: AtomicU32 = AtomicU32::new(0);
                let id = std::process::id();
                let n = PLACES.fetch_add(1, Ordering::Relaxed);
                let name = format!("crash-{id}-{n}");
                let server = admin.split(['@', '/']).nth(3).unwrap().to_owned();
                let services = runtime.block_on(async {
                    let topic = Topic::create(&kafka, &name, splits.len()).await;
                    let database = Database::create(&admin, &format!("crash_{id}_{n}")).await;
                    let kafka_proxy = Proxy::start(Server::Kafka, &kafka, !seed).await;
                    let database_proxy = Proxy::start(Server::Postgres, &server, seed).await;
                    (topic, Some(database), kafka_proxy, database_proxy)
                });
                splits.iter_mut().for_each(|split| split.topic = name.clone());
                let (topic, database, kafka_proxy, database_proxy) = services;
                Kind::Services(Box::new(Services {
                    kafka,
                    name,
                    topic,
                    database,
                    kafka_proxy,
                    database_proxy,
                    runtime,
                }))
            }
        };
        let expected = expect(&splits, &Settings::default());
        let (fed, quiet) = (vec![0; splits.len()], vec![false; splits.len()]);
        let disk = disk.then(|| Disk::mount("size=64m")).flatten();
        let mut place = Self { folder, disk, splits, fed, quiet, expected, kind };
        // A file is known by its first line.
        place.feed(0.01);
        Some(place)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder, for a person to look at.
    pub fn keep(mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// The arguments that say what to read and where to write.
    pub fn args(&self) -> Vec<String> {
        let mut args = self.tool(&[]);
        let mut set = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
        set("--ui-bind", "off");
        match &self.kind {
            Kind::Embedded { inputs } => {
                inputs.iter().for_each(|input| set("--input", input.to_str().unwrap()));
            }
            Kind::Services(at) => {
                set("--kafka-bootstrap-servers", &at.kafka_proxy.address().to_string());
                set("--database-url", &at.url_through_proxy());
                set("--kafka-input-topic", &at.name);
                set("--kafka-output-topic", &format!("{}-out", at.name));
                set("--kafka-group-id", &format!("{}-group", at.name));
            }
        }
        args
    }

    /// The arguments of a command that looks at what the job has left here.
    pub fn tool(&self, command: &[&str]) -> Vec<String> {
        let [lake, checkpoints] = [self.lake(), self.on_disk("checkpoints")];
        let folders = [
            "--data-dir",
            "data",
            "--lake-path",
            lake.to_str().unwrap(),
            "--checkpoint-path",
            checkpoints.to_str().unwrap(),
        ];
        folders.iter().chain(command).map(|arg| (*arg).to_owned()).collect()
    }

    fn lake(&self) -> PathBuf {
        self.on_disk("lake")
    }

    /// A folder on the disk that may get full, if there is one.
    fn on_disk(&self, name: &str) -> PathBuf {
        let data = self.folder().join("data");
        self.disk.as_ref().map_or(data, |disk| disk.path().to_owned()).join(name)
    }

    /// Lets some splits, drawn anew each time, get nothing; never all of them.
    pub fn quieten(&mut self, random: &mut Random) {
        self.quiet.fill_with(|| random.below(2) == 0);
        let heard = random.below(self.quiet.len() as i64) as usize;
        self.quiet[heard] = false;
    }

    /// All splits get what is theirs.
    pub fn quieten_none(&mut self) {
        self.quiet.fill(false);
    }

    /// Takes the floors of the run into account, by split as `checkpoint show --json` has them, and
    /// says how many they are.
    pub fn take_floors(&mut self, floors: &serde_json::Value) -> Result<u64, String> {
        let mut n = 0;
        for (id, floors) in floors.as_object().ok_or("no floors")? {
            let floors: Vec<(i64, i64)> =
                serde_json::from_value(floors.clone()).map_err(|e| e.to_string())?;
            // `topic/2`, or `/tmp/x/part2.jsonl#2b6579b2384da4a1`
            let name = id.rsplit('/').next().and_then(|name| name.split('#').next());
            let is_it = |split: &&mut InputSplit| {
                name == Some(&split.partition.to_string()) || name == Some(&split.name)
            };
            let split = self.splits.iter_mut().find(is_it);
            let split = split.ok_or_else(|| format!("a floor for the split {id}"))?;
            n += floors.len() as u64;
            split.floors = floors;
        }
        self.expected = expect(&self.splits, &Settings::default());
        Ok(n)
    }

    /// Gives the program this share of the input.
    pub fn feed(&mut self, share: f64) {
        for (i, split) in self.splits.iter().enumerate() {
            let to = (split.records.len() as f64 * share).ceil() as usize;
            let (from, to) = (self.fed[i], to.clamp(self.fed[i], split.records.len()));
            if from == to || self.quiet[i] {
                continue;
            }
            let records = &split.records[from..to];
            match &self.kind {
                Kind::Embedded { inputs } => {
                    let mut file = File::options().append(true).open(&inputs[i]).unwrap();
                    file.write_all(&file_content(records)).unwrap();
                }
                Kind::Services(at) => {
                    at.runtime.block_on(at.topic.produce(split.partition, records));
                }
            }
            self.fed[i] = to;
        }
    }

    /// Compares every output; panics with the difference.
    pub fn check(&self) {
        let data = self.folder().join("data");
        match &self.kind {
            Kind::Embedded { .. } => embedded::check(&self.expected, &data, &self.lake()),
            Kind::Services(at) => at.runtime.block_on(services::check(
                &self.expected,
                &at.kafka,
                &at.name,
                &at.url(),
                &self.lake(),
            )),
        }
    }

    /// What reads the tables from another thread.
    pub fn reader(&self) -> Reader {
        match &self.kind {
            Kind::Embedded { .. } => Reader::Sqlite(self.folder().join("data/stream_data.db")),
            Kind::Services(at) => Reader::Postgres(at.url()),
        }
    }

    /// `kill -9` for a service of `dev/services`, and a new start after this time.
    pub fn outage(&self, server: Server, time: Duration) {
        let name = if server == Server::Kafka { "kafka" } else { "postgres" };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/services");
        let run = |arg: &str| {
            let out = Command::new(&script).args([arg, name]).output().unwrap();
            String::from_utf8_lossy(&out.stdout).into_owned()
        };
        // `kafka: running (pid 4711, port 19092)`
        let status = run("status");
        let line = status.lines().find(|line| line.starts_with(&format!("{name}: running (pid ")));
        let pid = line.and_then(|line| line.split(['(', ' ', ',']).nth(4)).unwrap();
        Command::new("kill").args(["-KILL", pid]).status().unwrap();
        std::thread::sleep(time);
        let said = run("up");
        assert!(run("status").contains(&format!("{name}: running")), "{said}");
    }

    /// Whether the network to a service fails from now on; how often it was cut so far.
    pub fn network(&self, server: Server, troubled: bool) -> u64 {
        let Kind::Services(at) = &self.kind else { return 0 };
        let proxy = if server == Server::Kafka { &at.kafka_proxy } else { &at.database_proxy };
        proxy.set_troubled(troubled);
        proxy.cuts()
    }

    /// Takes all room on the disk, if there is one that may get full.
    pub fn fill_disk(&self) -> Filled {
        Filled(self.disk.as_ref().map(Disk::fill))
    }

    /// Whether a date of the lake has small files that could become one.
    pub fn has_files_to_merge(&self) -> bool {
        let files = |path: &Path| std::fs::read_dir(path).map_or(0, Iterator::count);
        let Ok(dates) = std::fs::read_dir(self.lake()) else { return false };
        dates.flatten().any(|date| files(&date.path()) > 1)
    }

    /// Ends the program's sessions with PostgreSQL.
    pub fn end_sessions(&self) {
        let Kind::Services(at) = &self.kind else { return };
        at.runtime.block_on(async {
            let client = services::connect(&at.url()).await;
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                        WHERE datname = current_database() AND application_name LIKE 'streamkit/%'";
            // One that has ended by itself meanwhile is no trouble.
            let _ = client.batch_execute(sql).await;
        });
    }
}

/// What takes the room on a disk.
pub struct Filled(Option<PathBuf>);

impl Filled {
    pub fn free(self) {
        self.0.into_iter().for_each(|filler| std::fs::remove_file(filler).unwrap());
    }
}

impl Services {
    fn url(&self) -> String {
        self.database.as_ref().unwrap().url()
    }

    fn url_through_proxy(&self) -> String {
        let url = self.url();
        let (user, place) = url.split_once('@').unwrap();
        let (_, database) = place.split_once('/').unwrap();
        format!("{user}@{}/{database}", self.database_proxy.address())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // After a failure the services may be in any state, and the failure is what counts.
        if std::thread::panicking() {
            return;
        }
        if let Some(database) = self.database.take() {
            self.runtime.block_on(async {
                kafka::delete(&self.kafka, &self.name).await;
                database.drop().await;
            });
        }
    }
}
