//! Limits the open connections of a listener, in all and for each client.
//!
//! A full pool closes the connection that has waited longest for its client: one of the new
//! client's own if that has its share, else one of the client with the most connections. So many
//! idle connections cost an honest client nothing, wherever they come from. An identified client's
//! connection is never closed while its request is in work, and a connection in its TLS handshake
//! only if there is no other.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many bits of an IPv6 address name a client: it can use all the others as it likes.
const IPV6_PREFIX_BITS: u32 = 64;

/// The clients whose connections are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CountedClient {
    /// A network address; of IPv6, the first 64 bits.
    Address(IpAddr),
    /// The SHA-256 of a client certificate.
    Certificate([u8; 32]),
    User(u32),
}

impl CountedClient {
    /// The client of connections from `address`.
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                let prefix = address.to_bits() & (u128::MAX << (128 - IPV6_PREFIX_BITS));
                Ipv6Addr::from_bits(prefix).into()
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub(super) total: usize,
    pub(super) per_client: usize,
}

/// The connections of one class of clients at one listener.
pub(super) struct Pool {
    limits: Limits,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    next: u64,
    taken: BTreeMap<u64, Taken>,
}

struct Taken {
    client: CountedClient,
    activity: Arc<Activity>,
}

/// A place in a pool; given back when it is dropped.
pub(super) struct Place {
    pool: Arc<Pool>,
    id: u64,
}

impl Pool {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let places = Mutex::default();
        Arc::new(Self { limits, places })
    }

    /// Gives a place to a connection of `client`, or `None` if no other may be hung up on for it.
    pub(super) fn enter(
        self: &Arc<Self>,
        client: CountedClient,
        activity: &Arc<Activity>,
    ) -> Option<Place> {
        let mut places = self.places();
        if places.held(client) >= self.limits.per_client {
            places.make_room(client)?;
        } else if places.taken.len() >= self.limits.total {
            let most = places.client_of_most()?;
            places.make_room(most)?;
        }
        let id = places.next;
        places.next += 1;
        let activity = Arc::clone(activity);
        places.taken.insert(id, Taken { client, activity });
        let pool = Arc::clone(self);
        Some(Place { pool, id })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn held(&self, client: CountedClient) -> usize {
        self.taken.values().filter(|it| it.client == client).count()
    }

    /// The client with the most connections of which at least one can be hung up on. Among clients
    /// of equally many, the one whose connection is worth least and has waited longest: a crowd of
    /// addresses with a silent connection each does not reach a client amid its handshake.
    fn client_of_most(&self) -> Option<CountedClient> {
        let mut counts: BTreeMap<CountedClient, (usize, Option<(u8, Instant)>)> = BTreeMap::new();
        for taken in self.taken.values() {
            let (count, least) = counts.entry(taken.client).or_default();
            *count += 1;
            if let Some(since) = taken.activity.waits_since() {
                let waiting = (taken.activity.worth(), since);
                *least = Some(least.map_or(waiting, |it| it.min(waiting)));
            }
        }
        let evictable = counts
            .into_iter()
            .filter_map(|(client, (count, least))| Some((count, Reverse(least?), client)));
        evictable.max().map(|(_, _, client)| client)
    }

    /// Hangs up on the connection of `client` that has waited longest for its client.
    fn make_room(&mut self, client: CountedClient) -> Option<()> {
        let own = self.taken.iter().filter(|(_, it)| it.client == client);
        let waiting = own.filter_map(|(id, it)| {
            let worth = it.activity.worth();
            let since = it.activity.waits_since()?;
            Some((worth, since, *id))
        });
        let (_, _, id) = waiting.min()?;
        let evicted = self.taken.remove(&id)?;
        evicted.activity.evicted.notify_one();
        Some(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.places().taken.remove(&self.id);
    }
}

/// The activity of a connection: it works for its client, or waits for it.
pub struct Activity {
    begun: Instant,
    /// Milliseconds after `begun` since which it waits; [`WORKS`] while it works.
    waits_since: AtomicU64,
    worth: AtomicU8,
    evicted: Notify,
}

/// How far a connection has come, by what it is worth: the least is hung up on first.
#[derive(Clone, Copy, Debug)]
pub(super) enum Worth {
    /// The client has sent nothing yet, or not enough to begin a TLS handshake.
    Silent,
    /// It is ready for a request.
    Ready,
    /// A TLS handshake is under way. It may be that of a client that is identified at its end.
    Handshake,
}

/// No time: the connection works.
const WORKS: u64 = u64::MAX;

impl Activity {
    /// Of a connection that was just accepted.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            waits_since: AtomicU64::new(0),
            worth: AtomicU8::new(Worth::Silent as u8),
            evicted: Notify::new(),
        })
    }

    /// Says how far it has come.
    pub(super) fn is(&self, worth: Worth) {
        self.worth.store(worth as u8, Ordering::Relaxed);
    }

    fn worth(&self) -> u8 {
        self.worth.load(Ordering::Relaxed)
    }

    /// Says that it works until the value that is returned is dropped.
    pub(super) fn works(self: &Arc<Self>) -> Works {
        self.waits_since.store(WORKS, Ordering::Relaxed);
        Works(Arc::clone(self))
    }

    /// Says that its client has just done something, and that it waits for more.
    pub(super) fn waits_from_now(&self) {
        let since = self.begun.elapsed().as_millis();
        let since = u64::try_from(since).unwrap_or(WORKS - 1);
        self.waits_since.store(since, Ordering::Relaxed);
    }

    /// Ends when the connection must be closed.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    fn waits_since(&self) -> Option<Instant> {
        let since = self.waits_since.load(Ordering::Relaxed);
        (since != WORKS).then(|| self.begun + std::time::Duration::from_millis(since))
    }
}

#[cfg(test)]
impl Activity {
    pub(super) fn is_working(&self) -> bool {
        self.waits_since().is_none()
    }
}

/// A connection works while this exists.
pub(super) struct Works(Arc<Activity>);

impl Drop for Works {
    fn drop(&mut self) {
        self.0.waits_from_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::FutureExt;
    use std::net::Ipv4Addr;

    const LIMITS: Limits = Limits {
        total: 6,
        per_client: 4,
    };

    fn client(number: u8) -> CountedClient {
        CountedClient::at(Ipv4Addr::new(192, 0, 2, number).into())
    }

    /// So many connections, one after the other.
    fn connections(
        pool: &Arc<Pool>,
        client: CountedClient,
        count: usize,
    ) -> Vec<(Arc<Activity>, Place)> {
        let connections = (0..count).map(|_| {
            let activity = Activity::new();
            let place = pool.enter(client, &activity).unwrap();
            (activity, place)
        });
        connections.collect()
    }

    fn evicted(connections: &[(Arc<Activity>, Place)]) -> Vec<bool> {
        let evicted = |activity: &Activity| activity.evicted().now_or_never().is_some();
        connections.iter().map(|(it, _)| evicted(it)).collect()
    }

    #[test]
    fn a_client_with_its_share_loses_its_own_oldest() {
        let pool = Pool::new(LIMITS);
        let one = connections(&pool, client(1), 4);
        let other = connections(&pool, client(2), 1);
        let newcomer = connections(&pool, client(1), 1);
        assert_eq!(evicted(&one), [true, false, false, false]);
        assert_eq!(evicted(&other), [false]);
        assert_eq!(evicted(&newcomer), [false]);
    }

    #[test]
    fn a_full_pool_takes_from_the_client_with_the_most() {
        let pool = Pool::new(LIMITS);
        let few = connections(&pool, client(1), 2);
        let most = connections(&pool, client(2), 4);
        let newcomer = connections(&pool, client(3), 1);
        assert_eq!(evicted(&few), [false, false]);
        assert_eq!(evicted(&most), [true, false, false, false]);
        drop(newcomer);
        assert_eq!(pool.places().taken.len(), 5, "places are given back");
    }

    #[test]
    fn work_is_never_hung_up_on() {
        let pool = Pool::new(LIMITS);
        let one = connections(&pool, client(1), 4);
        let mut work: Vec<Works> = one.iter().map(|(it, _)| it.works()).collect();
        assert!(pool.enter(client(1), &Activity::new()).is_none());
        drop(work.remove(2));
        let _newcomer = pool.enter(client(1), &Activity::new()).unwrap();
        assert_eq!(evicted(&one), [false, false, true, false]);
    }

    /// Of many clients with one connection each, a silent one goes, whatever its address.
    #[test]
    fn a_crowd_of_silent_clients_does_not_reach_a_handshake() {
        let pool = Pool::new(LIMITS);
        let mut all: Vec<_> = (1..=6)
            .map(|it| connections(&pool, client(it), 1).remove(0))
            .collect();
        all[5].0.is(Worth::Handshake);
        all[0].0.is(Worth::Handshake);
        all.extend(connections(&pool, client(0), 1));
        assert_eq!(
            evicted(&all),
            [false, true, false, false, false, false, false]
        );
    }

    /// A flood of connections that say nothing does not reach those amid a handshake.
    #[test]
    fn a_handshake_is_hung_up_on_last() {
        let pool = Pool::new(LIMITS);
        let mut one = connections(&pool, client(1), 4);
        let worths = [Worth::Handshake, Worth::Ready, Worth::Silent, Worth::Silent];
        for ((activity, _), worth) in one.iter().zip(worths) {
            activity.is(worth);
        }
        for gone in [2, 3] {
            let newcomer = connections(&pool, client(1), 1);
            newcomer[0].0.is(Worth::Handshake);
            one.extend(newcomer);
            assert!(evicted(&one)[gone], "{gone}");
        }
        one.extend(connections(&pool, client(1), 1));
        assert!(evicted(&one)[1], "it was only ready");
        one.extend(connections(&pool, client(1), 1));
        assert!(evicted(&one)[6], "it was silent");
    }

    #[test]
    fn an_ipv6_client_is_its_network_and_a_mapped_one_its_ipv4_address() {
        let client = |text: &str| CountedClient::at(text.parse().unwrap());
        assert_eq!(client("2001:db8::1"), client("2001:db8:0:0:ffff::2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }
}
