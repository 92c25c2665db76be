//! Sources frozen, and what the engine makes of them.

use super::survey::{MAX_ELIFS, MAX_TAG_TOKENS};
use super::*;

fn html(html: &str) -> Source {
    Source { subject: "s".into(), html: html.into(), base_url: "https://t.example".into(), ..Source::default() }
}

#[test]
fn who_is_not_tracked_gets_links_as_they_were_written() {
    let page = "<body><a href=\"https://a.example/?x&amp;y\">A</a></body>";
    for (track_opens, track_clicks) in [(true, true), (true, false), (false, true)] {
        let frozen = frozen(&Source { track_opens, track_clicks, ..html(page) });
        let plain = frozen.without_tracking().unwrap();
        assert!(plain.html.contains("href=\"https://a.example/?x&amp;y\"") && !plain.html.contains("/o/"));
        assert!(plain.text.contains("https://a.example/?x&y"));
        assert_eq!((plain.untracked, &plain.links), (None, &frozen.links));
    }
    assert_eq!(frozen(&html(page)).untracked, None);
    // Nothing to follow, so nothing else to send.
    assert_eq!(frozen(&Source { track_clicks: true, ..html("<p>A</p>") }).untracked, None);
}

fn frozen(source: &Source) -> FrozenContent {
    freeze(source).unwrap()
}

const FOOTER: &str = "<div style=\"padding:16px;text-align:center;font:12px sans-serif;color:#666666\">\
    <a href=\"{{ unsubscribeUrl }}\" style=\"color:#666666\">Unsubscribe</a></div>";

#[test]
fn everything_is_inserted_in_its_place() {
    let source = Source {
        preheader: Some("Hi {{ firstName }}".into()),
        track_opens: true,
        track_clicks: true,
        postal_address: Some("A & B, {{ 1 }} St".into()),
        ..html("<html><body class=x><a href=\"https://a.example/\">a</a></body></html>")
    };
    let frozen = frozen(&source);
    assert_eq!(
        frozen.html,
        "<html><body class=x><div style=\"display:none;max-height:0;overflow:hidden;mso-hide:all\">\
         Hi {{ firstName }}</div><a href=\"https://t.example/c/{{ mailrail.t }}/1\">a</a>\
         <div style=\"padding:16px;text-align:center;font:12px sans-serif;color:#666666\">\
         A &amp; B, {{ '{' }}{ 1 }} St<br>\
         <a href=\"{{ unsubscribeUrl }}\" style=\"color:#666666\">Unsubscribe</a></div>\
         <img src=\"https://t.example/o/{{ mailrail.t }}\" width=\"1\" height=\"1\" alt=\"\" \
         style=\"display:block\"></body></html>"
    );
    assert_eq!(
        frozen.text,
        "a (https://t.example/c/{{ mailrail.t }}/1){% raw %}\n\n-- \n{% endraw %}A & B, {{ '{' }}{ 1 }} St\n\
         Unsubscribe: {{ unsubscribeUrl }}\n"
    );
    assert_eq!(frozen.links, ["https://a.example/"]);
    assert_eq!(frozen.variables, Vec::<String>::new());
}

#[test]
fn without_body_the_ends_of_the_source_serve() {
    let source = Source { preheader: Some("p".into()), track_opens: true, ..html("x") };
    let html = frozen(&source).html;
    assert!(html.starts_with("<div style=\"display:none") && html.contains("p</div>x"));
    assert!(html.contains(&format!("x{FOOTER}<img src=")));
}

#[test]
fn links_stay_when_clicks_are_not_tracked() {
    let frozen = frozen(&html("<a href='https://a.example/?a&amp;b'>x</a>{{ unsubscribeUrl }}"));
    assert_eq!(frozen.html, "<a href='https://a.example/?a&amp;b'>x</a>{{ unsubscribeUrl }}");
    assert_eq!(frozen.links, ["https://a.example/?a&b"]);
}

#[test]
fn bytes_outside_the_splices_are_untouched() {
    let before = "<!DOCTYPE html PUBLIC '-//W3C'>\r\n<!--[if mso]><a href=\"https://m.example\">m</a><![endif]-->\
                  <TABLE CellPadding=0><tr><td nowrap>é&nbsp;<br/></td></TABLE  ><a  href = 'https://a.example'  >";
    let source = Source { track_clicks: true, ..html(&format!("{before}{{{{ unsubscribeUrl }}}}")) };
    let expected = before.replace("https://a.example", "https://t.example/c/{{ mailrail.t }}/1");
    assert_eq!(frozen(&source).html, format!("{expected}{{{{ unsubscribeUrl }}}}"));
}

#[test]
fn a_given_text_part_gets_a_footer_only_if_it_needs_one() {
    let text = |text: &str| frozen(&Source { text: Some(text.into()), ..html("x") }).text;
    assert_eq!(text("t {{ unsubscribeUrl }}"), "t {{ unsubscribeUrl }}");
    assert_eq!(text("t\n"), "t\n{% raw %}\n\n-- \n{% endraw %}Unsubscribe: {{ unsubscribeUrl }}\n");
}

#[test]
fn nothing_eats_the_text_footers_line_feeds() {
    for (source, printed) in [
        ("Hi {{ name -}}", "Hi Ada"),
        ("Hi {{ name -}} \n", "Hi Ada"),
        ("Hi{% if name %}{% endif -%}", "Hi"),
        ("Hi {", "Hi {"),
        ("Hi {{ name -}} {", "Hi Ada{"),
        ("Hi {{ '{' }}", "Hi {"),
        ("Hi {% raw %}{{% endraw %}", "Hi {"),
    ] {
        let frozen = frozen(&Source { text: Some(source.into()), ..html("x") });
        let mut environment = environment();
        install(&mut environment, Part::Text, &frozen.text).unwrap();
        let context = minijinja::context! { name => "Ada", unsubscribeUrl => "U" };
        let text = environment.get_template("text").unwrap().render(context).unwrap();
        assert_eq!(text, format!("{printed}\n\n-- \nUnsubscribe: U\n"), "{source}");
    }
    let survey = install(&mut environment(), Part::Text, &frozen(&html("Hi {{ name }}")).text).unwrap().1;
    assert!(survey.steps.is_some_and(|steps| steps.len() > 3), "the footer keeps the part free of the engine");
}

#[test]
fn the_engine_knows_urlencode_and_letters_of_all_scripts() {
    let mut environment = environment();
    install(&mut environment, Part::Html, "{{ 'a b/é&'|urlencode }} {{ größe }}").unwrap();
    let printed = environment.get_template("html").unwrap().render(minijinja::context! { größe => 7 }).unwrap();
    assert_eq!(printed, "a%20b&#x2f;%C3%A9%26 7");
}

#[test]
fn blocks_in_styles_scripts_and_comments_are_text() {
    let source = "<style>@media screen{#id{color:red}} a{width:10{%}</style><script>{% x</script>\
                  <!-- {% if %} {{ plan }} -->{{ unsubscribeUrl }}";
    let mut environment = environment();
    install(&mut environment, Part::Html, &frozen(&html(source)).html).unwrap();
    let context = minijinja::context! { plan => "pro", unsubscribeUrl => "U" };
    let printed = environment.get_template("html").unwrap().render(context).unwrap();
    assert_eq!(printed, source.replace("{{ plan }}", "pro").replace("{{ unsubscribeUrl }}", "U"));
}

#[test]
fn comments_are_text_and_trailing_newlines_stay() {
    let source = "{# {{ plan }} #}#{{{ unsubscribeUrl }}\n\n";
    assert!(freeze(&html(source)).is_err(), "three braces open a print tag");
    let mut environment = environment();
    install(&mut environment, Part::Text, "{# {{ plan }} #}\n\n").unwrap();
    let printed = environment.get_template("text").unwrap().render(minijinja::context! { plan => 1 }).unwrap();
    assert_eq!(printed, "{# 1 #}\n\n");
}

#[test]
fn errors_name_the_part_and_the_line_of_the_source() {
    let fail = |source: Source| {
        let error = freeze(&source).unwrap_err();
        (error.part, error.line)
    };
    let broken = "a\nb{% style %}".to_owned();
    assert_eq!(fail(Source { subject: broken.clone(), ..html("") }), ("subject", Some(2)));
    assert_eq!(fail(Source { text: Some(broken.clone()), ..html("") }), ("text", Some(2)));
    assert_eq!(fail(Source { preheader: Some(broken.clone()), ..html("") }), ("preheader", Some(2)));
    let pushed_down = Source { preheader: Some("1\n2\n3".into()), ..html("<body>\n{{ x|nope }}") };
    assert_eq!(fail(pushed_down), ("html", Some(2)));
    assert_eq!(fail(html("<style>\n{% a %}\n</style>\n{% if %}")), ("html", Some(4)));
    assert_eq!(fail(html("{{ x is nope }}")), ("html", Some(1)));
    assert_eq!(fail(html("{% include 'x' %}")), ("html", Some(1)));
    assert_eq!(fail(html("{% extends 'x' %}")), ("html", Some(1)));
    assert_eq!(fail(html("{{ unclosed")), ("html", Some(1)));
    assert_eq!(fail(html(&"x".repeat(MAX_SOURCE_BYTES + 1))), ("html", None));
}

#[test]
fn variables_are_the_custom_fields_that_are_mentioned() {
    let source = Source {
        subject: "{{ firstName }} {{ city }}".into(),
        text: Some("{% set x = plan %}{{ x }}{% for i in items %}{{ i.y }}{{ loop.index }}{% endfor %}".into()),
        ..html(
            "{% filter replace(from, 'b') %}{{ name[start:] }}{% endfilter %}{{ range(2) }}{{ email }}{{ mailrail.t }}",
        )
    };
    assert_eq!(frozen(&source).variables, ["city", "from", "items", "plan", "start"]);
}

#[test]
fn generated_text_compiles_whatever_the_html() {
    for source in [
        "<td {% if x %}class=a{% else %}class=b{% endif %}>c</td>",
        "<head>{% set a = 1 %}<title>{{ a }}</title></head>{% for i in l %}<li>{{ i }}{% endfor %}",
        "<a href=\"{{ u }}\">{% macro m(x) %}<b>{{ x }}</b>{% endmacro %}</a>{{ m(1) }}",
        "&#123;% if &#123;{ x } {<b>{</b>{{ y }}",
    ] {
        frozen(&html(source));
    }
}

/// Sources that would make a naive compiler recurse once per byte. The thread's stack is as small as
/// any that the core runs on.
#[test]
fn hostile_shapes_end_in_an_error() {
    let shapes: Vec<String> = vec![
        format!("{{{{ {}1 }}}}", "1+".repeat(60_000)),
        format!("{{{{ a{} }}}}", "|e".repeat(60_000)),
        format!("{{{{ a{} }}}}", ".b".repeat(60_000)),
        format!("{{{{ {}a }}}}", "not ".repeat(60_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(200_000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(60_000), ")".repeat(60_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(60_000), "]".repeat(60_000)),
        format!("{{% if a %}}{}{{% endif %}}", "{% elif b %}".repeat(20_000)),
        "{% if a %}".repeat(25_000),
        format!("{{{{ {}1 }}}}", "1 if 1 else ".repeat(20_000)),
        format!("{{{{ a{} }}}}", "(1)".repeat(60_000)),
        format!("{{{{ a{} }}}}", " is odd".repeat(30_000)),
    ];
    let run = move || {
        for shape in shapes {
            assert!(freeze(&html(&shape)).is_err(), "{}", &shape[..40]);
        }
        // The same shapes just within the limits must compile.
        for shape in [
            format!("{{{{ {}1 }}}}", "1+".repeat(MAX_TAG_TOKENS / 2 - 5)),
            format!("{{{{ a{} }}}}", "|e".repeat(MAX_TAG_TOKENS / 2 - 5)),
            format!("{{{{ {}a }}}}", "not ".repeat(MAX_TAG_TOKENS - 5)),
            format!("{{% if a %}}{}{{% endif %}}", "{% elif b %}".repeat(MAX_ELIFS)),
        ] {
            freeze(&html(&shape)).unwrap();
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn arbitrary_sources_never_panic() {
    let pieces = [
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "<style>",
        "</style>",
        "<!--",
        "-->",
        "<body>",
        "</body>",
        "<a href=",
        "\"",
        "'",
        "https://a.example",
        " x ",
        "raw",
        "endraw",
        "é",
        "\n",
        "if x",
        "endif",
    ];
    let mut state = 1_u64;
    for _ in 0..6_000 {
        let mut text = String::new();
        for _ in 0..8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        let _ = freeze(&Source { track_clicks: true, preheader: Some(text.clone()), ..html(&text) });
    }
}
