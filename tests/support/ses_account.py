"""The part of SES v2 that moto lacks: an account, configuration sets and their event destinations, over a real socket.

Requests and answers are held to the shapes of botocore's model, so neither side can make its own.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import botocore.session
from botocore.validate import ParamValidator

MODEL = botocore.session.Session().get_service_model("sesv2")
TEST_MESSAGE = "Successfully validated SNS topic for Amazon SES event publishing."
Answer = dict[str, Any]


class Refused(Exception):
    """An error as SES answers it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class SesAccount:
    """What one account and region hold. Tests change it by hand, as a person would in the console."""

    account: Answer = field(
        default_factory=lambda: {
            "ProductionAccessEnabled": True,
            "SendingEnabled": True,
            "EnforcementStatus": "HEALTHY",
            "SendQuota": {"Max24HourSend": 50_000.0, "MaxSendRate": 14.0, "SentLast24Hours": 120.0},
            "SuppressionAttributes": {"SuppressedReasons": ["BOUNCE", "COMPLAINT"]},
        }
    )
    sets: dict[str, Answer] = field(default_factory=dict)
    destinations: dict[str, dict[str, Answer]] = field(default_factory=dict)
    # Operations that IAM does not allow.
    denied: set[str] = field(default_factory=set)
    # Operations in the order of their calls.
    calls: list[str] = field(default_factory=list)
    # SES posts a text to a topic that is attached; what publishes it, given the topic's ARN.
    publish: Callable[[str, str], None] = lambda topic, text: None

    def answer(self, operation: str, asked: Answer) -> Answer:
        """One request, already checked against the model."""
        self.calls.append(operation)
        if operation in self.denied:
            raise Refused(
                403,
                "AccessDeniedException",
                f"User: arn:aws:iam::123456789012:user/mail is not authorized to perform: ses:{operation}",
            )
        told: Answer = getattr(self, operation)(asked)
        return told

    # The operations, by their own names.

    def GetAccount(self, asked: Answer) -> Answer:  # noqa: N802, D102
        return self.account

    def PutAccountSendingAttributes(self, asked: Answer) -> Answer:  # noqa: N802, D102
        self.account["SendingEnabled"] = asked.get("SendingEnabled", False)
        return {}

    def PutAccountDetails(self, asked: Answer) -> Answer:  # noqa: N802, D102
        self.account["ProductionAccessEnabled"] = asked.get("ProductionAccessEnabled", False)
        return {}

    def CreateConfigurationSet(self, asked: Answer) -> Answer:  # noqa: N802, D102
        if asked["ConfigurationSetName"] in self.sets:
            raise Refused(400, "AlreadyExistsException", "It exists.")
        self.sets[asked["ConfigurationSetName"]] = asked
        return {}

    def GetConfigurationSet(self, asked: Answer) -> Answer:  # noqa: N802, D102
        return self.find(asked)

    def PutConfigurationSetSendingOptions(self, asked: Answer) -> Answer:  # noqa: N802, D102
        self.find(asked)["SendingOptions"] = {"SendingEnabled": asked.get("SendingEnabled", False)}
        return {}

    def PutConfigurationSetSuppressionOptions(self, asked: Answer) -> Answer:  # noqa: N802, D102
        self.find(asked)["SuppressionOptions"] = {"SuppressedReasons": asked.get("SuppressedReasons", [])}
        return {}

    def PutConfigurationSetVdmOptions(self, asked: Answer) -> Answer:  # noqa: N802, D102
        self.find(asked)["VdmOptions"] = asked["VdmOptions"]
        return {}

    def GetConfigurationSetEventDestinations(self, asked: Answer) -> Answer:  # noqa: N802, D102
        self.find(asked)
        of_set = self.destinations.get(asked["ConfigurationSetName"], {})
        return {"EventDestinations": [{"Name": name, **one} for name, one in of_set.items()]}

    def CreateConfigurationSetEventDestination(self, asked: Answer) -> Answer:  # noqa: N802, D102
        self.find(asked)
        of_set = self.destinations.setdefault(asked["ConfigurationSetName"], {})
        if asked["EventDestinationName"] in of_set:
            raise Refused(400, "AlreadyExistsException", "It exists.")
        self.attach(of_set, asked)
        return {}

    def UpdateConfigurationSetEventDestination(self, asked: Answer) -> Answer:  # noqa: N802, D102
        of_set = self.destinations.get(asked["ConfigurationSetName"], {})
        if asked["EventDestinationName"] not in of_set:
            raise Refused(404, "NotFoundException", "There is no such destination.")
        self.attach(of_set, asked)
        return {}

    def attach(self, of_set: dict[str, Answer], asked: Answer) -> None:
        """Only a topic that takes SES's test message can be attached."""
        wanted = asked["EventDestination"]
        if topic := wanted.get("SnsDestination", {}).get("TopicArn"):
            self.publish(topic, TEST_MESSAGE)
        of_set[asked["EventDestinationName"]] = wanted

    def find(self, asked: Answer) -> Answer:
        """The set that the request names."""
        try:
            return self.sets[asked["ConfigurationSetName"]]
        except KeyError:
            raise Refused(404, "NotFoundException", "There is no such configuration set.") from None


def routes() -> list[tuple[str, re.Pattern[str], str]]:
    """Method, path and operation of all that is answered here, as the model has them."""
    found = []
    for operation in MODEL.operation_names:
        if hasattr(SesAccount, operation):
            http = MODEL.operation_model(operation).http
            path = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", http["requestUri"])
            found.append((http["method"], re.compile(f"^{path}$"), operation))
    return found


ROUTES = routes()


class Handler(BaseHTTPRequestHandler):
    """HTTP around `SesAccount.answer`."""

    protocol_version = "HTTP/1.1"
    ses: SesAccount

    def handle_one(self) -> None:
        """Any method."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, told = self.respond(self.path.partition("?")[0], body)
        payload = json.dumps(told).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(payload), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = do_PUT = handle_one  # noqa: N815

    def respond(self, path: str, body: bytes) -> tuple[int, dict[str, str], Answer]:
        """Status, headers and body."""
        for method, pattern, operation in ROUTES:
            if method == self.command and (found := pattern.match(path)):
                asked = {**json.loads(body or b"{}"), **{k: unquote(v) for k, v in found.groupdict().items()}}
                model = MODEL.operation_model(operation)
                held_to(model.input_shape, asked)
                try:
                    told = self.ses.answer(operation, asked)
                except Refused as error:
                    return error.status, {"x-amzn-errortype": error.code}, {"message": str(error)}
                held_to(model.output_shape, told)
                return 200, {}, told
        return 404, {"x-amzn-errortype": "UnknownOperationException"}, {}

    def log_message(self, *_: Any) -> None:
        """Silent."""


def held_to(shape: Any, value: Answer) -> None:
    """Stops the test where a request or an answer is none of Amazon's."""
    report = ParamValidator().validate(value, shape)
    assert not report.has_errors(), report.generate_report()
    assert not set(value) - set(shape.members) or shape.name.endswith("Response"), sorted(value)


@contextmanager
def serve() -> Iterator[str]:
    """The URL while it runs; `Handler.ses` is what answers there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
