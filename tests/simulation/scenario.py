"""What happens in one simulation: steps and faults, made from a seed before anything runs.

Each step and each fault has a seed of its own, so that leaving one out changes no other: that is
how a failing scenario is made shorter.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from random import Random

PASSES = ("orders", "membership", "report")
"""Steps in which an agent works; with events, the first two are one."""
_EVENTS = "events"

REQUEST_FAULTS = {
    "cut": 4,
    "lost answer": 6,
    "http 500": 2,
    "http 502": 3,
    "http 503": 2,
    "http 429": 1,
    "web page": 2,
    "truncated answer": 2,
    "short list": 6,
    "empty list": 3,
    "stale list": 14,
    "forbidden": 2,
}
COMMAND_FAULTS = {
    "command hangs": 2,
    "command hangs after its effect": 3,
    "slurmdbd refuses": 3,
    "database away": 2,
    "slurmctld away": 2,
    "no permission": 1,
    "output cut": 3,
    "no output": 3,
}
FAULTS_OF_BOTH = {
    "killed before": 6,
    "killed after": 6,
    "customer acts": 10,
    "another agent": 4,
}
_KINDS = {**REQUEST_FAULTS, **COMMAND_FAULTS, **FAULTS_OF_BOTH}
_SPANS = ((1, 5), (2, 2), (4, 2), (12, 1), (60, 1))
"""How many requests or commands in a row a fault meets, with weights."""
_ONCE = frozenset({*FAULTS_OF_BOTH, "lost answer"})


@dataclass(frozen=True)
class Fault:
    """A fault at one request or command of a pass."""

    name: str
    """Such as ``7.2``: the second fault of step 7."""
    kind: str
    at: int
    """How many requests and commands of the pass go before."""
    span: int
    seed: str


@dataclass(frozen=True)
class Step:
    """One thing that happens, with the faults on the way."""

    number: int
    kind: str
    seed: str
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """All of it."""

    seed: int
    by_events: bool
    steps: tuple[Step, ...]

    def without(self, names: Collection[str]) -> Scenario:
        """Leave steps and faults out, by number and name."""
        return replace(
            self,
            steps=tuple(
                replace(step, faults=tuple(f for f in step.faults if f.name not in names))
                for step in self.steps
                if str(step.number) not in names
            ),
        )


def scenario_of(seed: int) -> Scenario:
    """Make up what happens."""
    rng = Random(f"scenario {seed}")
    by_events = rng.random() < 0.35
    steps = [Step(1, "first orders", f"{seed}/1")]
    for number in range(2, rng.randint(15, 26)):
        kind = _kind(rng, by_events=by_events)
        if number == 2:
            kind = _EVENTS if by_events else "orders"
        elif steps[-1].kind in PASSES and not by_events and rng.random() < 0.35:
            kind = rng.choice(("membership", "orders"))  # while all is fresh
        faults = _faults(rng, seed, number) if kind in (*PASSES, _EVENTS) else ()
        steps.append(Step(number, kind, f"{seed}/{number}", faults))
    return Scenario(seed, by_events, tuple(steps))


def _kind(rng: Random, *, by_events: bool) -> str:
    weights = {
        "customers": 30,
        "sales": 16,
        "jobs": 12,
        "administrator": 9,
        "time": 10,
        "restart": 3,
        "plan": 3,
        "report": 14,
    }
    weights |= {_EVENTS: 44, "broker": 6} if by_events else {"orders": 22, "membership": 22}
    return rng.choices(list(weights), list(weights.values()))[0]


def _faults(rng: Random, seed: int, number: int) -> tuple[Fault, ...]:
    count = rng.choices((0, 1, 2, 4), (25, 40, 20, 15))[0]
    return tuple(
        _fault(rng, f"{number}.{index}", f"{seed}/{number}.{index}")
        for index in range(1, count + 1)
    )


def _fault(rng: Random, name: str, seed: str) -> Fault:
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    span = rng.choices([s for s, _ in _SPANS], [w for _, w in _SPANS])[0]
    at = min(int(rng.expovariate(1 / 9)), 60)
    if kind == "stale list":  # a replica that is behind shows no list as it is
        span, at = max(span, rng.randint(1, 12)), at // 3
    return Fault(name, kind, at, 1 if kind in _ONCE else span, seed)
