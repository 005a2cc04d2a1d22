//! Where events come from: the decoder that all sources share, and the built-in generator.

mod decoder;
mod generator;

pub use decoder::ActivityDecoder;
pub use generator::GeneratorSource;
