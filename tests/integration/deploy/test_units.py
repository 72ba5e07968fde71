"""What systemd itself says about the services."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.patience import patience
from waldur_site_agent.cli.install import Choices, service_files
from waldur_site_agent.service.session import MODE_NAMES

PAGE = Path(__file__).parents[3] / "docs" / "security.md"
PROGRAM = Path(sys.executable).with_name("waldur_site_agent")
CREDENTIAL = Path("/etc/waldur-site-agent/token")
VARIANTS = {
    "root": Choices(program=PROGRAM, credential=CREDENTIAL),
    "ordinary user": Choices(program=PROGRAM, user="daemon"),
    "ordinary user with sudo": Choices(program=PROGRAM, user="daemon", sudo_homes=True),
    "legacy": Choices(program=PROGRAM, legacy=True),
}

pytestmark = pytest.mark.usefixtures("systemd_tools")


def written(choices: Choices, directory: Path) -> list[Path]:
    units = [f for f in service_files(list(MODE_NAMES), choices) if f.path.suffix == ".service"]
    for file in units:
        (directory / file.path.name).write_text(file.text)
    return [directory / file.path.name for file in units]


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/systemd-analyze", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=patience(),
    )


@pytest.mark.guarantee("security: The services")
@pytest.mark.parametrize("choices", VARIANTS.values(), ids=VARIANTS)
def test_systemd_finds_nothing_wrong(choices: Choices, tmp_path: Path) -> None:
    done = analyze("verify", "--man=no", *written(choices, tmp_path))
    own = [line for line in done.stderr.splitlines() if "waldur-agent" in line]
    assert (done.returncode, own) == (0, [])


@pytest.mark.guarantee("security: The services")
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_exposure_is_what_the_page_says(variant: str, tmp_path: Path) -> None:
    rows = dict(
        re.findall(r"^\| ([\w ]+) \| .* \| (\d+\.\d) \| [\d.]+ \|$", PAGE.read_text(), re.MULTILINE)
    )
    unit = written(VARIANTS[variant], tmp_path)[-1]
    done = analyze("security", "--offline=true", "--no-pager", unit)
    (level,) = re.findall(r"exposure level for \S+: (\d+\.\d)", done.stdout)
    if analyze("--version").stdout.startswith("systemd 252 "):
        assert rows[variant] == level
    else:  # other versions know other directives and weigh them differently
        assert abs(float(rows[variant]) - float(level)) < 1
