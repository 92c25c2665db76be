//! Chance that can be repeated from a seed.

/// SplitMix64: small, and good enough for deciding which call to spoil.
pub struct Random(u64);

impl Random {
    /// A generator whose draws depend on `seed` only.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True with probability `rate`. Draws nothing for a rate of 0, so unused faults do not shift the others.
    pub fn happens(&mut self, rate: f64) -> bool {
        rate > 0.0 && ((self.bits() >> 11) as f64) < rate * (1u64 << 53) as f64
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }
}

/// Bits nobody can guess, from the system.
pub fn unguessable<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // A system without entropy cannot make keys either, so there is nothing to fall back to.
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_met_and_a_seed_repeats() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..10_000).map(|_| random.happens(0.25)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let hits = draw(7).into_iter().filter(|hit| *hit).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!(Random::new(1).happens(1.0));
        assert!(!Random::new(1).happens(0.0));
    }
}
