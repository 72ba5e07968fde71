"""``plugins`` as an administrator types it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import metadata
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from harness import Installation
from harness.v1_site import CAMPUS, campus
from waldur_site_agent.backends import Backend, Capabilities, CreateResource, plugins
from waldur_site_agent.backends.plugins import unkept_promises


def printed(installation: Installation, code: int = 0) -> dict[str, dict[str, Any]]:
    done = installation.run("plugins", "--output", "json", command="waldur-site-agent")
    assert done.code == code, done.err
    return {one["name"]: one for one in json.loads(done.out)["plugins"]}


def test_plugins_are_listed_with_their_interface_and_what_uses_them(
    installation: Installation,
) -> None:
    installation.write(membership_sync_backend="slurm", username_management_backend="template")
    found = printed(installation)
    assert found["slurm"]["interface"] == "version 2"
    jobs = {use["job"] for use in found["slurm"]["used_by"]}
    assert jobs == {"order processing", "membership sync"}
    assert found["template"]["used_by"] == [{"offering": "Test cluster", "job": "usernames"}]
    assert found["moab"]["used_by"] == []
    done = installation.run("plugins", command="waldur-site-agent")
    assert '    membership sync of "Test cluster"' in done.out
    assert done.out.endswith("plugins installed.\n")


def test_plugins_of_version_1_are_listed_as_such_and_the_unusable_with_the_reason(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    campus()
    group = "waldur_site_agent.backends"
    added = [EntryPoint("campus", CAMPUS, group), EntryPoint("waldur", CAMPUS, group)]

    def entry_points(**select: str) -> Iterable[EntryPoint]:
        found = metadata.entry_points(group=select["group"])
        return [*found, *added] if select["group"] == group else found

    monkeypatch.setattr(plugins, "entry_points", entry_points)
    installation.write(membership_sync_backend="slurm")
    found = printed(installation, code=1)
    assert found["campus"]["interface"] == "version 1"
    assert found["campus"]["problems"] == []
    assert "cannot run with version 2" in found["waldur"]["problems"][0]


class _Unfinished(Backend):
    supports = frozenset({CreateResource})
    capabilities = Capabilities(finishes_later=True)


def test_what_a_class_lacks_of_the_contract_is_named() -> None:
    assert unkept_promises(_Unfinished) == [
        "_Unfinished does not implement diagnose()",
        "_Unfinished does not implement observe()",
        "_Unfinished does not implement place()",
        "_Unfinished supports CreateResource, but does not implement create_resource()",
        "_Unfinished finishes_later, but does not implement progress()",
    ]
