//! One mail of the demo newsletter: by slots, by the plain renderer, and by minijinja itself with the same frozen source.
//!
//! Every iteration takes another recipient, makes both tokens and reads the custom fields from JSON, whoever renders.
//! Before anything is timed, the three ways must agree on subject, HTML and text of every recipient.

use std::borrow::Cow;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mailrail_core::message::clean_subject;
use mailrail_core::plan::{Mode, Plan, Stream};
use mailrail_core::recipient::Recipient;
use mailrail_core::ses::request::push_entry;
use mailrail_core::slots::{Evaluated, Rendered};
use mailrail_core::template::{FrozenContent, Source, freeze};
use mailrail_core::token::TokenKeys;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};
use serde::Deserialize;

const HTML: &str = include_str!("../python/mailrail/up/demo_newsletter.html");
const TEXT: &str = include_str!("../python/mailrail/up/demo_newsletter.txt");
const SUBJECT: &str = "{{ firstName or 'Hello' }}, what the {{ company }} team shipped in November";
const PREHEADER: &str = "Three releases, one story from {{ city }}, and a date to keep free";
const BASE_URL: &str = "https://mail.example.com";
const STREAM_ID: i64 = (2_968 * 8) << 32 | 7;
const ACCOUNT_ID: i64 = 3;
const LIST_ID: i64 = 5;
const RECIPIENTS: usize = 1_000;

const FIRST_NAMES: [&str; 8] =
    ["Ada", "Zoë", "Ольга", "李", "Robert \"Bob\"", "O'Neil", "Max & Moritz", "{{Tess}} <b>"];
const COMPANIES: [&str; 6] =
    ["Acme Corp", "Größe & Söhne", "Quote \"Unquote\" Ltd", "<Angle> Studio", "Back\\slash Labs", "株式会社 北"];
const CITIES: [&str; 5] = ["Reykjavík", "東京", "Nuku'alofa", "Lagos", "Coeur d’Alene"];
const PLANS: [&str; 3] = ["starter", "professional", "enterprise"];

/// Somebody with data that nobody else has.
struct Reader {
    seq: i32,
    email: String,
    first_name: &'static str,
    custom_fields: Vec<u8>,
}

impl Reader {
    fn new(n: usize) -> Self {
        let custom_fields = serde_json::json!({
            "company": format!("{} {n}", COMPANIES[n % COMPANIES.len()]),
            "city": CITIES[n % CITIES.len()],
            "plan": PLANS[n % PLANS.len()],
            "points": n * 37 % 10_000,
        });
        Self {
            seq: n as i32 + 1,
            email: format!("reader.{n}@example.org"),
            first_name: FIRST_NAMES[n % FIRST_NAMES.len()],
            custom_fields: custom_fields.to_string().into_bytes(),
        }
    }

    fn recipient(&self) -> Recipient<'_> {
        Recipient {
            seq: self.seq,
            attempt: 1,
            contact_id: 1_000_000 + i64::from(self.seq),
            email: &self.email,
            name: None,
            first_name: Some(self.first_name),
            last_name: None,
            custom_fields: Some(&self.custom_fields),
            tracked: true,
        }
    }
}

/// The rival: one environment, compiled once, and a context per mail.
struct Rival {
    environment: Environment<'static>,
    keys: TokenKeys,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    company: Cow<'a, str>,
    #[serde(borrow)]
    city: Cow<'a, str>,
    #[serde(borrow)]
    plan: Cow<'a, str>,
    points: i64,
}

impl Rival {
    fn new(frozen: &FrozenContent, keys: TokenKeys) -> Self {
        let mut environment = Environment::new();
        // The newsletter's CSS has `{#`, which must not open a comment.
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).comment_delimiters("\0{", "}\0").build();
        environment.set_syntax(syntax.expect("the default delimiters are sound"));
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_auto_escape_callback(|name| match name {
            "html" => AutoEscape::Html,
            _ => AutoEscape::None,
        });
        for (name, source) in [("subject", &frozen.subject), ("html", &frozen.html), ("text", &frozen.text)] {
            environment.add_template_owned(name, source.clone()).expect("the frozen source compiles");
        }
        Self { environment, keys }
    }

    fn render(&self, recipient: &Recipient<'_>) -> Rendered {
        let Recipient { seq, contact_id, first_name, .. } = *recipient;
        let fields: Fields<'_> = serde_json::from_slice(recipient.custom_fields.unwrap_or(b"{}")).expect("four fields");
        let token = self.keys.unsubscribe_token(ACCOUNT_ID, contact_id, LIST_ID, STREAM_ID, seq);
        let values = context! {
            firstName => first_name,
            company => fields.company,
            city => fields.city,
            plan => fields.plan,
            points => fields.points,
            unsubscribeUrl => Value::from_safe_string(format!("{BASE_URL}/u/{token}")),
            mailrail => context! { t => self.keys.track_token(STREAM_ID, seq) },
        };
        let [subject, html, text] = ["subject", "html", "text"].map(|name| {
            let template = self.environment.get_template(name).expect("it was added");
            template.render(&values).expect("it renders")
        });
        Rendered { subject: clean_subject(&subject).into_owned(), html, text }
    }
}

/// What SES makes of an inline template and one entry's slots.
fn assemble(template_json: &[u8], slot_names: &[String], values: &[String]) -> Rendered {
    let template: serde_json::Value = serde_json::from_slice(template_json).expect("the template is JSON");
    let [subject, html, text] = ["Subject", "Html", "Text"].map(|part| {
        let mut rest = template[part].as_str().expect("every part is a string");
        let mut out = String::new();
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").expect("a slot ends");
            out.push_str(before);
            out.push_str(&values[slot_names.iter().position(|known| known == name).expect("a known slot")]);
            rest = after;
        }
        out + rest
    });
    Rendered { subject, html, text }
}

fn plan(frozen: FrozenContent, keys: TokenKeys) -> Plan {
    let stream = Stream {
        stream_id: STREAM_ID,
        account_id: ACCOUNT_ID,
        list_id: Some(LIST_ID),
        from_name: None,
        from_email: "news@example.com".into(),
        reply_to: Vec::new(),
        configuration_set: Some("mailrail".into()),
        base_url: BASE_URL.into(),
        mode: Mode::Slots,
    };
    Plan::compile(frozen, stream, keys).expect("the newsletter compiles")
}

fn assert_that_all_agree(plan: &Plan, rival: &Rival, readers: &[Reader]) {
    for reader in readers {
        let recipient = reader.recipient();
        let plain = plan.content.render(&recipient).expect("it renders");
        let Evaluated::Slots { skeleton, values } = plan.content.evaluate(&recipient).expect("it evaluates") else {
            panic!("the newsletter has few shapes");
        };
        assert!(plain.html.contains(&plan.content.unsubscribe_url(&recipient)));
        assert_eq!(assemble(&skeleton.template_json, &skeleton.slot_names, &values), plain);
        assert_eq!(rival.render(&recipient), plain);
    }
}

/// What the send loop does for a recipient before the call: slots, tokens, headers, tag and the entry's JSON.
fn push_entry_of(plan: &Plan, recipient: &Recipient<'_>, out: &mut Vec<u8>) -> usize {
    out.clear();
    match plan.content.evaluate(recipient) {
        Ok(Evaluated::Slots { skeleton, values }) => {
            plan.address(recipient, |to| push_entry(out, to, &skeleton.slot_names, &values))
        }
        _ => unreachable!("it was checked that the newsletter goes by slots"),
    }
}

fn newsletter(criterion: &mut Criterion) {
    let source = Source {
        subject: SUBJECT.into(),
        html: HTML.into(),
        text: Some(TEXT.into()),
        preheader: Some(PREHEADER.into()),
        base_url: BASE_URL.into(),
        track_opens: true,
        track_clicks: true,
        postal_address: None,
    };
    let frozen = freeze(&source).expect("the newsletter freezes");
    let keys = TokenKeys::derive(b"a secret of the benches, long enough to be one");
    let readers: Vec<Reader> = (0..RECIPIENTS).map(Reader::new).collect();
    let rival = Rival::new(&frozen, keys.clone());
    let plan = plan(frozen, keys);
    assert_that_all_agree(&plan, &rival, &readers);

    let mut group = criterion.benchmark_group("render");
    group.throughput(Throughput::Elements(1));
    let mut next = readers.iter().cycle().map(Reader::recipient);
    let mut next = || next.next().expect("a cycle does not end");
    group.bench_function("slots", |bench| bench.iter(|| plan.content.evaluate(black_box(&next()))));
    let mut entry = Vec::new();
    group.bench_function("slots, entry", |bench| {
        bench.iter(|| push_entry_of(&plan, black_box(&next()), &mut entry));
    });
    group.bench_function("plain", |bench| bench.iter(|| plan.content.render(black_box(&next()))));
    group.bench_function("minijinja", |bench| bench.iter(|| rival.render(black_box(&next()))));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = newsletter
}
criterion_main!(benches);
