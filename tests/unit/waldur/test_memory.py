"""Limits of lists that fit the memory of the machine, the service or the container."""

from __future__ import annotations

from pathlib import Path

import pytest

from waldur_site_agent.waldur import listing
from waldur_site_agent.waldur.listing import most_bytes
from waldur_site_agent.waldur.memory import available_memory, limits_of_cgroups

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30


@pytest.mark.parametrize(
    ("memory", "bytes_of_a_list"),
    [
        (GIBIBYTE // 2, 128 * MEBIBYTE),
        (2 * GIBIBYTE, 128 * MEBIBYTE),
        (4 * GIBIBYTE, 256 * MEBIBYTE),
        (16 * GIBIBYTE, GIBIBYTE),
        (512 * GIBIBYTE, GIBIBYTE),
    ],
)
def test_a_list_may_take_a_sixteenth_of_the_memory(
    memory: int, bytes_of_a_list: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "available_memory", lambda: memory)
    assert most_bytes() == bytes_of_a_list


def test_the_memory_of_this_machine_is_found() -> None:
    assert available_memory() > 64 * MEBIBYTE


def test_the_limit_of_a_service_or_of_what_it_is_in_counts(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup/system.slice/waldur-agent.service"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/waldur-agent.service\n")
    assert limits_of_cgroups(tmp_path) == []
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text(f"{4 * GIBIBYTE}\n")
    assert limits_of_cgroups(tmp_path) == [4 * GIBIBYTE]
    (group / "memory.max").write_text(f"{GIBIBYTE}\n")
    assert min(limits_of_cgroups(tmp_path)) == GIBIBYTE


def test_the_limit_of_a_container_with_old_control_groups_counts(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup/memory/docker/abc"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    lines = "3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n1:name=systemd:/docker/abc\n"
    (tmp_path / "proc/self/cgroup").write_text(lines)
    (group / "memory.limit_in_bytes").write_text(f"{2 * GIBIBYTE}\n")
    assert limits_of_cgroups(tmp_path) == [2 * GIBIBYTE]


def test_a_machine_without_control_groups_has_no_such_limits(tmp_path: Path) -> None:
    assert limits_of_cgroups(tmp_path) == []
