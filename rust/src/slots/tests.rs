//! Content compiled, evaluated, and put together again as SES does.

use std::time::Instant;

use super::layout::RESERVED_WORDS;
use super::*;
use crate::template::{Source, freeze};

fn recipient<'a>(seq: i32, first_name: Option<&'a str>, fields: Option<&'a str>) -> Recipient<'a> {
    Recipient {
        seq,
        attempt: 1,
        contact_id: 40 + i64::from(seq),
        email: "ada@example.com",
        name: Some("Ada \"L\" <b>"),
        first_name,
        last_name: None,
        custom_fields: fields.map(str::as_bytes),
        tracked: true,
    }
}

fn content_of(frozen: FrozenContent) -> Content {
    let identity = StreamIdentity {
        stream_id: (2_700 << 35) | 1,
        account_id: 1,
        list_id: 2,
        base_url: "https://t.example".to_owned(),
    };
    Content::compile(frozen, identity, TokenKeys::derive(b"test secret")).unwrap()
}

/// Content whose parts are exactly these templates.
fn bare(subject: &str, html: &str, text: &str) -> Content {
    let (subject, html, text) = (subject.to_owned(), html.to_owned(), text.to_owned());
    content_of(FrozenContent { subject, html, text, ..FrozenContent::default() })
}

/// Puts values into slots as SES does: one pass, values not read again. Asserts the rules that keep SES's
/// engine from misreading the template.
fn assemble(skeleton: &Skeleton, values: &[String]) -> Rendered {
    assert_eq!(skeleton.slot_names.len(), values.len());
    let parts: serde_json::Value = serde_json::from_slice(&skeleton.template_json).unwrap();
    let fill = |part: &str| {
        let template = parts[part].as_str().unwrap();
        let (mut out, mut rest) = (String::new(), template);
        while let Some(at) = rest.find("{{") {
            let before = &rest[..at];
            assert!(!before.ends_with('\\') && !before.contains("}}"), "{template}");
            out.push_str(before);
            let (name, after) = rest[at + 2..].split_once("}}").expect("a slot ends");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()) && !name.is_empty(), "{template}");
            assert!(!after.starts_with('}') && !after.starts_with("{{"), "{template}");
            let index = skeleton.slot_names.iter().position(|known| known == name).expect("a known slot");
            out.push_str(&values[index]);
            rest = after;
        }
        assert!(!rest.contains("}}"), "{template}");
        out.push_str(rest);
        out
    };
    Rendered { subject: fill("Subject"), html: fill("Html"), text: fill("Text") }
}

/// Evaluates, checks against the plain renderer, and returns the shape.
fn checked(content: &Content, recipient: &Recipient<'_>) -> (Arc<Skeleton>, Vec<String>) {
    let Evaluated::Slots { skeleton, values } = content.evaluate(recipient).unwrap() else {
        panic!("expected slots");
    };
    assert_eq!(assemble(&skeleton, &values), content.render(recipient).unwrap());
    (skeleton, values)
}

fn template(skeleton: &Skeleton, part: &str) -> String {
    let parts: serde_json::Value = serde_json::from_slice(&skeleton.template_json).unwrap();
    parts[part].as_str().unwrap().to_owned()
}

#[test]
fn static_text_is_shared_and_values_are_not() {
    let content = bare("{{ firstName }}, hi", "<p>{{ name }} & {{ plan }}</p>", "{{ name }}");
    let (first, values) = checked(&content, &recipient(1, Some("Ada"), Some(r#"{"plan":"a<b"}"#)));
    let (second, _) = checked(&content, &recipient(2, None, None));
    assert!(Arc::ptr_eq(&first, &second), "missing fields do not change the shape");
    assert_eq!(
        std::str::from_utf8(&first.template_json).unwrap(),
        r#"{"Subject":"{{a}}, hi","Text":"{{d}}","Html":"<p>{{b}} & {{c}}</p>"}"#
    );
    assert_eq!(values, ["Ada", "Ada &quot;L&quot; &lt;b&gt;", "a&lt;b", "Ada \"L\" <b>"]);
}

#[test]
fn the_engine_and_the_step_list_agree() {
    let fields = r#"{"s":"<é'/&\">","i":5,"f":1.0,"t":true,"n":null,"big":18446744073709551615,"e":"","l":[1,"<"],"m":{"k":"<"}}"#;
    for name in [
        "s",
        "i",
        "f",
        "t",
        "n",
        "big",
        "e",
        "l",
        "m",
        "missing",
        "firstName",
        "email",
        "unsubscribeUrl",
        "mailrail.t",
        "mailrail",
        "range",
    ] {
        let stepped = bare("x", &format!("<{{{{ {name} }}}}>"), &format!("<{{{{ {name} }}}}>"));
        let forced = bare("x", &format!("<{{{{ {name} }}}}>{{% if 0 %}}{{% endif %}}"), &format!("<{{{{ {name} }}}}>"));
        let recipient = recipient(1, Some("A&B"), Some(fields));
        let (skeleton, values) = checked(&stepped, &recipient);
        let (other_skeleton, other_values) = checked(&forced, &recipient);
        assert_eq!((skeleton, values), (other_skeleton, other_values), "{name}");
    }
}

#[test]
fn the_track_token_and_the_unsubscribe_address_travel_once() {
    let source = Source {
        subject: "s".to_owned(),
        html: "<a href=https://a.example>a</a><a href=https://b.example>b</a><a href=https://a.example>c</a>"
            .to_owned(),
        base_url: "https://t.example".to_owned(),
        track_opens: true,
        track_clicks: true,
        ..Source::default()
    };
    let content = content_of(freeze(&source).unwrap());
    let recipient = recipient(7, None, None);
    let (skeleton, values) = checked(&content, &recipient);
    assert_eq!(values.len(), 2);
    assert_eq!(values[1], content.unsubscribe_url(&recipient));
    assert_eq!(template(&skeleton, "Html").matches("{{a}}").count(), 4);
    assert_eq!(template(&skeleton, "Text").matches("{{a}}").count(), 3);
    assert_eq!(template(&skeleton, "Text").matches("{{b}}").count(), 1);
}

#[test]
fn neighbouring_braces_make_an_occurrence_its_own_slot() {
    let content = bare("s", "{{ mailrail.t }}|{{ '' }}{ {{ mailrail.t }}}|\\{{ mailrail.t }}|{{ mailrail.t }}", "");
    let (skeleton, values) = checked(&content, &recipient(1, None, None));
    assert_eq!(template(&skeleton, "Html"), "{{a}}|{{b}}{ {{c}}|{{d}}|{{a}}");
    assert!(values[2].ends_with('}') && values[3].starts_with('\\'));
}

#[test]
fn braces_in_static_text_become_values() {
    for html in [
        "@media screen{#id{color:red}}{{ firstName }}",
        "{{ '{{' }} a {{ '}}' }} b {% raw %}{{ code }} {{{x}}} \\{{ y }}{% endraw %}",
        "a{ {{ firstName }} }b",
        "a{{ '{' }}{{ firstName }}{{ '}' }}b",
        "a\\{{ firstName }}}b",
        "}}{{ firstName }}}}}{{ firstName }}\\\\{{ firstName }}",
        "{% raw %}{{% endraw %}{% if firstName %}{{ firstName }}{% endif %}{% raw %}{{% endraw %}",
        "{% raw %}{{% endraw %}{% if 1 %}{% endif %}{% raw %}{{% endraw %}x",
        "}{{ firstName }}}\\{{ name }}",
        "{ { } } }{ {} {a}}",
        "{",
        "\\",
        "}}",
    ] {
        let content = bare(html, html, html);
        for name in [None, Some("}"), Some("{{a}}"), Some("{"), Some("\\"), Some("}}")] {
            checked(&content, &recipient(1, name, None));
        }
    }
}

#[test]
fn equal_constants_share_a_slot() {
    let content = bare("s", "a{b{c:d}} e{f{g:h}} i{j{k:l}}", "");
    let (skeleton, values) = checked(&content, &recipient(1, None, None));
    assert_eq!(template(&skeleton, "Html"), "a{b{c:d{{a}} e{f{g:h{{a}} i{j{k:l{{a}}");
    assert_eq!(values, ["}}"]);
}

#[test]
fn captured_output_is_dynamic_text() {
    for html in [
        "{% set cap %}Hello {{ firstName }}{% endset %}{{ cap|length }} {{ cap }}",
        "{% filter upper %}Hello {{ firstName }}{% endfilter %}!",
        "{% macro m(x) %}<b>{{ x }}</b>{% endmacro %}{{ m(firstName) }}{{ m('x')|length }}",
        "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in {{ firstName }}{% endcall %}",
        "{% set cap %}{{ mailrail.t }}{% endset %}{{ cap }}|{{ cap[:3] }}",
        "{% for x in [1, [2, [3]]] recursive %}({% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}{% endif %}){% endfor %}",
        "{% autoescape false %}{{ name }}{% endautoescape %}{{ name|safe }}{{ name ~ 'x' }}{{ name|e|e }}",
        "{{ unsubscribeUrl|e }} {{ unsubscribeUrl ~ '<' }} {{ unsubscribeUrl|upper }}",
        "{{ last }}{{ firstName }}{{ last }}|{{ mailrail.t }}{{ firstName }}|{{ firstName }}{{ mailrail.t }}{% if 0 %}{% endif %}",
        "{%- if firstName -%}  a  {%- else -%} b {%- endif -%}  c",
    ] {
        let content = bare("s", html, html);
        for name in [None, Some("Ada"), Some("<Ada>"), Some("firstName")] {
            checked(&content, &recipient(1, name, None));
        }
    }
}

#[test]
fn loops_of_different_lengths_have_different_skeletons() {
    let content = bare("s", "{% for i in items %}<li>{{ i }}</li>{% else %}none{% endfor %}", "");
    let shape = |fields| checked(&content, &recipient(1, None, Some(fields))).0.id;
    assert_eq!(shape(r#"{"items":[1,2]}"#), 0);
    assert_eq!(shape(r#"{"items":[1,2,3]}"#), 1);
    assert_eq!(shape("{}"), 2);
    assert_eq!(shape(r#"{"items":["a","<b>"]}"#), 0);
}

#[test]
fn too_many_skeletons_fall_back_to_the_whole_mail() {
    let content = bare("s", "{% for i in range(n) %}<li>{{ i }}{% endfor %}{{ firstName }}", "t");
    for n in 0..MAX_SKELETONS + 20 {
        let fields = format!(r#"{{"n":{n}}}"#);
        let recipient = recipient(1, Some("x"), Some(&fields));
        match content.evaluate(&recipient).unwrap() {
            Evaluated::Slots { skeleton, values } => {
                assert!(n < MAX_SKELETONS && skeleton.id as usize == n);
                assert_eq!(assemble(&skeleton, &values), content.render(&recipient).unwrap());
            }
            Evaluated::Plain(rendered) => {
                assert!(n >= MAX_SKELETONS);
                assert_eq!(rendered, content.render(&recipient).unwrap());
            }
        }
    }
    let known = recipient(1, None, Some(r#"{"n":3}"#));
    assert!(matches!(content.evaluate(&known).unwrap(), Evaluated::Slots { .. }), "known shapes stay");
}

#[test]
fn any_value_arrives_unchanged() {
    let content =
        bare("{{ firstName }}", "<p title=\"{{ firstName }}\">é{{ firstName }}\n", "\"{{ firstName }}\"\t\u{1}");
    for value in [
        "",
        "{{a}}",
        "}}{{",
        "\"quoted\" \\ 'single'",
        "line\nfeed\r\n",
        "👩‍🚀 emoji",
        "\u{202b}שלום\u{202c}",
        "\u{2028}\u{feff}\u{fffe}\u{10ffff}",
        "\0\u{7f}\u{85}",
        "<script>&amp;",
        "{% if %}{#",
        "  spaced  ",
    ] {
        checked(&content, &recipient(1, Some(value), None));
    }
}

#[test]
fn subjects_are_cleaned_as_a_whole() {
    let content = bare("Hi\n{{ firstName }}\n", "x", "y");
    let (_, values) = checked(&content, &recipient(1, Some("\r\nBcc: x"), None));
    assert_eq!(values, ["Hi Bcc: x"]);
    let content = bare("Hi {{ firstName }}", "x", "y");
    let (plain, _) = checked(&content, &recipient(1, Some("Ada"), None));
    assert_eq!(template(&plain, "Subject"), "Hi {{a}}");
    let (cleaned, values) = checked(&content, &recipient(1, Some("A\u{85}\nda"), None));
    assert_eq!((template(&cleaned, "Subject").as_str(), values[0].as_str()), ("{{a}}", "Hi A da"));
    checked(&content, &recipient(1, None, None));
}

#[test]
fn bombs_end_quickly_with_an_error() {
    for bomb in [
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{{ ['x'] * 1000000000 }}",
        "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ ('x' * 900000) }}{{ ('x' * 900000) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ 'a'|indent(1000000000) }}",
        "{{ range(100000)|list|join('xxxxxxxxxxxxxxxxxxxxxxxxx') }}",
        "{% for a in [[[1]]] recursive %}{{ loop([[[1]]]) }}{% endfor %}",
    ] {
        let content = bare("s", bomb, "");
        let started = Instant::now();
        let result = content.evaluate(&recipient(1, None, None));
        let elapsed = started.elapsed();
        assert!(result.is_err(), "{bomb}");
        assert!(content.render(&recipient(1, None, None)).is_err(), "{bomb}");
        // In release these take up to 20 ms; the rest is room for a busy machine.
        assert!(elapsed.as_millis() < 1_000, "{bomb}: {elapsed:?}");
    }
}

/// Lists in lists: without bounds these would fill the memory, run for hours or exhaust the stack, whose
/// size here is the least that the core's threads have.
#[test]
fn structural_bombs_end_quickly() {
    let double = |step: &str, times: usize| format!("{{% set x = [1] %}}{{% set y = [1] %}}{}", step.repeat(times));
    let looped =
        |step: &str| format!("{{% set ns = namespace(a=1) %}}{{% for i in range(9000) %}}{step}{{% endfor %}}");
    let mut bombs = Vec::new();
    for walk in [
        "",
        "{{ x }}",
        "{{ x|tojson }}",
        "{{ x|pprint }}",
        "{{ x|string }}",
        "{{ x == y }}",
        "{{ x ~ y }}",
        "{{ x|join }}",
    ] {
        for (step, times) in [
            ("{% set x = [x, x] %}{% set y = [y, y] %}", 60),
            ("{% set x = {1: x, 2: x} %}", 60),
            ("{% set x = (x, x) %}", 60),
            ("{% set x = x, x %}", 60),
            ("{% set x = x|zip(x) %}", 60),
            ("{% set x = x|zip(x)|list %}", 60),
            ("{% set x = x|chain(x) %}", 60),
            ("{% set x = x + x %}", 60),
            ("{% set x = x * 8 %}", 60),
            ("{% set x = dict(a=x, b=x) %}", 60),
            ("{% set x = x|batch(1000, x) %}", 60),
            ("{% set x = [x] %}{% set y = [y] %}", 8_000),
            ("{% set x = {1: x} %}", 10_000),
            ("{% set x = x|batch(1) %}", 10_000),
            ("{% set x = [1]|chain(x) %}", 9_000),
            ("{% set x = x[:] %}", 12_000),
            ("{% set x = x[:]|map('int') %}", 7_000),
        ] {
            bombs.push(double(step, times) + walk);
        }
        bombs.push(looped("{% set ns.a = [ns.a] %}") + "{% set x = ns.a %}" + walk);
        bombs.push(looped("{% set ns.a = [ns.a, ns.a] %}") + "{% set x = ns.a %}" + walk);
        bombs.push(looped("{% set ns.a = namespace(b=ns.a) %}") + walk);
    }
    bombs.push(
        "{% for a in [[1,1]] %}".to_owned()
            + &"{% for a in [[a, a]] %}".repeat(40)
            + "{{ a }}"
            + &"{% endfor %}".repeat(41),
    );
    bombs.push(
        "{% with x = [1] %}".to_owned() + &"{% with x = [x, x] %}".repeat(40) + "{{ x }}" + &"{% endwith %}".repeat(41),
    );
    bombs.push("{% macro m(x) %}{{ m([x, x, x, x]) }}{% endmacro %}{{ m([1]) }}".to_owned());
    bombs.push("{% set x = [1]|batch(9000, 1) %}{{ [1]|batch(9000, x) }}".to_owned());
    let run = move || {
        for bomb in bombs {
            let content = bare("s", &bomb, "");
            let started = Instant::now();
            assert!(content.evaluate(&recipient(1, None, None)).is_err(), "{}", head(&bomb));
            let elapsed = started.elapsed();
            // In release these take up to 50 ms; the rest is room for a busy machine.
            assert!(elapsed.as_millis() < 1_000, "{}: {elapsed:?}", head(&bomb));
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

fn head(text: &str) -> &str {
    &text[..text.len().min(120)]
}

#[test]
fn the_output_limit_holds_with_and_without_the_engine() {
    let field = "x".repeat(MAX_OUTPUT_BYTES / 2 + 1);
    let fields = format!(r#"{{"big":"{field}"}}"#);
    for html in ["{{ big }}{{ big }}", "{{ big }}{{ big }}{% if 0 %}{% endif %}"] {
        let content = bare("s", html, "");
        let recipient = recipient(1, None, Some(&fields));
        assert_eq!(content.evaluate(&recipient).unwrap_err().part, "html");
        assert!(content.render(&recipient).is_err());
    }
}

#[test]
fn bad_fields_and_bad_operations_are_errors_of_the_recipient() {
    let content = bare("s", "{{ a + 1 }}", "");
    let error = content.evaluate(&recipient(1, None, Some(r#"{"a":"x"}"#))).unwrap_err();
    assert_eq!((error.part, error.line), ("html", Some(1)));
    assert!(content.evaluate(&recipient(1, None, Some(r#"{"a":"#))).is_err());
    checked(&content, &recipient(1, None, Some(r#"{"a":1}"#)));
}

#[test]
fn slot_names_are_letters_and_no_helper_words() {
    let names: Vec<String> = SlotNames::default().take(30_000).collect();
    assert_eq!(names[..3], ["a", "b", "c"]);
    assert_eq!(names[26..29], ["aa", "ab", "ac"]);
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase())));
    assert!(RESERVED_WORDS.iter().all(|word| !names.iter().any(|name| name == word)));
    assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), names.len());
}

#[test]
fn threads_share_skeletons() {
    let content = bare("s", "{% if n %}a{{ n }}{% else %}b{% endif %}", "");
    let ids: Vec<u32> = std::thread::scope(|scope| {
        let handles: Vec<_> =
            (0..8).map(|_| scope.spawn(|| checked(&content, &recipient(1, None, Some(r#"{"n":1}"#))).0.id)).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == 0));
}

/// A small language of templates and values, all combinations of which must agree with the renderer.
#[test]
fn random_templates_agree_with_the_renderer() {
    let pieces = [
        "a",
        "{",
        "}",
        "\\",
        " ",
        "{{ firstName }}",
        "{{ name }}",
        "{{ mailrail.t }}",
        "{{ unsubscribeUrl }}",
        "{{ x }}",
        "{% if x %}",
        "{% else %}",
        "{% endif %}",
        "{% for i in x %}",
        "{% endfor %}",
        "{{ i }}",
        "{{ x|upper }}",
        "{% set c %}",
        "{% endset %}",
        "{{ c }}",
        "é\n",
        "{% raw %}{{{% endraw %}",
        "{% raw %}}}{% endraw %}",
        "{{ '{' }}",
    ];
    let mut state = 7_u64;
    let mut pick = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mut compiled = 0;
    for _ in 0..8_000 {
        let html: String = (0..1 + pick(9)).map(|_| pieces[pick(pieces.len())]).collect();
        let Ok(frozen) =
            freeze(&Source { subject: html.clone(), html: html.clone(), text: Some(html), ..Source::default() })
        else {
            continue;
        };
        compiled += 1;
        let content = content_of(frozen);
        for fields in [None, Some(r#"{"x":"ab{"}"#), Some(r#"{"x":["}",2]}"#)] {
            for first_name in [None, Some("{{a}}")] {
                let recipient = recipient(1, first_name, fields);
                match content.render(&recipient) {
                    Ok(_) => _ = checked(&content, &recipient),
                    Err(_) => assert!(content.evaluate(&recipient).is_err()),
                }
            }
        }
    }
    assert!(compiled > 1_000, "{compiled}");
}
