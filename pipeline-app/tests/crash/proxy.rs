//! A network that fails, between the program and a service: connections are cut in the middle of
//! anything, answers get lost (also the one to a commit), and things take long.
//!
//! A broker tells its clients where it is to be found, and they would go past the proxy from then on.
//! So that address is replaced wherever the broker's answers have it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch::{Receiver, Sender, channel};

use super::fate::Server;
use crate::oracle::generate::Random;

/// What is wrong with the network at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// What the server says gets lost.
    Mute,
    /// Nothing gets through for the time being.
    Slow,
    /// Connections end.
    Cut,
}

/// The proxy; it ends with the runtime that it was started on.
pub struct Proxy {
    address: SocketAddr,
    troubled: Arc<AtomicBool>,
    cuts: Arc<AtomicU64>,
}

impl Proxy {
    /// Stands in front of the service at `server`, an address and a port.
    pub async fn start(kind: Server, server: &str, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trouble, watched) = channel(Trouble::None);
        let server: SocketAddr = server.parse().expect("dev/services gives a number and a port");
        let told = match kind {
            Server::Kafka => {
                Some(Told { said: in_protocol(server), instead: in_protocol(address) })
            }
            Server::Postgres => None,
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, server, told.clone(), watched.clone()));
            }
        });
        let troubled = Arc::new(AtomicBool::new(false));
        let cuts = Arc::new(AtomicU64::new(0));
        tokio::spawn(make(trouble, seed, Arc::clone(&troubled), Arc::clone(&cuts)));
        Self { address, troubled, cuts }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the network fails from now on.
    pub fn set_troubled(&self, troubled: bool) {
        self.troubled.store(troubled, Ordering::Relaxed);
    }

    /// How often connections were cut so far.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }
}

/// Where a broker says that it is, and what its clients are told.
#[derive(Debug, Clone)]
struct Told {
    said: Vec<u8>,
    instead: Vec<u8>,
}

/// As Kafka's protocol has it: the host's text, and four bytes for the port. (The length before it
/// stays the same, as the proxy is on the same host; and no record of a test has these bytes.)
fn in_protocol(address: SocketAddr) -> Vec<u8> {
    let mut bytes = address.ip().to_string().into_bytes();
    bytes.extend(u32::from(address.port()).to_be_bytes());
    bytes
}

/// Answers are lost for a moment before most cuts: so a commit may have been done or not.
async fn make(
    trouble: Sender<Trouble>,
    seed: u64,
    troubled: Arc<AtomicBool>,
    cuts: Arc<AtomicU64>,
) {
    let mut random = Random::new(seed);
    loop {
        tokio::time::sleep(Duration::from_millis(50 + random.below(1_500) as u64)).await;
        if !troubled.load(Ordering::Relaxed) {
            continue;
        }
        let before = random.pick(&[Trouble::Mute, Trouble::Mute, Trouble::Slow, Trouble::None]);
        trouble.send_replace(before);
        tokio::time::sleep(Duration::from_millis(random.below(300) as u64)).await;
        if before != Trouble::Slow {
            trouble.send_replace(Trouble::Cut);
            cuts.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        trouble.send_replace(Trouble::None);
    }
}

async fn serve(
    client: TcpStream,
    server: SocketAddr,
    told: Option<Told>,
    trouble: Receiver<Trouble>,
) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let mut cut = trouble.clone();
    let answers = async {
        match told {
            Some(told) => carry_answers(server_in, client_out, trouble.clone(), &told).await,
            None => carry(server_in, client_out, trouble.clone(), true).await,
        }
    };
    // Whichever ends first takes the connection with it.
    tokio::select! {
        () = carry(client_in, server_out, trouble.clone(), false) => {}
        () = answers => {}
        _ = cut.wait_for(|now| *now == Trouble::Cut) => {}
    }
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut trouble: Receiver<Trouble>,
    answers: bool,
) {
    let mut bytes = vec![0; 1 << 14];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        if !pass(&mut trouble, answers).await {
            continue;
        }
        if to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

/// Whole answers of a broker, each with its length before it.
async fn carry_answers(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut trouble: Receiver<Trouble>,
    told: &Told,
) {
    while let Ok(length) = from.read_u32().await {
        let mut frame = length.to_be_bytes().to_vec();
        frame.resize(4 + length as usize, 0);
        if from.read_exact(&mut frame[4..]).await.is_err() {
            return;
        }
        replace(&mut frame, told);
        if pass(&mut trouble, true).await && to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

fn replace(frame: &mut [u8], told: &Told) {
    assert_eq!(told.said.len(), told.instead.len(), "both are on this machine");
    let mut from = 0;
    while let Some(at) = frame[from..].windows(told.said.len()).position(|w| w == told.said) {
        let at = from + at;
        from = at + told.said.len();
        frame[at..from].copy_from_slice(&told.instead);
    }
}

/// Waits while nothing gets through. Whether this gets through at all: lost answers are lost for
/// good.
async fn pass(trouble: &mut Receiver<Trouble>, is_answer: bool) -> bool {
    let now = *trouble.borrow();
    if now == Trouble::Slow {
        let _ = trouble.wait_for(|now| *now != Trouble::Slow).await;
    }
    now != Trouble::Mute || !is_answer
}

#[test]
fn clients_of_a_broker_are_told_the_proxy_s_address() {
    let [said, instead] = ["127.0.0.1:20092", "127.0.0.1:4711"].map(|a| a.parse().unwrap());
    let told = Told { said: in_protocol(said), instead: in_protocol(instead) };
    let mut frame = [b"xx".as_slice(), &told.said, &told.said, b"y"].concat();
    replace(&mut frame, &told);
    assert_eq!(frame, [b"xx".as_slice(), &told.instead, &told.instead, b"y"].concat());
}
