"""What a fund's figures say, and what is to be done about them. Pure and exact.

The limit of a resource is what was bought of it in total, and the books always say the same:
``bought = left + used``. What was used is spread over usage records without end, so it is not
added up; what was bought comes from the allocations and from the withdrawals. docs/moab.md has
the reasoning.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

from waldur_site_agent.backends import PermanentError

_CENT = Decimal("0.01")
_ZERO = Decimal(0)


def in_cents(amount: Decimal) -> Decimal:
    """Round to two decimals, half to even, without trailing zeros: as amounts are sent."""
    return _shown(amount.quantize(_CENT, ROUND_HALF_EVEN))


def _shown(cents: Decimal) -> Decimal:
    return cents.quantize(Decimal(1)) if cents == cents.to_integral_value() else cents.normalize()


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The figures of one fund, over all its allocations."""

    deposited: Decimal = _ZERO
    """The sum of ``Deposited``."""
    left: Decimal = _ZERO
    """The sum of ``Amount``, of expired allocations too."""
    usable: Decimal = _ZERO
    """The same of active allocations alone: only this can be withdrawn."""
    withdrawn: Decimal | None = _ZERO
    """What was ever taken back and is still contained in ``deposited``; ``None``: not known."""

    @property
    def trouble(self) -> str:
        """Why it is not known what was bought; empty when it is."""
        if self.withdrawn is None and self.deposited != self.left:
            return (
                "its withdrawals could not be read, so it is not known how much of what was "
                "deposited was taken back; the log says what mam-list-transactions answered"
            )
        bought = self.deposited - (self.withdrawn or _ZERO)
        if bought < self.left:
            return (
                f"its books do not balance: {self.deposited:f} deposited, "
                f"{self.withdrawn or _ZERO:f} withdrawn, yet {self.left:f} left; look at "
                "mam-list-allocations and mam-list-transactions of the fund, and at "
                "deposited_after_withdrawal of backend_settings"
            )
        return ""

    @property
    def bought(self) -> Decimal:
        """What was deposited and not taken back: the resource's limit, in whole cents.

        Parts of a cent, which only a deposit by hand can bring, are dropped: so a change of
        whole cents changes the result by as much.

        Raises:
            PermanentError: it is not known.
        """
        if self.trouble:
            raise PermanentError(self.trouble)
        exact = self.deposited - (self.withdrawn or _ZERO)
        return _shown(exact.quantize(_CENT, ROUND_FLOOR))

    @property
    def returnable(self) -> Decimal:
        """What can be taken back, in whole cents."""
        return _shown(max(self.usable, _ZERO).quantize(_CENT, ROUND_FLOOR))

    @property
    def lowest(self) -> Decimal:
        """What the limit can be lowered to: everything but what can still be taken back."""
        return self.bought - self.returnable


def change_to(wanted: Decimal | None, books: Books) -> Decimal:
    """What to deposit, or as a negative number to withdraw, so that ``wanted`` was bought.

    ``None`` takes back everything that can be.

    Raises:
        PermanentError: the limit would be below what was used, or the books are not understood.
    """
    if wanted is None:
        return -books.returnable
    change = in_cents(wanted) - books.bought
    if -change > books.returnable:
        raise PermanentError(
            f"the limit cannot become {in_cents(wanted):f}: {books.lowest:f} of the "
            f"{books.bought:f} bought are used up or expired, so {books.lowest:f} is the lowest "
            "possible; nothing was changed"
        )
    return change
