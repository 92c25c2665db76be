"""Hypothesis strategies for what people put into mails, and for the contacts who get them."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from tests.oracle.content import Contact, Source

VALUES = [
    "Ann",
    "",
    " ",
    'O\'Brien & "Sons" <b>bold</b> &amp;',
    "{{ firstName }}",
    "{{a}}",
    "{{#if a}}x{{/if}}",
    "{{{a}}}",
    "}}",
    "{",
    "}",
    "{%",
    "{# x #}",
    "a\\",
    "\\\\{{",
    "日本語の名前",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "שלום עולם",
    "\u202eevil\u202c",
    "e\u0301 ﬁ İ ß",
    "line one\r\nline two",
    "tab\there",
    "a\u2028b\u2029c",
    "\x7f\x85\xa0",
    "</script><!--",
    "-->",
    "$& $1 %s %(x)s",
    "https://example.com/?a=1&b=2#c",
    "=?utf-8?q?x?=",
    "null",
    "0",
    "x" * 3000,
]

values = st.sampled_from(VALUES) | st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=20
)

decimals = st.integers(-(10**7), 10**7).map(lambda n: n / 1000)
scalars = values | st.integers(-(2**53), 2**53) | decimals | st.booleans()


def _sorted(fields: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(fields.items()))


@st.composite
def custom_fields(draw: st.DrawFn) -> dict[str, Any]:
    """Some of the fields that the templates below use, and built-in names, which must lose."""
    return draw(
        st.fixed_dictionaries(
            {},
            optional={
                "city": values,
                "bio": values,
                "plan": scalars,
                "score": decimals,
                "vip": st.booleans(),
                "goods": st.lists(values, max_size=4),
                "pet": st.fixed_dictionaries({"kind": values}, optional={"size": st.integers(0, 30)}).map(_sorted),
                "firstName": values,
                "email": values,
                "unsubscribeUrl": values,
                "mailrail": values,
            },
        )
    )


@st.composite
def contacts(draw: st.DrawFn) -> Contact:
    """A contact; the address is a placeholder, as each sent one needs its own."""
    optional = st.none() | values
    return Contact(
        email="someone@example.net",
        contact_id=draw(st.integers(1, 2**63 - 1)),
        name=draw(optional),
        first_name=draw(optional),
        last_name=draw(optional),
        custom_fields=draw(st.none() | custom_fields()),
        tracked=draw(st.booleans()),
    )


_EXPRESSIONS = [
    "firstName",
    "lastName",
    "name",
    "email",
    "city",
    "plan",
    "score",
    "vip",
    "bio",
    "pet.kind",
    "pet.size",
    "nothing",
    "nothing.at.all",
    "goods[0]",
    "goods|join(', ')",
    "goods|length",
    "city|urlencode",
    "pet|urlencode",
    "firstName|upper",
    "firstName|default('friend', true)",
    "city|default('{{')",
    "bio|safe",
    "bio|escape",
    "bio|replace('a', '<')",
    "name|title",
    "name|trim",
    "firstName ~ ' ' ~ lastName",
    "'yes' if vip else 'no'",
    "city or 'nowhere'",
    "name|length",
    "score|default(0)|round(1)",
    "'<' ~ city",
    "('<i>' ~ city ~ '</i>')|safe",
    "'{{'",
    '"}}"',
    "'{%'",
    "'{'",
    "'}'",
    "'\\\\'",
    "'{{ firstName }}'",
]
expressions = st.sampled_from(_EXPRESSIONS)
outputs = st.builds(
    lambda expression, begin, end: f"{{{{{begin} {expression} {end}}}}}",
    expressions,
    st.sampled_from(["", "", "", "-"]),
    st.sampled_from(["", "", "", "-"]),
)
conditions = st.sampled_from(
    ["firstName", "vip", "city", "goods", "nothing", "plan == 'pro'", "name|length > 3", "not vip", "pet and pet.size"]
)

# Text that is harmless to HTML and to the template language, and awkward to SES's one.
_WORDS = [
    "Hello",
    " ",
    "\n",
    "  \t",
    "prix &eacute;lev&eacute; &amp; &lt;b&gt; &copy; &#8217;",
    "Grüße aus 東京 🎉",
    "<span dir=rtl>مرحبا</span>",
    "\u200b\u00a0",
    "}",
    "}}",
    "}}}",
    "{ ",
    "{}",
    "#}",
    "%}",
    "{#",
    "{# not a comment #}",
    "\\",
    "\\\\",
    "'single' \"double\" `back`",
    "$1 ${x} %s",
    "1 < 2 > 1",
    "&",
    "%7B%7B",
    "</p>",
    "<br>",
    "<hr/>",
]
words = st.sampled_from(_WORDS)

_LINKS = [
    '<a href="https://shop.example/a?x=1&amp;y=2">A</a>',
    "<a href='https://shop.example/a?x=1&y=2'>B</a>",
    "<a href=https://shop.example/unquoted>C</a>",
    '<A CLASS="x" HREF = " HTTPS://shop.example/Up " title="a>b">D</A>',
    '<area shape="rect" href="http://shop.example/area">',
    '<a href="https://shop.example/plain#frag">E</a>',
    '<a href="https://shop.example/copy?a=1&copy=2&lt=3&amp;gt;">F</a>',
    '<a data-mailrail-no-track href="https://shop.example/private">G</a>',
    '<a href="https://shop.example/ses" ses:no-track>H</a>',
    '<a href="mailto:a@b.example">I</a>',
    '<a href="/relative">J</a>',
    '<a href="#top">K</a>',
    '<a name="x">L</a>',
    '<a href="">M</a>',
    "<a href>N</a>",
    '<link href="https://shop.example/style.css">',
    '<img src="https://shop.example/x.png" alt="{{ city }}">',
    '<a href="https://shop.example/?n={{ firstName }}">O</a>',
    '<a href="{{ city }}">P</a>',
    '<a href="https://shop.example/{% if vip %}vip{% else %}all{% endif %}">Q</a>',
    '<a {% if vip %} class="v" {% endif %} href="https://shop.example/cond">R {{ firstName }}</a>',
    '<a title="{{ name }}" href="https://shop.example/title"><b>S</b></a>',
    '<abbr href="https://shop.example/abbr">T</abbr>',
    '<a href="https://shop.example/jp/日本?q=ü">U</a>',
    '<a href="{{ unsubscribeUrl }}">Leave</a>',
]
links = st.sampled_from(_LINKS)

_REGIONS = [
    "<style>@media screen{#id{color:red}} .a{%x{b:c}}</style>",
    '<STYLE type="text/css">.x{color:{{ city }}}{#y{a:b}}</STYLE >',
    '<script type="application/ld+json">{"a":{"b":"{{ firstName }}"},"c":"{% if %}"}</script>',
    '<!--[if mso]><table><tr><td style="{%a%}"><a href="https://shop.example/mso">{{ city }}</a><![endif]-->',
    '<!--[if !mso]><!--><a href="https://shop.example/not-mso">W</a><!--<![endif]-->',
    "<!-- {% if %} {% endfor %} {# {{ '-' }} -->",
    "<!-- </body> <body> -->",
    "<style>{{ '{%' }}{{ '</style>' }}.a{b:c}}</style>",
]
regions = st.sampled_from(_REGIONS)

_CAPTURES = [
    "{% set cap %}Hi {{ firstName }}{% endset %}{{ cap }}",
    "{% set cap %}Hi {{ firstName }} of <b>{{ city }}</b>{% endset %}{{ cap|length }}",
    "{% set cap %}{{ bio }}{% endset %}{{ cap|upper }}{{ cap|replace('A', 'b') }}",
    "{% filter upper %}up {{ firstName }} <b>{{ city }}</b>{% endfilter %}",
    "{% filter trim %}  {{ firstName }}  {% endfilter %}",
    "{% macro hi(n) %}<b>{{ n }}</b>{% endmacro %}{{ hi(firstName) }}{{ hi(city) }}",
    "{% macro hi(n) %}{{ n }}{% endmacro %}{{ hi(name)|length }}",
    "{% with y = city %}{{ y }}{% endwith %}",
    "{% set x = firstName ~ '!' %}{{ x }}{{ x|length }}",
    "{% set ns = namespace(n=0) %}{% for g in goods %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{% raw %}{{ not.a.tag }} {% if %}{% endraw %}",
    '{% raw %}<a href="https://shop.example/raw">{{ x }}</a><style>{%</style>{% endraw %}',
    "{% for key, value in pet|items %}{{ key }}={{ value }};{% endfor %}",
    "<i data-x='{{ pet|tojson }}'></i>",
    "{% autoescape false %}{{ bio }}{% endautoescape %}",
]
captures = st.sampled_from(_CAPTURES)


def _if(condition: str, one: str, other: str) -> str:
    return f"{{% if {condition} %}}{one}{{% else %}}{other}{{% endif %}}"


def _loop(inner: str) -> str:
    return f"{{% for g in goods %}}{{{{ loop.index }}}}:{{{{ g }}}}{inner}{{% else %}}none{{% endfor %}}"


def _tight_if(condition: str, inner: str) -> str:
    return f"{{%- if {condition} -%}} {inner} {{%- endif -%}}"


def _wrapped(inner: str) -> str:
    return f'<td class="c {{{{ city }}}}" {{% if score > 3 %}}width=1{{% endif %}}>{inner}</td>'


_leaves = words | words | outputs | outputs | links | captures
_bodies = st.recursive(
    st.lists(_leaves, min_size=1, max_size=6).map("".join),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.builds(_if, conditions, inner, inner),
        st.builds(_loop, inner),
        st.builds(_tight_if, conditions, inner),
        st.builds(_wrapped, inner),
    ),
    max_leaves=6,
)
_SKELETONS = [
    (
        "<!DOCTYPE html>\n<html><head>{region}<title>{{{{ city }}}}</title></head>\n<body class='a>b'>",
        "</body>\n</html>\n",
    ),
    ("<HTML><BODY>{region}", "</BODY></HTML>"),
    ("<div>{region}", "</div>"),
    ("{region}<body data-x=\"{{{{ '>' }}}}\">", "</body >{region}"),
]


def _join(skeleton: tuple[str, str], region: str, pieces: list[str], padding: str) -> str:
    begin, end = (part.format(region=region) if "{region}" in part else part for part in skeleton)
    return begin + padding.join([pieces[0], *pieces[1:], ""]) + end


_PADDING = "<!-- padding -->"


def inflate(source: Source, size_bytes: int) -> Source:
    """The source with a long table wherever `spread_pages` left a place: inflated in the test, to keep reports short."""
    line = '<tr><td style="padding:8px 0;font:14px/20px Arial">Zwölf Boxkämpfer 🥊 jagen Viktor &amp; Söhne</td></tr>\n'
    places = max(source.html.count(_PADDING), 1)
    return replace(source, html=source.html.replace(_PADDING, line * (size_bytes // len(line.encode()) // places)))


pages = st.builds(
    _join,
    st.sampled_from(_SKELETONS),
    st.just("") | regions,
    st.lists(_bodies | regions, min_size=1, max_size=5),
    st.just(""),
)
spread_pages = st.builds(
    _join,
    st.sampled_from(_SKELETONS),
    regions,
    st.lists(_bodies | regions, min_size=3, max_size=3),
    st.just(_PADDING),
)
large_sizes_bytes = st.integers(60_000, 100_000)
_plain_pieces = st.sampled_from(["Hello", " ", "\n", "}}", "{ ", "\\", "€ 5 🎈", "<b>", "&amp;", "{#", "%}", "מה"])
_plain_blocks = st.sampled_from(
    [
        "{% if vip %}VIP {{ city }}{% else %}-{% endif %}",
        "{% for g in goods %}{{ g }};{% endfor %}",
        "{% set c %}{{ name }}{% endset %}{{ c|length }}",
    ]
)
plain_texts = st.lists(_plain_pieces | outputs | _plain_blocks, min_size=1, max_size=6).map("".join)


def sources(page: st.SearchStrategy[str], *, with_text: bool = True) -> st.SearchStrategy[Source]:
    """A campaign's content around an HTML page."""
    return st.builds(
        Source,
        subject=plain_texts,
        html=page,
        text=plain_texts if with_text else st.none(),
        preheader=st.none() | plain_texts,
        track_opens=st.booleans(),
        track_clicks=st.booleans(),
        postal_address=st.none() | st.just('Acme & Söhne <GmbH>, 1 "Main" St, {{ city }} {% {{{ Köln {'),
    )
