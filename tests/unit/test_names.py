"""Names are the field's own: the private words that they replaced do not come back."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = sorted(
    path
    for directory in ("src", "plugins", "tests")
    for path in (REPOSITORY / directory).rglob("*.py")
)
INSTEAD = {
    "agenda": "EventQueue",
    "beheaded": "KilledError",
    "crew": "WorkerPool",
    "desk": "PlanningContext",
    "duty": "WorkerHealth",
    "fate": "OrderStatus, OrderResult",
    "guillotine": "KillSwitch",
    "house": "SimulatedSite",
    "leavers": "users_to_delete",
    "naps": "sleeps",
    "sight": "scope, ScopeFilter",
    "situation": "Runtime",
    "town": "SlurmTestBed",
    "village": "EventTestBed",
    "workplace": "EventSession, UsernameContext",
}
"""Word that no name may contain -> what the field calls it."""
WHOLE_NAMES_INSTEAD = {
    "attend": "run_interruptible",
    "conversation": "ApiClient",
    "greet": "check_token",
    "is_news": "changed",
    "left_out": "Skipped",
    "order_in_hand": "OrderContext",
    "relieve": "retire",
    "remembering": "saved_settings",
    "seen": "WaldurSnapshot",
    "to_the_last_digit": "exact_equal",
    "waiting_list": "PendingScopes",
    "waldur_figure": "RecordedUsage",
}
"""The same for names that are fine as a part of another."""
SUSPECTS = {
    spelling
    for word in [*INSTEAD, *WHOLE_NAMES_INSTEAD]
    for spelling in (word, word.replace("_", ""))
}


def in_snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")


def instead_of(name: str) -> str | None:
    """What to call it, if the name is private or has a private word in it."""
    plain = in_snake_case(name)
    if plain in WHOLE_NAMES_INSTEAD and name != "seen":
        return WHOLE_NAMES_INSTEAD[plain]
    return next((INSTEAD[word] for word in plain.split("_") if word in INSTEAD), None)


def identifiers(path: Path) -> Iterator[tuple[int, str]]:
    """The module's own name, and every name in it with its line; strings and comments are prose."""
    yield 0, path.stem
    text = path.read_text()
    if not any(map(text.lower().__contains__, SUSPECTS)):  # most files have none
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


@pytest.mark.parametrize(
    "name", ["Sight", "_CrewMaker", "OrderInHand", "LeftOut", "MoabHouse", "Seen", "naps"]
)
def test_a_private_word_is_found_in_any_spelling(name: str) -> None:
    assert instead_of(name)


@pytest.mark.parametrize("name", ["insight", "household", "seen", "last_seen", "attended"])
def test_a_word_that_only_looks_like_one_is_not(name: str) -> None:
    assert instead_of(name) is None


def test_no_name_in_the_code_is_a_private_word() -> None:
    assert len(FILES) > 200
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}: {name}, rather {better}"
        for path in FILES
        for line, name in identifiers(path)
        if (better := instead_of(name))
    ]
    assert not found, "private words:\n" + "\n".join(found)
