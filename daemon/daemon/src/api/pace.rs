//! A stream whose client has to read what is sent to it, and that ends without losing the answer.
//!
//! Writes may be blocked for [`ALLOWANCE`] in all; each [`BYTES_PER_SECOND`] that the client takes
//! give it back a second. A client that reads nothing, or a byte now and then, is cut.
//!
//! At its end the stream is closed for writing first and read for a moment: if bytes were left
//! unread, the kernel would reset the connection, and the client might lose the answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How long writes may be blocked.
const ALLOWANCE: Duration = Duration::from_secs(30);
/// How fast a client reads at least.
const BYTES_PER_SECOND: u32 = 4_096;
/// How long a closed connection is read.
const LINGER: Duration = Duration::from_secs(1);
/// How much of it, in bytes.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// The stream of one connection.
pub(super) struct Paced<S> {
    stream: S,
    allowance: Duration,
    blocked: Option<Blocked>,
    lingers: Option<Lingers>,
}

/// A write that waits for the client.
struct Blocked {
    since: Instant,
    until: Pin<Box<Sleep>>,
}

/// The end of a connection.
struct Lingers {
    until: Pin<Box<Sleep>>,
    read: usize,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            allowance: ALLOWANCE,
            blocked: None,
            lingers: None,
        }
    }

    /// Keeps account of a write, and fails if it was blocked for too long.
    fn paced<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Pending => {
                let allowance = self.allowance;
                let blocked = self.blocked.get_or_insert_with(|| Blocked {
                    since: Instant::now(),
                    until: Box::pin(sleep(allowance)),
                });
                ready!(blocked.until.as_mut().poll(context));
                let reason = "the client does not read its answer";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)))
            }
            Poll::Ready(outcome) => {
                if let Some(blocked) = self.blocked.take() {
                    let used = blocked.since.elapsed();
                    self.allowance = self.allowance.saturating_sub(used);
                }
                let written = outcome.as_ref().map_or(0, bytes);
                let written = u32::try_from(written).unwrap_or(u32::MAX);
                let earned = Duration::from_secs(1) * written / BYTES_PER_SECOND;
                self.allowance = ALLOWANCE.min(self.allowance + earned);
                Poll::Ready(outcome)
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Paced<S> {
    /// Reads until the client has closed its side too, within limits.
    fn linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let lingers = self.lingers.get_or_insert_with(|| Lingers {
            until: Box::pin(sleep(LINGER)),
            read: 0,
        });
        let mut bytes = [0; 4096];
        while lingers.read < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return lingers.until.as_mut().poll(context),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    lingers.read += buffer.filled().len();
                }
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.paced(context, polled, |written| *written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.paced(context, polled, |written| *written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.paced(context, polled, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingers.is_none() {
            let polled = Pin::new(&mut self.stream).poll_shutdown(context);
            ready!(self.paced(context, polled, |()| 0))?;
        }
        self.linger(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const BUFFER: usize = 1_024;

    /// Less than [`ALLOWANCE`], so that the tests end soon.
    const SHORT: Duration = Duration::from_millis(300);

    fn paced<S>(stream: S) -> Paced<S> {
        Paced {
            allowance: SHORT,
            ..Paced::new(stream)
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_or_too_slowly_is_cut() {
        for reads in [false, true] {
            let (mut client, server) = duplex(BUFFER);
            let reader = tokio::spawn(async move {
                while reads && client.read_u8().await.is_ok() {
                    sleep(Duration::from_millis(20)).await;
                }
                sleep(ALLOWANCE).await;
            });
            let begun = Instant::now();
            let sent = paced(server).write_all(&[0; 100_000]).await;
            assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert!(begun.elapsed() >= SHORT, "{:?}", begun.elapsed());
            assert!(begun.elapsed() < 20 * SHORT, "{:?}", begun.elapsed());
            reader.abort();
        }
    }

    #[tokio::test]
    async fn a_slow_client_is_sent_all() {
        let (mut client, server) = duplex(BUFFER);
        let reader = tokio::spawn(async move {
            let mut bytes = [0; BUFFER];
            let mut read = 0;
            while let Ok(count @ 1..) = client.read(&mut bytes).await {
                read += count;
                sleep(Duration::from_millis(20)).await;
            }
            read
        });
        let mut paced = paced(server);
        paced.write_all(&[0; 100_000]).await.unwrap();
        paced.shutdown().await.unwrap();
        assert_eq!(reader.await.unwrap(), 100_000);
    }

    #[tokio::test]
    async fn what_a_client_sends_at_the_end_is_read_for_a_moment_only() {
        let (mut client, server) = duplex(BUFFER);
        let begun = Instant::now();
        let sender = tokio::spawn(async move {
            while client.write_u8(0).await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        });
        paced(server).shutdown().await.unwrap();
        assert!(begun.elapsed() >= LINGER, "{:?}", begun.elapsed());
        assert!(begun.elapsed() < 5 * LINGER, "{:?}", begun.elapsed());
        sender.abort();
    }
}
