//! A TCP proxy that knows where Kafka's requests begin and end: it keeps some of them back, and
//! loses or damages answers.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Numbers of requests in Kafka's protocol.
pub(crate) const FETCH: i16 = 1;
pub(crate) const END_TXN: i16 = 26;

#[derive(Debug, Default)]
struct Rules {
    /// Requests of this kind are kept back, and what follows them on their connection.
    hold: Option<i16>,
    /// But only the first of them.
    only_first: bool,
    /// The next answer to such a request gets lost.
    lose: Option<i16>,
    /// In answers to fetches, the first of these bytes is changed.
    damage: Option<Vec<u8>>,
    /// How many requests have been kept back, and how many answers lost or damaged.
    held: usize,
    lost: usize,
    damaged: usize,
}

/// A running proxy.
#[derive(Clone)]
pub(crate) struct Proxy(Arc<(Mutex<Rules>, Condvar)>);

impl Proxy {
    /// Passes connections to the port `front` on to the port `behind`.
    pub(crate) fn start(front: u16, behind: u16) -> Self {
        let proxy = Self(Arc::default());
        let listener = TcpListener::bind(("127.0.0.1", front)).unwrap();
        let ours = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // No broker: the client notices by the end of its connection.
                if let Ok(broker) = TcpStream::connect(("127.0.0.1", behind)) {
                    ours.connect(client, broker);
                }
            }
        });
        proxy
    }

    fn connect(&self, client: TcpStream, broker: TcpStream) {
        let both = |stream: &TcpStream| (stream.try_clone().unwrap(), stream.try_clone().unwrap());
        let ((from_client, to_client), (from_broker, to_broker)) = (both(&client), both(&broker));
        let asked = Arc::new(Mutex::new(Asked::default()));
        let (ours, ask) = (self.clone(), Arc::clone(&asked));
        thread::spawn(move || ours.requests(from_client, to_broker, &ask));
        let ours = self.clone();
        thread::spawn(move || ours.answers(from_broker, to_client, &asked));
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests(&self, mut from: TcpStream, mut to: TcpStream, asked: &Mutex<Asked>) {
        while let Some(frame) = frame(&mut from) {
            // After the length: kind, version, correlation id.
            let kind = i16::from_be_bytes([frame[4], frame[5]]);
            let id = [frame[8], frame[9], frame[10], frame[11]];
            let mut rules = self.rules();
            if rules.hold == Some(kind) {
                rules.held += 1;
                let number = rules.held;
                self.0.1.notify_all();
                while rules.hold == Some(kind) && (number == 1 || !rules.only_first) {
                    rules = self.0.1.wait(rules).unwrap_or_else(PoisonError::into_inner);
                }
            }
            if rules.lose == Some(kind) {
                rules.lose = None;
                asked.lock().unwrap().lose.insert(id);
            }
            drop(rules);
            if kind == FETCH {
                asked.lock().unwrap().fetches.insert(id);
            }
            if to.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    }

    fn answers(&self, mut from: TcpStream, mut to: TcpStream, asked: &Mutex<Asked>) {
        while let Some(mut frame) = frame(&mut from) {
            let id = [frame[4], frame[5], frame[6], frame[7]];
            let (lose, fetched) = {
                let mut asked = asked.lock().unwrap();
                (asked.lose.remove(&id), asked.fetches.remove(&id))
            };
            if lose {
                self.rules().lost += 1;
                self.0.1.notify_all();
                continue;
            }
            if fetched {
                let mut rules = self.rules();
                let at = rules.damage.as_ref().and_then(|bytes| {
                    frame.windows(bytes.len()).position(|window| window == bytes)
                });
                if let Some(at) = at {
                    frame[at] ^= 1;
                    rules.damage = None;
                    rules.damaged += 1;
                }
            }
            if to.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    }

    /// Keeps requests of this kind back.
    pub(crate) fn hold(&self, kind: i16) {
        self.rules().hold = Some(kind);
    }

    /// Waits until so many have been kept back.
    pub(crate) fn wait_held(&self, count: usize) {
        let mut rules = self.rules();
        while rules.held < count {
            rules = self.0.1.wait(rules).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sends on what was kept back, but for the first request.
    pub(crate) fn release_all_but_the_first(&self) {
        self.rules().only_first = true;
        self.0.1.notify_all();
    }

    /// Sends on what was kept back.
    pub(crate) fn release(&self) {
        self.rules().hold = None;
        self.0.1.notify_all();
    }

    /// Loses the next answer to a request of this kind.
    pub(crate) fn lose(&self, kind: i16) {
        self.rules().lose = Some(kind);
    }

    /// Changes the first of these bytes in the next fetched records that hold them.
    pub(crate) fn damage(&self, bytes: &[u8]) {
        self.rules().damage = Some(bytes.to_vec());
    }

    /// How many answers were lost, and how many damaged.
    pub(crate) fn done(&self) -> (usize, usize) {
        let rules = self.rules();
        (rules.lost, rules.damaged)
    }
}

/// Requests of one connection whose answers matter, by their ids.
#[derive(Debug, Default)]
struct Asked {
    lose: BTreeSet<[u8; 4]>,
    fetches: BTreeSet<[u8; 4]>,
}

/// A request or an answer, its length included.
fn frame(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame).ok()?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    frame.resize(4 + length, 0);
    from.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}
