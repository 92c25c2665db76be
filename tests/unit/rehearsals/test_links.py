"""What is wrong with a link by its text, and by what came of a visit."""

import pytest

from mailrail.outgoing import AddressPolicy
from mailrail.rehearsals.links import Visit, is_visitable, judge, judge_all, judge_visit, literal
from mailrail.rehearsals.markup import Href

PUBLIC = AddressPolicy()
AT_HOME = AddressPolicy(is_development=True)


@pytest.mark.parametrize(
    ("url", "troubles"),
    [
        ("https://example.com/a?b=c#d", []),
        ("HTTPS://EXAMPLE.COM", []),
        ("http://example.com", ["insecure"]),
        ("", ["empty"]),
        ("#", ["empty"]),
        ("#top", []),
        ("/path", ["relative"]),
        ("www.example.com", ["relative"]),
        ("//example.com/a", ["relative"]),
        ("javascript:void(0)", ["script"]),
        ("data:text/html,x", ["script"]),
        ("https://", ["malformed"]),
        ("https://[::1", ["malformed"]),
        ("https://example.com/" + "x" * 2_048, ["malformed"]),
        ("https://paypal.com@evil.example/", ["malformed"]),
        ("https://localhost/", ["private"]),
        ("https://intranet/", ["private"]),
        ("https://wiki.corp/", ["private"]),
        ("https://printer.local/", ["private"]),
        ("http://192.168.0.1/", ["private"]),
        ("http://[::1]/", ["private"]),
        ("http://169.254.169.254/latest", ["private"]),
        ("https://example.com/?utm_source=a&utm_source=b&x=1&x=2", ["parameter_repeated"]),
        ("https://example.com/?utm_source=a&utm_medium=b", []),
        ("mailto:a@example.com?subject=Hi", []),
        ("mailto:a%40example.com,b@example.com", []),
        ("mailto:?to=a@example.com", []),
        ("mailto:", ["address_invalid"]),
        ("mailto:nobody", ["address_invalid"]),
        ("tel:+49 (30) 123-456", []),
        ("tel:call-me", ["phone_invalid"]),
        ("sms:+49301234?body=hi", []),
        ("whatsapp://send?text=x", []),
    ],
)
def test_the_text_of_a_link_is_judged(url: str, troubles: list[str]) -> None:
    assert [one.trouble for one in judge(Href(url, is_dynamic=False), PUBLIC)] == troubles


def test_what_differs_for_each_reader_is_told_but_for_our_own() -> None:
    assert judge(Href("{{ unsubscribeUrl }}", is_dynamic=True), PUBLIC) == []
    (found,) = judge(Href("https://a.example/{{ id }}", is_dynamic=True), PUBLIC)
    assert found.trouble == "dynamic"
    assert found.trouble.is_note


@pytest.mark.parametrize(
    ("url", "is_so"),
    [
        ("https://example.com:8443/", True),
        ("http://example.com:80/", True),
        ("http://example.com:25/", False),
        ("http://user@example.com/", False),
        ("http://127.0.0.1:8080/", False),
        ("ftp://example.com/", False),
        ("https://example.com:99999/", False),
        ("https://example.com/" + "x" * 2_048, False),
    ],
)
def test_what_is_visited(url: str, is_so: bool) -> None:
    assert is_visitable(url, PUBLIC) is is_so


def test_in_development_this_machine_is_visited_and_no_other_address() -> None:
    assert is_visitable("http://127.0.0.1:8080/", AT_HOME)
    assert judge(Href("http://localhost:8080/", is_dynamic=False), AT_HOME) == []
    assert not is_visitable("http://10.0.0.1/", AT_HOME)


@pytest.mark.parametrize(
    ("visit", "trouble"),
    [
        (Visit(200), None),
        (Visit(204), None),
        (Visit(404), "dead"),
        (Visit(500), "dead"),
        (Visit(403), "unclear"),
        (Visit(429), "unclear"),
        (Visit(error="the host's name is not known"), "dead"),
        (Visit(error="refused", is_private=True), "private"),
        (Visit(200, moved_to="https://new.example/"), "moved"),
        (Visit(404, moved_to="https://new.example/"), "dead"),
    ],
)
def test_a_visit_is_judged(visit: Visit, trouble: str | None) -> None:
    found = judge_visit("https://a.example/", visit)
    assert (found and found.trouble) == trouble


def test_each_link_is_told_once_and_what_was_not_seen_says_so() -> None:
    hrefs = [
        Href(url, is_dynamic=False) for url in ("https://a.example/", "#", "https://b.example/", "https://a.example/")
    ]
    assert literal(hrefs, PUBLIC) == ["https://a.example/", "https://b.example/"]
    found = judge_all(hrefs, {"https://a.example/": Visit(404)}, PUBLIC)
    assert [(one.url, one.trouble) for one in found] == [
        ("https://a.example/", "dead"),
        ("#", "empty"),
        ("https://b.example/", "not_visited"),
    ]
    assert [one.trouble for one in judge_all(hrefs, None, PUBLIC)] == ["empty"]
