//! `pipeline-app health`: asks a running job over HTTP, so that an image needs no other program
//! for its health check.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::config::Config;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the job that the configuration names.
///
/// # Errors
/// If it is not ready, and why; or if nobody answers.
pub fn check(config: &Config) -> Result<()> {
    let address = config
        .ui_bind
        .ok_or_else(|| anyhow!("UI_BIND is off, so there is nobody to ask: set it to host:port"))?;
    let answer = ask(reachable(address)).with_context(|| {
        format!("no answer from {address} (UI_BIND): the job does not run, or elsewhere")
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) != Some("200") {
        bail!("not ready: {}", body.trim().replace('\n', "; "));
    }
    println!("{}", body.trim());
    Ok(())
}

fn ask(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(64 << 10).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What listens on all interfaces is asked on the local one.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one request, and then no more.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1_024];
            let n = stream.read(&mut request).unwrap();
            assert!(request[..n].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn the_answer_decides() {
        let answer = ask(server("HTTP/1.1 200 OK\r\n\r\nready\n")).unwrap();
        assert!(answer.ends_with("ready\n"), "{answer}");
    }

    #[test]
    fn all_interfaces_are_asked_on_one() {
        assert_eq!(reachable(([0, 0, 0, 0], 80).into()), ([127, 0, 0, 1], 80).into());
        assert_eq!(reachable(([10, 0, 0, 1], 80).into()), ([10, 0, 0, 1], 80).into());
        let six: SocketAddr = "[::]:80".parse().unwrap();
        assert_eq!(reachable(six).to_string(), "[::1]:80");
    }
}
