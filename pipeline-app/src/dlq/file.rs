//! Dead letters of the file that stands for a topic.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::letter::Letter;

/// Calls `each` with every committed dead letter.
pub(super) fn read(path: &Path, mut each: impl FnMut(Letter) -> Result<()>) -> Result<()> {
    let Some(length) = committed(path)? else {
        bail!(
            "there is no {} yet: nothing has been written to it, or the job's folder is another \
             (--data-dir)",
            path.display()
        );
    };
    let failed = || format!("{} cannot be read", path.display());
    let mut lines = BufReader::new(File::open(path).with_context(failed)?.take(length));
    let mut line = vec![];
    for offset in 0.. {
        line.clear();
        if lines.read_until(b'\n', &mut line).with_context(failed)? == 0 {
            break;
        }
        each(Letter::from_line(&line, offset).with_context(failed)?)?;
    }
    Ok(())
}

/// How many bytes count; what follows may be taken back. `None`: there is no such file.
fn committed(path: &Path) -> Result<Option<u64>> {
    #[derive(Deserialize)]
    struct Sidecar {
        length: u64,
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".progress");
    let beside = PathBuf::from(beside);
    if !path.is_file() || !beside.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&beside);
    let sidecar = text.map_err(anyhow::Error::from).and_then(|text| {
        let line = text.lines().next().unwrap_or_default();
        serde_json::from_str::<Sidecar>(line).map_err(anyhow::Error::from)
    });
    let sidecar = sidecar.with_context(|| format!("{} cannot be read", beside.display()))?;
    Ok(Some(sidecar.length))
}
