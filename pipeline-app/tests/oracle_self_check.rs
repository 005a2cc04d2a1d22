//! The oracle's own tests.

mod oracle;
#[path = "oracle/self_check.rs"]
mod self_check;
#[path = "oracle/self_check_records.rs"]
mod self_check_records;
