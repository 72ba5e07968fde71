"""What a simulated accounting manager consists of, and how it is kept in a file."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from decimal import Decimal

from pydantic import TypeAdapter

from waldur_site_agent.backends import simulation

_ZERO = Decimal(0)


class Outage(enum.Enum):
    """Trouble that accounting managers have."""

    REFUSED = "refused"
    HUNG = "hung"
    NO_PERMISSION = "no permission"
    LOST_ANSWER = "lost answer"
    """Commands take effect, but give no answer."""


@dataclass
class SimAccount:
    """An account with its users; ``False``: the membership is switched off."""

    name: str
    description: str = ""
    organization: str = ""
    active: bool = True
    users: dict[str, bool] = field(default_factory=dict)


@dataclass
class SimFund:
    """A fund and what it is constrained to."""

    id: int
    constraints: list[str] = field(default_factory=list)


@dataclass
class SimAllocation:
    """A portion of a fund."""

    id: int
    fund: int
    amount: Decimal = _ZERO
    deposited: Decimal = _ZERO
    active: bool = True


@dataclass
class SimTransaction:
    """Something that was done to a fund."""

    action: str
    fund: int
    amount: Decimal


@dataclass
class SimCharge:
    """The usage record of one job; times in seconds since 1970, an end of 0 means none yet."""

    account: str
    user: str
    start: int
    end: int
    charge: Decimal


@dataclass
class SimMam:
    """A whole simulated accounting manager."""

    accounts: dict[str, SimAccount] = field(default_factory=dict)
    funds: dict[int, SimFund] = field(default_factory=dict)
    allocations: dict[int, SimAllocation] = field(default_factory=dict)
    transactions: list[SimTransaction] = field(default_factory=list)
    charges: list[SimCharge] = field(default_factory=list)
    unknown_users: list[str] = field(default_factory=list)
    """Users that it refuses to add; it knows everybody else."""
    deposited_falls: bool = False
    """Whether a withdrawal lowers an allocation's ``Deposited``."""
    next_id: int = 1
    outage: Outage | None = None
    commands_until_outage: int = 0

    def new_id(self) -> int:
        """A number that was never given before."""
        self.next_id += 1
        return self.next_id - 1

    def funds_of(self, account: str) -> list[SimFund]:
        """The funds that are constrained to an account."""
        return [f for f in self.funds.values() if f"Account={account}" in f.constraints]

    def allocations_of(self, fund: int) -> list[SimAllocation]:
        """The allocations of a fund, oldest first."""
        return [a for a in self.allocations.values() if a.fund == fund]

    def left_of(self, account: str) -> Decimal:
        """What is left in the funds of an account."""
        funds = {fund.id for fund in self.funds_of(account)}
        return sum((a.amount for a in self.allocations.values() if a.fund in funds), _ZERO)

    def used_of(self, account: str) -> Decimal:
        """What the jobs of an account cost so far."""
        return sum((c.charge for c in self.charges if c.account == account), _ZERO)

    def to_json(self) -> bytes:
        """Write the state down."""
        return _ADAPTER.dump_json(self, indent=1)

    @staticmethod
    def from_json(text: bytes) -> SimMam:
        """Read a state that was written down."""
        return _ADAPTER.validate_json(text)


_ADAPTER = TypeAdapter(SimMam)


def new_state() -> SimMam:
    """Return an accounting manager as an administrator leaves it: one account, nobody in it."""
    return SimMam(accounts={"root": SimAccount("root", "all customers", "root")})


class RefusedError(simulation.RefusedError):
    """The command ends here with this complaint, and changes nothing."""

    def __init__(self, complaint: str) -> None:
        super().__init__(simulation.Answer(1, "", f"{complaint}\n"))


@dataclass
class Request:
    """Options with their values, and switches without one."""

    options: dict[str, str] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)

    def required(self, option: str) -> str:
        """The value of an option.

        Raises:
            RefusedError: it is not there.
        """
        if option not in self.options:
            raise RefusedError(f"The option {option} must be specified")
        return self.options[option]


_SWITCHES = ("--raw", "--quiet", "--version")


def read_request(words: list[str], known: tuple[str, ...]) -> Request:
    """Sort the words of a command.

    Raises:
        RefusedError: an option that is not among ``known``, twice, or without its value.
    """
    request = Request()
    rest = iter(words)
    for word in rest:
        if word in _SWITCHES:
            request.switches.add(word)
            continue
        value = next(rest, None)
        if word not in known or value is None or word in request.options:
            raise RefusedError(f"Unknown option or missing value: {word}")
        request.options[word] = value
    return request
