"""What docs/sandbox.md shows works."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from waldur_site_agent_sandbox.events import Disturbance
from waldur_site_agent_sandbox.faults import Kind

if TYPE_CHECKING:
    import httpx

    from waldur_site_agent_sandbox import Sandbox

PAGE = (Path(__file__).parents[3] / "docs" / "sandbox.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_python_examples_run() -> None:
    for example in blocks("python"):
        exec(compile(example, "docs/sandbox.md", "exec"), {})  # noqa: S102 - our own page


def test_every_curl_command_is_accepted(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.fill_demo()
    commands = [
        shlex.split(line)
        for block in blocks("console")
        for line in block.replace("\\\n", "").splitlines()
        if line.startswith("curl")
    ]
    assert len(commands) == 30
    for command in commands:
        url = next(word for word in command if word.startswith("http"))
        path = url.replace("http://127.0.0.1:8080", "")
        body = json.loads(command[command.index("-d") + 1]) if "-d" in command else None
        target = api.base_url.copy_with(path=path)
        answer = api.post(target, json=body) if body else api.get(target)
        assert answer.status_code == 200, answer.text
        _let_the_agent_finish(sandbox)


def test_every_fault_is_described() -> None:
    described = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert set(get_args(Kind)) == described


def test_every_disturbance_of_events_is_described() -> None:
    assert all(f"`{kind}`" in PAGE for kind in get_args(Disturbance))


def _let_the_agent_finish(sandbox: Sandbox) -> None:
    for order in sandbox.customer.world.orders.values():
        sandbox.customer.edit(order, state="done")
    for resource in sandbox.customer.world.resources.values():
        sandbox.customer.edit(resource, state="OK")
