"""The ten-minute path is walked as it is written, by somebody who only copies."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.processes import COMMANDS, environment

PAGE = Path(__file__).parents[2] / "docs" / "start.md"
SANDBOX = "waldur-site-agent sandbox --demo"


def written(heading: str) -> list[str]:
    """The commands below a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}", 1)[1].split("\n## ")[0]
    blocks = re.findall(r"^```console\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return [line[2:] for block in blocks for line in block.splitlines()]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def first_terminal(directory: Path, port: int) -> Iterator[str]:
    """The sandbox while the body runs; what it printed up to its last line."""
    command = f"exec {SANDBOX} --port {port}"
    with subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdout=subprocess.PIPE,
        text=True,
        cwd=directory,
        env=environment(PATH=path()),
    ) as process:
        assert process.stdout is not None
        shown = ""
        try:
            while "/sandbox/\n" not in shown:
                line = process.stdout.readline()
                assert line, shown
                shown += line
            yield shown
        finally:
            process.terminate()


def path() -> str:
    return f"{COMMANDS}:{environment()['PATH']}"


def typed(command: str, directory: Path) -> str:
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment(PATH=path()),
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def ready_made(shown: str) -> str:
    """The command that the sandbox prints."""
    found = re.search(r"^  echo .*?[^\\]\n", shown, re.DOTALL | re.MULTILINE)
    assert found
    return found[0]


def test_the_path_through_the_sandbox_leads_to_its_end(tmp_path: Path) -> None:
    port = free_port()
    make_directory, start_sandbox, simulator = written("2.")
    assert start_sandbox == SANDBOX
    typed(make_directory, tmp_path)
    directory = tmp_path / "try"
    with first_terminal(directory, port) as shown:
        typed(simulator, directory)
        typed(ready_made(shown), directory)
        check, diagnose, plan, run, tree = written("4.")
        assert typed(check, directory).endswith("ok: 1 offering, 1 backend\n")
        assert "FAILED" not in typed(diagnose, directory)
        footer = "Plan: 8 to add, 0 to remove, 4 to change, 6 in Waldur; 2 orders."
        assert footer in typed(plan, directory)
        typed(run, directory)
        assert "members: ada, alan, grace" in typed(tree, directory)
        join, plan, run = (
            command.replace("127.0.0.1:8080", f"127.0.0.1:{port}") for command in written("5.")
        )
        typed(join, directory)
        assert "+ lise" in typed(plan, directory)
        typed(run, directory)
        assert "members: ada, alan, grace, lise" in typed(tree, directory)


def test_the_command_that_the_sandbox_prints_is_the_one_on_the_page(tmp_path: Path) -> None:
    with first_terminal(tmp_path, free_port()) as shown:
        printed = re.sub(r"echo \w+", "echo TOKEN", ready_made(shown))
        printed = re.sub(r"--offering-uuid \w+", "--offering-uuid UUID", printed)
        printed = re.sub(r"(127\.0\.0\.1):\d+", r"\1:8080", printed)
    assert f"```text\n{printed}```" in PAGE.read_text(encoding="utf-8")
