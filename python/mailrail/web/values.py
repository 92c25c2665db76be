"""Times and money as both dialects print them."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal

from mailrail.wallet.model import MICROS_PER_USD, dollars
from mailrail.web.openapi import FREE

CENT = Decimal("0.01")


def shown_time(moment: datetime) -> str:
    """RFC 3339 in UTC, to the second: 2026-04-08T10:15:00Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown_time_or_none(moment: datetime | None) -> str | None:
    """As `shown_time`; None stays None."""
    return None if moment is None else shown_time(moment)


def shown_usd(micros: int) -> float:
    """Dollars with two decimals, half-even, as a JSON number; the exact micro-dollars are printed beside it."""
    return float((Decimal(micros) / MICROS_PER_USD).quantize(CENT, rounding=ROUND_HALF_EVEN))


def shown_price(micros: int) -> str:
    """What one of something costs, every digit that counts: $0.0003. For nothing it is free."""
    return dollars(micros) if micros else FREE
