//! The places that settings come from, one over the other.
//!
//! ```text
//! built-in  <  pipeline.toml (or --config FILE)  <  .env  <  environment  <  flags
//! ```
//!
//! Every value is a text here, and remembers where it came from, so that a message about it can
//! say. Nothing is written into the process's environment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use config::{File, FileFormat, Value, ValueKind};

use super::settings::{PROPERTIES, PROPERTY_ENV, SETTINGS, by_key, did_you_mean};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has set it.
    Default,
    /// A TOML file.
    File(PathBuf),
    /// The file `.env`.
    DotEnv,
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::DotEnv => f.write_str(".env"),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// A value as it was written, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The text.
    pub text: String,
    /// Where it came from.
    pub origin: Origin,
}

/// What every place has to say.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The values by key, the strongest place's one; properties of the Kafka client begin with
    /// `kafka.properties.`.
    values: BTreeMap<String, Given>,
}

impl Layers {
    /// The value of a setting, unless nobody has set it.
    pub fn get(&self, key: &str) -> Option<&Given> {
        self.values.get(key)
    }

    /// The properties of the Kafka client.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &Given)> {
        self.values.iter().filter_map(|(key, given)| Some((key.strip_prefix(PROPERTIES)?, given)))
    }

    fn set(&mut self, key: impl Into<String>, text: impl Into<String>, origin: Origin) {
        self.values.insert(key.into(), Given { text: text.into(), origin });
    }

    /// Puts a TOML file on top.
    ///
    /// # Errors
    /// If it is not TOML, or has a key that means nothing.
    pub fn add_toml(&mut self, path: &Path, text: &str) -> Result<()> {
        let parsed = config::Config::builder()
            .add_source(File::from_str(text, FileFormat::Toml))
            .build()
            .and_then(|parsed| parsed.cache.into_table())
            .map_err(|e| {
                anyhow!("{} is not valid TOML: {}", path.display(), without_line(&e.to_string()))
            })?;
        let mut flat = BTreeMap::new();
        for (key, value) in parsed {
            flatten(&key, value, &mut flat)
                .with_context(|| format!("a value in {} cannot be used", path.display()))?;
        }
        for (key, text) in flat {
            let property = key.starts_with(PROPERTIES);
            if by_key(&key).is_none() && !property {
                let keys = SETTINGS.iter().map(|setting| setting.key);
                let hint = match did_you_mean(&key, keys) {
                    Some(key) => format!("did you mean {key}?"),
                    None => "`pipeline-app config show` lists all there are".to_owned(),
                };
                bail!("{} sets {key}, and there is no such setting: {hint}", path.display());
            }
            // In a file, too, empty is unset: templates are filled in from empty variables.
            if property || !text.trim().is_empty() {
                self.set(key, text, Origin::File(path.to_owned()));
            }
        }
        Ok(())
    }

    /// Puts environment variables on top; those that are empty do not count, nor do others'.
    pub fn add_env(&mut self, variables: &BTreeMap<String, String>, origin: &Origin) {
        let given = |name: &str| variables.get(name).filter(|text| !text.trim().is_empty());
        for setting in SETTINGS {
            if let Some(text) = setting.env.and_then(given) {
                self.set(setting.key, text, origin.clone());
            }
        }
        for (name, text) in variables {
            let Some(property) = name.strip_prefix(PROPERTY_ENV) else { continue };
            if !property.is_empty() && !text.trim().is_empty() {
                let property = property.to_ascii_lowercase().replace('_', ".");
                self.set(format!("{PROPERTIES}{property}"), text, origin.clone());
            }
        }
    }

    /// Puts flags on top.
    pub fn add_flags(&mut self, flags: impl IntoIterator<Item = (&'static str, String)>) {
        for (key, text) in flags {
            self.set(key, text, Origin::Flag);
        }
    }
}

/// The parser's message without the line that it shows: that may hold a password.
fn without_line(message: &str) -> String {
    let shows = |line: &&str| {
        line.trim_start()
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .trim_start()
            .starts_with('|')
    };
    let said: Vec<&str> = message
        .lines()
        .filter(|line| !shows(line) && !line.trim().is_empty())
        .map(str::trim)
        .collect();
    said.join(": ")
}

/// Tables in tables as `a.b.c`, lists as `a,b`.
fn flatten(key: &str, value: Value, flat: &mut BTreeMap<String, String>) -> Result<()> {
    let text = match value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                flatten(&format!("{key}.{name}"), value, flat)?;
            }
            return Ok(());
        }
        ValueKind::Array(_) => {
            let items = value.into_array()?.into_iter().map(Value::into_string);
            items.collect::<Result<Vec<_>, _>>()?.join(",")
        }
        _ => value.into_string().with_context(|| format!("{key} must be a text or a number"))?,
    };
    flat.insert(key.to_owned(), text);
    Ok(())
}

/// The environment, and `.env`.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The process's environment; names and values that are not UTF-8 are left out.
    pub process: BTreeMap<String, String>,
    /// What the file `.env` of the working folder says.
    pub dot_env: BTreeMap<String, String>,
}

impl Environment {
    /// Reads both.
    ///
    /// # Errors
    /// If there is a `.env` that cannot be read.
    pub fn read() -> Result<Self> {
        let text = |os: std::ffi::OsString| os.into_string().ok();
        let process = std::env::vars_os().filter_map(|(n, v)| Some((text(n)?, text(v)?)));
        Ok(Self { process: process.collect(), dot_env: read_dot_env(Path::new(".env"))? })
    }

    /// A variable that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        [&self.process, &self.dot_env]
            .into_iter()
            .filter_map(|variables| variables.get(name))
            .map(|text| text.trim())
            .find(|text| !text.is_empty())
    }
}

fn read_dot_env(path: &Path) -> Result<BTreeMap<String, String>> {
    if !path.is_file() {
        return Ok(BTreeMap::new());
    }
    let problem = |e: dotenvy::Error| match e {
        // The line itself may hold a password.
        dotenvy::Error::LineParse(_, at) => {
            anyhow!(".env has a line that is not NAME=VALUE (character {at} of the line)")
        }
        other => anyhow::Error::new(other).context(".env cannot be read"),
    };
    dotenvy::from_path_iter(path).map_err(problem)?.map(|line| line.map_err(problem)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn toml(text: &str) -> Result<Layers> {
        let mut layers = Layers::default();
        layers.add_toml(Path::new("pipeline.toml"), text)?;
        Ok(layers)
    }

    /// Its messages never show the line: that may hold a password.
    #[test]
    fn fuzz_dot_env() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        let text = "# a\nexport A='b c'\nDATABASE_URL=postgres://u:s3cret@db/x\nB=\"$A\\n${A}\"\n";
        streamkit::testing::fuzz("dot_env", &[text.as_bytes().to_vec()], |bytes| {
            std::fs::write(&path, bytes).unwrap();
            match read_dot_env(&path) {
                Ok(variables) => Layers::default().add_env(&variables, &Origin::DotEnv),
                Err(error) => assert!(!format!("{error:#}").contains("s3cret"), "{error:#}"),
            }
        });
    }

    #[test]
    fn each_place_is_stronger_than_the_one_before() {
        let text = "workers = 1\ninstance = \"file\"\nsession_gap = \"1m\"\nmax_future = \"1m\"";
        let mut layers = toml(text).unwrap();
        let dot_env = variables(&[("WORKERS", "2"), ("INSTANCE", "dot"), ("SESSION_GAP", "2m")]);
        layers.add_env(&dot_env, &Origin::DotEnv);
        let process = variables(&[("WORKERS", "3"), ("INSTANCE", "env"), ("SESSION_GAP", " ")]);
        layers.add_env(&process, &Origin::Environment);
        layers.add_flags([("workers", "4".to_owned())]);
        let got = |key| layers.get(key).map(|given| (given.text.as_str(), given.origin.clone()));
        assert_eq!(got("workers"), Some(("4", Origin::Flag)));
        assert_eq!(got("instance"), Some(("env", Origin::Environment)));
        assert_eq!(got("session_gap"), Some(("2m", Origin::DotEnv)), "empty does not count");
        assert_eq!(got("max_future"), Some(("1m", Origin::File("pipeline.toml".into()))));
        assert_eq!(got("session_max"), None);
    }

    #[test]
    fn properties_come_through_unchanged() {
        let text = "[kafka]\ngroup_id = \"g\"\n[kafka.properties]\n\"sasl.username\" = \"0755\"\n\
                    ssl.ca.location = \"/A b\"";
        let mut layers = toml(text).unwrap();
        let process = [("KAFKA_PROP_SASL_PASSWORD", " 12345"), ("KAFKA_PROP_X", "")];
        layers.add_env(&variables(&process), &Origin::Environment);
        let properties: Vec<_> = layers.properties().map(|(k, v)| (k, v.text.as_str())).collect();
        assert_eq!(
            properties,
            [("sasl.password", " 12345"), ("sasl.username", "0755"), ("ssl.ca.location", "/A b")]
        );
    }

    #[test]
    fn keys_that_mean_nothing_are_errors() {
        for (text, expected) in [
            ("worker = 2", "did you mean workers?"),
            ("[kafka]\ninput_topics = \"x\"", "did you mean kafka.input_topic?"),
            ("[database]\nurl = \"x\"", "did you mean database_url?"),
            ("colour = \"red\"", "config show"),
            ("workers = [[1]]", "pipeline.toml"),
            ("workers = ", "not valid TOML"),
        ] {
            let error = format!("{:#}", toml(text).map(|_| ()).expect_err(text));
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn lists_and_numbers_are_texts() {
        let layers = toml("outputs = [\"lake\", \"enriched\"]\n[generator]\nlate = 0.5").unwrap();
        assert_eq!(layers.get("outputs").unwrap().text, "lake,enriched");
        assert_eq!(layers.get("generator.late").unwrap().text, "0.5");
    }

    #[test]
    fn a_damaged_dot_env_is_an_error_that_shows_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        assert!(read_dot_env(&path).unwrap().is_empty());
        std::fs::write(&path, "# note\nA=1\nB='two words'\n").unwrap();
        assert_eq!(read_dot_env(&path).unwrap(), variables(&[("A", "1"), ("B", "two words")]));
        std::fs::write(&path, "A=1\nsecret with blanks\n").unwrap();
        let error = format!("{:#}", read_dot_env(&path).unwrap_err());
        assert!(error.contains("NAME=VALUE") && !error.contains("secret"), "{error}");
    }
}
