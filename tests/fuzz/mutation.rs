//! Changes seeds at random, in the ways in which parsers of DER and of text are known to fail.

use std::time::SystemTime;

/// Most changes of one input.
const CHANGES_MAX: usize = 6;
/// Longest input, in bytes.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Octets at the limits of lengths and tags of DER, and of text.
const ODD_OCTETS: [u8; 16] = [
    0, 1, 0x7f, 0x80, 0x81, 0x82, 0x84, 0xff, 0x30, 0x31, 0x02, 0x05, 0xa0, b'\n', b'"', b'-',
];

/// Makes inputs of seeds.
pub(crate) struct Mutator<'a> {
    seeds: &'a [Vec<u8>],
    state: u64,
    pub(crate) count: u64,
}

impl<'a> Mutator<'a> {
    /// Begins with the time: each run has other inputs.
    pub(crate) fn new(seeds: &'a [Vec<u8>]) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap().as_nanos();
        Self {
            seeds,
            state: u64::try_from(now & u128::from(u64::MAX)).unwrap() | 1,
            count: 0,
        }
    }

    /// A number below `bound`, by xorshift.
    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state % (bound.max(1) as u64)).unwrap()
    }

    fn seed(&mut self) -> &'a [u8] {
        let seeds = self.seeds;
        &seeds[self.below(seeds.len())]
    }

    /// Returns a seed with some changes.
    pub(crate) fn next_input(&mut self) -> Vec<u8> {
        self.count += 1;
        let mut input = self.seed().to_vec();
        for _ in 0..=self.below(CHANGES_MAX) {
            self.change(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len());
        let end = (at + 1 + self.below(32)).min(input.len());
        match self.below(8) {
            _ if input.is_empty() => input.push(0x30),
            0 => input[at] ^= 1 << self.below(8),
            1 => input[at] = ODD_OCTETS[self.below(ODD_OCTETS.len())],
            2 => input[at] = input[at].wrapping_add(1),
            3 => drop(input.drain(at..end)),
            4 => {
                let copy = input[at..end].to_vec();
                let to = self.below(input.len());
                input.splice(to..to, copy);
            }
            5 => input.insert(at, ODD_OCTETS[self.below(ODD_OCTETS.len())]),
            6 => input.truncate(at),
            _ => {
                let other = self.seed();
                let from = self.below(other.len());
                let until = (from + self.below(128)).min(other.len());
                input.splice(at..end, other[from..until].iter().copied());
            }
        }
    }
}
