"""Amazon's own SDK as judge: its model of our requests, its signature of them."""

import random
import re
import string
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.session
import orjson
import pytest

from mailrail._core import Lease
from tests.support.campaign import ACCESS_KEY, REGION, SECRET_ACCESS_KEY, make_plan, make_sender
from tests.support.capture import CapturedCall, capturing
from tests.support.rows import Recipient, decode, encode

OPERATIONS = {"/v2/email/outbound-emails": "SendEmail", "/v2/email/outbound-bulk-emails": "SendBulkEmail"}
AWKWARD = "{{}}{%#%}\"'\\<>&\n\t –é漢字🙂\u202bשלום"


def service_model() -> Any:
    return botocore.session.get_session().get_service_model("sesv2")


def lease() -> Lease:
    return Lease(Lease.now_ns() + 60 * 10**9)


def random_recipients(count: int) -> list[Recipient]:
    chance = random.Random(7)
    return [
        Recipient(
            seq,
            email=f"p{seq}@example.net",
            first_name="".join(chance.choices(string.ascii_letters + AWKWARD, k=chance.randint(0, 30))),
            custom_fields={
                "plan": chance.choice(["free", "pro"]),
                "note": chance.choice(AWKWARD) * chance.randint(0, 400),
            },
        )
        for seq in range(1, count + 1)
    ]


async def captured_calls(mode: str, count: int) -> list[CapturedCall]:
    plan = make_plan(
        mode=mode, html="<p>{{ firstName }} {% if plan == 'pro' %}PRO{% endif %} {{ note }} @media{a{b}}</p>"
    )
    async with capturing() as capture:
        report = await make_sender(capture.url).submit(plan, encode(random_recipients(count)), lease())
        assert {row.outcome for row in decode(report.outcomes)} == {1}
        return capture.calls


@pytest.mark.parametrize("mode", ["slots", "simple"])
async def test_signatures_equal_botocores(mode: str) -> None:
    calls = await captured_calls(mode, 200 if mode == "simple" else 2000)
    assert len(calls) >= (200 if mode == "simple" else 40)
    credentials = botocore.credentials.Credentials(ACCESS_KEY, SECRET_ACCESS_KEY)
    for call in calls:
        headers = {name.lower(): value for name, value in call.headers.items()}
        request = botocore.awsrequest.AWSRequest(
            "POST",
            f"http://{headers['host']}{call.path}",
            headers={"Content-Type": headers["content-type"], "Host": headers["host"]},
            data=call.body,
        )
        auth = botocore.auth.SigV4Auth(credentials, "ses", REGION)
        request.context["timestamp"] = headers["x-amz-date"]
        request.headers["X-Amz-Date"] = headers["x-amz-date"]
        canonical = auth.canonical_request(request)
        expected = auth.signature(auth.string_to_sign(request, canonical), request)
        assert headers["authorization"].endswith(f"Signature={expected}")
        assert f"Credential={ACCESS_KEY}/{auth.credential_scope(request)}" in headers["authorization"]


@pytest.mark.parametrize("mode", ["slots", "simple"])
async def test_bodies_hold_the_model_with_its_max_and_pattern_traits(mode: str) -> None:
    model = service_model()
    for call in await captured_calls(mode, 300):
        shape = model.operation_model(OPERATIONS[call.path]).input_shape
        assert violations(shape, orjson.loads(call.body), shape.name) == []


def violations(shape: Any, value: Any, path: str) -> list[str]:
    """What in `value` breaks the model. botocore's own validator passes over max and pattern; this one does not."""
    kinds: dict[str, type] = {
        "structure": dict,
        "list": list,
        "map": dict,
        "string": str,
        "boolean": bool,
        "integer": int,
    }
    if not any(type(value) is kind for kind in [kinds[shape.type_name]]):
        return [f"{path} is not a {shape.type_name}"]
    found = []
    if shape.type_name == "structure":
        found += [f"{path}.{name} is missing" for name in shape.required_members if name not in value]
        found += [f"{path}.{name} is unknown" for name in value if name not in shape.members]
        for name, member in value.items():
            if name in shape.members:
                found += violations(shape.members[name], member, f"{path}.{name}")
    elif shape.type_name == "list":
        for number, member in enumerate(value):
            found += violations(shape.member, member, f"{path}[{number}]")
    elif shape.type_name == "string":
        found += [f"{path} does not match {shape.metadata['pattern']}"] if _breaks_pattern(shape, value) else []
        found += [f"{path} is not in {shape.enum}"] if shape.enum and value not in shape.enum else []
    if shape.type_name in ("string", "list"):
        length = shape.metadata
        if len(value) > length.get("max", len(value)) or len(value) < length.get("min", 0):
            found.append(f"{path} has length {len(value)}")
    return found


def _breaks_pattern(shape: Any, value: str) -> bool:
    pattern = shape.metadata.get("pattern")
    return pattern is not None and re.search(pattern, value) is None


async def test_the_judge_can_say_no() -> None:
    shape = service_model().operation_model("SendEmail").input_shape
    bad = {"Content": {"Simple": {"Headers": [{"Name": "Two Words", "Value": "\n"}]}}, "Nonsense": 1}
    assert len(violations(shape, bad, "SendEmail")) >= 4
