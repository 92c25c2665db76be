"""Which keys sign: the settings' own for a stand-in, the SDK's chain for Amazon."""

from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from mailrail.config import Settings, ses_endpoint
from mailrail.ses import control


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A machine that knows nothing of AWS."""
    nowhere = str(tmp_path_factory.mktemp("aws") / "none")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
    monkeypatch.setenv("AWS_CONFIG_FILE", nowhere)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


async def test_a_stand_in_gets_the_settings_keys(no_aws: None) -> None:
    keys = await control.keys(Settings(ses_endpoint="https://127.0.0.1:1", ses_access_key="a", ses_secret_key="b"))
    assert (keys.access_key, keys.secret_key, keys.session_token) == ("a", "b", None)
    assert "b'" not in repr(keys)


async def test_amazon_gets_what_the_chain_finds(no_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(ses_region="eu-north-1", ses_access_key="not this one")
    assert ses_endpoint(settings) == "https://email.eu-north-1.amazonaws.com"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    keys = await control.keys(settings)
    assert (keys.access_key, keys.secret_key, keys.session_token) == ("AKIAEXAMPLE", "secret", "token")


async def test_amazon_without_credentials_says_what_to_do(no_aws: None) -> None:
    with pytest.raises(control.ControlError, match="set AWS_ACCESS_KEY_ID"):
        await control.keys(Settings(ses_region="ap-south-1"))


@pytest.mark.parametrize(
    "error",
    [ClientError({"Error": {"Code": "ExpiredToken"}}, "AssumeRole"), RuntimeError("refreshed, but still expired")],
    ids=["sts_refuses", "still_expired"],
)
async def test_a_refresh_that_fails_is_no_end_of_the_worker(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """What botocore raises from a refresh that it makes when the keys of a role are asked for."""

    def refuse() -> None:
        raise error

    session = SimpleNamespace(get_credentials=lambda: SimpleNamespace(get_frozen_credentials=refuse))
    monkeypatch.setattr(control, "session", lambda settings: session)
    with pytest.raises(control.ControlError, match=type(error).__name__):
        await control.keys(Settings(ses_region="eu-west-3"))
