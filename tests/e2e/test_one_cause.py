"""A diagnosis says each cause once: slurmdbd is away."""

from __future__ import annotations

import pytest

from harness import Installation


@pytest.fixture
def without_slurmdbd(installation: Installation) -> Installation:
    commands = installation.directory / "bin"
    for name in ("sacctmgr", "sacct"):
        command = commands / name
        real = command.rename(commands / f"{name}.real")
        command.write_text(
            "#!/bin/sh\n"
            f'[ "$1" = -V ] && exec {real} "$@"\n'
            "echo 'sacctmgr: error: failed to open persistent "
            "connection to host:localhost:6819: Connection refused' >&2\nexit 1\n"
        )
        command.chmod(0o755)
    return installation


def test_a_slurmdbd_that_is_away_is_one_line_with_its_remedy(
    without_slurmdbd: Installation,
) -> None:
    done = without_slurmdbd.run(command="waldur_site_diagnostics")
    assert done.code == 1
    lines = done.out.splitlines()
    failed = [number for number, line in enumerate(lines) if "FAILED" in line]
    assert len(failed) == 1, done.out
    line, remedy = lines[failed[0]], lines[failed[0] + 1]
    assert "slurmdbd cannot be reached" in line
    assert "start slurmdbd" not in line
    assert "not checked: QOS, QOS of accounts, associations, permission to write" in line
    assert remedy.strip().startswith("-> start slurmdbd")
