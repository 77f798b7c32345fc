//! Follows a request through threads and processes by its trace context (W3C Trace Context, level
//! 1, <https://www.w3.org/TR/trace-context/>).
//!
//! A context comes with a request, is sent with each call that follows from it, and is a field of
//! each line of the log in between. This program adds no span of its own to it, so it sends on what
//! it has received, as the specification asks of a participant that only forwards (section 4).

use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

/// The header with the context.
pub const PARENT: &str = "traceparent";
/// The header with what other systems have added to it.
pub const STATE: &str = "tracestate";

/// Length of a `traceparent` of version 00.
const PARENT_LENGTH: usize = 55;
/// Longest `traceparent` that is read: a later version may append to it.
const PARENT_LENGTH_MAX: usize = 512;
/// Longest `tracestate` that is sent on: what section 3.3.1.5 asks for at least.
const STATE_LENGTH_MAX: usize = 512;

/// The trace context of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// Reads `traceparent`, and `tracestate` if there is one. Returns `None` for a `traceparent`
    /// that section 3.2 calls invalid: the request is then one without a trace. A `tracestate` that
    /// cannot be sent on is dropped alone (section 3.3).
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        let bytes = parent.as_bytes();
        let (version, rest) = bytes.split_at_checked(2)?;
        let [version] = hex(version)?;
        let is_complete = match version {
            0 => bytes.len() == PARENT_LENGTH,
            0xff => false,
            _ => {
                bytes.len() <= PARENT_LENGTH_MAX
                    && matches!(bytes.get(PARENT_LENGTH), None | Some(b'-'))
            }
        };
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        if !is_complete || !dashes {
            return None;
        }
        let trace_id = hex(rest.get(1..33)?)?;
        let parent_id = hex(rest.get(34..50)?)?;
        let [flags] = hex(rest.get(51..53)?)?;
        if trace_id == [0; 16] || parent_id == [0; 8] {
            return None;
        }
        let state = state.map(str::trim).filter(|it| is_state(it));
        Some(Self {
            trace_id,
            parent_id,
            flags,
            state: state.map(Arc::from),
        })
    }

    /// Reads what [`to_text`](Self::to_text) has written.
    pub fn from_text(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            Some((parent, state)) => Self::parse(parent, Some(state)),
            None => Self::parse(text, None),
        }
    }

    /// Returns both headers as one text, for a record.
    pub fn to_text(&self) -> String {
        let state = self.state().map(|it| format!(" {it}"));
        self.parent() + &state.unwrap_or_default()
    }

    /// Returns the `traceparent` to send.
    pub fn parent(&self) -> String {
        // Of the flags version 00 defines one: sampled (section 3.2.2.5).
        let flags = self.flags & 1;
        format!(
            "00-{}-{}-{flags:02x}",
            Hex(&self.trace_id),
            Hex(&self.parent_id)
        )
    }

    /// Returns the `tracestate` to send.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Returns the id that all parts of the trace have in common, in hex.
    pub fn trace_id(&self) -> impl fmt::Display + '_ {
        Hex(&self.trace_id)
    }
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut octets = [0; N];
    for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
        *octet = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(octets)
}

/// Members of a list, each `key=value`, of visible ASCII.
fn is_state(text: &str) -> bool {
    let is_member = |it: &str| it.trim().is_empty() || it.contains('=');
    !text.is_empty()
        && text.len() <= STATE_LENGTH_MAX
        && text.bytes().all(|it| (0x20..0x7f).contains(&it))
        && text.split(',').all(is_member)
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<TraceContext>>> = const { RefCell::new(None) };
}

/// Returns the context of the work that this thread does.
pub fn current() -> Option<Arc<TraceContext>> {
    CURRENT.with_borrow(Option::clone)
}

/// Does `work` in this context.
pub fn within<T>(context: Option<Arc<TraceContext>>, work: impl FnOnce() -> T) -> T {
    let _entered = Entered::new(context);
    work()
}

/// Runs a future in this context, whichever thread polls it.
pub async fn scope<F: Future>(context: Option<Arc<TraceContext>>, future: F) -> F::Output {
    if context.is_none() && current().is_none() {
        return future.await;
    }
    let mut future = pin!(future);
    poll_fn(|waiter| {
        let _entered = Entered::new(context.clone());
        future.as_mut().poll(waiter)
    })
    .await
}

/// Restores the former context when it is dropped, also by a panic.
struct Entered(Option<Arc<TraceContext>>);

impl Entered {
    fn new(context: Option<Arc<TraceContext>>) -> Self {
        Self(CURRENT.replace(context))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::task::{Context, Poll, Waker};

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(parent: &str) -> Option<TraceContext> {
        TraceContext::parse(parent, None)
    }

    /// The examples of section 3.2.4, and what section 3.2.2 calls invalid.
    #[test]
    fn a_traceparent_is_read_as_the_specification_says() {
        let context = parse(PARENT).unwrap();
        assert_eq!(context.parent(), PARENT);
        assert_eq!(context.trace_id().to_string(), &PARENT[3..35]);
        let later = PARENT.replacen("00", "cc", 1);
        let read = [
            PARENT.replace("-01", "-00"),
            later.clone(),
            format!("{later}-what-the-future-will-be-like"),
        ];
        for good in read {
            assert!(parse(&good).is_some(), "{good}");
        }
        let unknown_flags = parse(&PARENT.replace("-01", "-ff")).unwrap();
        assert_eq!(unknown_flags.parent(), PARENT);
        let refused = [
            String::new(),
            "00".into(),
            PARENT.to_uppercase(),
            format!("{PARENT}-more"),
            format!("{PARENT} "),
            PARENT.replacen("00", "ff", 1),
            format!("{later}.more"),
            later + &"-".repeat(500),
            PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            PARENT.replace('-', "_"),
            PARENT.replacen('4', "g", 1),
            PARENT.replacen('4', "é", 1),
        ];
        for bad in refused {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tracestate_is_sent_on_or_dropped_alone() {
        let read = |state: &str| {
            let context = TraceContext::parse(PARENT, Some(state)).unwrap();
            context.state().map(str::to_owned)
        };
        assert_eq!(
            read("congo=t61,rojo=00f0").as_deref(),
            Some("congo=t61,rojo=00f0")
        );
        for dropped in [
            "",
            "no member",
            "a=1\r\nx: y",
            "a=\u{e9}",
            &"a=1,".repeat(129),
        ] {
            assert_eq!(read(dropped), None, "{dropped}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(parent in ".{0,80}", state in ".{0,600}") {
            if let Some(context) = TraceContext::parse(&parent, Some(&state)) {
                prop_assert_eq!(context.parent().len(), PARENT_LENGTH);
            }
        }

        /// The sent context is the one that was read; a change of any byte is refused or read.
        #[test]
        fn what_is_read_is_sent_on(
            trace in "[0-9a-f]{32}", parent in "[0-9a-f]{16}", flag in 0u8..2,
            at in 0usize..55, byte in 0x20u8..0x7f,
        ) {
            prop_assume!(trace.bytes().any(|it| it != b'0') && parent.bytes().any(|it| it != b'0'));
            let text = format!("00-{trace}-{parent}-0{flag}");
            let context = parse(&text).unwrap();
            prop_assert_eq!(context.parent(), text.clone());
            let mut changed = text.clone().into_bytes();
            changed[at] = byte;
            let changed = String::from_utf8(changed).unwrap();
            if let Some(other) = parse(&changed) {
                prop_assert_eq!(&other.parent()[3..52], &changed[3..52]);
            }
        }
    }

    #[test]
    fn a_context_stays_with_its_future_alone() {
        let context = |digit: &str| parse(&PARENT.replacen("4bf", digit, 1)).map(Arc::new);
        let ids = |it: &str| context(it).map(|it| it.trace_id().to_string());
        let waits = |digit: &'static str| {
            let mut polls = 0;
            let future = poll_fn(move |_| {
                polls += 1;
                assert_eq!(current().map(|it| it.trace_id().to_string()), ids(digit));
                if polls < 3 {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            });
            Box::pin(scope(context(digit), future))
        };
        let (mut one, mut two) = (waits("111"), waits("222"));
        let mut waiter = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            assert!(one.as_mut().poll(&mut waiter).is_pending());
            assert_eq!(current(), None);
            assert!(two.as_mut().poll(&mut waiter).is_pending());
        }
        assert!(one.as_mut().poll(&mut waiter).is_ready());
        within(context("333"), || {
            assert!(two.as_mut().poll(&mut waiter).is_ready());
            assert_eq!(current().map(|it| it.trace_id().to_string()), ids("333"));
        });
        assert_eq!(current(), None);
    }
}
