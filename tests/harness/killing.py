"""Kills an agent between any two of its steps: a request, or a command."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from harness.testbed import Relay
from waldur_site_agent.backends.processes import CommandResult, Runner


class KilledError(BaseException):
    """Stands for ``kill -9``: nothing of the agent may catch it."""


@dataclass
class KillSwitch:
    """Counts the steps of an agent and lets it die at one of them.

    ``at`` is the number of the step, from 1; ``after_effect`` says whether the step still takes
    effect on the other side.
    """

    at: int = 0
    after_effect: bool = False
    steps: list[str] = field(default_factory=list)
    _mutex: threading.Lock = field(default_factory=threading.Lock)
    dead: bool = False

    def step(self, name: str) -> bool:
        """Count a step; return whether it is the last one."""
        with self._mutex:
            if self.dead:
                raise KilledError
            self.steps.append(name)
            if len(self.steps) != self.at:
                return False
            self.dead = True
            if not self.after_effect:
                raise KilledError
            return True

    def die(self) -> None:
        """End the agent after a step took effect."""
        raise KilledError

    def transport(self, inner: httpx.BaseTransport) -> httpx.BaseTransport:
        """A way to Waldur that passes under the blade."""
        return _Transport(self, inner)

    def runner(self, inner: Runner) -> Runner:
        """A way to Slurm that passes under the blade."""
        return _Runner(self, inner)


class _Transport(Relay):
    def __init__(self, kill_switch: KillSwitch, inner: httpx.BaseTransport) -> None:
        super().__init__(inner)
        self._kill_switch = kill_switch

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        last = self._kill_switch.step(f"{request.method} {request.url.path}")
        response = super().handle_request(request)
        if last:
            response.read()
            response.close()
            raise KilledError
        return response


class _Runner:
    def __init__(self, kill_switch: KillSwitch, inner: Runner) -> None:
        self._kill_switch = kill_switch
        self._inner = inner

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        last = self._kill_switch.step(" ".join(argv))
        result = self._inner.run(argv, timeout)
        if last:
            raise KilledError
        return result
