//! Public ids, SES tags and link tokens: the same numbers, made unreadable and, for links, unforgeable.
//!
//! Three forms leave the house. A **public id** (`con_…`) is one AES block, so that ids do not show volume.
//! The **SES tag** is the same block with the attempt in it; it comes back inside signed events only.
//! A **link token** is sealed (a synthetic-IV scheme in the manner of RFC 5297: HMAC-SHA256 over the payload is
//! both the tag and the counter of AES-CTR), because anybody may send us one. Everything is deterministic, so
//! nothing has to be stored and a repeated render gives the same bytes.

use std::fmt;
use std::sync::LazyLock;

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use data_encoding::{BASE64URL_NOPAD, Encoding, Specification};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// Length of an id without its prefix: 128 bits in base32, 26 characters.
pub const ID_CHARS: usize = 26;
/// Length of a track token in characters.
pub const TRACK_CHARS: usize = 39;
/// Length of an unsubscribe token in characters.
pub const UNSUBSCRIBE_CHARS: usize = 71;
/// Length of a confirm token in characters.
pub const CONFIRM_CHARS: usize = 66;

/// The only key generation so far; a token says which generation sealed it.
const KEY_ID: u8 = 1;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + TAG_BYTES;
const TRACK_BYTES: usize = 12;
const UNSUBSCRIBE_BYTES: usize = 36;
const CONFIRM_BYTES: usize = 32;

type HmacSha256 = Hmac<Sha256>;

/// RFC 4648 base32 in lower case, without padding. Trailing bits must be zero, so each block has one spelling.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("the base32 alphabet is a valid specification")
});

/// The keys of ids, tags and tokens, derived from the installation's secret and prepared once.
#[derive(Clone)]
pub struct TokenKeys {
    ids: Aes128,
    tag_kind: u8,
    track: SealKeys,
    unsubscribe: SealKeys,
    confirm: SealKeys,
}

impl TokenKeys {
    /// Derives every key from `secret`: each purpose gets its own, so no text of one purpose opens as another.
    pub fn derive(secret: &[u8]) -> Self {
        Self {
            ids: aes_key(secret, "ids"),
            tag_kind: kind_of("tag"),
            track: SealKeys::derive(secret, "track"),
            unsubscribe: SealKeys::derive(secret, "unsubscribe"),
            confirm: SealKeys::derive(secret, "confirm"),
        }
    }

    /// The public id `<prefix>_<26 characters>`. API objects have `seq` and `attempt` 0, `eml` ids have a `seq`.
    pub fn encode_id(&self, prefix: &str, id: u64, seq: u32, attempt: u16) -> String {
        let mut text = String::with_capacity(prefix.len() + 1 + ID_CHARS);
        text.push_str(prefix);
        text.push('_');
        self.push_block(&mut text, kind_of(prefix), id, seq, attempt);
        text
    }

    /// `(id, seq, attempt)` of a public id, or `None` when it is not one of ours with this prefix.
    ///
    /// An id is hidden, not authenticated: 16 bits of it are checked here. Callers whose ids have `seq` and
    /// `attempt` 0 compare those too, which makes it 64 bits.
    pub fn decode_id(&self, prefix: &str, text: &str) -> Option<(u64, u32, u16)> {
        let block = text.strip_prefix(prefix)?.strip_prefix('_')?;
        self.open_block(kind_of(prefix), block)
    }

    /// The value of the SES message tag `mr`: who got the mail, and by which attempt.
    pub fn tag(&self, stream_id: i64, seq: i32, attempt: i16) -> String {
        let mut text = String::with_capacity(ID_CHARS);
        self.push_block(&mut text, self.tag_kind, stream_id as u64, seq as u32, attempt as u16);
        text
    }

    /// `(stream_id, seq, attempt)` of a tag. It is trusted only where the event that carries it is.
    pub fn read_tag(&self, text: &str) -> Option<(i64, i32, i16)> {
        let (id, seq, attempt) = self.open_block(self.tag_kind, text)?;
        Some((id as i64, seq as i32, attempt as i16))
    }

    /// The token of the open pixel and of tracked links.
    pub fn track_token(&self, stream_id: i64, seq: i32) -> String {
        let mut payload = [0; TRACK_BYTES];
        payload[..8].copy_from_slice(&stream_id.to_be_bytes());
        payload[8..].copy_from_slice(&seq.to_be_bytes());
        let mut sealed = [0; HEAD_BYTES + TRACK_BYTES];
        self.track.seal(&payload, &mut sealed);
        BASE64URL_NOPAD.encode(&sealed)
    }

    /// `(stream_id, seq)` of a track token, or `None` for anything that these keys did not seal.
    pub fn read_track_token(&self, text: &str) -> Option<(i64, i32)> {
        let mut sealed = [0; HEAD_BYTES + TRACK_BYTES];
        decode_exactly(&BASE64URL_NOPAD, text, &mut sealed)?;
        let payload: [u8; TRACK_BYTES] = self.track.open(&mut sealed)?.try_into().ok()?;
        Some((read_i64(&payload, 0), read_i32(&payload, 8)))
    }

    /// The token of the unsubscribe link; `list_id` 0 means no list.
    pub fn unsubscribe_token(
        &self,
        account_id: i64,
        contact_id: i64,
        list_id: i64,
        stream_id: i64,
        seq: i32,
    ) -> String {
        let mut payload = [0; UNSUBSCRIBE_BYTES];
        let ids = [account_id, contact_id, list_id, stream_id];
        for (place, id) in payload.chunks_exact_mut(8).zip(ids) {
            place.copy_from_slice(&id.to_be_bytes());
        }
        payload[32..].copy_from_slice(&seq.to_be_bytes());
        let mut sealed = [0; HEAD_BYTES + UNSUBSCRIBE_BYTES];
        self.unsubscribe.seal(&payload, &mut sealed);
        BASE64URL_NOPAD.encode(&sealed)
    }

    /// `(account_id, contact_id, list_id, stream_id, seq)` of an unsubscribe token, or `None` for anything that
    /// these keys did not seal. It is enough to act on after the stream's rows are gone.
    pub fn read_unsubscribe_token(&self, text: &str) -> Option<(i64, i64, i64, i64, i32)> {
        let mut sealed = [0; HEAD_BYTES + UNSUBSCRIBE_BYTES];
        decode_exactly(&BASE64URL_NOPAD, text, &mut sealed)?;
        let payload: [u8; UNSUBSCRIBE_BYTES] = self.unsubscribe.open(&mut sealed)?.try_into().ok()?;
        let [account_id, contact_id, list_id, stream_id] = [0, 8, 16, 24].map(|at| read_i64(&payload, at));
        Some((account_id, contact_id, list_id, stream_id, read_i32(&payload, 32)))
    }

    /// The token of the link that confirms a subscription; `expires_s` counts seconds since 1970.
    pub fn confirm_token(&self, account_id: i64, contact_id: i64, list_id: i64, expires_s: i64) -> String {
        let mut payload = [0; CONFIRM_BYTES];
        for (place, number) in payload.chunks_exact_mut(8).zip([account_id, contact_id, list_id, expires_s]) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        let mut sealed = [0; HEAD_BYTES + CONFIRM_BYTES];
        self.confirm.seal(&payload, &mut sealed);
        BASE64URL_NOPAD.encode(&sealed)
    }

    /// `(account_id, contact_id, list_id, expires_s)` of a confirm token, or `None` for anything that these keys
    /// did not seal. The caller looks at the clock.
    pub fn read_confirm_token(&self, text: &str) -> Option<(i64, i64, i64, i64)> {
        let mut sealed = [0; HEAD_BYTES + CONFIRM_BYTES];
        decode_exactly(&BASE64URL_NOPAD, text, &mut sealed)?;
        let payload: [u8; CONFIRM_BYTES] = self.confirm.open(&mut sealed)?.try_into().ok()?;
        let [account_id, contact_id, list_id, expires_s] = [0, 8, 16, 24].map(|at| read_i64(&payload, at));
        Some((account_id, contact_id, list_id, expires_s))
    }

    fn push_block(&self, text: &mut String, kind: u8, id: u64, seq: u32, attempt: u16) {
        let mut block = [0; 16];
        block[0] = kind;
        block[2..4].copy_from_slice(&attempt.to_be_bytes());
        block[4..8].copy_from_slice(&seq.to_be_bytes());
        block[8..].copy_from_slice(&id.to_be_bytes());
        self.ids.encrypt_block((&mut block).into());
        BASE32.encode_append(&block, text);
    }

    fn open_block(&self, kind: u8, text: &str) -> Option<(u64, u32, u16)> {
        let mut block = [0; 16];
        decode_exactly(&BASE32, text, &mut block)?;
        self.ids.decrypt_block((&mut block).into());
        // One OR over both checks, so that the time does not tell which of them failed.
        if (block[0] ^ kind) | block[1] != 0 {
            return None;
        }
        let attempt = u16::from_be_bytes([block[2], block[3]]);
        let seq = u32::from_be_bytes([block[4], block[5], block[6], block[7]]);
        Some((read_i64(&block, 8) as u64, seq, attempt))
    }
}

impl fmt::Debug for TokenKeys {
    /// Prints no key material.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKeys { .. }")
    }
}

/// The two keys of one purpose: a MAC state that has its key absorbed, and an expanded cipher key.
#[derive(Clone)]
struct SealKeys {
    mac: HmacSha256,
    cipher: Aes128,
}

impl SealKeys {
    fn derive(secret: &[u8], purpose: &str) -> Self {
        let mac_key = derive(secret, &format!("token mac {purpose}"));
        Self { mac: keyed(&mac_key), cipher: aes_key(secret, &format!("token enc {purpose}")) }
    }

    /// Writes `key id ‖ tag ‖ ciphertext` into `sealed`, which is `HEAD_BYTES` longer than `payload`.
    fn seal(&self, payload: &[u8], sealed: &mut [u8]) {
        let tag: [u8; 32] = self.mac_over(payload).finalize().into_bytes().into();
        sealed[0] = KEY_ID;
        sealed[1..HEAD_BYTES].copy_from_slice(&tag[..TAG_BYTES]);
        sealed[HEAD_BYTES..].copy_from_slice(payload);
        self.apply_key_stream(sealed);
    }

    /// Decrypts in place and gives the payload, if the tag fits it.
    fn open<'a>(&self, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        if sealed[0] != KEY_ID {
            return None;
        }
        self.apply_key_stream(sealed);
        let (head, payload) = sealed.split_at(HEAD_BYTES);
        // `verify_truncated_left` compares in constant time.
        self.mac_over(payload).verify_truncated_left(&head[1..]).ok()?;
        Some(payload)
    }

    fn mac_over(&self, payload: &[u8]) -> HmacSha256 {
        let mut mac = self.mac.clone();
        mac.update(&[KEY_ID]);
        mac.update(payload);
        mac
    }

    /// AES-128-CTR over everything behind the head; the tag is the first counter, 128 bits, big endian.
    fn apply_key_stream(&self, sealed: &mut [u8]) {
        let (head, text) = sealed.split_at_mut(HEAD_BYTES);
        let mut counter = u128::from_be_bytes(head[1..].try_into().expect("a tag has 16 bytes"));
        for part in text.chunks_mut(16) {
            let mut block = counter.to_be_bytes();
            self.cipher.encrypt_block((&mut block).into());
            for (byte, key_byte) in part.iter_mut().zip(block) {
                *byte ^= key_byte;
            }
            counter = counter.wrapping_add(1);
        }
    }
}

/// `HMAC-SHA256(secret, "mailrail v1 " + purpose)`.
fn derive(secret: &[u8], purpose: &str) -> [u8; 32] {
    let mut mac = keyed(secret);
    mac.update(b"mailrail v1 ");
    mac.update(purpose.as_bytes());
    mac.finalize().into_bytes().into()
}

fn aes_key(secret: &[u8], purpose: &str) -> Aes128 {
    Aes128::new_from_slice(&derive(secret, purpose)[..16]).expect("16 bytes are an AES-128 key")
}

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// The byte that tells the kinds of ids apart inside the block.
fn kind_of(prefix: &str) -> u8 {
    Sha256::digest(prefix.as_bytes())[0]
}

/// Decodes `text` if it fills `bytes` exactly and is the canonical spelling.
fn decode_exactly(encoding: &Encoding, text: &str, bytes: &mut [u8]) -> Option<()> {
    // The length of the output must fit before decoding: `decode_mut` panics otherwise.
    if encoding.decode_len(text.len()).ok()? != bytes.len() {
        return None;
    }
    let written = encoding.decode_mut(text.as_bytes(), bytes).ok()?;
    (written == bytes.len()).then_some(())
}

fn read_i64(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn read_i32(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIXES: [&str; 13] =
        ["tag", "eml", "con", "lst", "cmp", "dom", "whk", "hold", "evt", "imp", "sup", "cns", "ers"];

    fn keys() -> TokenKeys {
        TokenKeys::derive(b"a secret for tests")
    }

    /// A small xorshift, so that the tests are the same on every machine.
    struct Dice(u64);

    impl Dice {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    fn flip_bit(bytes: &[u8], bit: usize) -> Vec<u8> {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed
    }

    #[test]
    fn texts_never_change() {
        // Computed by an independent implementation from the description of the formats.
        let keys = keys();
        assert_eq!(keys.encode_id("con", 1, 0, 0), "con_5yh6ku5rmear64acvgptum5gki");
        assert_eq!(keys.encode_id("eml", 0x1234_5678_0000_0007, 42, 0), "eml_4xc5ver76vtf5sskyde4wbc66q");
        assert_eq!(keys.tag(0x1234_5678_0000_0007, 42, 3), "wdtzuif5ydst55x2qjmxlh42au");
        assert_eq!(keys.track_token(0x1234_5678_0000_0007, 42), "ATXa1B5CkiyLCov21ZO9vhUnFTuQpA2XoH87Nik");
        assert_eq!(
            keys.unsubscribe_token(1, 2, 0, 0x1234_5678_0000_0007, 42),
            "ASSBj4rBbpxVYNWYfcsMgy4-PD6b-3tkhmQ3HO2cYrSe2hctaHBnJx90w87a8fxJ9BgKdhg"
        );
    }

    #[test]
    fn round_trips_over_the_whole_range() {
        let keys = keys();
        let ids = [0, 1, -1, i64::MIN, i64::MAX, 0x1234_5678_0000_0007];
        for id in ids {
            for seq in [0, 1, -1, i32::MIN, i32::MAX] {
                for attempt in [0, 1, -1, i16::MIN, i16::MAX] {
                    let tag = keys.tag(id, seq, attempt);
                    assert_eq!(tag.len(), ID_CHARS);
                    assert_eq!(keys.read_tag(&tag), Some((id, seq, attempt)));
                    let text = keys.encode_id("hold", id as u64, seq as u32, attempt as u16);
                    assert_eq!(text.len(), 5 + ID_CHARS);
                    let read = keys.decode_id("hold", &text);
                    assert_eq!(read, Some((id as u64, seq as u32, attempt as u16)));
                }
                let track = keys.track_token(id, seq);
                assert_eq!(track.len(), TRACK_CHARS);
                assert_eq!(keys.read_track_token(&track), Some((id, seq)));
                let text = keys.unsubscribe_token(id, 2, 3, id, seq);
                assert_eq!(text.len(), UNSUBSCRIBE_CHARS);
                assert_eq!(keys.read_unsubscribe_token(&text), Some((id, 2, 3, id, seq)));
            }
            let text = keys.confirm_token(id, 2, 3, id);
            assert_eq!(text.len(), CONFIRM_CHARS);
            assert_eq!(keys.read_confirm_token(&text), Some((id, 2, 3, id)));
        }
    }

    #[test]
    fn a_hundred_thousand_bit_flips_open_nothing() {
        let keys = keys();
        let mut dice = Dice(88_172_645_463_325_252);
        for _ in 0..50_000 {
            let (stream_id, seq) = (dice.next() as i64, dice.next() as i32);
            let track = BASE64URL_NOPAD.decode(keys.track_token(stream_id, seq).as_bytes()).unwrap();
            let track = flip_bit(&track, dice.next() as usize % (track.len() * 8));
            assert_eq!(keys.read_track_token(&BASE64URL_NOPAD.encode(&track)), None);

            let text = keys.unsubscribe_token(dice.next() as i64, dice.next() as i64, 0, stream_id, seq);
            let unsubscribe = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
            let unsubscribe = flip_bit(&unsubscribe, dice.next() as usize % (unsubscribe.len() * 8));
            assert_eq!(keys.read_unsubscribe_token(&BASE64URL_NOPAD.encode(&unsubscribe)), None);

            let text = keys.confirm_token(dice.next() as i64, dice.next() as i64, 1, stream_id);
            let confirm = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
            let confirm = flip_bit(&confirm, dice.next() as usize % (confirm.len() * 8));
            assert_eq!(keys.read_confirm_token(&BASE64URL_NOPAD.encode(&confirm)), None);
        }
    }

    /// What an attacker can make of tokens that he has: changed, cut, joined, sealed by himself, taken for another purpose.
    #[test]
    fn a_million_forged_tokens_open_nothing() {
        let (keys, foreign) = (keys(), TokenKeys::derive(b"an attacker's own secret"));
        let mut dice = Dice(6_364_136_223_846_793_005);
        let mut tried = 0_u32;
        let mut refused = |texts: &[String]| {
            for text in texts {
                assert_eq!(keys.read_track_token(text), None, "{text}");
                assert_eq!(keys.read_unsubscribe_token(text), None, "{text}");
                assert_eq!(keys.read_confirm_token(text), None, "{text}");
            }
            tried += texts.len() as u32;
        };
        for _ in 0..45_000 {
            let (a, b, seq) = (dice.next() as i64, dice.next() as i64, dice.next() as i32);
            let genuine =
                [keys.track_token(a, seq), keys.unsubscribe_token(a, b, 0, b, seq), keys.confirm_token(a, b, 1, a)];
            for text in &genuine {
                let sealed = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
                let at = dice.next() as usize;
                let mut random: Vec<u8> = sealed.iter().map(|_| dice.next() as u8).collect();
                random[0] = KEY_ID;
                let longer = [&sealed[..], &[dice.next() as u8]].concat();
                let mut exchanged = sealed.clone();
                exchanged.swap(1 + at % TAG_BYTES, HEAD_BYTES + at % TRACK_BYTES);
                let mut forged = vec![
                    BASE64URL_NOPAD.encode(&flip_bit(&sealed, at % (sealed.len() * 8))),
                    BASE64URL_NOPAD.encode(&random),
                    BASE64URL_NOPAD.encode(&longer),
                    BASE64URL_NOPAD.encode(&sealed[..at % sealed.len()]),
                    text[..at % text.len()].to_owned(),
                    format!("{text}{}", &text[..4]),
                ];
                forged.extend((exchanged != sealed).then(|| BASE64URL_NOPAD.encode(&exchanged)));
                refused(&forged);
            }
            // Ids and tags, and the tokens of another installation.
            refused(&[
                keys.encode_id("eml", a as u64, seq as u32, 0),
                keys.encode_id("con", a as u64, 0, 0),
                keys.tag(a, seq, 1),
                foreign.track_token(a, seq),
                foreign.unsubscribe_token(a, b, 0, b, seq),
                foreign.confirm_token(a, b, 1, a),
            ]);
            let [track, unsubscribe, confirm] = &genuine;
            assert_eq!((keys.read_track_token(unsubscribe), keys.read_track_token(confirm)), (None, None));
            assert_eq!((keys.read_unsubscribe_token(track), keys.read_unsubscribe_token(confirm)), (None, None));
            assert_eq!((keys.read_confirm_token(track), keys.read_confirm_token(unsubscribe)), (None, None));
            for text in &genuine {
                assert_eq!(keys.read_tag(text), None);
                assert_eq!(keys.decode_id("eml", &format!("eml_{text}")), None);
            }
        }
        assert!(tried >= 1_000_000, "{tried}");
    }

    #[test]
    fn a_flipped_object_id_is_no_object_id() {
        let keys = keys();
        let mut dice = Dice(2_463_534_242);
        for _ in 0..100_000 {
            let text = keys.encode_id("con", dice.next() >> 1, 0, 0);
            let block = BASE32.decode(&text.as_bytes()[4..]).unwrap();
            let block = flip_bit(&block, dice.next() as usize % 128);
            let changed = format!("con_{}", BASE32.encode(&block));
            assert!(!matches!(keys.decode_id("con", &changed), Some((_, 0, 0))));
        }
    }

    #[test]
    fn no_purpose_opens_the_text_of_another() {
        let keys = keys();
        let track = keys.track_token(7, 1);
        let unsubscribe = keys.unsubscribe_token(1, 2, 3, 7, 1);
        let confirm = keys.confirm_token(1, 2, 3, 7);
        assert_eq!(keys.read_track_token(&unsubscribe), None);
        assert_eq!(keys.read_unsubscribe_token(&track), None);
        assert_eq!(keys.read_unsubscribe_token(&confirm), None);
        assert_eq!(keys.read_confirm_token(&unsubscribe), None);
        // Equal lengths would not help either: the keys differ.
        let mut sealed = [0; HEAD_BYTES + TRACK_BYTES];
        keys.unsubscribe.seal(&[0; TRACK_BYTES], &mut sealed);
        assert_eq!(keys.read_track_token(&BASE64URL_NOPAD.encode(&sealed)), None);
        let mut sealed = [0; HEAD_BYTES + CONFIRM_BYTES];
        keys.unsubscribe.seal(&[0; CONFIRM_BYTES], &mut sealed);
        assert_eq!(keys.read_confirm_token(&BASE64URL_NOPAD.encode(&sealed)), None);

        let other = TokenKeys::derive(b"another secret");
        assert_eq!(other.read_track_token(&track), None);
        assert_eq!(other.read_unsubscribe_token(&unsubscribe), None);
        assert_eq!(other.decode_id("con", &keys.encode_id("con", 7, 0, 0)), None);
    }

    #[test]
    fn no_prefix_passes_for_another() {
        let keys = keys();
        for one in PREFIXES {
            let text = keys.encode_id(one, 7, 1, 2);
            let block = &text[one.len() + 1..];
            for other in PREFIXES.iter().filter(|other| **other != one) {
                assert_eq!(keys.decode_id(other, &text), None);
                assert_eq!(keys.decode_id(other, &format!("{other}_{block}")), None, "{one} {other}");
            }
            assert_eq!(keys.read_tag(block).is_some(), one == "tag");
        }
    }

    #[test]
    fn only_the_canonical_spelling_is_read() {
        let keys = keys();
        let id = keys.encode_id("con", 7, 0, 0);
        let block = &id[4..];
        assert_eq!(keys.decode_id("con", &id.to_uppercase()), None);
        assert_eq!(keys.decode_id("con", &format!("con_{}", block.to_uppercase())), None);
        assert_eq!(keys.decode_id("con", &format!("{id}======")), None);
        assert_eq!(keys.decode_id("con", block), None);
        for text in ["", "con", "con_", "con_a", "con_é", "\u{0}"] {
            assert_eq!(keys.decode_id("con", text), None);
        }
        // 26 characters carry 130 bits: the last two must be zero.
        for other in other_last_characters(&id, b"abcdefghijklmnopqrstuvwxyz234567") {
            assert_eq!(keys.decode_id("con", &other), None);
        }

        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=";
        let track = keys.track_token(7, 1);
        let unsubscribe = keys.unsubscribe_token(1, 2, 3, 7, 1);
        for other in other_last_characters(&track, alphabet) {
            assert_eq!(keys.read_track_token(&other), None);
        }
        for other in other_last_characters(&unsubscribe, alphabet) {
            assert_eq!(keys.read_unsubscribe_token(&other), None);
        }
        for text in ["", "A", "=", "é", &format!("{track}="), &track[..38], &format!("{track}A")] {
            assert_eq!(keys.read_track_token(text), None);
            assert_eq!(keys.read_unsubscribe_token(text), None);
        }
        assert_eq!(keys.read_track_token(&format!("{track}\n")), None);
    }

    fn other_last_characters(text: &str, alphabet: &[u8]) -> Vec<String> {
        let (head, last) = text.split_at(text.len() - 1);
        let others = alphabet.iter().filter(|c| **c != last.as_bytes()[0]);
        others.map(|c| format!("{head}{}", *c as char)).collect()
    }

    #[test]
    fn the_key_id_is_checked() {
        let keys = keys();
        let mut sealed = BASE64URL_NOPAD.decode(keys.track_token(7, 1).as_bytes()).unwrap();
        sealed[0] = 2;
        assert_eq!(keys.read_track_token(&BASE64URL_NOPAD.encode(&sealed)), None);
    }

    #[test]
    fn keys_do_not_print() {
        assert_eq!(format!("{:?}", keys()), "TokenKeys { .. }");
    }

    #[test]
    fn keys_travel_between_threads() {
        fn shared<T: Clone + Send + Sync>(_: &T) {}
        shared(&keys());
    }
}
