//! Real-time user-activity analytics: the ready-to-run job made with streamkit.
//!
//! The binary of this crate is [`cli`] and a few lines. The parts are a library so that tests can
//! use them; nothing here is meant as an interface for other programs.
//!
//! ```text
//! flags, environment, .env, pipeline.toml ─ config ─ run ─ job ─┬ status   what a terminal shows
//!                                                               ├ http     what a monitor asks
//!                                                               └ summary  what is left at the end
//! ```

mod ask;
pub mod checkpoint_command;
pub mod cli;
pub mod commands;
pub mod config;
pub mod dlq;
pub mod generate;
pub mod generate_command;
pub mod health;
pub mod http;
mod http_limit;
pub mod job;
mod kafka_error;
pub mod lake;
pub mod live;
pub mod lock;
pub mod logging;
pub mod metrics_text;
pub mod model;
pub mod outputs;
pub mod reset;
pub mod rows;
pub mod run;
pub mod show;
pub mod signals;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod summary;
mod text;
