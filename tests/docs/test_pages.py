"""What README and docs show is true: files load, commands run, links and named tests exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic import BaseModel

from harness import Installation, SimulatedSite
from harness.in_process import installed_in_process, run_in_process
from harness.processes import COMMANDS, environment
from waldur_site_agent.cli import aliases
from waldur_site_agent.cli.main import main
from waldur_site_agent.config import Configuration, Offering, Safety, load_configuration
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.service.session import AVAILABLE, MODE_NAMES
from waldur_site_agent_moab.settings import MoabSettings
from waldur_site_agent_slurm.settings import SlurmSettings

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "plugins").glob("*/README.md")),
]
DOCUMENTED_FILE = "/etc/waldur-site-agent/config.yaml"
DOCUMENTED_OFFERING = "Slurm at Example HPC"
GROUPS: dict[str, click.Command] = {
    "waldur-site-agent": main,
    "waldur_site_agent": aliases.agent,
    "waldur_site_load_components": aliases.load_components,
    "waldur_site_diagnostics": aliases.diagnostics,
    "waldur_sync_offering_users": aliases.sync_offering_users,
}
WHOLE_FILE = {
    "name": DOCUMENTED_OFFERING,
    "waldur_api_url": "https://waldur.example.com",
    "waldur_offering_uuid": "0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, with the comment before it and the block after it."""

    page: Path
    line: int
    language: str
    mark: str
    text: str
    following: str = ""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    pattern = r"(?:^<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$"
    found = list(re.finditer(pattern, text, re.DOTALL | re.MULTILINE))
    texts = [match[3] for match in found]
    return [
        Block(
            page=page,
            line=text[: match.start(3)].count("\n"),
            language=match[2],
            mark=match[1] or "",
            text=match[3],
            following="".join(texts[number : number + 1]),
        )
        for number, match in enumerate(found, 1)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]
YAML = [block for block in BLOCKS if block.language == "yaml"]
COMMAND_LINES = sorted(
    {
        line.removeprefix("$ ")
        for block in BLOCKS
        if block.language == "console"
        for line in block.text.splitlines()
        if re.match(r"\$ (\S*/)?waldur[-_][\w-]*( |$)", line)
    }
)


@pytest.mark.parametrize("block", [b for b in YAML if b.mark != "refused"], ids=str)
def test_a_configuration_that_is_shown_loads(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    (tmp_path / "token").write_text("0123456789")
    (tmp_path / "client-secret").write_text("9876543210")
    if block.mark == "fragment: offering":
        fragment = yaml.safe_load(block.text)
        has_login = {"waldur_api_token_file", "oidc_token_url"} & fragment.keys()
        token = {} if has_login else {"waldur_api_token": "0123456789"}
        file.write_text(yaml.safe_dump({"offerings": [WHOLE_FILE | token | fragment]}))
    else:
        file.write_text(block.text)
    variables = {"WALDUR_API_TOKEN": "0123456789", "COORDINATION_PASSWORD": "s3cret/word"}
    configuration, _ = load_configuration(file, variables)
    (offering,) = configuration.offerings
    assert offering.uses_oidc or offering.token == "0123456789"
    if offering.order_processing_backend in ("", "slurm"):
        SlurmSettings.model_validate(offering.backend_settings)
    if offering.order_processing_backend == "moab":
        MoabSettings.model_validate(offering.backend_settings)


@pytest.mark.parametrize("block", [b for b in YAML if b.mark == "refused"], ids=str)
def test_a_mistake_that_is_shown_gives_the_message_that_is_shown(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "waldur-site-agent-config.yaml").write_text(block.text)
    monkeypatch.chdir(tmp_path)
    done = run_in_process("waldur_site_agent", "--check-config")
    assert (2, block.following) == (done.code, done.err)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_that_is_shown_exists_with_these_options(line: str) -> None:
    program, *arguments = shlex.split(line)
    command, name = GROUPS[Path(program).name], Path(program).name
    context = None
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        context = click.Context(command, info_name=name, parent=context)
        found_name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None, line
        command, name = found, found_name or name
    settings = command.context_settings  # the sandbox's own parser takes its options
    parser = command.make_parser(click.Context(command, info_name=name, parent=context, **settings))
    _, left, _ = parser.parse_args(arguments)
    assert left == [], line


@pytest.mark.parametrize(
    "line",
    [
        line
        for line in COMMAND_LINES
        if DOCUMENTED_FILE in line and not re.search(r"agent run(?!.*--once)", line)
    ],
)
def test_a_command_that_is_shown_runs(
    line: str, testbed: SimulatedSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with installed_in_process(testbed, tmp_path) as installation:
        _runs(line, installation)


def _runs(line: str, installation: Installation) -> None:
    backends = {"membership_sync_backend": "slurm", "reporting_backend": "slurm"}
    installation.write(name=DOCUMENTED_OFFERING, **backends)
    testbed = installation.testbed
    testbed.order(testbed.project(ada="ada01"))
    program, *arguments = shlex.split(line.replace(DOCUMENTED_FILE, str(installation.file)))
    done = run_in_process(Path(program).name, *arguments)
    assert done.code == 0, done.out + done.err


def test_the_demo_prints_what_the_readme_shows() -> None:
    (shown,) = [b for b in blocks(ROOT / "README.md") if b.language == "text"]
    done = subprocess.run(
        [str(COMMANDS / "waldur-site-agent"), "demo"],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = iter(_without_uuids(done.stdout).splitlines())
    for line in _without_uuids(shown.text).splitlines():
        assert line.strip() == "..." or line in printed, f"not printed in this order: {line}"


def _without_uuids(text: str) -> str:
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_every_page_can_be_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index, page.name


@pytest.mark.parametrize(
    "model", [Configuration, Offering, Safety, ComponentSettings, SlurmSettings, MoabSettings]
)
def test_every_key_is_described_with_its_default(model: type[BaseModel]) -> None:
    page = (ROOT / "docs" / "configure.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    for key, field in model.model_fields.items():
        described = [row for row in rows if f"`{key}`" in row[1]]
        assert described, f"{model.__name__}.{key} is not in configure.md"
        default = field.get_default(call_default_factory=True)
        shown = _spelled(default)
        if shown:
            assert any(shown in row[2] for row in described), f"{key}: the default is {shown}"


def _spelled(default: Any) -> str:
    """How the page writes a default; empty for those that it describes in words."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, int | float) or (isinstance(default, str) and default):
        return f"{default}"
    return ""


def test_every_make_target_that_is_shown_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    shown = {target for text in texts for target in re.findall(r"(?:`|^\$ )make (\w+)", text, re.M)}
    assert {"demo", "test"} <= shown
    assert shown <= targets


README_ROWS = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \|", re.MULTILINE)


@pytest.mark.parametrize("page", sorted((ROOT / "plugins").glob("*/README.md")), ids=str)
def test_every_module_that_a_plugin_lists_exists(page: Path) -> None:
    rows = README_ROWS.findall(page.read_text(encoding="utf-8"))
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    (package,) = (page.parent / "src").iterdir()
    modules = {path.stem for path in package.iterdir() if path.suffix in ("", ".py")}
    assert set() == listed - modules


def test_every_file_that_the_map_of_changes_names_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.split("\n## Where to change what\n", 1)[1].split("\n## ")[0]
    named = re.findall(r"`((?:\w[\w-]*/)+(?:\w+\.py)?)`", section)
    assert len(named) > 20
    places = (ROOT, ROOT / "src" / "waldur_site_agent")
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_the_index_names_every_mode_and_this_version_has_them_all() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert all(f"`{mode}`" in index for mode in MODE_NAMES if mode != "all")
    assert {*AVAILABLE, "all"} == set(MODE_NAMES)


def test_the_example_files_load_with_their_backend_settings() -> None:
    examples = sorted((ROOT / "examples").glob("*.yaml"))
    assert examples
    for example in examples:
        configuration, _ = load_configuration(example, {"WALDUR_API_TOKEN": "0123456789"})
        for offering in configuration.offerings:
            if offering.order_processing_backend == "slurm":
                SlurmSettings.model_validate(offering.backend_settings)
            if offering.order_processing_backend == "moab":
                MoabSettings.model_validate(offering.backend_settings)
