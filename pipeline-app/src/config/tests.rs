//! Whole configurations, from what is set to what results.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Parser as _;
use streamkit::time::{minutes, seconds};

use super::*;

/// What a test sets.
#[derive(Default)]
struct Set<'a> {
    toml: &'a str,
    dot_env: &'a [(&'a str, &'a str)],
    env: &'a [(&'a str, &'a str)],
    flags: &'a [&'a str],
}

impl Set<'_> {
    fn layers(&self) -> (Cli, Layers) {
        let cli = Cli::try_parse_from(["pipeline-app"].iter().chain(self.flags)).unwrap();
        let variables = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let mut layers = Layers::default();
        layers.add_toml(Path::new("pipeline.toml"), self.toml).unwrap();
        layers.add_env(&variables(self.dot_env), &Origin::DotEnv);
        layers.add_env(&variables(self.env), &Origin::Environment);
        layers.add_flags(cli.settings());
        (cli, layers)
    }

    fn load(&self) -> Result<Config> {
        let (cli, layers) = self.layers();
        let now = Timestamp::from_micros(1_780_000_000_000_000);
        resolve(&layers, &cli, Machine { now, cores: 3 })
    }

    fn error(&self) -> String {
        format!("{:#}", self.load().expect_err("an error"))
    }
}

#[test]
fn with_nothing_set_the_defaults_are_those_of_the_documentation() {
    let config = Set::default().load().unwrap();
    assert_eq!(config.mode.kind, ModeKind::Embedded);
    assert_eq!(config.data_dir, Path::new("data"));
    assert_eq!(config.lake_path, Path::new("data/lake"));
    assert_eq!(config.checkpoint_path, Path::new("data/checkpoints"));
    assert_eq!(config.sqlite_path(), Path::new("data/stream_data.db"));
    let topics = Topics {
        input: "user_activity".into(),
        output: "enriched_activity".into(),
        dlq: "user_activity.dlq".into(),
        late: "user_activity.late".into(),
        group: "user-activity".into(),
    };
    assert_eq!(config.topics, topics);
    assert_eq!((config.workers, config.instance.as_str()), (3, "0"));
    assert_eq!((config.watermark_delay, config.session_gap), (minutes(2), minutes(30)));
    assert_eq!((config.session_max, config.max_future), (minutes(24 * 60), minutes(60)));
    assert_eq!((config.idle_timeout, config.running_values), (Some(seconds(30)), Some(seconds(2))));
    assert_eq!(config.checkpoint_interval, seconds(10));
    assert_eq!((config.max_dead_letters, config.max_rejects), (None, None));
    assert_eq!(config.on_reject, OnReject::Reject);
    assert_eq!(config.ui_bind, Some(([127, 0, 0, 1], 8088).into()));
    assert_eq!(config.outputs, OutputSet { tables: true, lake: true, enriched: true });
    assert_eq!(config.end, InputEnd::Wait);
    assert!(config.kafka.is_none() && config.database_url.is_none());
    let Input::Generator(generator) = config.input else { panic!("{:?}", config.input) };
    assert_eq!((generator.seed, generator.splits), (1, 4));
    assert_eq!(generator.start_time_micros, 1_780_000_000_000_000 - 7_200_000_000);
}

#[test]
fn each_place_is_stronger_than_the_one_before() {
    let toml = "session_gap = \"1m\"\nsession_max = \"1m\"\nmax_future = \"1m\"\nworkers = 1";
    let dot_env = [("SESSION_MAX", "2m"), ("MAX_FUTURE", "2m"), ("WORKERS", "2")];
    let env = [("MAX_FUTURE", "3m"), ("WORKERS", "3"), ("SESSION_GAP", "")];
    let set = Set { toml, dot_env: &dot_env, env: &env, flags: &["--workers", "4"] };
    let config = set.load().unwrap();
    assert_eq!(config.session_gap, minutes(1), "the file: an empty variable is unset");
    assert_eq!(config.session_max, minutes(2), ".env");
    assert_eq!(config.max_future, minutes(3), "environment");
    assert_eq!(config.workers, 4, "flag");
}

const REAL: [(&str, &str); 3] = [
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092"),
    ("DATABASE_URL", "postgres://user:hunter2@db/stream_data"),
    ("KAFKA_PROP_SASL_PASSWORD", "0755"),
];

#[test]
fn kafka_and_a_database_are_the_real_thing_and_secrets_stay_secret() {
    let config = Set { env: &REAL, ..Set::default() }.load().unwrap();
    assert_eq!((config.mode.kind, &config.input), (ModeKind::Real, &Input::Kafka));
    let kafka = config.kafka.as_ref().unwrap();
    assert_eq!(kafka.bootstrap, "kafka:9092");
    assert_eq!(kafka.properties["sasl.password"], "0755");
    let debug = format!("{config:?}");
    assert!(!debug.contains("hunter2") && !debug.contains("0755"), "{debug}");
    let set = Set { env: &REAL, flags: &["config", "show"], ..Set::default() };
    let shown = show(&set.load().unwrap(), &set.layers().1);
    assert!(!shown.contains("hunter2") && !shown.contains("0755"), "{shown}");
    assert!(shown.contains("kafka.properties.sasl.password"), "{shown}");
    assert!(!shown.contains("generator"), "{shown}");
}

#[test]
fn variables_of_other_programs_do_not_choose() {
    let env = [("PGHOST", "db"), ("PGDATABASE", "x"), ("POSTGRES_PASSWORD", "p"), ("KAFKA_X", "y")];
    let config = Set { env: &env, ..Set::default() }.load().unwrap();
    assert_eq!(config.mode.kind, ModeKind::Embedded);
    let env = [("KAFKA_BOOTSTRAP_SERVERS", ""), ("DATABASE_URL", "  ")];
    let config = Set { env: &env, ..Set::default() }.load().unwrap();
    assert_eq!(config.mode.kind, ModeKind::Embedded, "empty is unset");
}

#[test]
fn one_alone_says_what_is_missing() {
    let kafka = Set { env: &REAL[..1], ..Set::default() };
    assert!(kafka.error().contains("Set DATABASE_URL"), "{}", kafka.error());
    let database = Set { env: &REAL[1..2], ..Set::default() };
    assert!(database.error().contains("Set KAFKA_BOOTSTRAP_SERVERS"), "{}", database.error());
    let flags = ["--outputs", "lake,enriched"];
    let config = Set { env: &REAL[..1], flags: &flags, ..Set::default() }.load().unwrap();
    assert_eq!(config.outputs, OutputSet { tables: false, lake: true, enriched: true });
    let shown = Set { env: &REAL[1..2], flags: &["show", "late"], ..Set::default() };
    assert!(shown.load().is_ok());
}

#[test]
fn files_replace_the_source_and_nothing_else() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let flags = ["run", "--input", path, "--keep-open"];
    let config = Set { env: &REAL[..1], flags: &flags, ..Set::default() }.load().unwrap();
    assert_eq!(config.input, Input::Files(vec![path.into()]));
    assert_eq!((config.mode.kind, config.end), (ModeKind::Mixed, InputEnd::KeepOpen));
    assert!(config.kafka.is_some() && config.database_url.is_none());
    let missing = Set { flags: &["--input", "no-such-file", "--until-end"], ..Set::default() };
    assert_eq!(missing.error(), "--input no-such-file does not exist");
}

#[test]
fn what_is_wrong_is_named_with_its_place_its_value_and_the_remedy() {
    let cases: [(&str, &str, &str); 18] = [
        ("WATERMARK_DELAY", "5 parsecs", "such as 90s"),
        ("IDLE_TIMEOUT", "x", "or off"),
        ("IDLE_TIMEOUT", "0s", "longer than zero"),
        ("CHECKPOINT_INTERVAL", "off", "such as 90s"),
        ("RUNNING_VALUES", "30", "30s"),
        ("MAX_DEAD_LETTERS", "100%", "such as 5%"),
        ("MAX_DEAD_LETTERS", "few", "such as 5%"),
        ("ON_REJECT", "drop", "reject (such a row goes into the table streamkit_rejects) or stop"),
        ("MAX_REJECTS", "0", "ON_REJECT=stop allows none"),
        ("MAX_REJECTS", "5%", "a number of rows"),
        ("WORKERS", "257", "from 1 to 256"),
        ("WORKERS", "many", "write a number"),
        ("UI_BIND", "8088", "127.0.0.1:8088"),
        ("KAFKA_INPUT_TOPIC", "a b", "letters"),
        ("INSTANCE", "a/b", "letters"),
        ("LAKE_PATH", "s3://bucket/x", "folder of this machine"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a,,b", "host:port"),
        ("DATABASE_URL", "mysql://u:hunter2@h/d", "postgres://USER:PASSWORD@HOST"),
    ];
    for (name, value, remedy) in cases {
        let error = Set { env: &[(name, value)], ..Set::default() }.error();
        assert!(error.starts_with(&format!("{name} (environment) is ")), "{error}");
        assert!(error.contains(remedy) && !error.contains("hunter2"), "{error}");
    }
    let error = Set { flags: &["--outputs", "lakes"], ..Set::default() }.error();
    assert!(
        error.starts_with("--outputs (command line) is \"lakes\"") && error.contains("did you")
    );
    let error = Set { toml: "session_gap = \"-1m\"", ..Set::default() }.error();
    assert!(error.starts_with("session_gap (pipeline.toml) is \"-1m\""), "{error}");
    let error = Set { env: &[("KAFKA_OUTPUT_TOPIC", "user_activity")], ..Set::default() }.error();
    assert!(error.contains("KAFKA_INPUT_TOPIC and KAFKA_OUTPUT_TOPIC are both"), "{error}");
}

/// Whatever a file says: it is taken, or what is wrong with it is said on one line that can be read.
#[test]
fn fuzz_settings() {
    let all = r#"
        database_url = "postgres://user:s3cret@db:5432/x?sslmode=require"
        workers = 4
        watermark_delay = "2m"
        max_dead_letters = "5%"
        max_rejects = 1_000
        on_reject = "stop"
        ui_bind = "localhost:8088"
        outputs = ["tables", "lake"]
        [kafka]
        bootstrap_servers = "a:9092,b:9092"
        input_topic = "user_activity"
        [kafka.properties]
        "sasl.username" = "u"
        [generator]
        start_time = "2026-01-01T00:00:00Z"
        rate = "max"
        late = 0.01"#;
    let some = "generator.start_time = \"now-2h\"\nidle_timeout = \"off\"\nlake_path = \"x\"";
    let corpus = [all, some].map(|text| text.as_bytes().to_vec());
    streamkit::testing::fuzz("settings", &corpus, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let cli = Cli::try_parse_from(["pipeline-app"]).unwrap();
        let mut layers = Layers::default();
        let taken = layers.add_toml(Path::new("pipeline.toml"), text);
        let machine = Machine { now: Timestamp::from_micros(0), cores: 2 };
        match taken.and_then(|()| resolve(&layers, &cli, machine)) {
            Ok(config) => assert!(!show(&config, &layers).contains("s3cret")),
            Err(error) => assert!(!format!("{error:#}").trim().is_empty()),
        }
    });
}

#[test]
fn what_may_be_off_can_be_off() {
    let env = [("IDLE_TIMEOUT", "off"), ("RUNNING_VALUES", "OFF"), ("UI_BIND", "off")];
    let config = Set { env: &env, ..Set::default() }.load().unwrap();
    assert_eq!((config.idle_timeout, config.running_values, config.ui_bind), (None, None, None));
    let config = Set { env: &[("UI_BIND", "localhost:1")], ..Set::default() }.load().unwrap();
    assert_eq!(config.ui_bind, Some(([127, 0, 0, 1], 1).into()));
}

#[test]
fn what_happens_to_refused_rows_can_be_said() {
    let env = [("ON_REJECT", "stop"), ("MAX_REJECTS", "1_000")];
    let config = Set { env: &env, ..Set::default() }.load().unwrap();
    assert_eq!((config.on_reject, config.max_rejects), (OnReject::Stop, Some(1_000)));
}

#[test]
fn a_part_is_a_percentage_or_a_fraction() {
    for text in ["5%", "5 %", "0.05"] {
        let config = Set { env: &[("MAX_DEAD_LETTERS", text)], ..Set::default() }.load().unwrap();
        assert_eq!(config.max_dead_letters, Some(0.05), "{text}");
    }
}
