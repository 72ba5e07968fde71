"""Where an agent meets the two sides, and everything that can go wrong there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import httpx

from simulation.scenario import COMMAND_FAULTS, REQUEST_FAULTS, Fault
from simulation.world import World
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent_slurm.client import CommandTimedOutError
from waldur_site_agent_slurm.simulator.state import Outage

_OUTAGES = {
    "slurmdbd refuses": Outage.SLURMDBD_REFUSED,
    "database away": Outage.MARIADB_AWAY,
    "slurmctld away": Outage.SLURMCTLD_AWAY,
    "no permission": Outage.NO_PERMISSION,
}
_STATUSES = {"http 500": 500, "http 502": 502, "http 503": 503, "http 429": 429}
_OF_LISTS = frozenset({"short list", "empty list", "stale list"})


class KilledError(BaseException):
    """Stands for ``kill -9``: nothing of the agent may catch it."""


@dataclass
class Active:
    """A fault of this pass, and how often it is still to come."""

    fault: Fault
    left: int


@dataclass
class Hooks:
    """What a simulation does between two steps of an agent."""

    customer_acts: Callable[[Random], str]
    another_agent: Callable[[Random], str]
    request_ended: Callable[[httpx.Request], None]
    command_began: Callable[[Sequence[str]], None]
    command_ended: Callable[[Sequence[str]], None]


@dataclass
class FaultInjector:
    """All that one incarnation of an agent asks, with the faults of the pass in hand."""

    world: World
    hooks: Hooks
    record: Callable[[str], None]
    dead: bool = False
    forbidden: bool = False
    """Whether something was ever forbidden, which the agent remembers."""
    _calls: int = 0
    _faults: list[Active] = field(default_factory=list)

    def begin(self, faults: Sequence[Fault]) -> None:
        """Let a pass begin that meets these faults."""
        self._calls = 0
        self._faults = [Active(fault, fault.span) for fault in faults]

    def transport(self) -> httpx.BaseTransport:
        """The way to Waldur."""
        return _Transport(self, self.world.sandbox.transport())

    def runner(self) -> Runner:
        """The way to Slurm."""
        return _Runner(self, self.world.slurm.runner())

    def kill(self) -> None:
        """End the agent here and now."""
        self.dead = True
        raise KilledError

    def next_call(self, what: str, kinds: frozenset[str]) -> str:
        """Count one step; return the kind of the fault that meets it, if one does."""
        if self.dead:
            raise KilledError
        self._calls += 1
        for active in self._faults:
            due = active.fault.at < self._calls and active.left
            if not due or active.fault.kind not in kinds:
                continue
            active.left -= 1
            self.record(f"  {active.fault.name} {active.fault.kind} at {self._calls}: {what}")
            rng = Random(active.fault.seed)
            if active.fault.kind == "customer acts":
                self.record(f"    {self.hooks.customer_acts(rng)}")
            elif active.fault.kind == "another agent":
                self.record(f"    {self.hooks.another_agent(rng)}")
            else:
                if active.fault.kind == "killed before":
                    self.kill()
                return active.fault.kind
        return ""


_OF_BOTH = frozenset({"killed before", "killed after", "customer acts", "another agent"})
_OF_COMMANDS = _OF_BOTH | frozenset(COMMAND_FAULTS)


class _Transport(httpx.BaseTransport):
    def __init__(self, injector: FaultInjector, inner: httpx.BaseTransport) -> None:
        self._injector = injector
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        is_list = request.method == "GET" and not _is_of_one_object(path, request.url.query)
        kinds = _OF_BOTH | frozenset(REQUEST_FAULTS) - (frozenset() if is_list else _OF_LISTS)
        kind = self._injector.next_call(f"{request.method} {path}", kinds)
        if kind == "cut":
            raise httpx.RemoteProtocolError("the connection is cut")
        if kind in _STATUSES or kind in ("web page", "forbidden"):
            return self._instead(kind)
        if kind == "stale list":
            back = self._injector.world.recent_changes()
            self._injector.world.sandbox.faults.add("*", "stale", changes_ago=back)
        response = self._inner.handle_request(request)
        self._injector.hooks.request_ended(request)
        if kind == "killed after":
            self._injector.kill()
        if kind == "lost answer":
            raise httpx.ReadError("the answer is lost")
        return _damaged(response, kind)

    def _instead(self, kind: str) -> httpx.Response:
        if kind == "web page":
            return httpx.Response(200, html="<!doctype html><p>maintenance</p>")
        if kind == "forbidden":
            self._injector.forbidden = True
            return httpx.Response(403, json={"detail": "You do not have permission."})
        status = _STATUSES[kind]
        headers = {"Retry-After": "1"} if status == 429 else {}
        return httpx.Response(status, json={"detail": "trouble"}, headers=headers)


def _is_of_one_object(path: str, query: bytes) -> bool:
    """Whether one object is asked for, or what belongs to a single resource or project."""
    last = path.rstrip("/").rpartition("/")[2]
    return (
        b"project_uuid=" in query
        or last in ("team", "me", "version")
        or len(last.replace("-", "")) == 32
    )


def _damaged(response: httpx.Response, kind: str) -> httpx.Response:
    if kind not in ("truncated answer", "short list", "empty list"):
        return response
    content = response.read()
    if kind == "truncated answer":
        content = content[: len(content) // 2]
    else:
        rows = json.loads(content)
        if not isinstance(rows, list):
            return response
        content = json.dumps([] if kind == "empty list" else rows[:-1]).encode()
    headers = [(k, v) for k, v in response.headers.multi_items() if k != "content-length"]
    return httpx.Response(response.status_code, headers=headers, content=content)


class _Runner:
    def __init__(self, injector: FaultInjector, inner: Runner) -> None:
        self._injector = injector
        self._inner = inner

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        what = " ".join(argv)
        kind = self._injector.next_call(what, _OF_COMMANDS)
        if kind == "command hangs":
            raise CommandTimedOutError(f"{what} gave no answer")
        self._injector.hooks.command_began(argv)
        if kind in _OUTAGES:
            with self._injector.world.slurm.outage(_OUTAGES[kind]):
                return self._inner.run(argv, timeout)
        result = self._inner.run(argv, timeout)
        self._injector.hooks.command_ended(argv)
        if kind == "killed after":
            self._injector.kill()
        if kind == "command hangs after its effect":
            raise CommandTimedOutError(f"{what} gave no answer")
        return _cut(result, kind)


def _cut(result: CommandResult, kind: str) -> CommandResult:
    if kind == "no output":
        return CommandResult(result.argv, result.exit_code, "", result.stderr)
    if kind == "output cut":
        cut = result.stdout[: len(result.stdout) * 2 // 3]
        return CommandResult(result.argv, result.exit_code, cut, result.stderr)
    return result
