"""What each operation costs, as the seeds print it: `$0.0003/recipient`, or `Free`. What an operation is paid for stands on its
route (`Operation.price`); how much, on the account.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mailrail.web.openapi import FREE
from mailrail.web.values import shown_price

# `<campaign_id:str>`, as Sanic writes it.
PARAMETER = re.compile(r"<(\w+?)(:\w+)?>")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Priced:
    """One operation; `unit` is what the price is for, None where it is free."""

    method: str
    path: str
    price: str
    price_micros: int
    unit: str | None


def price_list(operations: Iterable[tuple[str, str, str]], price_micros: int) -> list[Priced]:
    """The prices of an account whose delivered mail costs `price_micros`, by path; `operations` are (method, path, price)."""
    listed = [_priced(method, path, price, price_micros) for method, path, price in operations if method in METHODS]
    return sorted(listed, key=lambda one: (one.unit is None, one.path, METHODS.index(one.method)))


def _priced(method: str, path: str, price: str, price_micros: int) -> Priced:
    unit = price.partition("/")[2]
    if price == FREE or not price_micros:
        return Priced(method, _shown_path(path), FREE, 0, None)
    return Priced(method, _shown_path(path), f"{shown_price(price_micros)}/{unit}", price_micros, unit)


def _shown_path(path: str) -> str:
    """`/v1/mail/campaigns/:id`; where a path has several parameters each keeps its name."""
    names = PARAMETER.findall(path)
    shown = PARAMETER.sub(lambda found: f":{found[1]}" if len(names) > 1 else ":id", path)
    return f"/{shown.lstrip('/')}"
