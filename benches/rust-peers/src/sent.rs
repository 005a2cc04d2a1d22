//! Events in the form in which the peers take them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use streamkit_benches::events::{Event, Role};

/// Both peers can send records between processes, and so ask for a way to write and read them. Here
/// is one process, in which they send them as they are: a text is a reference, as it is for
/// streamkit and for the loop, and an attempt to write it is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(pub &'static [u8]);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("there is one process only"))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(de::Error::custom("there is one process only"))
    }
}

/// Somebody viewed a page.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct View {
    /// When, in microseconds.
    pub time: i64,
    /// The watermark that it found.
    pub mark: i64,
    /// What.
    pub page: Text,
}

/// Somebody did something.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Act {
    /// When, in microseconds.
    pub time: i64,
    /// The watermark that it found.
    pub mark: i64,
    /// Who.
    pub user: Text,
    /// What it means for a session.
    pub part: Part,
}

/// What an event means for a session. At one instant they count in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// It begins one.
    Start,
    /// It belongs to one.
    Middle,
    /// It ends one.
    End,
}

impl Part {
    /// That of an event.
    pub fn of(role: Role) -> Self {
        match role {
            Role::Start => Self::Start,
            Role::View | Role::Other => Self::Middle,
            Role::End => Self::End,
        }
    }

    /// The other way round, for the loop's state.
    pub fn role(self) -> Role {
        match self {
            Self::Start => Role::Start,
            Self::Middle => Role::Other,
            Self::End => Role::End,
        }
    }
}

/// An event's view, if it is one, and its act.
pub fn both(event: &Event, mark: i64) -> (Option<View>, Act) {
    let time = event.time.as_micros();
    let view = (event.role == Role::View).then_some(View { time, mark, page: Text(event.page) });
    (view, Act { time, mark, user: Text(event.user), part: Part::of(event.role) })
}
