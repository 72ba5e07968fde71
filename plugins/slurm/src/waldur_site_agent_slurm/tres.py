"""Amounts of TRES as Slurm 22.05 prints and accepts them, exact where Slurm is.

``cpu=600000,gres/gpu=50,mem=200G`` is a list of TRES-minutes. sacctmgr cannot be told to print
plain numbers: memory (base unit MiB) comes with the largest suffix that it believes exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal

from waldur_site_agent.backends import PermanentError

_STEP = 1024
_SUFFIXES = "KMGTP"
_MEBI = 1
LARGEST_COUNT = 2**64 - 3
"""Found by experiment: one more is taken without a word and leaves no limit at all."""
LARGEST_MEMORY = 2**40 - 1
"""MiB-minutes; from 2**40 on Slurm prints a question mark instead of a suffix."""


MOST_OF_A_JOB = {"cpu": 10**8, "node": 10**8, "gres/gpu": 10**8, "mem": 2**40, "vmem": 2**40}
"""More than that no machine has (mem in MiB: an exbibyte), and no job was given it. What Slurm
stores in place of a number that it does not know (2**32 - 2, 2**64 - 2) is far beyond."""
MOST_OF_ANYTHING = 2**60
"""The same for every other TRES: some count bytes."""


def parse(text: str) -> dict[str, Decimal]:
    """Read a TRES list into amounts in base units (memory: MiB).

    Raises:
        ValueError: the text is not a TRES list.
    """
    amounts: dict[str, Decimal] = {}
    for item in filter(None, text.split(",")):
        name, separator, amount = item.partition("=")
        if not separator or not name:
            raise ValueError(f"{item!r} is not of the form name=amount")
        amounts[name.lower()] = _amount(name.lower(), amount)
    return amounts


def given(text: str, components: Sequence[str]) -> list[Decimal]:
    """What a job was given of each of these TRES; others are not even read.

    GPUs and the like may be stored by type: where a row has no entry of the name itself, the
    entries of its types count together.

    Raises:
        ValueError: the text is not a TRES list, or an amount is none, or more than any machine has.
    """
    entries: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        name, separator, amount = item.partition("=")
        if not separator or not name or name.lower() in entries:
            raise ValueError(f"{item!r} is not of the form name=amount, or is there twice")
        entries[name.lower()] = amount
    return [_given(name, entries) for name in components]


def _given(component: str, entries: Mapping[str, str]) -> Decimal:
    if component in entries:
        return _of_a_job(component, entries[component])
    types = (name for name in entries if name.startswith(f"{component}:"))
    return sum((_of_a_job(name, entries[name]) for name in types), Decimal(0))


def _of_a_job(name: str, text: str) -> Decimal:
    amount = _amount(name, text)
    most = MOST_OF_A_JOB.get(name.partition(":")[0], MOST_OF_ANYTHING)
    if amount > most:
        raise ValueError(f"{name}={text} is more than any machine has")
    return amount


def rounded_up(amount: Decimal) -> Decimal:
    """The limit for an amount: the next whole TRES-minute, so that nobody gets less."""
    return amount.to_integral_value(ROUND_CEILING) if amount.is_finite() else amount


def whole_amount(component: str, amount: Decimal, resource: str) -> int:
    """Return an amount that Slurm can store and print, unchanged.

    Raises:
        PermanentError: it is not a whole number, is negative, or is more than Slurm can hold.
    """
    largest = LARGEST_MEMORY if _counts_memory(component) else LARGEST_COUNT
    if amount.is_finite() and amount == amount.to_integral_value() and 0 <= amount <= largest:
        return int(amount)
    raise PermanentError(
        f"{resource}: the limit of {component!r} cannot be set to {amount} TRES-minutes: Slurm "
        f"takes whole numbers from 0 to {largest}; order another amount or change the unit_factor"
    )


def printed(component: str, amount: int) -> str:
    """Return the amount as sacctmgr prints it.

    Memory is divided by 1024 while the (truncated) number is a multiple of 512, then printed
    with two decimals where it is not whole: 1049088M therefore prints as ``1.00T``. Comparing
    printed forms is the only way to know whether a value is the one that was set.
    """
    if not _counts_memory(component):
        return str(amount)
    number, suffix = float(amount), _MEBI
    while number >= _STEP and int(number) % (_STEP // 2) == 0:
        number, suffix = number / _STEP, suffix + 1
    unit = _SUFFIXES[suffix] if suffix < len(_SUFFIXES) else "?"
    return f"{int(number)}{unit}" if number.is_integer() else f"{number:.2f}{unit}"


def is_set_to(component: str, found: Mapping[str, Decimal], wanted: int | None) -> bool:
    """Whether a limit stands as wanted, as far as Slurm's printing lets anybody see."""
    present = found.get(component)
    if wanted is None or present is None:
        return wanted is None and present is None
    return agree(component, Decimal(wanted), present)


def agree(component: str, wanted: Decimal, found: Decimal) -> bool:
    """Whether an amount that was read back may be the limit for the wanted one."""
    if not wanted.is_finite() or wanted < 0:
        return False
    return found == _amount(component, printed(component, int(rounded_up(wanted))))


def _amount(component: str, text: str) -> Decimal:
    number, exponent = text, 0
    if text and text[-1] in _SUFFIXES:
        number = text[:-1]
        base = _MEBI + 1 if _counts_memory(component) else 0
        exponent = _SUFFIXES.index(text[-1]) + 1 - base
    if not number.replace(".", "", 1).isascii() or not number.replace(".", "", 1).isdigit():
        raise ValueError(f"{text!r} is not an amount of {component}")
    return Decimal(number) * Decimal(_STEP) ** exponent


def _counts_memory(component: str) -> bool:
    return component == "mem" or component.startswith("bb/")
