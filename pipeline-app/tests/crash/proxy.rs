//! A network that fails, between the program and PostgreSQL: connections are cut in the middle of
//! anything, answers get lost (also the one to a commit), and things take long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch::{Receiver, Sender, channel};

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
    /// Stands in front of `server`.
    pub async fn start(server: String, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trouble, watched) = channel(Trouble::None);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, server.clone(), watched.clone()));
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

async fn serve(client: TcpStream, server: String, trouble: Receiver<Trouble>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let mut cut = trouble.clone();
    // Whichever ends first takes the connection with it.
    tokio::select! {
        () = carry(client_in, server_out, trouble.clone(), false) => {}
        () = carry(server_in, client_out, trouble, true) => {}
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
        let now = *trouble.borrow();
        if now == Trouble::Mute && answers {
            // Lost for good.
            continue;
        }
        if now == Trouble::Slow {
            let _ = trouble.wait_for(|now| *now != Trouble::Slow).await;
        }
        if to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}
