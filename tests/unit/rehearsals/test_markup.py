"""Links and pictures in HTML as people and mail builders write it."""

import time

import pytest

from mailrail.rehearsals.markup import Href, survey


@pytest.mark.parametrize(
    ("source", "hrefs"),
    [
        ('<a href="https://a.example/?x=1&amp;y=2">1</a>', ["https://a.example/?x=1&y=2"]),
        (
            "<A HREF='HTTP://b.example'>2</A><area href=https://c.example/p>",
            ["HTTP://b.example", "https://c.example/p"],
        ),
        ('<a class=x href = " https://d.example/é ">4</a>', ["https://d.example/é"]),
        ("<a href>x</a><a href=''>y</a><a name=z>z</a><a href=#>", ["", "", "#"]),
        ("<a href=/first HREF=/second>", ["/first"]),
        ('<!--[if mso]><a href="https://a.example">x</a><![endif]-->', []),
        ('<style>a{}/*<a href="https://a.example">*/</style><script>"<a href=x>"</script>', []),
        ("<title><a href=x></title><textarea><a href=y></textarea><link href=z><img src=z>", []),
        ('<a title=\'>\' {% if x > 1 %}class="{{ "y" }}"{% endif %} href=https://a.example>', ["https://a.example"]),
        ("<style>{% raw</style><a href=x>", ["x"]),
        ("<br/><a/href=x><p a<b href=y>", ["x"]),
        ("a < b <3 <a href='unclosed", ["unclosed"]),
        ("<!doctype html><?xml ?></a href=x><a\nhref\n=\nx\n>", ["x"]),
    ],
)
def test_links_are_found_as_a_browser_finds_them(source: str, hrefs: list[str]) -> None:
    assert survey(source).hrefs == [Href(value, is_dynamic=False) for value in hrefs]


@pytest.mark.parametrize(
    "value", ["{{ url }}", "https://a.example/{{ 'x' }}", "{% if x %}https://a.example{% endif %}", '{{ "a>b" }}']
)
def test_a_link_with_a_tag_in_it_is_different_for_each(value: str) -> None:
    for quote in ('"', "'", ""):
        assert survey(f"<a href={quote}{value}{quote}>x</a>").hrefs == [Href(value, is_dynamic=True)]


@pytest.mark.parametrize(
    ("source", "images", "without_alt", "has_words"),
    [
        ("<img src=a><img src=b alt><IMG alt='' src=c/>", 3, 1, False),
        ("<img src=a>&nbsp;&zwnj;&#8204;\u200b &shy;", 1, 1, False),
        ("<p>Hello</p>", 0, 0, True),
        ("<p>{{ name }}</p>", 0, 0, True),
        ("<p>{% if x %}{% endif %}</p><style>p{color:red}</style><title>News</title><!-- words -->", 0, 0, False),
    ],
)
def test_pictures_and_words(source: str, images: int, without_alt: int, has_words: bool) -> None:
    found = survey(source)
    assert (found.images, found.images_without_alt, found.has_words) == (images, without_alt, has_words)


@pytest.mark.parametrize(
    "piece",
    [
        "<",
        "<a ",
        '<a href="',
        "<!--",
        "<!",
        "<?",
        "</a ",
        "<script>",
        "<style></s",
        "<a x='",
        "<a x ",
        "{{",
        "{%",
        "<a {",
    ],
)
def test_no_source_takes_long(piece: str) -> None:
    """Python's own parser needs a minute for some of these."""
    source = piece * (256 * 1024 // len(piece))
    begun_s = time.process_time()
    survey(source)
    assert time.process_time() - begun_s < 2
