//! The events: those of pipeline-app's generator, as bytes and as structs.

use bytes::Bytes;
use pipeline_app::generate::{Generator, GeneratorOptions};
use pipeline_app::model::{Activity, Origin, decode};
use streamkit::time::Timestamp;

/// What an event says, for the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A page was viewed.
    View,
    /// A session begins.
    Start,
    /// A session ends.
    End,
    /// Anything else.
    Other,
}

/// An event as a struct. Its texts are in memory that is never given back.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// When it happened.
    pub time: Timestamp,
    /// Who did it.
    pub user: &'static [u8],
    /// Where.
    pub page: &'static [u8],
    /// What.
    pub role: Role,
}

/// The same events in both forms, in the order of their arrival in one split.
#[derive(Debug, Clone)]
pub struct Events {
    /// One JSON object each, in the usual order of fields.
    pub json: Vec<Bytes>,
    /// Decoded.
    pub structs: Vec<Event>,
}

/// How many events, and of how many users and pages.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Events.
    pub events: usize,
    /// Users.
    pub users: u32,
    /// Pages.
    pub pages: u32,
}

/// A number from the environment: the size of something, or how often.
#[must_use]
pub fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

impl Size {
    /// From the environment, so that any bench can be had in another size: `EVENTS`, `USERS`,
    /// `PAGES`.
    #[must_use]
    pub fn from_env() -> Self {
        Self::or(1_000_000)
    }

    /// As [`from_env`](Self::from_env), with so many events unless `EVENTS` says otherwise.
    #[must_use]
    pub fn or(events: usize) -> Self {
        Self {
            events: number("EVENTS", events),
            users: number("USERS", 100_000).try_into().unwrap_or(u32::MAX),
            pages: number("PAGES", 10_000).try_into().unwrap_or(u32::MAX),
        }
    }
}

impl Events {
    /// Generates them: seed 1, half an hour of event time, a fifth out of order by up to a minute,
    /// one in a thousand late; all valid, all in the usual form.
    ///
    /// # Panics
    /// If the generator refuses the size, or makes an event that cannot be decoded.
    #[must_use]
    pub fn generate(size: Size) -> Self {
        let mut splits = Self::splits(size, 1);
        splits.remove(0)
    }

    /// As [`generate`](Self::generate), in several splits of about equal size; all events of a user
    /// are in one of them.
    ///
    /// # Panics
    /// As [`generate`](Self::generate).
    #[must_use]
    pub fn splits(size: Size, splits: u32) -> Vec<Self> {
        let options = GeneratorOptions {
            splits,
            users: size.users,
            pages: size.pages,
            events_per_second: (size.events as u64 / 1_800).max(1),
            malformed: 0.0,
            extra_fields: 0.0,
            other_time_forms: 0.0,
            ..GeneratorOptions::default()
        };
        let generator = match Generator::new(&options) {
            Ok(generator) => generator,
            Err(error) => panic!("{error}"),
        };
        (0..splits)
            .map(|split| {
                let mut reader = generator.reader(split, 0);
                let (mut arena, mut spans) = (vec![], vec![]);
                reader.fill(&mut arena, &mut spans, size.events / splits as usize);
                let arena = Bytes::from_static(arena.leak());
                let json: Vec<Bytes> = spans
                    .iter()
                    .map(|span| arena.slice(span.value.start as usize..span.value.end as usize))
                    .collect();
                let structs = json.iter().map(event).collect();
                Self { json, structs }
            })
            .collect()
    }
}

fn event(json: &Bytes) -> Event {
    let activity = match decode(Some(json), Origin::default()) {
        Ok(activity) => activity,
        Err(reject) => panic!("the generator made {reject:?}"),
    };
    Event {
        time: Timestamp::from_micros(activity.event_time()),
        user: activity.user_id_bytes().to_vec().leak(),
        page: activity.page_url_bytes().unwrap_or_default().to_vec().leak(),
        role: role(&activity),
    }
}

/// What a decoded event says.
#[must_use]
pub fn role(activity: &Activity) -> Role {
    if activity.is_page_view() {
        Role::View
    } else if activity.is_session_start() {
        Role::Start
    } else if activity.is_session_end() {
        Role::End
    } else {
        Role::Other
    }
}
