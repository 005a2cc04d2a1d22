//! A broker that a test may stop, kill and freeze, and one of its ports behind a proxy.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::proxy::Proxy;

/// One at a time: each takes half a gigabyte.
static ONE: Mutex<()> = Mutex::new(());

/// Made by `dev/services`, in a folder of its own. It is gone when this is dropped.
pub(crate) struct OwnBroker {
    folder: PathBuf,
    /// Straight to the broker.
    pub(crate) servers: String,
    /// Through the proxy.
    pub(crate) proxied: String,
    /// Asks for a user and a password (PLAIN): `alice` has `alice-secret`.
    pub(crate) sasl: String,
    pub(crate) proxy: Proxy,
    _one: MutexGuard<'static, ()>,
}

/// A port that is free at the moment.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

impl OwnBroker {
    pub(crate) fn start() -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("own-broker");
        std::fs::create_dir_all(&folder).unwrap();
        let [port, controller, behind, front, sasl] = free_ports();
        let properties = folder.join("extra.properties");
        let listeners = [
            format!("PLAINTEXT://127.0.0.1:{port}"),
            format!("CONTROLLER://127.0.0.1:{controller}"),
            format!("PROXIED://127.0.0.1:{behind}"),
            format!("ASKING://127.0.0.1:{sasl}"),
        ];
        let advertised = [
            format!("PLAINTEXT://127.0.0.1:{port}"),
            format!("PROXIED://127.0.0.1:{front}"),
            format!("ASKING://127.0.0.1:{sasl}"),
        ];
        let text = [
            format!("listeners={}", listeners.join(",")),
            format!("advertised.listeners={}", advertised.join(",")),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,\
             PROXIED:PLAINTEXT,ASKING:SASL_PLAINTEXT"
                .to_owned(),
            "sasl.enabled.mechanisms=PLAIN".to_owned(),
            "listener.name.asking.plain.sasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required \
             user_alice=\"alice-secret\";"
                .to_owned(),
        ];
        std::fs::write(&properties, text.join("\n")).unwrap();
        let broker = Self {
            folder,
            servers: format!("127.0.0.1:{port}"),
            proxied: format!("127.0.0.1:{front}"),
            sasl: format!("127.0.0.1:{sasl}"),
            proxy: Proxy::start(front, behind),
            _one: one,
        };
        // What an earlier run has left behind.
        broker.services(&["down", "--wipe", "kafka"]);
        broker.up();
        broker
    }

    fn services(&self, arguments: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/services");
        let port = |address: &str| address.rsplit_once(':').unwrap().1.to_owned();
        let properties = std::fs::read_to_string(self.folder.join("extra.properties")).unwrap();
        let controller = properties.split_once("CONTROLLER://127.0.0.1:").unwrap().1;
        let controller = controller.split_once(',').unwrap().0;
        let status = Command::new(script)
            .args(arguments)
            .env("SERVICES_DIR", &self.folder)
            .env("KAFKA_PORT", port(&self.servers))
            .env("KAFKA_CONTROLLER_PORT", controller)
            .env("KAFKA_PROPERTIES", self.folder.join("extra.properties"))
            .env("KAFKA_HEAP_OPTS", "-Xms256m -Xmx512m")
            .status()
            .unwrap();
        assert!(status.success(), "dev/services {arguments:?}");
    }

    pub(crate) fn up(&self) {
        self.services(&["up", "kafka"]);
    }

    /// An orderly stop.
    pub(crate) fn down(&self) {
        self.services(&["down", "kafka"]);
    }

    /// Sends a signal to the broker's process.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.folder.join("kafka/pid")).unwrap();
        let status = Command::new("kill").args(["-s", signal, pid.trim()]).status().unwrap();
        assert!(status.success(), "kill -s {signal} {pid}");
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        self.signal("CONT");
        self.services(&["down", "--wipe", "kafka"]);
    }
}
