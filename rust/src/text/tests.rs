//! The rules one by one, and what blocks that run or do not run make of them.

use super::*;

#[test]
fn each_rule_holds() {
    for (html, text) in [
        // 1
        ("<!doctype html><title>T {{ a }}</title><style>p{}{{ b }}</style>a<!-- {{ c }} --><script>d</script>b", "ab"),
        // 2
        ("a {% if x %}<b>{{ y }}</b>{% endif %} c", "a {% if x %}{{ y }}{% endif %} c"),
        ("<td {% if x %}class=\"{{ z }}\"{% endif %}>a</td>", "{% if x %}{% endif %}a"),
        ("{% raw %}{{ a }}{% endraw %} b", "{% raw %}{{ a }}{% endraw %} b"),
        // 3
        ("  a \n\t b&nbsp;&nbsp;c  ", "a b c"),
        // 4
        ("<p>a</p>\n<p>b</p><div>c</div><div>d</div>e", "a\n\nb\n\nc\nd\ne"),
        ("a<br>b<br/><br><br>c", "a\nb\n\nc"),
        ("<h1>T</h1>x", "T\n\nx"),
        ("{% for i in l %}<p>{{ i }}</p>{% endfor %}<p>z</p>", "{% for i in l %}{{ i }}\n\n{% endfor %}z"),
        // 5
        ("<ul><li>a<li>b</ul>c", "- a\n- b\n\nc"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
        ("a<hr>b", "a\n---\nb"),
        // 6
        ("<a href=\"https://a.example/?x=1&amp;y=2\">Go</a>.", "Go (https://a.example/?x=1&y=2)."),
        ("<a href=\"https://a.example/\">https://a.example/</a>", "https://a.example/"),
        ("<a href=\"https://a.example/\"><img></a>", "https://a.example/"),
        ("<a href='{{ u }}'>U</a>", "U ({{ u }})"),
        ("<a href=\"{% if x %}https://a{% endif %}\">U</a>", "{% if x %}{% endif %}U"),
        ("<a href=\"mailto:a@example.com\">M</a> <a href=#x>N</a>", "M N"),
        ("<a href=https://a.example/c/{{ mailrail.t }}/1>x</a>", "x (https://a.example/c/{{ mailrail.t }}/1)"),
        // 7
        ("<img alt=\"Logo {{ n }}\" src=x>!", "Logo {{ n }}!"),
        ("<img alt=\"{% if x %}a{% endif %}\">b", "{% if x %}{% endif %}b"),
        // 8
        ("a &lt;b&gt; &amp;amp; &#123;&#123; x }}", "a <b> &amp; {{ '{' }}{ x }}"),
        ("{<b>%</b> {<i></i>{{ x }} {<i>{</i>", "{{ '{' }}% {{ '{' }}{{ x }} {{ '{' }}{"),
        ("1 < 2 <3", "1 < 2 <3"),
        // 9
        ("<p></p>{% if a %}<p>b</p>{% endif %}<p></p>", "{% if a %}b\n\n{% endif %}"),
        ("", ""),
    ] {
        assert_eq!(from_html(html), text, "{html}");
    }
}

fn printed(html: &str, x: bool) -> String {
    let source = from_html(html);
    minijinja::Environment::new().render_str(&source, minijinja::context! { x => x, b => "b", l => [1, 2] }).unwrap()
}

/// Which branches run must not decide whether words are apart.
#[test]
fn blocks_glue_no_words() {
    for (html, with, without) in [
        ("A{% if x %} B</p>{% endif %}<p>C</p>", "A B C", "A C"),
        ("A{% if x %} B {% endif %}<td>C</td>", "A B C", "A C"),
        ("<ul>{% for i in range(3) %}<li>i{{ i }}{% endfor %}</ul>", "- i0 - i1 - i2", "- i0 - i1 - i2"),
        ("{% for i in l %}<p>{{ i }}{% endfor %}", "1 2", "1 2"),
        ("{% for i in l %} {{ i }}{% endfor %}", "1 2", "1 2"),
        ("{% for i in l %}{% if x %}</p>{% endif %}{{ i }}{% endfor %}", "1 2", "12"),
        ("{% if x %}<p>A{% else %}B{% endif %}<p>C", "A C", "B C"),
        ("A<p>{%- if x -%}B{%- endif -%}</p>C", "A B C", "A C"),
        ("A<br>{{- b -}}<br>C", "A b C", "A b C"),
        ("A {{- b -}} C {%- if x %} D{% endif %}", "AbC D", "AbC"),
        ("A{{ b -}} &nbsp;C", "Ab C", "Ab C"),
        ("<p>A</p>{% set c %} B{% endset %}C{{ c }}", "A C B", "A C B"),
        ("A{% set c %}<p>B{% endset %}<p>C{{ c }}", "A C B", "A C B"),
        ("{% macro m() %}<p>B</p>{% endmacro %}A{{ m() }}C", "A B C", "A B C"),
        ("A{% filter upper %}<p>b</p>{% endfilter %}<p>C", "A B C", "A B C"),
        ("{% for i in l %}{{ i }}{% if x %}{% continue %}{% endif %}</p>{% endfor %}", "12", "1 2"),
        ("A{% for i in [] %} B</p>{% else %} D{% endfor %}<p>C", "A D C", "A D C"),
        ("<p>A {{ '{' -}} { {%- if x %}{ {% endif %}", "A {{{", "A {{"),
    ] {
        for (x, words) in [(true, with), (false, without)] {
            let text = printed(html, x);
            assert_eq!(text.split_whitespace().collect::<Vec<_>>().join(" "), words, "{html}: {text:?}");
        }
    }
}

#[test]
fn balanced_blocks_leave_no_extra_blank_lines() {
    for (html, with, without) in [
        ("<p>A</p>{% if x %}<p>B</p>{% endif %}<p>C</p>", "A\n\nB\n\nC", "A\n\nC"),
        ("<p>A</p>\n{% for i in l %}\n<p>{{ i }}</p>\n{% endfor %}\n<p>C", "A\n\n1\n\n2\n\nC", "A\n\n1\n\n2\n\nC"),
        ("<ul>{% for i in l %}<li>{{ i }}</li>{% endfor %}</ul>", "- 1\n- 2\n", "- 1\n- 2\n"),
        ("<ul><li>A</li>{% if x %}<li>B</li>{% endif %}<li>C</ul>", "- A\n- B\n- C", "- A\n- C"),
        ("<p>{% set y = 1 %}A</p>{% set y = 2 %}<p>B", "A\n\nB", "A\n\nB"),
        ("<p>A {% if x %}B {% endif %}C", "A B C", "A C"),
    ] {
        assert_eq!((printed(html, true).as_str(), printed(html, false).as_str()), (with, without), "{html}");
    }
}

#[test]
fn many_loops_are_read_in_few_passes() {
    let started = std::time::Instant::now();
    from_html(&"{% for i in l %}<p>a".repeat(12_000));
    from_html(&format!("{}{}", "{% for i in l %}<p>a".repeat(6_000), "b{% endfor %}".repeat(6_000)));
    assert!(started.elapsed().as_secs() < 2);
}

#[test]
fn broken_markup_never_panics() {
    let pieces = [
        "<a href", "=", "\"", "'", ">", "{{ x }}", "{% if", "é", "<", "</", "<!--", "&#", "<p", "/", "{", "{{-}}",
        "{%-%}",
    ];
    for first in pieces {
        for second in pieces {
            for third in pieces {
                for fourth in pieces {
                    from_html(&format!("{first}{second}{third}{fourth}"));
                }
            }
        }
    }
}
