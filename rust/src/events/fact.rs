//! What one event says: its kind, when, of which address, and what tells it from another of its kind.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::notice::{Bounce, Complaint, Delivery, DeliveryDelay, Mail, Notice, Text, Visit, str_of};

/// What an event says; the numbers are those of the column `events.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum EventKind {
    /// SES took the mail.
    Send = 1,
    /// The receiving server took it.
    Delivery = 2,
    /// The address does not exist, or is on a suppression list.
    BouncePermanent = 3,
    /// Given up for now; the address may work again. Undetermined bounces too.
    BounceTransient = 4,
    /// SES found a virus.
    Reject = 5,
    /// SES could not fill in the template; nothing was sent.
    RenderingFailure = 6,
    /// The recipient's provider reported the mail.
    Complaint = 7,
    /// Still trying.
    DeliveryDelay = 8,
    /// SES's own open pixel was loaded.
    Open = 9,
    /// A link that SES rewrote was followed.
    Click = 10,
}

/// What the part of an event says that is named like its type.
pub(super) struct Fact<'a> {
    pub(super) kind: EventKind,
    /// What tells two events of this kind apart; `None` where one mail has it once.
    pub(super) distinction: Option<i64>,
    pub(super) at: Option<Cow<'a, str>>,
    pub(super) address: Option<Cow<'a, str>>,
    pub(super) detail: Option<Cow<'a, str>>,
    /// How an open or a click shows that no person made it.
    pub(super) machine: Option<&'static str>,
}

/// What a notification comes to.
pub(super) enum Reading<T> {
    /// A fact about a mail.
    Fact(T),
    /// Known, and nothing that we keep.
    Nothing,
}

/// Why a notification is put aside.
pub(super) type Parked = Cow<'static, str>;

/// Reads the part named like the type. A type that Amazon adds later is parked, so that a later version can read it.
pub(super) fn read<'a>(notice: &mut Notice<'a>) -> std::result::Result<Reading<Fact<'a>>, Parked> {
    let kind = notice.event_type.take().or_else(|| notice.notification_type.take());
    let fact = match str_of(&kind) {
        "Send" => notice.mail.fact(EventKind::Send, None),
        "Reject" => notice.mail.fact(EventKind::Reject, notice.reject.take().reason),
        "Rendering Failure" => notice.mail.fact(EventKind::RenderingFailure, notice.failure.take().error_message),
        "Delivery" => notice.delivery.take().fact(),
        "Bounce" => notice.bounce.take().fact(),
        "Complaint" => notice.complaint.take().fact(),
        "DeliveryDelay" => notice.delivery_delay.take().fact(),
        "Open" => notice.open.take().fact(EventKind::Open, &notice.mail),
        "Click" => notice.click.take().fact(EventKind::Click, &notice.mail),
        // SES's own contact lists, which none of our mails names, and its greeting to a topic of identity notifications.
        "Subscription" | "AmazonSnsSubscriptionSucceeded" => return Ok(Reading::Nothing),
        "" => return Err(reason_without_type(notice)),
        other => return Err(format!("not a type that we read: {other}").into()),
    };
    Ok(Reading::Fact(fact))
}

fn reason_without_type(notice: &Notice) -> Parked {
    match (&notice.topic_arn, str_of(&notice.envelope_type)) {
        (None, _) => "no event type".into(),
        (Some(_), "Notification") => "from an SNS topic that MAILRAIL_SNS_TOPICS does not name".into(),
        (Some(_), kind) => format!("an SNS envelope of type {kind}").into(),
    }
}

impl<'a> Mail<'a> {
    /// For the events that have no time and no address of their own.
    fn fact(&mut self, kind: EventKind, detail: Option<Text<'a>>) -> Fact<'a> {
        Fact {
            kind,
            distinction: None,
            at: self.timestamp.take().map(|text| text.0),
            address: self.destination.0.take().map(|text| text.0),
            detail: detail.map(|text| text.0),
            machine: None,
        }
    }
}

impl<'a> Delivery<'a> {
    fn fact(self) -> Fact<'a> {
        Fact {
            kind: EventKind::Delivery,
            distinction: None,
            at: self.timestamp.map(|text| text.0),
            address: self.recipients.0.map(|text| text.0),
            detail: self.smtp_response.map(|text| text.0),
            machine: None,
        }
    }
}

impl<'a> Bounce<'a> {
    /// Only `Permanent` is final. A type that Amazon adds later counts as transient, so it suppresses nobody.
    fn fact(self) -> Fact<'a> {
        let affected = self.bounced_recipients.0.unwrap_or_default();
        let kind = match str_of(&self.bounce_type) {
            "Permanent" => EventKind::BouncePermanent,
            _ => EventKind::BounceTransient,
        };
        let distinction = match kind {
            EventKind::BouncePermanent => None,
            _ => Some(hash(&[str_of(&self.feedback_id.or_else(|| self.timestamp.clone()))])),
        };
        let types = [str_of(&self.bounce_type), str_of(&self.bounce_sub_type)];
        Fact {
            kind,
            distinction,
            detail: detail_of(&types, affected.diagnostic()),
            at: self.timestamp.map(|text| text.0),
            address: affected.email_address.map(|text| text.0),
            machine: None,
        }
    }
}

impl<'a> Complaint<'a> {
    /// `not-spam` and `auth-failure` are kept like the others: what they lead to is decided by who applies them.
    fn fact(self) -> Fact<'a> {
        let affected = self.complained_recipients.0.unwrap_or_default();
        let types = [str_of(&self.complaint_feedback_type), str_of(&self.complaint_sub_type)];
        Fact {
            kind: EventKind::Complaint,
            detail: detail_of(&types, ""),
            distinction: Some(hash(&[str_of(&self.feedback_id.or_else(|| self.timestamp.clone()))])),
            at: self.timestamp.map(|text| text.0),
            address: affected.email_address.map(|text| text.0),
            machine: None,
        }
    }
}

impl<'a> DeliveryDelay<'a> {
    fn fact(self) -> Fact<'a> {
        let affected = self.delayed_recipients.0.unwrap_or_default();
        Fact {
            kind: EventKind::DeliveryDelay,
            distinction: Some(hash(&[str_of(&self.timestamp)])),
            detail: detail_of(&[str_of(&self.delay_type)], affected.diagnostic()),
            at: self.timestamp.map(|text| text.0),
            address: affected.email_address.map(|text| text.0),
            machine: None,
        }
    }
}

impl<'a> Visit<'a> {
    /// We track by ourselves, so these come only where somebody switched SES's own tracking on.
    fn fact(self, kind: EventKind, mail: &Mail<'a>) -> Fact<'a> {
        Fact {
            kind,
            distinction: Some(hash(&[str_of(&self.timestamp), str_of(&self.ip_address), str_of(&self.link)])),
            at: self.timestamp.map(|text| text.0),
            address: mail.destination.0.as_ref().map(|text| text.0.clone()),
            machine: self.is_bot_event.is_some_and(|said| said.is_yes()).then_some("amazon"),
            detail: self.link.map(|text| text.0),
        }
    }
}

/// `type/subtype: diagnostic`, less the pieces that are missing.
fn detail_of(types: &[&str], diagnostic: &str) -> Option<Cow<'static, str>> {
    let types: Vec<&str> = types.iter().copied().filter(|text| !text.is_empty()).collect();
    let pieces: Vec<String> =
        [types.join("/"), diagnostic.to_owned()].into_iter().filter(|piece| !piece.is_empty()).collect();
    (!pieces.is_empty()).then(|| pieces.join(": ").into())
}

/// 63 bits that depend on `parts` alone, on every machine and in every version: rows compare by them.
pub(super) fn hash(parts: &[&str]) -> i64 {
    let mut sha = Sha256::new();
    for part in parts {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    let digest: [u8; 32] = sha.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    i64::from_be_bytes([a, b, c, d, e, f, g, h]) & i64::MAX
}
