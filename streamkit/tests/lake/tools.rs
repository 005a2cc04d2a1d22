//! The commands for people: verify and compact.
