"""Settings: what is read, what is derived, and the one sentence for what is wrong."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrail import _core, config, failpoints
from mailrail.config import Settings, describe, dns_servers, load, role_password, role_url
from mailrail.errors import ConfigError

SECRET = "s" * 32


def test_nothing_set_gives_the_defaults() -> None:
    assert load({"PATH": "/bin", "OTHER_PORT": "1"}) == Settings()


def test_every_type_is_read() -> None:
    settings = load(
        {
            "MAILRAIL_PORT": " 9000 ",
            "MAILRAIL_BOUNCE_GRACE_S": "2.5",
            "MAILRAIL_BILLING": "off",
            "MAILRAIL_SNS_TOPICS": "arn:a, arn:b,",
            "MAILRAIL_MAX_SEND_RATE": "14",
            "MAILRAIL_PUBLIC_URL": "https://mail.example.com/",
            "MAILRAIL_LOG_LEVEL": "",
        }
    )
    assert settings.port == 9000
    assert settings.bounce_grace_s == 2.5
    assert settings.billing is False
    assert settings.sns_topics == ("arn:a", "arn:b")
    assert settings.max_send_rate == 14
    assert settings.public_url == "https://mail.example.com"
    assert settings.log_level == "info"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("MAILRAIL_PORT", "x", "must be a whole number"),
        ("MAILRAIL_PORT", "70000", "must be from 1 to 65535"),
        ("MAILRAIL_LEASE_S", "soon", "must be a number"),
        ("MAILRAIL_LEASE_S", "nan", "must be from 1 to 3600"),
        ("MAILRAIL_BILLING", "maybe", "must be on or off"),
        ("MAILRAIL_LOG_LEVEL", "loud", "must be one of debug"),
        ("MAILRAIL_DATABASE_URL", "mysql://h/d", "must look like postgresql://"),
        ("MAILRAIL_DATABASE_URL", "postgresql://host", "must look like postgresql://"),
        ("MAILRAIL_PUBLIC_URL", "mail.example.com", "must look like https://"),
        ("MAILRAIL_PUBLIC_URL", "http://[broken", "must look like https://"),
        ("MAILRAIL_DNS", "dns.example.com:53", "must have the form 9.9.9.9:53"),
        ("MAILRAIL_DNS", "9.9.9.9", "must have the form 9.9.9.9:53"),
        ("MAILRAIL_SECRET_KEY", "short", "at least 32 characters"),
    ],
)
def test_a_bad_value_is_one_sentence_with_the_name(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({name: text})
    message = str(caught.value)
    assert message.startswith(name)
    assert words in message
    assert "\n" not in message


def test_resolvers_are_addresses_with_ports() -> None:
    settings = load({"MAILRAIL_DNS": "9.9.9.9:53, [2620:fe::fe]:5353"})
    assert dns_servers(settings) == [("9.9.9.9", 53), ("2620:fe::fe", 5353)]


def test_a_bad_secret_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        load({"MAILRAIL_SECRET_KEY": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_misspelt_name_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="MAILRAIL_PROT is not a setting of mailrail; did you mean MAILRAIL_PORT"):
        load({"MAILRAIL_PROT": "1"})
    assert load({"MAILRAIL_UP_DATA": "/x", "MAILRAIL_TEST_PROFILE": "slow"}) == Settings()


def test_role_urls_are_derived_and_can_be_given() -> None:
    url = "postgresql://admin:pw@db.example.com:5433/mail?sslmode=require"
    settings = load({"MAILRAIL_DATABASE_URL": url, "MAILRAIL_SECRET_KEY": SECRET})
    password = role_password(SECRET, "mailrail_api")
    assert settings.api_database_url == f"postgresql://mailrail_api:{password}@db.example.com:5433/mail?sslmode=require"
    given_url = "postgresql://other@h/d"
    settings = load(
        {
            "MAILRAIL_DATABASE_URL": url,
            "MAILRAIL_SECRET_KEY": SECRET,
            "MAILRAIL_WORKER_DATABASE_URL": given_url,
        }
    )
    assert settings.worker_database_url == given_url
    assert load({"MAILRAIL_DATABASE_URL": url}).api_database_url == ""


def test_role_passwords_differ_by_role_and_secret() -> None:
    passwords = {
        role_password(secret, role) for secret in (SECRET, "t" * 32) for role in ("mailrail_api", "mailrail_worker")
    }
    assert len(passwords) == 4
    assert all(len(password) == 64 for password in passwords)


def test_a_url_without_user_gets_the_role() -> None:
    assert role_url("postgresql://h/d", "r", SECRET) == f"postgresql://r:{role_password(SECRET, 'r')}@h/d"
    assert role_url("postgresql://u:p%40@[::1]:1/d", "r", SECRET).endswith("@[::1]:1/d")


AMAZON = [
    "",
    "https://email.us-east-1.amazonaws.com",
    "https://email.us-east-1.amazonaws.com.",
    "https://email.eu-west-1.api.aws",
]


@pytest.mark.parametrize("endpoint", AMAZON)
@pytest.mark.parametrize(
    "public_url", ["http://127.0.0.1:8025", "http://[::1]:1", "http://localhost.", "http://a.localhost"]
)
def test_amazon_is_refused_while_links_lead_nowhere(endpoint: str, public_url: str) -> None:
    with pytest.raises(ConfigError, match="MAILRAIL_PUBLIC_URL"):
        config.require_sending(Settings(ses_endpoint=endpoint, public_url=public_url))


@pytest.mark.parametrize("endpoint", AMAZON)
def test_amazon_is_refused_while_one_click_goes_unencrypted(endpoint: str) -> None:
    with pytest.raises(
        ConfigError, match="MAILRAIL_PUBLIC_URL is http://mail.example.com and must begin with https://"
    ):
        config.require_sending(Settings(ses_endpoint=endpoint, public_url="http://mail.example.com"))


def test_every_unsubscribe_header_fits() -> None:
    longest = "https://" + "a" * (config.PUBLIC_URL_MAX_CHARS - 8)
    url = load({"MAILRAIL_PUBLIC_URL": longest}).public_url
    token = _core.Codec(SECRET.encode()).unsubscribe_token(2**62, 2**62, 2**62, 2**62, 2**31 - 1)
    assert len(f"List-Unsubscribe<{url}/u/{token}>") <= 870
    with pytest.raises(ConfigError, match="MAILRAIL_PUBLIC_URL must have at most 700 characters"):
        load({"MAILRAIL_PUBLIC_URL": longest + "a"})


@pytest.mark.parametrize("endpoint", AMAZON)
def test_amazon_is_refused_with_a_fence_shorter_than_a_signature_lives(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="MAILRAIL_FENCE_S must be at least 900"):
        config.require_sending(Settings(ses_endpoint=endpoint, public_url="https://mail.example.com", fence_s=899))
    config.require_sending(Settings(ses_endpoint=endpoint, public_url="https://mail.example.com", fence_s=900))


def test_amazon_is_refused_while_failpoints_are_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(public_url="https://mail.example.com")
    config.require_sending(settings)
    try:
        failpoints.rearm({failpoints.FAILPOINTS: '{"points": {"claim.committed": {"kill": 0.1}}}'})
        with pytest.raises(ConfigError, match="MAILRAIL_TEST_FAILPOINTS"):
            config.require_sending(settings)
    finally:
        failpoints.rearm({})


def test_a_lease_outlasts_a_call() -> None:
    with pytest.raises(ConfigError, match="MAILRAIL_LEASE_S must be longer"):
        config.load({"MAILRAIL_LEASE_S": "10", "MAILRAIL_CALL_TIMEOUT_MS": "10000"})


def test_a_simulator_is_accepted() -> None:
    config.require_sending(Settings(ses_endpoint="https://127.0.0.1:8026"))


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="MAILRAIL_SECRET_KEY is not set"):
        config.require(Settings(), "secret_key")
    with pytest.raises(ConfigError, match="MAILRAIL_DATABASE_URL is not set"):
        config.require_database(Settings(secret_key=SECRET), "worker_database_url")


def test_the_table_shows_every_setting_once() -> None:
    table = describe().splitlines()
    assert len(table) == len(dataclasses.fields(Settings))
    for item in dataclasses.fields(Settings):
        assert any(line.startswith(f"MAILRAIL_{item.name.upper()} ") for line in table)
        assert item.metadata["sentence"].endswith(".")
        assert item.metadata["unit"]


@given(st.text(alphabet=st.characters(exclude_characters="\0")), st.sampled_from(dataclasses.fields(Settings)))
def test_no_text_leads_to_anything_but_settings_or_a_sentence(text: str, item: "dataclasses.Field[object]") -> None:
    try:
        assert isinstance(load({f"MAILRAIL_{item.name.upper()}": text}), Settings)
    except ConfigError as error:
        assert str(error).startswith(f"MAILRAIL_{item.name.upper()}")


@pytest.mark.parametrize(
    ("name", "text"),
    [("KAFKA", "kafka"), ("KAFKA", "http://kafka:9092"), ("KAFKA", "a:9092,b:0"), ("KAFKA_PREFIX", "our mail")],
)
def test_brokers_and_names_that_kafka_would_refuse(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"MAILRAIL_{name} must "):
        load({f"MAILRAIL_{name}": text})
    assert load({"MAILRAIL_KAFKA": "a:9092, [::1]:9093"}).kafka == ("a:9092", "[::1]:9093")
