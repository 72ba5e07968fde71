"""Files that root writes below directories of others: links, second names, pipes, and exchanges."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.in_process import run_in_process
from waldur_site_agent.backends.output_files import make_directory, replace_file
from waldur_site_agent.cli.usage_plot import draw
from waldur_site_agent.config import Budgets
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.service.budget_channels import Channels
from waldur_site_agent.service.health import HealthFile
from waldur_site_agent.service.journal import Journal

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
SOMEBODY = 65_534


def write_journal(path: Path) -> None:
    journal = Journal(path)
    journal.note({"action": "test"})
    journal.close()


def write_health(path: Path) -> None:
    HealthFile(str(path), "report").write({"status": "ok"})


def write_budgets(path: Path) -> None:
    Channels("HPC", Budgets(file=str(path))).publish([])


def write_plot(path: Path) -> None:
    draw(path, [], {}, title="", labels=[], unit_of_time="day")


WRITERS: dict[str, Callable[[Path], None]] = {
    "journal.jsonl": write_journal,
    "health.json": write_health,
    "budgets.json": write_budgets,
    "plot.svg": write_plot,
}
REPLACING = [name for name in WRITERS if name != "journal.jsonl"]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory of somebody else."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    os.chown(directory, SOMEBODY, SOMEBODY)
    return directory


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Path]:
    """A directory of root with a file; both are as they were in the end."""
    directory = tmp_path / "precious"
    directory.mkdir()
    (directory / "file").write_text("precious")
    yield directory
    assert [path.name for path in directory.iterdir()] == ["file"]
    assert (directory / "file").read_text() == "precious"
    assert (directory / "file").stat().st_nlink <= 2


TRAPS: dict[str, Callable[[Path, Path], None]] = {
    "link": lambda path, precious: path.symlink_to(precious / "file"),
    "hard link": lambda path, precious: path.hardlink_to(precious / "file"),
    "link to nothing": lambda path, precious: path.symlink_to(precious / "new"),
    "pipe": lambda path, _: os.mkfifo(path, 0o666),
    "directory": lambda path, _: path.mkdir(),
}


@pytest.mark.guarantee("security: Threat model")
@needs_root
@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("name", WRITERS)
def test_what_a_user_put_under_the_name_is_not_written_to(
    theirs: Path, precious: Path, name: str, trap: str
) -> None:
    path = theirs / name
    TRAPS[trap](path, precious)
    was = path.lstat()
    with suppress(OSError, TemporaryError):
        WRITERS[name](path)
    found = path.lstat()
    if name == "journal.jsonl" or trap == "directory":
        assert os.path.samestat(was, found)  # refused: nothing was written
    else:
        assert stat.S_ISREG(found.st_mode)
        assert (found.st_uid, found.st_nlink) == (0, 1)
    assert len(list(theirs.iterdir())) == 1  # no draft is left


@needs_root
def test_a_journal_that_a_stranger_made_first_is_refused(tmp_path: Path, theirs: Path) -> None:
    theirs.chmod(0o1777)
    (theirs / "journal.jsonl").write_text("")
    os.chown(theirs / "journal.jsonl", 12_345, 12_345)
    with pytest.raises(OSError, match=r"journal\.jsonl"):
        write_journal(theirs / "journal.jsonl")
    own = tmp_path / "agent"  # of the agent's user, whose commands root runs by hand
    own.mkdir()
    (own / "journal.jsonl").write_text("")
    for path in (own, own / "journal.jsonl"):
        os.chown(path, SOMEBODY, SOMEBODY)
    write_journal(own / "journal.jsonl")
    assert json.loads((own / "journal.jsonl").read_text())["action"] == "test"


@pytest.mark.guarantee("security: Threat model")
@needs_root
@pytest.mark.parametrize("way", ["directory", "two links", "parent of the target"])
@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_written_behind_a_link_that_a_user_could_have_made(
    tmp_path: Path, theirs: Path, precious: Path, name: str, way: str
) -> None:
    (theirs / "link").symlink_to(precious)
    place = theirs / "link"
    if way == "two links":
        (tmp_path / "ours").symlink_to(place)
        place = tmp_path / "ours"
    elif way == "parent of the target":
        (theirs / "link").unlink()
        (theirs / "up").symlink_to(tmp_path)
        (tmp_path / "ours").symlink_to("theirs/up/precious")
        place = tmp_path / "ours"
    with suppress(OSError, TemporaryError):
        WRITERS[name](place / name)
    assert not (precious / name).exists()


@needs_root
@pytest.mark.parametrize("name", REPLACING)
def test_a_directory_that_is_exchanged_for_a_link_meanwhile_changes_nothing(
    theirs: Path, precious: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = theirs / "inner"
    inner.mkdir()

    def exchange(size: int) -> str:
        inner.rename(theirs / "moved")
        inner.symlink_to(precious)
        return "0" * size

    monkeypatch.setattr(secrets, "token_hex", exchange)
    WRITERS[name](inner / name)
    assert [path.name for path in (theirs / "moved").iterdir()] == [name]


@pytest.mark.parametrize("name", WRITERS)
def test_links_of_the_site_itself_lead_where_they_say(tmp_path: Path, name: str) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    (tmp_path / "relative").symlink_to("absolute/../real/deep")
    WRITERS[name](tmp_path / "relative" / name)
    assert (tmp_path / "real" / "deep" / name).is_file()


def test_a_journal_may_be_the_standard_output(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    (tmp_path / "stdout").symlink_to(f"/proc/self/fd/{writing}")  # as /dev/stdout is
    write_journal(tmp_path / "stdout")
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert json.loads(stream.read())["action"] == "test"


@needs_root
def test_the_remedy_is_said(theirs: Path, precious: Path) -> None:
    (theirs / "link").symlink_to(precious)
    with pytest.raises(TemporaryError, match="others could have made the link"):
        write_budgets(theirs / "link" / "budgets.json")
    with pytest.raises(OSError, match="name the target itself"):
        write_journal(theirs / "link" / "journal.jsonl")


def test_links_in_circles_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for write in (write_journal, lambda path: replace_file(path, b"", 0o600)):
        with pytest.raises(OSError, match="symbolic links"):
            write(tmp_path / "a" / "x")
    with pytest.raises(OSError, match="symbolic links"):
        write_journal(tmp_path / "a")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_is_written_can_be_changed_by_its_owner_only(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for name, write in WRITERS.items():
            write(tmp_path / name)
        make_directory(tmp_path / "one" / "two")
    finally:
        os.umask(before)
    allowed = {"journal.jsonl": 0o640, "budgets.json": 0o644, "one": 0o755}
    for path in tmp_path.iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = allowed.get(path.name, 0o644)
        assert mode == (wanted if path.name == "budgets.json" else wanted & ~umask), path
    assert stat.S_IMODE((tmp_path / "one" / "two").stat().st_mode) == 0o755 & ~umask


INIT = ("--offering-uuid", "0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1", "--token-file", "-", "--name", "HPC")


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_what_init_writes_is_as_private_as_it_has_to_be(tmp_path: Path, umask: int) -> None:
    file = tmp_path / "etc" / "agent" / "config.yaml"
    words = (
        "init",
        "-c",
        str(file),
        "--waldur-url",
        "https://waldur.example",
        "--backend",
        "slurm",
    )
    before = os.umask(umask)
    try:
        for more in ((), ("--force",)):  # the second time there are the files of the first
            done = run_in_process("waldur-site-agent", *words, *INIT, *more, given="0" * 40)
            assert done.code == 0, done.err
    finally:
        os.umask(before)
    assert "0" * 40 in (file.parent / "environment").read_text()
    for path in file.parent.iterdir():
        holds_token = "0" * 40 in path.read_text()
        assert mode_of(path) == (0o600 if holds_token else 0o644 & ~umask), path
    for directory in (file.parent, file.parent.parent):
        assert mode_of(directory) == 0o755 & ~umask


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_what_install_services_writes_has_the_modes_that_systemd_and_sudo_want(
    tmp_path: Path, umask: int
) -> None:
    words = ("install-services", "--root", str(tmp_path), "--user", "agent", "--sudo-homes")
    before = os.umask(umask)
    try:
        for more in ((), ("--force", "--credential", "/etc/token")):
            done = run_in_process("waldur-site-agent", *words, *more)
            assert done.code == 0, done.err
    finally:
        os.umask(before)
    found = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert len(found) > 5
    for path in found:
        assert mode_of(path) == (0o440 if path.parent.name == "sudoers.d" else 0o644), path
    assert not any(mode_of(path) & 0o022 for path in tmp_path.rglob("*"))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
