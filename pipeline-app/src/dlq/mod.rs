//! `pipeline-app dlq`: looks at dead letters, and sends them back once what was wrong is put right.

mod file;
mod letter;
mod redriven;
mod topic;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::ask::confirmed;
use crate::cli::{DlqArgs, DlqCommand, DlqRedriveArgs};
use crate::config::{Config, Topics};
use crate::model::Reason;
use crate::show::Table;
use crate::text::{number, print};
use letter::{Letter, escaped};

/// Does what was asked for.
///
/// # Errors
/// If the dead letters cannot be read or sent, or are not there.
pub fn dlq(config: &Config, command: &DlqCommand) -> Result<()> {
    match command {
        DlqCommand::List(args) => list(config, &args.which, args.limit),
        DlqCommand::Redrive(args) => redrive(config, args),
    }
}

/// Calls `each` with every dead letter that was asked for, in order.
fn read(
    config: &Config,
    which: &DlqArgs,
    mut each: impl FnMut(Letter) -> Result<()>,
) -> Result<()> {
    if let Some(reason) = &which.reason
        && !Reason::ALL.iter().any(|known| known.as_str() == reason)
    {
        let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        bail!(
            "--reason {reason:?} is no reason of a dead letter; reasons are {}",
            known.join(", ")
        );
    }
    let each = |letter: Letter| if is_wanted(&letter, which) { each(letter) } else { Ok(()) };
    match &config.kafka {
        Some(kafka) => topic::read(kafka, &config.topics.dlq, each),
        None => file::read(&Topics::file(&config.data_dir, &config.topics.dlq), each),
    }
}

fn is_wanted(letter: &Letter, which: &DlqArgs) -> bool {
    which.reason.as_ref().is_none_or(|reason| *reason == letter.reason)
        && which.partition.is_none_or(|partition| partition == letter.partition)
        && which.from.is_none_or(|from| letter.offset >= from)
        && which.to.is_none_or(|to| letter.offset <= to)
}

/// The newest of those that were asked for, the newest first.
fn list(config: &Config, which: &DlqArgs, limit: usize) -> Result<()> {
    let mut newest: VecDeque<Letter> = VecDeque::new();
    read(config, which, |letter| {
        newest.push_back(letter);
        if newest.len() > limit {
            // Partitions are read one after the other, so the oldest is not always the first.
            let oldest = newest.iter().enumerate().min_by_key(|(_, letter)| letter.age());
            if let Some((oldest, _)) = oldest {
                newest.remove(oldest);
            }
        }
        Ok(())
    })?;
    newest.make_contiguous().sort_by_key(Letter::age);
    let mut table = Table::new([
        "partition#",
        "offset#",
        "time",
        "reason",
        "given up by",
        "field",
        "error",
        "value",
    ]);
    for letter in newest.iter().rev() {
        table.push([
            letter.partition.to_string(),
            letter.offset.to_string(),
            letter.timestamp.clone(),
            letter.reason.clone(),
            escaped(letter.operator.as_bytes()),
            letter.field.clone(),
            escaped(letter.error.as_bytes()),
            escaped(letter.value.as_deref().unwrap_or_default()),
        ]);
    }
    print(&table.to_string());
    Ok(())
}

/// Sends dead letters back to where they came from, each once.
fn redrive(config: &Config, args: &DlqRedriveArgs) -> Result<()> {
    if let Some(to) = &args.to_file {
        return write(config, args, to);
    }
    let Some(kafka) = &config.kafka else {
        bail!(
            "there is no topic to send dead letters back to: without KAFKA_BOOTSTRAP_SERVERS the \
             input is generated, or files. Write them to a file with --output FILE (- is the \
             standard output), put right what is wrong, and read it with --input FILE"
        );
    };
    let target = crate::run::target(config, kafka);
    let dlq_id = target.topic_id(&config.topics.dlq)?;
    let mut session = topic::Redrive::start(kafka, &config.topics, dlq_id)?;
    let (mut counts, mut refused) = (Counts::default(), Refused::default());
    read(config, &args.which, |letter| {
        let verdict = session.verdict(&letter);
        if verdict == Verdict::Counted {
            refused.say(&letter);
        }
        counts.add(&letter, verdict);
        Ok(())
    })?;
    print(&counts.text(&config.topics.input));
    if counts.to_send() == 0 {
        return Ok(());
    }
    if !args.yes && !confirmed("Send?", "nothing was sent")? {
        bail!("nothing was sent");
    }
    read(config, &args.which, |letter| session.send(&letter))?;
    let sent = session.finish()?;
    print(&format!("{} sent\n", number(sent)));
    Ok(())
}

/// Writes the values as lines, as they once came in.
fn write(config: &Config, args: &DlqRedriveArgs, to: &Path) -> Result<()> {
    let (mut written, mut left, mut refused) = (0, 0, Refused::default());
    let mut lines = |out: &mut dyn Write| {
        read(config, &args.which, |letter| {
            match letter.value.as_deref() {
                _ if letter.is_counted() => refused.say(&letter),
                // Without a value, or with a line break in it, it is no line.
                Some(value) if !value.is_empty() && !value.contains(&b'\n') => {
                    out.write_all(value)?;
                    out.write_all(b"\n")?;
                    written += 1;
                }
                _ => left += 1,
            }
            Ok(())
        })?;
        out.flush().map_err(anyhow::Error::from)
    };
    if to == Path::new("-") {
        lines(&mut BufWriter::new(io::stdout().lock()))?;
    } else {
        // Never over something that is there: it may have been read from already.
        let failed = || format!("{} cannot be written", to.display());
        let file = File::create_new(to).with_context(failed)?;
        let mut out = BufWriter::new(&file);
        lines(&mut out).with_context(failed)?;
        drop(out);
        file.sync_all().with_context(failed)?;
    }
    eprintln!("{} written to {}", number(written), to.display());
    if left > 0 {
        eprintln!("{} left out: they have no value, or more than one line", number(left));
    }
    Ok(())
}

/// Letters whose records must not come again.
#[derive(Debug, Default)]
struct Refused(usize);

impl Refused {
    /// Names the first ones.
    fn say(&mut self, letter: &Letter) {
        const ENOUGH: usize = 20;
        self.0 += 1;
        match self.0 {
            n if n <= ENOUGH => eprintln!("{}", letter.refusal()),
            n if n == ENOUGH + 1 => eprintln!("and more: dlq list names them (given up by)"),
            _ => {}
        }
    }
}

/// What happens to a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Send,
    /// It was sent by an earlier command.
    Sent,
    /// It is of another topic.
    Foreign,
    /// All steps but one have counted its record.
    Counted,
    /// It is of a partition that the topic does not have any more.
    Homeless,
}

#[derive(Default)]
struct Counts(BTreeMap<(Verdict, String), u64>);

impl Counts {
    fn add(&mut self, letter: &Letter, verdict: Verdict) {
        *self.0.entry((verdict, letter.reason.clone())).or_default() += 1;
    }

    fn to_send(&self) -> u64 {
        self.0.iter().filter(|((verdict, _), _)| *verdict == Verdict::Send).map(|(_, n)| n).sum()
    }

    fn text(&self, input: &str) -> String {
        let mut text = String::new();
        for ((verdict, reason), n) in &self.0 {
            let what = match verdict {
                Verdict::Send => format!("to be sent to {input}"),
                Verdict::Sent => "sent before".to_owned(),
                Verdict::Counted => {
                    "counted by all steps but one, and left where they are".to_owned()
                }
                Verdict::Foreign => "of another topic, and left where they are".to_owned(),
                Verdict::Homeless => {
                    format!("of a partition that {input} does not have, and left where they are")
                }
            };
            text.push_str(&format!("{:>9}  {reason}: {what}\n", number(*n)));
        }
        if text.is_empty() { "There are no such dead letters.\n".to_owned() } else { text }
    }
}
