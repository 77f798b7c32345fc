//! A response body that ends too soon: half of its bytes, a pause, and an error.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use http_body::Frame;
use tokio::time::Sleep;

/// Long enough for the first half to be on its way before the connection is closed.
const PAUSE: Duration = Duration::from_millis(50);

/// The first half of some bytes.
#[derive(Debug)]
pub(crate) struct HalfBody {
    half: Option<Bytes>,
    pause: Pin<Box<Sleep>>,
}

impl HalfBody {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self {
            half: Some(bytes.slice(..bytes.len() / 2)),
            pause: Box::pin(tokio::time::sleep(PAUSE)),
        }
    }
}

impl http_body::Body for HalfBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(half) = self.half.take() {
            return Poll::Ready(Some(Ok(Frame::data(half))));
        }
        ready!(self.pause.as_mut().poll(context));
        Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())))
    }
}
