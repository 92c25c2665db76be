//! The requests of SES v2, borrowed from the body. Members that AWS would ignore are ignored.
//!
//! Every member is optional here, also those the model requires: their absence has its own error.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use sonic_rs::LazyValue;

/// A JSON string that borrows from the body unless it holds escapes.
#[derive(Debug)]
pub struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// `POST /v2/email/outbound-bulk-emails`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BulkRequest<'a> {
    #[serde(borrow)]
    pub from_email_address: Option<Text<'a>>,
    pub reply_to_addresses: Option<Vec<Text<'a>>>,
    pub configuration_set_name: Option<Text<'a>>,
    pub tenant_name: Option<Text<'a>>,
    pub default_email_tags: Option<Vec<Tag<'a>>>,
    pub default_content: Option<BulkContent<'a>>,
    pub bulk_email_entries: Option<Vec<Entry<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BulkContent<'a> {
    #[serde(borrow)]
    pub template: Option<TemplateUse<'a>>,
}

/// One recipient's part of a bulk request.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry<'a> {
    #[serde(borrow)]
    pub destination: Option<Destination<'a>>,
    pub replacement_tags: Option<Vec<Tag<'a>>>,
    pub replacement_email_content: Option<ReplacementContent<'a>>,
    pub replacement_headers: Option<Vec<Header<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReplacementContent<'a> {
    #[serde(borrow)]
    pub replacement_template: Option<ReplacementTemplate<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReplacementTemplate<'a> {
    #[serde(borrow)]
    pub replacement_template_data: Option<Text<'a>>,
}

/// `POST /v2/email/outbound-emails`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SendRequest<'a> {
    #[serde(borrow)]
    pub from_email_address: Option<Text<'a>>,
    pub destination: Option<Destination<'a>>,
    pub reply_to_addresses: Option<Vec<Text<'a>>>,
    pub configuration_set_name: Option<Text<'a>>,
    pub tenant_name: Option<Text<'a>>,
    pub email_tags: Option<Vec<Tag<'a>>>,
    pub content: Option<Content<'a>>,
    pub list_management_options: Option<LazyValue<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Content<'a> {
    #[serde(borrow)]
    pub simple: Option<Simple<'a>>,
    pub raw: Option<Raw<'a>>,
    pub template: Option<TemplateUse<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Simple<'a> {
    #[serde(borrow)]
    pub subject: Option<Charsetted<'a>>,
    pub body: Option<Body<'a>>,
    pub headers: Option<Vec<Header<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Body<'a> {
    #[serde(borrow)]
    pub text: Option<Charsetted<'a>>,
    pub html: Option<Charsetted<'a>>,
}

/// The model's `Content` structure: text and the character set to send it in.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Charsetted<'a> {
    #[serde(borrow)]
    pub data: Option<Text<'a>>,
    pub charset: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Raw<'a> {
    #[serde(borrow)]
    pub data: Option<Text<'a>>,
}

/// The model's `Template` structure.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TemplateUse<'a> {
    #[serde(borrow)]
    pub template_name: Option<Text<'a>>,
    pub template_arn: Option<Text<'a>>,
    /// Kept as JSON text: the same template comes with every call and is parsed once.
    pub template_content: Option<LazyValue<'a>>,
    pub template_data: Option<Text<'a>>,
    pub headers: Option<Vec<Header<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TemplateContent<'a> {
    #[serde(borrow)]
    pub subject: Option<Text<'a>>,
    pub text: Option<Text<'a>>,
    pub html: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Destination<'a> {
    #[serde(borrow)]
    pub to_addresses: Option<Vec<Text<'a>>>,
    pub cc_addresses: Option<Vec<Text<'a>>>,
    pub bcc_addresses: Option<Vec<Text<'a>>>,
}

/// A message tag.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tag<'a> {
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    pub value: Option<Text<'a>>,
}

/// A message header.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Header<'a> {
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    pub value: Option<Text<'a>>,
}

/// `POST /v2/email/identities`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateIdentity<'a> {
    #[serde(borrow)]
    pub email_identity: Option<Text<'a>>,
}

/// `PUT /v2/email/suppression/addresses`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutSuppressed<'a> {
    #[serde(borrow)]
    pub email_address: Option<Text<'a>>,
    pub reason: Option<Text<'a>>,
    pub tenant_name: Option<Text<'a>>,
}

/// `PUT /v2/email/account/suppression`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutSuppressedReasons<'a> {
    #[serde(borrow)]
    pub suppressed_reasons: Option<Vec<Text<'a>>>,
}

/// `PUT /v2/email/identities/{name}/mail-from`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutMailFrom<'a> {
    #[serde(borrow)]
    pub mail_from_domain: Option<Text<'a>>,
    pub behavior_on_mx_failure: Option<Text<'a>>,
}

/// `PUT /v2/email/identities/{name}/dkim/signing`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutDkimSigning<'a> {
    #[serde(borrow)]
    pub signing_attributes_origin: Option<Text<'a>>,
}
