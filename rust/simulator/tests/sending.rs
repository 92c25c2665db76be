//! What is accepted, what it becomes, and every reason to refuse.

mod common;

use common::{BULK, Running, SEND, assert_error, bulk, entry, simple, start};
use serde_json::{Value, json};

const UNSUPPORTED: &str = "Template contains unsupported operations.";

fn statuses(reply: &common::Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.text);
    let results = reply.json()["BulkEmailEntryResults"].as_array().expect("a list").clone();
    results.iter().map(|result| result["Status"].as_str().expect("a status").to_owned()).collect()
}

fn refuse(running: &Running, path: &str, request: &Value) -> String {
    let before = running.accepted();
    let reply = running.post(path, request);
    assert_error(&reply, 400, "BadRequestException");
    assert_eq!(running.accepted(), before, "a refused call accepts nothing");
    reply.json()["message"].as_str().expect("text").to_owned()
}

/// A bulk request with one thing changed.
fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut request = bulk(&["a@x.org"]);
    change(&mut request);
    request
}

fn changed_simple(change: impl FnOnce(&mut Value)) -> Value {
    let mut request = simple("a@x.org");
    change(&mut request);
    request
}

#[test]
fn a_bulk_call_gives_one_result_per_entry_in_order() {
    let running = start(json!({}));
    let mut request = bulk(&["one@x.org", "two@x.org"]);
    request["BulkEmailEntries"][1] = entry("two@x.org", &json!({"a": "<é & \"{{b}}\">"}));
    request["UnknownMember"] = json!({"ignored": [true]});
    let reply = running.post(BULK, &request);
    let results = reply.json()["BulkEmailEntryResults"].clone();
    assert_eq!(statuses(&reply), ["SUCCESS", "SUCCESS"]);
    let mail = &running.mails_to("two@x.org")[0];
    assert_eq!(mail["message_id"], results[1]["MessageId"]);
    assert_eq!(mail["subject"], "Hi <é & \"{{b}}\">");
    assert_eq!(mail["html"], "<p><é & \"{{b}}\"></p>");
    assert_eq!(mail["text"], "<é & \"{{b}}\">");
    assert_eq!(mail["from"], "Acme <news@example.com>");
    assert_eq!(mail["to"], json!(["two@x.org"]));
    assert_eq!(mail["tags"], json!({"mr": "tag"}));
    assert_eq!(mail["headers"], json!([{"name": "X-Mailrail-Id", "value": "eml_two@x.org"}]));
    assert_eq!((&mail["operation"], &mail["mode"]), (&json!("SendBulkEmail"), &json!("slots")));
    assert_eq!(mail["configuration_set"], "mailrail");
}

#[test]
fn simple_raw_and_template_content_give_the_same_mail() {
    let running = start(json!({}));
    let reply = running.post(SEND, &changed_simple(|r| r["Destination"] = json!({"ToAddresses": ["s@x.org"]})));
    assert_eq!(running.mails_to("s@x.org")[0]["message_id"], reply.json()["MessageId"]);

    let template = json!({"Subject": "{{s}}", "Html": "<p>{{h}}</p>", "Text": "?"});
    let content = json!({"Template": {"TemplateContent": template, "TemplateData": "{\"s\":\"Été\",\"h\":\"é\"}"}});
    let request = changed_simple(|r| {
        r["Content"] = content;
        r["Destination"] = json!({"ToAddresses": ["t@x.org"]});
    });
    assert_eq!(running.post(SEND, &request).status, 200);

    let message = "From: news@example.com\r\nTo: r@x.org\r\nSubject: =?utf-8?Q?=C3=89t=C3=A9?=\r\nX-Mailrail-Id: eml_r\r\n\
        X-SES-CONFIGURATION-SET: mailrail\r\nX-SES-MESSAGE-TAGS: mr=tag\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n\
        --b\r\nContent-Type: text/plain\r\n\r\n?\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>é</p>\r\n--b--\r\n";
    let raw = json!({"Content": {"Raw": {"Data": base64_simd::STANDARD.encode_to_string(message)}}});
    assert_eq!(running.post(SEND, &raw).status, 200);

    let mails = ["s@x.org", "t@x.org", "r@x.org"].map(|address| running.mails_to(address)[0].clone());
    for (mail, mode) in mails.iter().zip(["simple", "slots", "raw"]) {
        assert_eq!(mail["digest"], mails[0]["digest"], "{mail}");
        assert_eq!(mail["subject"], "Été");
        assert_eq!(mail["text"], "?", "without a charset only ASCII arrives");
        assert_eq!(mail["mode"], mode);
        assert_eq!(mail["tags"], json!({"mr": "tag"}), "{mail}");
        assert_eq!(mail["configuration_set"], "mailrail");
    }
    assert_eq!(mails[2]["headers"][0], json!({"name": "X-Mailrail-Id", "value": "eml_r"}));
}

#[test]
fn template_defaults_merge_and_replacements_override() {
    let running = start(json!({}));
    let mut request = bulk(&["a@x.org"]);
    request["DefaultContent"]["Template"]["TemplateContent"] = json!({"Subject": "{{a}}{{b}}", "Text": "t"});
    request["DefaultContent"]["Template"]["TemplateData"] = json!("{\"a\":\"1\",\"b\":\"2\"}");
    request["DefaultContent"]["Template"]["Headers"] =
        json!([{"Name": "X-A", "Value": "1"}, {"Name": "X-MAILRAIL-ID", "Value": "no"}]);
    request["DefaultEmailTags"] = json!([{"Name": "mr", "Value": "no"}, {"Name": "d", "Value": "yes"}]);
    request["BulkEmailEntries"][0]["ReplacementEmailContent"]["ReplacementTemplate"]["ReplacementTemplateData"] =
        json!("{\"b\":\"3\"}");
    assert_eq!(statuses(&running.post(BULK, &request)), ["SUCCESS"]);
    let mail = &running.mails_to("a@x.org")[0];
    assert_eq!(mail["subject"], "13");
    assert_eq!(mail["tags"], json!({"d": "yes", "mr": "tag"}));
    let headers = json!([{"name": "X-A", "value": "1"}, {"name": "X-Mailrail-Id", "value": "eml_a@x.org"}]);
    assert_eq!(mail["headers"], headers);
}

#[test]
fn a_missing_slot_is_accepted_but_not_delivered() {
    let running = start(json!({}));
    let mut request = bulk(&["a@x.org", "b@x.org"]);
    request["BulkEmailEntries"][0] = entry("a@x.org", &json!({"b": "x"}));
    assert_eq!(statuses(&running.post(BULK, &request)), ["SUCCESS", "SUCCESS"]);
    assert_eq!(running.mails_to("a@x.org").len(), 0);
    assert_eq!(running.mails_to("b@x.org").len(), 1);
    assert_eq!(running.accepted(), 2);
}

#[test]
fn template_grammar_is_literal_text_and_letters() {
    let running = start(json!({}));
    for source in [
        "{{#if a}}x{{/if}}",
        "{{a.b}}",
        "{{a_b}}",
        "{{ a }}",
        "{{{a}}}",
        "{{a0}}",
        "{{a}}}",
        "\\{{a}}",
        "{{a",
        "x}}y",
        "{{this}}",
    ] {
        let request = changed(|r| r["DefaultContent"]["Template"]["TemplateContent"]["Html"] = json!(source));
        assert_eq!(refuse(&running, BULK, &request), UNSUPPORTED, "{source}");
    }
    let lenient = start(json!({"allow_lone_closing_braces": true}));
    let request = changed(|r| r["DefaultContent"]["Template"]["TemplateContent"]["Html"] = json!("@media{a{b:c}}"));
    assert_eq!(lenient.post(BULK, &request).status, 200);
}

#[test]
fn a_bulk_call_has_one_to_fifty_entries() {
    let running = start(json!({}));
    let many = |count| bulk(&vec!["a@x.org"; count]);
    assert_eq!(statuses(&running.post(BULK, &many(50))).len(), 50);
    refuse(&running, BULK, &many(51));
    refuse(&running, BULK, &many(0));
}

#[test]
fn required_members_are_required() {
    let running = start(json!({}));
    for (pointer, member, named) in [
        ("", "DefaultContent", "defaultContent"),
        ("", "BulkEmailEntries", "bulkEmailEntries"),
        ("", "FromEmailAddress", "From"),
        ("/DefaultContent", "Template", "template"),
        ("/DefaultContent/Template", "TemplateContent", "template"),
        ("/DefaultContent/Template", "TemplateData", "template data"),
        ("/BulkEmailEntries/0", "Destination", "bulkEmailEntries.1.member.destination"),
        ("/BulkEmailEntries/0/Destination", "ToAddresses", "destination"),
        ("/BulkEmailEntries/0/ReplacementTags/0", "Name", "name"),
        ("/BulkEmailEntries/0/ReplacementTags/0", "Value", "value"),
        ("/BulkEmailEntries/0/ReplacementHeaders/0", "Name", "name"),
        ("/BulkEmailEntries/0/ReplacementHeaders/0", "Value", "value"),
    ] {
        let request = changed(|r| {
            drop(r.pointer_mut(pointer).expect("there").as_object_mut().expect("an object").remove(member))
        });
        let message = refuse(&running, BULK, &request);
        assert!(message.to_lowercase().contains(&named.to_lowercase()), "{pointer}/{member}: {message}");
    }
    for (pointer, member) in [
        ("", "Content"),
        ("", "FromEmailAddress"),
        ("", "Destination"),
        ("/Content", "Simple"),
        ("/Content/Simple", "Subject"),
        ("/Content/Simple", "Body"),
        ("/Content/Simple/Subject", "Data"),
        ("/Content/Simple/Body/Html", "Data"),
    ] {
        let request = changed_simple(|r| {
            drop(r.pointer_mut(pointer).expect("there").as_object_mut().expect("an object").remove(member))
        });
        refuse(&running, SEND, &request);
    }
}

#[test]
fn headers_and_tags_keep_their_rules_in_every_place() {
    let running = start(json!({}));
    let bad_headers = [
        json!({"Name": "Subject", "Value": "x"}),
        json!({"Name": "content-type", "Value": "x"}),
        json!({"Name": "X A", "Value": "x"}),
        json!({"Name": "X-A", "Value": "é"}),
        json!({"Name": "X-A", "Value": "a\r\nBcc: b@x.org"}),
        json!({"Name": "X-A", "Value": "v".repeat(996)}),
        json!({"Name": "n".repeat(127), "Value": "x"}),
    ];
    for header in bad_headers {
        refuse(&running, BULK, &changed(|r| r["BulkEmailEntries"][0]["ReplacementHeaders"] = json!([header])));
        refuse(&running, BULK, &changed(|r| r["DefaultContent"]["Template"]["Headers"] = json!([header])));
        refuse(&running, SEND, &changed_simple(|r| r["Content"]["Simple"]["Headers"] = json!([header])));
    }
    let sixteen = json!(vec![json!({"Name": "X-A", "Value": "b"}); 16]);
    refuse(&running, BULK, &changed(|r| r["BulkEmailEntries"][0]["ReplacementHeaders"] = sixteen));
    for (name, value) in [("a b", "x"), ("a", "x.y"), ("a", ""), (&*"n".repeat(257), "x")] {
        let tags = json!([{"Name": name, "Value": value}]);
        refuse(&running, BULK, &changed(|r| r["BulkEmailEntries"][0]["ReplacementTags"] = tags.clone()));
        refuse(&running, BULK, &changed(|r| r["DefaultEmailTags"] = tags.clone()));
        refuse(&running, SEND, &changed_simple(|r| r["EmailTags"] = tags.clone()));
    }
}

#[test]
fn sizes_are_limited() {
    let running = start(json!({}));
    let with_data =
        |length: usize| changed(|r| r["BulkEmailEntries"][0] = entry("a@x.org", &json!({"a": "x".repeat(length)})));
    assert_eq!(statuses(&running.post(BULK, &with_data(262_144 - r#"{"a":""}"#.len()))), ["SUCCESS"]);
    refuse(&running, BULK, &with_data(262_144));
    let with_html = |length: usize| {
        changed(|r| r["DefaultContent"]["Template"]["TemplateContent"]["Html"] = json!("x".repeat(length)))
    };
    assert_eq!(running.post(BULK, &with_html(990_000)).status, 200);
    refuse(&running, BULK, &with_html(1_000_000));
    let big = changed_simple(|r| r["Content"]["Simple"]["Body"]["Html"]["Data"] = json!("x".repeat(2_000_000)));
    assert_eq!(running.post(SEND, &big).status, 200, "only inline templates are limited to 1 MB");
    let long_line = format!("From: news@example.com\r\nTo: a@x.org\r\n\r\n{}\r\n", "x".repeat(1001));
    refuse(&running, SEND, &json!({"Content": {"Raw": {"Data": base64_simd::STANDARD.encode_to_string(long_line)}}}));
}

#[test]
fn recipients_are_plausible_and_at_most_fifty() {
    let running = start(json!({}));
    let request = bulk(&["a@x.org", "nobody", "b b@x.org", "b@x.org"]);
    let reply = running.post(BULK, &request);
    assert_eq!(statuses(&reply), ["SUCCESS", "INVALID_PARAMETER", "INVALID_PARAMETER", "SUCCESS"]);
    let results = reply.json()["BulkEmailEntryResults"].clone();
    assert!(results[1]["Error"].is_string() && results[1].get("MessageId").is_none());
    assert_eq!(running.mails_to("b@x.org")[0]["message_id"], results[3]["MessageId"]);
    assert_eq!(running.accepted(), 2);
    refuse(&running, SEND, &changed_simple(|r| r["Destination"]["ToAddresses"] = json!(["nobody"])));
    let fifty = |count: usize| json!({"ToAddresses": vec!["a@x.org"; count - 1], "BccAddresses": ["b@x.org"]});
    refuse(&running, SEND, &changed_simple(|r| r["Destination"] = fifty(51)));
    refuse(&running, BULK, &changed(|r| r["BulkEmailEntries"][0]["Destination"] = fifty(51)));
    assert_eq!(running.post(SEND, &changed_simple(|r| r["Destination"] = fifty(50))).status, 200);
    assert_eq!(running.accepted(), 52);
}

#[test]
fn from_must_be_plausible_and_verified() {
    let running = start(json!({"verified_identities": ["example.com", "one@other.org"]}));
    let from = |address: &str| changed(|r| r["FromEmailAddress"] = json!(address));
    for good in ["a@example.com", "Name <a@mail.example.com>", "one@other.org"] {
        assert_eq!(running.post(BULK, &from(good)).status, 200, "{good}");
    }
    let reply = running.post(BULK, &from("two@other.org"));
    assert_error(&reply, 400, "MessageRejected");
    assert!(reply.text.contains("Email address is not verified."));
    refuse(&running, BULK, &from("Accénted <a@example.com>"));
    refuse(&running, BULK, &from("a@example.com, b@example.com"));
    refuse(&running, BULK, &changed(|r| r["ReplyToAddresses"] = json!(["nobody"])));
    let message = "From: two@other.org\r\nTo: a@x.org\r\n\r\nx\r\n";
    let raw = json!({"FromEmailAddress": "a@example.com", "Content": {"Raw": {"Data": base64_simd::STANDARD.encode_to_string(message)}}});
    assert_error(&running.post(SEND, &raw), 400, "MessageRejected");
}

#[test]
fn what_is_named_must_exist() {
    let running = start(json!({}));
    for request in [
        changed(|r| r["ConfigurationSetName"] = json!("other")),
        changed(|r| r["TenantName"] = json!("other")),
        changed(|r| r["DefaultContent"]["Template"] = json!({"TemplateName": "other", "TemplateData": "{}"})),
        changed(|r| r["DefaultContent"]["Template"] = json!({"TemplateArn": "other", "TemplateData": "{}"})),
    ] {
        assert_error(&running.post(BULK, &request), 404, "NotFoundException");
    }
    let listed = changed_simple(|r| r["ListManagementOptions"] = json!({"ContactListName": "other"}));
    assert_error(&running.post(SEND, &listed), 404, "NotFoundException");
}

#[test]
fn malformed_requests_are_refused() {
    let running = start(json!({}));
    for body in ["", "{", "[]", r#"{"FromEmailAddress":1}"#, r#"{"BulkEmailEntries":{}}"#, "{} x"] {
        assert_error(&running.signed("POST", BULK, body), 400, "SerializationException");
    }
    let mut invalid = common::signed_request("POST", BULK, "{\"FromEmailAddress\":\"x\"}", common::now_s());
    let at = invalid.len() - 3;
    invalid[at] = 0xff;
    let reply = common::exchange(&mut running.connect(), &invalid).expect("an answer");
    assert_error(&reply, 403, "SignatureDoesNotMatch");
    let entry_data = changed(|r| {
        r["BulkEmailEntries"][0]["ReplacementEmailContent"]["ReplacementTemplate"]["ReplacementTemplateData"] =
            json!("[]");
    });
    assert_eq!(statuses(&running.post(BULK, &entry_data)), ["INVALID_PARAMETER"]);
    refuse(&running, BULK, &changed(|r| r["DefaultContent"]["Template"]["TemplateData"] = json!("x")));
    refuse(&running, BULK, &changed(|r| r["DefaultContent"]["Template"]["TemplateContent"] = json!({"Subject": "x"})));
    refuse(&running, SEND, &changed_simple(|r| r["Content"]["Raw"] = json!({"Data": "eA=="})));
    refuse(&running, SEND, &changed_simple(|r| r["Content"]["Simple"]["Body"] = json!({})));
    refuse(&running, SEND, &changed_simple(|r| r["Content"]["Simple"]["Subject"]["Data"] = json!("a\r\nb")));
    refuse(&running, SEND, &changed_simple(|r| r["Content"]["Simple"]["Subject"]["Charset"] = json!("KOI8-R")));
    let raw = |data: &str| json!({"FromEmailAddress": "a@example.com", "Content": {"Raw": {"Data": data}}});
    assert_error(&running.post(SEND, &raw("*")), 400, "SerializationException");
    refuse(&running, SEND, &raw("eA=="));
}

#[test]
fn a_call_over_the_rate_or_the_day_is_refused_whole() {
    let running = start(json!({"max_send_rate": 3, "max_24_hour_send": 3}));
    let reply = running.post(BULK, &bulk(&["a@x.org", "b@x.org", "c@x.org", "d@x.org"]));
    assert_error(&reply, 400, "LimitExceededException");
    assert_eq!(reply.json()["message"], "Daily message quota exceeded.");
    let spared = "success@simulator.amazonses.com";
    assert_eq!(running.post(BULK, &bulk(&[spared; 3])).status, 200);
    let reply = running.post(BULK, &bulk(&[spared; 3]));
    assert_error(&reply, 429, "TooManyRequestsException");
    assert_eq!(reply.json()["message"], "Maximum sending rate exceeded.");
    assert_error(
        &running.post(SEND, &changed_simple(|r| r["Destination"]["ToAddresses"] = json!([spared, spared, spared]))),
        429,
        "TooManyRequestsException",
    );
    let account = running.signed("GET", "/v2/email/account", "").json();
    assert_eq!(account["SendQuota"], json!({"Max24HourSend": 3.0, "MaxSendRate": 3.0, "SentLast24Hours": 0.0}));
}

#[test]
fn throttling_by_entry_refuses_only_those_beyond() {
    let running = start(json!({"max_send_rate": 2, "burst_seconds": 1, "throttle": "entry"}));
    let reply = running.post(BULK, &bulk(&["a@x.org", "b@x.org", "c@x.org"]));
    assert_eq!(statuses(&reply), ["SUCCESS", "SUCCESS", "ACCOUNT_THROTTLED"]);
    let running = start(json!({"max_24_hour_send": 1, "throttle": "entry"}));
    let reply = running.post(BULK, &bulk(&["a@x.org", "b@x.org"]));
    assert_eq!(statuses(&reply), ["SUCCESS", "ACCOUNT_DAILY_QUOTA_EXCEEDED"]);
    let sent = running.signed("GET", "/v2/email/account", "").json()["SendQuota"]["SentLast24Hours"].clone();
    assert_eq!(sent, 1.0);
}
