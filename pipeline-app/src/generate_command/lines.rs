//! JSON lines in a file or on the standard output.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Target;
use crate::generate::GeneratedSpan;

/// A file that is written.
pub(super) struct Lines {
    out: BufWriter<Box<dyn Write + Send>>,
    path: PathBuf,
}

impl Lines {
    /// Creates the file, or empties it; `-` is the standard output.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let out: Box<dyn Write + Send> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            let file = File::create(path);
            Box::new(file.with_context(|| format!("--output {} cannot be made", path.display()))?)
        };
        Ok(Self { out: BufWriter::with_capacity(1 << 20, out), path: path.to_owned() })
    }

    fn checked(&self, written: io::Result<()>) -> Result<()> {
        match written {
            // Whoever reads has seen enough.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
            written => written
                .with_context(|| format!("--output {} cannot be written", self.path.display())),
        }
    }
}

/// A line feed within a record becomes a blank, which in JSON changes nothing: a record is a line.
fn write_line(out: &mut impl Write, record: &[u8]) -> io::Result<()> {
    let mut parts = record.split(|byte| *byte == b'\n');
    if let Some(first) = parts.next() {
        out.write_all(first)?;
    }
    for part in parts {
        out.write_all(b" ")?;
        out.write_all(part)?;
    }
    out.write_all(b"\n")
}

impl Target for Lines {
    fn write(&mut self, _split: u32, arena: &[u8], span: &GeneratedSpan) -> Result<()> {
        let record = &arena[span.value.start as usize..span.value.end as usize];
        let written = write_line(&mut self.out, record);
        self.checked(written)
    }

    fn finish(&mut self) -> Result<()> {
        let flushed = self.out.flush();
        self.checked(flushed)
    }

    fn describe(&self) -> String {
        match self.path.to_str() {
            Some("-") => "the standard output".to_owned(),
            _ => self.path.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Generator, GeneratorOptions};
    use crate::generate_command::records::Records;

    #[test]
    fn a_record_is_a_line() {
        let mut out = vec![];
        for record in [&b"{}"[..], b" \t\r\n", b"", b"a\nb\n\nc"] {
            write_line(&mut out, record).unwrap();
        }
        assert_eq!(out, b"{}\n \t\r \n\na b  c\n");
    }

    #[test]
    fn the_file_holds_all_records() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jsonl");
        let options = GeneratorOptions { malformed: 0.2, ..GeneratorOptions::default() };
        let generator = Generator::new(&options).unwrap();
        let mut lines = Lines::create(&path).unwrap();
        let mut records = Records::new(&generator, 10);
        for _ in 0..1_000 {
            let (split, arena, span) = records.next();
            lines.write(split, arena, span).unwrap();
        }
        lines.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1_000);
        assert!(Lines::create(folder.path()).is_err());
    }
}
