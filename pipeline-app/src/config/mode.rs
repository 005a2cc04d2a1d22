//! Which mode: the one decision that two settings make together, `KAFKA_BOOTSTRAP_SERVERS` and
//! `DATABASE_URL`. Other variables, `PG*` among them, never do.

use anyhow::{Result, bail};

use super::layers::Origin;

/// The mode, and why it is this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    /// Which one.
    pub kind: ModeKind,
    /// One line for whoever starts the job.
    pub why: String,
}

/// The modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeKind {
    /// Kafka, and PostgreSQL for the tables if there are any.
    Real,
    /// Nothing but this machine.
    Embedded,
    /// Files as input, and some outputs in Kafka or PostgreSQL.
    Mixed,
}

/// What the decision depends on.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Where the brokers were set, if they were.
    pub(super) kafka: Option<Origin>,
    /// Where the database was set, if it was.
    pub(super) database: Option<Origin>,
    /// Whether files are the input.
    pub(super) files: bool,
    /// Whether tables are written.
    pub(super) tables: bool,
    /// Whether results are only looked at: then nothing can be missing.
    pub(super) only_looking: bool,
    /// The data folder, for the explanation.
    pub(super) data_dir: String,
}

/// Decides.
pub(super) fn decide(facts: &Facts) -> Result<Mode> {
    let Facts { kafka, database, files, tables, only_looking, data_dir } = facts;
    let mode = |kind, why: String| Ok(Mode { kind, why });
    match (kafka, database) {
        (Some(k), Some(d)) if !files => {
            let without = if *tables { "" } else { ", which stays unused without tables" };
            mode(
                ModeKind::Real,
                format!(
                    "real mode: KAFKA_BOOTSTRAP_SERVERS ({k}) and DATABASE_URL ({d}) are set{without}"
                ),
            )
        }
        (None, None) if !files => mode(
            ModeKind::Embedded,
            format!(
                "embedded mode: neither KAFKA_BOOTSTRAP_SERVERS nor DATABASE_URL is set, so \
                 generated events go to SQLite and files in {data_dir}/"
            ),
        ),
        (Some(k), None) if !files && (!tables || *only_looking) => mode(
            ModeKind::Real,
            format!("real mode without tables: KAFKA_BOOTSTRAP_SERVERS ({k}) is set"),
        ),
        (Some(k), None) if !files => bail!(
            "KAFKA_BOOTSTRAP_SERVERS is set ({k}), and DATABASE_URL is not: the tables need a \
             database. Set DATABASE_URL (postgres://user:password@host/stream_data), leave the \
             tables out with --outputs lake,enriched, or unset KAFKA_BOOTSTRAP_SERVERS for \
             embedded mode"
        ),
        (None, Some(d)) if !files && !only_looking => bail!(
            "DATABASE_URL is set ({d}), and KAFKA_BOOTSTRAP_SERVERS is not: there is nothing to \
             read. Set KAFKA_BOOTSTRAP_SERVERS (host:port), read files with --input FILE, or unset \
             DATABASE_URL for embedded mode"
        ),
        (None, None) => mode(
            ModeKind::Embedded,
            format!(
                "embedded mode: --input is read, results go to SQLite and files in {data_dir}/"
            ),
        ),
        _ => {
            let topics = match kafka {
                Some(k) => format!("topics (KAFKA_BOOTSTRAP_SERVERS, {k})"),
                None => format!("files in {data_dir}/"),
            };
            let tables = match (tables, database) {
                (false, _) => String::new(),
                (true, Some(d)) => format!(", tables to PostgreSQL (DATABASE_URL, {d})"),
                (true, None) => format!(", tables to SQLite in {data_dir}/"),
            };
            mode(
                ModeKind::Mixed,
                format!("mixed mode: --input is read, records go to {topics}{tables}"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules() {
        use ModeKind::{Embedded, Mixed, Real};
        // Kafka, database, --input, tables: the mode, or what the message must name.
        type Case = (u8, u8, bool, bool, Result<ModeKind, &'static str>);
        let cases: [Case; 16] = [
            (1, 1, false, true, Ok(Real)),
            (1, 1, false, false, Ok(Real)),
            (0, 0, false, true, Ok(Embedded)),
            (0, 0, false, false, Ok(Embedded)),
            (1, 0, false, true, Err("Set DATABASE_URL")),
            (1, 0, false, false, Ok(Real)),
            (0, 1, false, true, Err("Set KAFKA_BOOTSTRAP_SERVERS")),
            (0, 1, false, false, Err("Set KAFKA_BOOTSTRAP_SERVERS")),
            (1, 1, true, true, Ok(Mixed)),
            (1, 1, true, false, Ok(Mixed)),
            (0, 0, true, true, Ok(Embedded)),
            (0, 0, true, false, Ok(Embedded)),
            (1, 0, true, true, Ok(Mixed)),
            (1, 0, true, false, Ok(Mixed)),
            (0, 1, true, true, Ok(Mixed)),
            (0, 1, true, false, Ok(Mixed)),
        ];
        for (kafka, database, files, tables, expected) in cases {
            let mut facts = Facts {
                kafka: (kafka == 1).then_some(Origin::DotEnv),
                database: (database == 1).then_some(Origin::Environment),
                files,
                tables,
                only_looking: false,
                data_dir: "data".to_owned(),
            };
            match (decide(&facts), expected) {
                (Ok(mode), Ok(kind)) => {
                    assert_eq!(mode.kind, kind, "{facts:?}");
                    assert!(!mode.why.contains('\n') && mode.why.contains("mode"), "{}", mode.why);
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{facts:?}: {found:?}"),
            }
            facts.only_looking = true;
            assert!(decide(&facts).is_ok(), "whoever looks at results needs no source: {facts:?}");
        }
    }

    #[test]
    fn the_explanation_says_where_it_was_set() {
        let facts = Facts {
            kafka: Some(Origin::DotEnv),
            database: Some(Origin::Flag),
            files: false,
            tables: true,
            only_looking: false,
            data_dir: "data".to_owned(),
        };
        let why = decide(&facts).unwrap().why;
        assert!(why.contains("(.env)") && why.contains("(command line)"), "{why}");
    }
}
