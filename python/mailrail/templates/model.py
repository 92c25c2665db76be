"""Facts of stored templates, and what can be wrong with one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mailrail.errors import MailrailError
from mailrail.ids import Kind

TEMPLATES_MAX = 1_000
VERSIONS_MAX = 1_000
# How many versions are listed beside the template itself.
VERSIONS_SHOWN = 20
# Ids begin so, and no name does: a mail may name its template by either.
ID_PREFIX = "tpl_"


class TemplateNotFound(MailrailError):
    """There is no such template, or it has no such version."""

    code = "template_not_found"


class TemplateExists(MailrailError):
    """There is a template of this name already."""

    code = "template_exists"
    param = "name"

    def __init__(self, template_id: int) -> None:
        super().__init__()
        self.existing = (Kind.TEMPLATE, template_id)


class TemplateLimitReached(MailrailError):
    """The account has as many templates, or the template as many versions, as it may."""

    code = "template_limit_reached"


class TemplateVersionChanged(MailrailError):
    """The template is at another version than `ifVersion` says. Read it again and repeat the change."""

    code = "template_version_changed"
    param = "ifVersion"


class TemplateInvalid(MailrailError):
    """A template does not compile, or renders for nobody. `others` are the parts that are wrong as well."""

    code = "template_invalid"

    def __init__(self, part: str, line: int | None, reason: str, others: "Sequence[TemplateInvalid]" = ()) -> None:
        where = f"line {line}: " if line else ""
        super().__init__(f"{where}{reason}")
        self.part = part
        self.param = part or None
        self.line = line
        self.reason = reason
        self.others = tuple(others)


@dataclass(frozen=True, slots=True)
class Content:
    """What a template says, all of it in the template language: at least html or text."""

    subject: str | None = None
    preheader: str | None = None
    html: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the core finds in a content: the names that it asks for, what is wrong whatever they stand for, and what goes
    wrong with the values that it was tried with. `rendered` is the mail, if nothing is.
    """

    variables: list[str]
    errors: list[TemplateInvalid]
    failures: list[TemplateInvalid]
    rendered: Content


@dataclass(frozen=True, slots=True)
class Version:
    """A content as stored. Its template may have newer ones."""

    template_id: int
    version: int
    content: Content
    variables: list[str]
    warnings: list[str]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Template:
    """A template as stored; `version` is its newest."""

    id: int
    account_id: int
    name: str
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a content that is tried and not stored."""

    errors: list[TemplateInvalid]
    warnings: list[str]
    variables: list[str]


@dataclass(frozen=True, slots=True)
class Ref:
    """The content that a mail or a campaign names: by the template's number, or by its name where that is None. Without
    `version` it is the newest.
    """

    id: int | None
    name: str | None
    version: int | None
