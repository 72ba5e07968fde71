"""What it costs to start the agent: CPU time and memory up to its first request.

    python bench/startup.py [--python VENV/bin/python] [--runs 5] [--importtime]

Starts ``waldur_site_agent --once`` of an installed agent against a local socket. When the first
request has arrived, the process is looked at through /proc; then it is told that its token is
wrong, and ends. Without ``--python`` the checkout is installed into a temporary environment, with
its run-time dependencies alone. Linux only. Figures are printed, nothing is judged.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import tempfile
import time
import uuid
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 60.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
REFUSAL = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n"
    b'Content-Length: 27\r\nConnection: close\r\n\r\n{"detail":"Invalid token."}'
)
CONFIGURATION = """\
offerings:
  - name: Start-up
    waldur_api_url: http://127.0.0.1:{port}/api/
    waldur_api_token: 0123456789abcdef0123456789abcdef01234567
    waldur_offering_uuid: {uuid}
    order_processing_backend: slurm
    backend_components:
      cpu: {{label: CPU, measured_unit: k-Hours, unit_factor: 60000, accounting_type: limit}}
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process had used when it sent its first request."""

    cpu_seconds: float
    wall_seconds: float
    peak_mebibytes: float


def median_cost(runs: int = 5) -> Cost:
    """The middle of several starts of the checkout, installed into a temporary environment."""
    with _environment() as python, tempfile.TemporaryDirectory() as directory:
        measure(python, Path(directory))  # the first one fills the caches of the disk
        costs = [measure(python, Path(directory)) for _ in range(runs)]
    return Cost(
        statistics.median(cost.cpu_seconds for cost in costs),
        statistics.median(cost.wall_seconds for cost in costs),
        statistics.median(cost.peak_mebibytes for cost in costs),
    )


def main() -> None:
    """Measure as the command line says, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", type=Path, help="of an environment that has agent and plugin")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--importtime", action="store_true", help="show the slowest imports, too")
    chosen = parser.parse_args()
    with contextlib.ExitStack() as stack:
        python = chosen.python or stack.enter_context(_environment())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        measure(python, directory)  # the first one fills the caches of the disk
        costs = [measure(python, directory) for _ in range(chosen.runs)]
        print(_version(python))
        for name, values, unit in (
            ("CPU", [cost.cpu_seconds for cost in costs], "s"),
            ("peak memory", [cost.peak_mebibytes for cost in costs], "MiB"),
        ):
            middle, low, high = statistics.median(values), min(values), max(values)
            print(
                f"{name:<12} {middle:6.2f} {unit} (median of {len(values)}; {low:.2f}-{high:.2f})"
            )
        if chosen.importtime:
            print("\n".join(_slowest_imports(python)))


@contextlib.contextmanager
def _environment() -> Iterator[Path]:
    """A temporary environment with agent and plugin, byte-compiled as pip leaves them."""
    with tempfile.TemporaryDirectory() as directory:
        venv.create(directory, with_pip=True)
        python = Path(directory) / "bin" / "python"
        words = ["-m", "pip", "install", "-qq", str(ROOT), str(ROOT / "plugins" / "slurm")]
        subprocess.run([str(python), *words], check=True, env=_variables())
        yield python


def measure(python: Path, directory: Path) -> Cost:
    """Start the agent once and look at it when its first request is there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_SECONDS)
        file = directory / "config.yaml"
        port = server.getsockname()[1]
        file.write_text(CONFIGURATION.format(port=port, uuid=uuid.uuid4().hex), encoding="utf-8")
        began = time.monotonic()
        agent = subprocess.Popen(
            [str(python.parent / "waldur_site_agent"), "--once", "-c", str(file)],
            stderr=subprocess.DEVNULL,
            env=_variables(),
        )
        try:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                lasted = time.monotonic() - began
                cost = Cost(_cpu_seconds(agent.pid), lasted, peak_mebibytes(agent.pid))
                connection.sendall(REFUSAL)
            agent.wait(PATIENCE_SECONDS)
        finally:
            agent.kill()
            agent.wait()
    return cost


def _variables() -> dict[str, str]:
    """The environment without what would make an import slower or other than installed."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COVERAGE"))}


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / TICKS_PER_SECOND


def peak_mebibytes(pid: int) -> float:
    """The most memory that a process had, of its own: getrusage has that of its parent in it."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/status has no VmHWM")


def _version(python: Path) -> str:
    command = [str(python.parent / "waldur_site_agent"), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=_variables())
    return done.stdout.strip().replace("\n", ", ")


def _slowest_imports(python: Path, shown: int = 15) -> list[str]:
    """Lines of ``-X importtime`` for what the command imports, slowest by themselves first."""
    done = subprocess.run(
        [str(python), "-X", "importtime", "-c", "import waldur_site_agent.cli.aliases"],
        capture_output=True,
        text=True,
        check=True,
        env=_variables(),
    )
    rows = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines()]
    timed = [(int(row[0]), row[2].strip()) for row in rows if row[0].strip().isdigit()]
    return [f"{micros / 1000:7.1f} ms  {name}" for micros, name in sorted(timed)[::-1][:shown]]


if __name__ == "__main__":
    main()
