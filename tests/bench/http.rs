//! One kept-alive HTTP/1.1 connection of the load, over TLS or plain TCP.

use anyhow::{Context, ensure};
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 << 20;

pub(crate) struct Connection {
    stream: Box<dyn Stream>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Connection {
    /// Connects, and sends a first request that needs no certificate: nothing of the handshake
    /// is left to be measured.
    pub(crate) async fn open(
        address: SocketAddr,
        tls: Option<&TlsConnector>,
        warm_up: &str,
    ) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(stream),
            Some(connector) => {
                let name = ServerName::try_from("localhost")?;
                Box::new(connector.connect(name, stream).await?)
            }
        };
        let mut connection = Self { stream };
        let request = format!("GET {warm_up} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        connection.ask(request.as_bytes()).await?;
        Ok(connection)
    }

    /// Sends a request, and returns the whole answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        let mut bytes = Vec::with_capacity(4096);
        let mut end = None;
        loop {
            let read = self.stream.read_buf(&mut bytes).await?;
            ensure!(read > 0, "the server closed the connection");
            ensure!(bytes.len() <= ANSWER_BYTES_MAX, "the answer does not end");
            if end.is_none() {
                end = end_of(&bytes)?;
            }
            match end {
                Some(End::At(length)) if bytes.len() >= length => return Ok(bytes),
                Some(End::Chunks) if bytes.ends_with(b"0\r\n\r\n") => return Ok(bytes),
                _ => {}
            }
        }
    }
}

/// Where an answer ends.
#[derive(Clone, Copy)]
enum End {
    At(usize),
    Chunks,
}

/// `None` until the head is there.
fn end_of(bytes: &[u8]) -> anyhow::Result<Option<End>> {
    let Some(head) = head_of(bytes) else {
        return Ok(None);
    };
    let fields = std::str::from_utf8(head)?.lines().skip(1);
    for (name, value) in fields.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            return Ok(Some(End::At(head.len() + value.parse::<usize>()?)));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            ensure!(value.eq_ignore_ascii_case("chunked"), "encoding {value}");
            return Ok(Some(End::Chunks));
        }
    }
    anyhow::bail!("the answer does not say how long it is")
}

/// With the empty line that ends it.
fn head_of(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(&bytes[..end + 4])
}

/// Status and body of an answer.
pub(crate) fn parts(answer: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
    let head = head_of(answer).context("an answer without head")?;
    let status = std::str::from_utf8(head)?.split(' ').nth(1);
    let status = status.context("no status")?.parse()?;
    let body = &answer[head.len()..];
    match end_of(answer)? {
        Some(End::Chunks) => Ok((status, joined(body)?)),
        _ => Ok((status, body.to_vec())),
    }
}

/// The content of a chunked body.
fn joined(body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut rest = body;
    loop {
        let end = rest.windows(2).position(|it| it == b"\r\n");
        let end = end.context("a chunk without length")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end])?, 16)?;
        if length == 0 {
            return Ok(content);
        }
        let from = end + 2;
        content.extend(rest.get(from..from + length).context("a short chunk")?);
        rest = rest.get(from + length + 2..).context("a short chunk")?;
    }
}
