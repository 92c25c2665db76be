//! The JSON of an SES event, as far as it matters here.
//!
//! Field names and values are those of "Examples of event data that Amazon SES publishes to Amazon SNS" in the
//! SES developer guide, and of the older identity notifications, which say `notificationType`. Everything is
//! optional, as events come with parts missing.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The header that names the mail where tags are missing, as in identity notifications.
const ID_HEADER: &str = "X-Mailrail-Id";

/// An SES event; of its parts only the one named like the type is there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Notice<'a> {
    #[serde(borrow)]
    pub(super) event_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) notification_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) mail: Mail<'a>,
    #[serde(borrow, default)]
    pub(super) delivery: Part<Delivery<'a>>,
    #[serde(borrow, default)]
    pub(super) bounce: Part<Bounce<'a>>,
    #[serde(borrow, default)]
    pub(super) complaint: Part<Complaint<'a>>,
    #[serde(borrow, default)]
    pub(super) reject: Part<Reject<'a>>,
    #[serde(borrow, default)]
    pub(super) failure: Part<Failure<'a>>,
    #[serde(borrow, default)]
    pub(super) delivery_delay: Part<DeliveryDelay<'a>>,
    #[serde(borrow, default)]
    pub(super) open: Part<Visit<'a>>,
    #[serde(borrow, default)]
    pub(super) click: Part<Visit<'a>>,
    /// Only an SNS envelope has one, and then this is the whole envelope.
    #[serde(borrow, rename = "TopicArn")]
    pub(super) topic_arn: Option<Text<'a>>,
    #[serde(borrow, rename = "Type")]
    pub(super) envelope_type: Option<Text<'a>>,
}

/// An event as EventBridge brings it: the same object inside `detail`.
#[derive(Deserialize)]
pub(super) struct Bridged<'a> {
    #[serde(borrow)]
    pub(super) detail: Option<Notice<'a>>,
}

/// A part that may be missing or null; taking a missing one gives the empty one.
#[derive(Deserialize)]
pub(super) struct Part<T>(Option<T>);

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Default> Part<T> {
    pub(super) fn take(&mut self) -> T {
        self.0.take().unwrap_or_default()
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mail<'a> {
    #[serde(borrow)]
    pub(super) message_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) timestamp: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) destination: First<Text<'a>>,
    #[serde(borrow)]
    tags: Option<Tags<'a>>,
    #[serde(borrow, default)]
    pub(super) headers: IdHeader<'a>,
}

#[derive(Deserialize)]
struct Tags<'a> {
    #[serde(borrow, default)]
    mr: First<Text<'a>>,
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
}

impl<'a> Mail<'a> {
    pub(super) fn tag(&self) -> Option<&str> {
        Some(&self.tags.as_ref()?.mr.0.as_ref()?.0)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivery<'a> {
    #[serde(borrow)]
    pub(super) timestamp: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) recipients: First<Text<'a>>,
    #[serde(borrow)]
    pub(super) smtp_response: Option<Text<'a>>,
}

/// A recipient inside a bounce, a complaint or a delay.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Affected<'a> {
    #[serde(borrow)]
    pub(super) email_address: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) diagnostic_code: Option<Text<'a>>,
}

impl Affected<'_> {
    pub(super) fn diagnostic(&self) -> &str {
        self.diagnostic_code.as_ref().or(self.status.as_ref()).map_or("", |text| &text.0)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bounce<'a> {
    #[serde(borrow)]
    pub(super) timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) feedback_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) bounce_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) bounce_sub_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) bounced_recipients: First<Affected<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Complaint<'a> {
    #[serde(borrow)]
    pub(super) timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) feedback_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) complaint_sub_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) complaint_feedback_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) complained_recipients: First<Affected<'a>>,
}

#[derive(Default, Deserialize)]
pub(super) struct Reject<'a> {
    #[serde(borrow)]
    pub(super) reason: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failure<'a> {
    #[serde(borrow)]
    pub(super) error_message: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveryDelay<'a> {
    #[serde(borrow)]
    pub(super) timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) delay_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) delayed_recipients: First<Affected<'a>>,
}

/// An open or a click.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Visit<'a> {
    #[serde(borrow)]
    pub(super) timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) ip_address: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) link: Option<Text<'a>>,
    /// `Likely` where SES takes the reader for a program; older events lack it.
    #[serde(borrow)]
    pub(super) is_bot_event: Option<Word<'a>>,
}

/// A JSON string, borrowed where it has no escapes.
#[derive(Clone, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A word that may as well come as a boolean.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Word<'a> {
    Flag(bool),
    #[serde(borrow)]
    Text(Cow<'a, str>),
    Other(IgnoredAny),
}

impl Word<'_> {
    pub(super) fn is_yes(&self) -> bool {
        match self {
            Self::Flag(flag) => *flag,
            Self::Text(text) => ["likely", "true", "yes"].iter().any(|yes| text.eq_ignore_ascii_case(yes)),
            Self::Other(_) => false,
        }
    }
}

pub(super) fn str_of<'b>(text: &'b Option<Text<'_>>) -> &'b str {
    text.as_ref().map_or("", |text| &text.0)
}

/// The first item of a JSON array; the others are skipped. Null is an empty array.
pub(super) struct First<T>(pub(super) Option<T>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(FirstVisitor(PhantomData))
    }
}

struct FirstVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FirstVisitor<T> {
    type Value = First<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or null")
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(First(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Self::Value, A::Error> {
        let first = items.next_element()?;
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(First(first))
    }
}

/// The value of our header, picked out of the list of all headers. SES keeps names as written, a relay may not.
#[derive(Default)]
pub(super) struct IdHeader<'a>(pub(super) Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for IdHeader<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(IdHeaderVisitor)
    }
}

struct IdHeaderVisitor;

impl<'de> Visitor<'de> for IdHeaderVisitor {
    type Value = IdHeader<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of headers or null")
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(IdHeader(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(header) = items.next_element::<Header>()? {
            if found.is_none() && str_of(&header.name).eq_ignore_ascii_case(ID_HEADER) {
                found = header.value.map(|text| text.0);
            }
        }
        Ok(IdHeader(found))
    }
}
