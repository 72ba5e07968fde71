"""What is made of the checkout: wheels, and an installation without the developers' tools."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from harness import SimulatedSite, patience
from waldur_site_agent import __version__

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(file.parent for file in (ROOT / "plugins").glob("*/pyproject.toml"))
SOURCES = {
    "waldur_site_agent": ROOT,
    **{f"waldur_site_agent_{plugin.name}": plugin for plugin in PLUGINS},
}
PROJECT_FILES = [source / "pyproject.toml" for source in SOURCES.values()]
OFFLINE = ("No matching distribution found", "Could not find a version", "NewConnectionError")


def run(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command without the test's own environment around it."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COVERAGE", "VIRTUAL"))
    }
    return subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env=kept | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=3 * patience(),
        check=False,
    )


def pip(python: Path, *words: str | Path, cwd: Path) -> None:
    """Run pip; without a package index there is nothing to test."""
    done = run(python, "-m", "pip", "--quiet", *words, cwd=cwd)
    offline = any(text in done.stderr for text in OFFLINE)
    if offline and not (os.environ.get("CI") or os.environ.get("REQUIRE_SERVICES")):
        pytest.skip("packaging: no package index can be reached")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory far from the checkout, with an empty virtual environment in it."""
    place = tmp_path_factory.mktemp("packaging")
    made = run(sys.executable, "-m", "venv", place / "venv", cwd=place)
    assert made.returncode == 0, made.stderr
    return place


@pytest.fixture(scope="module")
def wheels(place: Path) -> dict[str, zipfile.ZipFile]:
    """All wheels, by import package: built as ``make build`` does, without its uv by pip."""
    python, dist = place / "venv" / "bin" / "python", place / "dist"
    uv = Path(sys.prefix) / "uv" / "bin" / "uv"
    words = ("build", "--quiet", "--all-packages", "--wheel", "--no-create-gitignore")
    if not uv.exists() or run(uv, *words, "--out-dir", dist, cwd=ROOT).returncode != 0:
        pip(python, "wheel", "--no-deps", "-w", dist, *SOURCES.values(), cwd=place)
    files = {name: place / "dist" / f"{name}-{__version__}-py3-none-any.whl" for name in SOURCES}
    assert set(files.values()) == set((place / "dist").iterdir())
    return {name: zipfile.ZipFile(file) for name, file in files.items()}


@pytest.fixture(scope="module")
def commands(place: Path, wheels: dict[str, zipfile.ZipFile]) -> Path:
    """Where the commands of an installation are that was made from the wheels alone."""
    assert wheels
    extras = f"waldur-site-agent[sandbox,slurm,moab,usernames]=={__version__}"
    pip(place / "venv" / "bin" / "python", "install", "--find-links", "dist", extras, cwd=place)
    return place / "venv" / "bin"


def test_every_distribution_has_the_same_version() -> None:
    assert len(PROJECT_FILES) > 1
    for file in PROJECT_FILES:
        text = file.read_text(encoding="utf-8")
        assert f'version = "{__version__}"' in text, file
        pins = re.findall(r'"waldur-site-agent[\w-]*==([^"]+)"', text)
        assert set(pins) <= {__version__}, file


@pytest.mark.parametrize("name", SOURCES)
def test_a_wheel_has_its_package_typed_with_licence_and_nothing_else(
    wheels: dict[str, zipfile.ZipFile], name: str
) -> None:
    names = wheels[name].namelist()
    assert f"{name}/py.typed" in names
    assert any(entry.endswith(".dist-info/licenses/LICENSE") for entry in names)
    packages = {entry.split("/")[0] for entry in names}
    assert {name, f"{name}-{__version__}.dist-info"} == packages
    assert not [entry for entry in names if "__pycache__" in entry or entry.endswith(".pyc")]


def test_the_wheels_name_commands_and_backends(wheels: dict[str, zipfile.ZipFile]) -> None:
    agent = _entry_points(wheels["waldur_site_agent"])
    slurm = _entry_points(wheels["waldur_site_agent_slurm"])
    assert {
        "waldur-site-agent",
        "waldur_site_agent",
        "waldur_site_load_components",
        "waldur_site_diagnostics",
    } <= set(agent["console_scripts"])
    assert set(slurm["waldur_site_agent.backends"]) == {"slurm"}


def _entry_points(wheel: zipfile.ZipFile) -> configparser.ConfigParser:
    (entry,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read_string(wheel.read(entry).decode())
    return parser


def test_the_installed_agent_knows_its_version_and_its_plugin(commands: Path) -> None:
    done = run(commands / "waldur-site-agent", "--version", cwd=commands)
    assert done.returncode == 0, done.stderr
    assert f"waldur-site-agent {__version__}" in done.stdout
    assert f"backend slurm: waldur-site-agent-slurm {__version__}" in done.stdout


def test_the_installed_agent_shows_the_demo(commands: Path) -> None:
    done = run(commands / "waldur-site-agent", "demo", cwd=commands)
    assert done.returncode == 0, done.stderr
    assert "Create order of Ocean runs: done" in done.stdout


def test_the_installed_agent_diagnoses_a_site(
    commands: Path, testbed: SimulatedSite, tmp_path: Path
) -> None:
    state, directory = tmp_path / "cluster.json", tmp_path / "bin"
    made = run(
        commands / "python",
        *("-m", "waldur_site_agent_slurm.simulator"),
        *("--state", state, "--write-executables", directory),
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    configuration = {
        "name": "A site",
        "waldur_api_token": testbed.sandbox.token,
        "waldur_offering_uuid": str(testbed.sandbox.offering.uuid),
        "order_processing_backend": "slurm",
        "backend_settings": {"slurm_bin_path": str(directory), "lock_file": f"{tmp_path}/lock"},
        "backend_components": {
            "cpu": {"label": "CPU", "measured_unit": "h", "accounting_type": "limit"}
        },
    }
    file = tmp_path / "config.yaml"
    with testbed.served():
        offering = {**configuration, "waldur_api_url": testbed.url}
        file.write_text(yaml.safe_dump({"timezone": "UTC", "offerings": [offering]}))
        done = run(commands / "waldur_site_diagnostics", "-c", file, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert "A site" in done.stdout
    assert "sacctmgr" in done.stdout


@pytest.mark.long
def test_the_template_for_plugins_is_installed_and_keeps_the_contract(
    wheels: dict[str, zipfile.ZipFile], place: Path
) -> None:
    assert wheels
    template = place / "template"
    shutil.copytree(ROOT / "examples" / "plugin", template)
    python = place / "template-venv" / "bin" / "python"
    made = run(sys.executable, "-m", "venv", python.parent.parent, cwd=place)
    assert made.returncode == 0, made.stderr
    pip(python, "install", "--find-links", "dist", f"{template}[test]", cwd=place)
    named = run(python.parent / "waldur-site-agent", "--version", cwd=place)
    assert "backend json-file: my-site-backend 0.1.0" in named.stdout
    done = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=template)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed", done.stdout)
    assert " failed" not in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_installed_agent_completes_its_commands(commands: Path, shell: str) -> None:
    done = run(commands / "waldur-site-agent", "completion", shell, cwd=commands)
    assert done.returncode == 0, done.stderr
    assert "_WALDUR_SITE_AGENT_COMPLETE" in done.stdout


def test_the_installed_agent_reads_the_example_configuration(commands: Path) -> None:
    example = ROOT / "examples" / "waldur-site-agent-config.yaml"
    done = run(commands / "waldur_site_agent", "--check-config", "-c", example, cwd=commands)
    assert done.returncode == 2
    assert "the environment variable WALDUR_API_TOKEN is not set" in done.stderr


def test_the_installation_brings_no_developers_tools(commands: Path) -> None:
    done = run(commands / "python", "-m", "pip", "list", "--format=freeze", cwd=commands)
    installed = {line.partition("==")[0].lower() for line in done.stdout.splitlines()}
    assert "waldur-site-agent-slurm" in installed
    assert not installed & {"pytest", "mypy", "ruff", "hypothesis", "waldur-api-client"}
