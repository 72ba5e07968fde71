"""Several agents with one file between a sandbox and a cluster that notes who writes when."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from harness.commands import commands_of
from harness.nursery import Forked, Nursery
from harness.patience import eventually, slowness
from harness.processes import Installation, environment
from harness.testbed import SETTINGS, SimulatedSite
from harness.wires import Wire, a_wire
from waldur_site_agent.backends.locking import DIRECTORY_VARIABLE
from waldur_site_agent_slurm.simulator.request import PROGRAMS

_WRITING_WORDS = frozenset({"add", "create", "modify", "update", "delete", "remove"})
SILENCE = "waldur_site_agent.backends.database_session.SILENCE_SECONDS"
HASTE = {
    SILENCE: 3.0,
    "waldur_site_agent.backends.leases.LOOK_SECONDS": 0.4,
    "waldur_site_agent.backends.leases.GRACE_SECONDS": 2.0,
    "waldur_site_agent.backends.leases.SECONDS_BETWEEN_HANDOVERS": 0.5,
    "waldur_site_agent.service.worker._LOOK_SECONDS": 0.1,
    "waldur_site_agent.service.worker._LONGEST_PAUSE": 1.0,
}
"""What tests cannot wait for, some times faster."""


def haste() -> dict[str, float]:
    """``HASTE``, with sessions that live through the pauses of a busy machine."""
    return HASTE | {SILENCE: min(HASTE[SILENCE] * slowness(), 30.0)}


PERIODS = {
    f"WALDUR_SITE_AGENT_{mode}_PERIOD_MINUTES": "0.01"
    for mode in ("ORDER_PROCESS", "MEMBERSHIP_SYNC")
}


class CommandRun(NamedTuple):
    """A writing command that the cluster has seen."""

    agent: int
    began: float
    ended: float
    words: tuple[str, ...]


@dataclass
class WriteLog:
    """Who wrote when."""

    entries: list[CommandRun] = field(default_factory=list)
    seconds_of_a_write: float = 0.0
    """How long a writing command takes, so that two writers would be seen."""

    def overlapping(self) -> list[tuple[CommandRun, CommandRun]]:
        """Writes of different agents at the same time."""
        ordered = sorted(self.entries, key=lambda write: write.began)
        return [
            (one, other)
            for number, one in enumerate(ordered)
            for other in ordered[number + 1 :]
            if other.began < one.ended and other.agent != one.agent
        ]

    def writers(self) -> list[int]:
        """The agents in the order of their writes, without repetitions in a row."""
        agents = [write.agent for write in self.entries]
        return [agent for n, agent in enumerate(agents) if n == 0 or agents[n - 1] != agent]


class _Noting:
    """A cluster's commands as one agent runs them."""

    def __init__(self, site: SeveralAgents, agent: int) -> None:
        self._site, self._agent = site, agent

    def run(self, argv: Sequence[str]) -> tuple[int, str, str]:
        """Run a command; note it if it writes."""
        log, slurm = self._site.log, self._site.testbed.slurm
        if not _WRITING_WORDS.intersection(argv[1:4]):
            return slurm.run(argv)
        began = time.monotonic()
        self._site.writing.set()
        self._site.may_write.wait()
        time.sleep(log.seconds_of_a_write)
        answer = slurm.run(argv)
        log.entries.append(CommandRun(self._agent, began, time.monotonic(), tuple(argv)))
        return answer


@dataclass
class Agent:
    """One of the agents, as a process on a host of its own."""

    number: int
    service: Forked
    wire: Wire

    def freeze(self) -> None:
        """Stop the process, but none of its commands and connections."""
        self.service.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.service.send(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut does."""
        self.service.send(signal.SIGCONT)
        self.service.send(signal.SIGKILL)
        self.service.wait()

    def holds(self) -> int:
        """How many offerings in modes it took and has not given back or lost, by its log."""
        text = self.service.text
        lost = "lost the offering's lease", "handing the offering over"
        return text.count("connected ") - sum(text.count(word) for word in lost)


@dataclass
class SeveralAgents:
    """A sandbox, a cluster, a database, and as many agents as a test wants."""

    testbed: SimulatedSite
    directory: Path
    url: str
    nursery: Nursery
    log: WriteLog = field(default_factory=WriteLog)
    variables: dict[str, str] = field(default_factory=lambda: dict(PERIODS))
    constants: dict[str, float] = field(default_factory=haste)
    writing: threading.Event = field(default_factory=threading.Event)
    """Set when a writing command begins."""
    may_write: threading.Event = field(default_factory=threading.Event)
    """Not set: writing commands hang."""
    _stack: ExitStack = field(default_factory=ExitStack)
    _started: int = 0

    def __post_init__(self) -> None:
        self.may_write.set()

    def write(self, **changes: Any) -> None:
        """Write the file that all agents share."""
        installation = self._installation()
        settings = SETTINGS | {"require_system_user": False, "retry_seconds": 0}
        installation.backend_settings = settings
        installation.write_offerings(
            {"membership_sync_backend": "slurm"} | changes, coordination="${COORDINATION}"
        )

    def start(self, *arguments: str) -> Agent:
        """Start one more agent; it is killed at the end of the test."""
        number, self._started = self._started, self._started + 1
        host = self.directory / f"host{number}"
        (host / "locks").mkdir(parents=True)
        self._stack.enter_context(commands_of(_Noting(self, number), PROGRAMS, host / "bin"))
        wire = self._stack.enter_context(a_wire(urlsplit(self.url).port or 0))
        service = self.nursery.agent(
            [*(arguments or ("-m", "all")), "-c", str(self.directory / "config.yaml")],
            environment(**self.variables_of(number, wire)),
            self.constants,
            host / "log",
        )
        agent = Agent(number, service, wire)
        self._stack.callback(agent.kill)
        return agent

    def variables_of(self, number: int, wire: Wire) -> dict[str, str]:
        """The environment of an agent on a host of its own."""
        host = self.directory / f"host{number}"
        return {
            **self.variables,
            "PATH": f"{host / 'bin'}:/usr/bin:/bin",
            DIRECTORY_VARIABLE: str(host / "locks"),
            "COORDINATION": self.url.replace(f":{urlsplit(self.url).port}/", f":{wire.own_port}/"),
        }

    def run(self, *arguments: str) -> Any:
        """Run a command on one more host."""
        number, self._started = self._started, self._started + 1
        host = self.directory / f"host{number}"
        (host / "locks").mkdir(parents=True)
        with (
            commands_of(_Noting(self, number), PROGRAMS, host / "bin"),
            a_wire(urlsplit(self.url).port or 0) as wire,
        ):
            return self._installation(self.variables_of(number, wire)).run(*arguments)

    def done(self, *orders: Any) -> None:
        """Wait until orders are done."""
        eventually(
            lambda: all(self.testbed.state(order) == "done" for order in orders), "every order"
        )

    def _installation(self, variables: dict[str, str] | None = None) -> Installation:
        return Installation(self.testbed, self.directory, {}, variables or {}, dict(self.constants))


@contextmanager
def several_agents(
    testbed: SimulatedSite, directory: Path, url: str, nursery: Nursery
) -> Iterator[SeveralAgents]:
    """A site for several agents; those that were started are killed at the end."""
    with testbed.served():
        site = SeveralAgents(testbed, directory, url, nursery)
        site.write()
        try:
            with site._stack:
                yield site
        finally:
            site.may_write.set()
