"""A local user without rights: locks, sockets, files and homes that they put in the agent's way."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.in_process import run_in_process
from waldur_site_agent.backends import CreateHomeDirectories, RemoveMembers, locking
from waldur_site_agent.backends.command_line_settings import CommandLineSettings
from waldur_site_agent.backends.homes import HomeDirectories
from waldur_site_agent.backends.locking import default_lock_file, exclusive_lock, mark_of_free_lock
from waldur_site_agent.backends.permissions import directory_of_others
from waldur_site_agent.backends.processes import CommandResult, ProcessRunner
from waldur_site_agent.backends.unfinished import Unfinished
from waldur_site_agent.config import Budgets
from waldur_site_agent.cycles.site import Allowance, RefusedPlan
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.planning.plan import Plan, Step, digest_of
from waldur_site_agent.service.allowances import Allowances, UnknownDigestError
from waldur_site_agent.service.budget_channels import Channels
from waldur_site_agent.service.health import HealthFile
from waldur_site_agent.service.journal import Journal
from waldur_site_agent.service.journal_reading import entries_in

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
SOMEBODY = 65_534


def a_fifo(path: Path) -> None:
    os.mkfifo(path, 0o666)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def a_directory(path: Path) -> None:
    path.mkdir()


def a_link(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.symlink_to(victim)


def a_hard_link(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.hardlink_to(victim)


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


TRAPS = [a_fifo, a_socket, a_directory, a_link, a_hard_link, a_dangling_link]


@pytest.mark.guarantee("security: Threat model")
@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_what_is_no_lock_file_of_ours_is_refused_and_left_alone(
    tmp_path: Path, trap: Callable[[Path], None]
) -> None:
    path = tmp_path / "x.lock"
    trap(path)
    with pytest.raises(TemporaryError, match=r"x\.lock"), exclusive_lock(path, 0, "wait"):
        pass
    assert mark_of_free_lock(path) is None
    victim = tmp_path / "victim"
    assert not victim.exists() or victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("mode", [0o1777, 0o777])
def test_no_lock_is_taken_where_everybody_can_write(tmp_path: Path, mode: int) -> None:
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(mode)
    path = public / "x.lock"
    with pytest.raises(TemporaryError, match="everybody can write"), exclusive_lock(path, 0, ""):
        pass
    assert not path.exists()
    inside = public / "inside"
    inside.mkdir(mode=0o755)
    if mode & stat.S_ISVTX:  # nobody but its owner can replace what is inside
        with exclusive_lock(inside / "x.lock", 0, ""):
            pass
    else:
        with pytest.raises(TemporaryError), exclusive_lock(inside / "x.lock", 0, ""):
            pass


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where locks go on a machine on which this user has no directory for them."""
    monkeypatch.setattr(locking, "OWN_DIRECTORY", tmp_path / "absent" / "own")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv(locking.DIRECTORY_VARIABLE)
    public = tmp_path / "tmp"
    public.mkdir()
    public.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(public))
    return public / f"waldur-site-agent-{os.geteuid()}"


def test_a_user_without_a_runtime_directory_gets_a_private_one(place: Path) -> None:
    for _ in range(2):
        path = default_lock_file("x.lock")
        assert path == place / "x.lock"
        assert place.stat().st_mode & 0o777 == 0o700
        with exclusive_lock(path, 0, ""):
            pass


def test_a_runtime_directory_that_everybody_can_write_to_is_not_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place.parent))
    assert default_lock_file("x.lock") == place / "x.lock"


@needs_root
def test_a_runtime_directory_of_the_user_who_called_su_is_not_used(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, SOMEBODY, SOMEBODY)
    monkeypatch.setattr(locking, "OWN_DIRECTORY", theirs / "absent" / "own")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(theirs))
    assert default_lock_file("x.lock") == place / "x.lock"


@pytest.mark.parametrize("trap", [a_link, a_fifo], ids=lambda trap: trap.__name__)
def test_something_else_under_the_name_of_the_private_directory_is_refused(
    place: Path, trap: Callable[[Path], None]
) -> None:
    trap(place)
    with pytest.raises(TemporaryError, match="waldur-site-agent-"):
        default_lock_file("x.lock")


@needs_root
def test_a_private_directory_that_somebody_else_made_first_is_refused(place: Path) -> None:
    place.mkdir()
    os.chown(place, SOMEBODY, SOMEBODY)
    with pytest.raises(TemporaryError, match="somebody else made it"):
        default_lock_file("x.lock")


DIGEST = "a" * 64
ODD_REFUSALS = [
    "[" * 100_000,
    '{"a":' * 50_000,
    json.dumps({"digest": DIGEST}),
    json.dumps(asdict(RefusedPlan(DIGEST, "HPC", "members", "", {}, 1.0)) | {"at": "now"}),
    json.dumps(asdict(RefusedPlan(DIGEST, "HPC", "members", "", {}, 1.0)) | {"changes": [1]}),
    json.dumps(asdict(RefusedPlan("b" * 64, "HPC", "members", "", {}, 1.0))),
    "NaN",
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
]


@pytest.mark.parametrize("text", ODD_REFUSALS, ids=lambda text: text[-40:])
def test_an_odd_file_among_refused_plans_is_passed_over(tmp_path: Path, text: str) -> None:
    tmp_path.chmod(0o700)
    file = tmp_path / f"{DIGEST}.refused.json"
    file.write_text(text)
    file.chmod(0o600)
    honest = RefusedPlan("c" * 64, "HPC", "members", "too many", {"a_ocean": ["ada"]}, 2.0)
    allowances = Allowances(tmp_path)
    allowances.record(honest)
    assert allowances.refused() == [honest]
    with pytest.raises(UnknownDigestError):
        allowances.allow(DIGEST, "root")
    (tmp_path / f"{honest.digest}.allowed.json").write_text(text)
    assert not allowances.allowed(honest.digest)
    assert allowances.take(honest.digest) is None


@needs_root
def test_root_carries_out_nothing_that_another_user_has_allowed(tmp_path: Path) -> None:
    """A member of the group of the agents' directory could have made the directory first."""
    theirs = tmp_path / "refusals"
    theirs.mkdir(mode=0o700)
    allowance = Allowance(DIGEST, "HPC", "members", "mallory", time.time())
    file = theirs / f"{DIGEST}.allowed.json"
    file.write_text(json.dumps(asdict(allowance)))
    file.chmod(0o600)
    for path in (theirs, file):
        os.chown(path, SOMEBODY, SOMEBODY)
    assert Allowances(theirs).take(DIGEST) is None
    for path in (theirs, file):
        os.chown(path, 0, 0)
    assert Allowances(theirs).take(DIGEST) == allowance


@needs_root
@pytest.mark.guarantee("security: Threat model")
def test_root_notes_nothing_where_another_user_could_lead_it_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_another_user, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for directory in (of_another_user, elsewhere):
        directory.mkdir(mode=0o755)
    (elsewhere / "shadow").write_text("precious")
    monkeypatch.setenv(locking.DIRECTORY_VARIABLE, str(of_another_user))
    Unfinished("home-quotas", "/home").add("ada")
    (notes,) = of_another_user.iterdir()  # as long as the directory is root's
    (notes / "ada").unlink()
    notes.rmdir()
    notes.symlink_to(elsewhere)
    os.chown(of_another_user, SOMEBODY, SOMEBODY)
    unfinished = Unfinished("home-quotas", "/home")
    unfinished.add("nologin")
    assert unfinished.names() == {"nologin"}
    unfinished.discard("shadow")
    assert [path.name for path in elsewhere.iterdir()] == ["shadow"]


def test_an_odd_line_of_the_journal_is_passed_over() -> None:
    honest = {"time": "2026-11-27T12:00:00+00:00", "action": "allow", "offering": "HPC"}
    lines = [
        "[" * 100_000,
        json.dumps(honest | {"time": "9999-12-31T23:59:59-23:00"}),
        json.dumps(honest | {"time": 5}),
        "null",
        json.dumps(honest),
    ]
    assert [entry.raw for entry in entries_in(lines)] == [honest]


def test_a_journal_is_for_its_owner_and_group(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        Journal(tmp_path / "journal.jsonl").close()
    finally:
        os.umask(before)
    assert (tmp_path / "journal.jsonl").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("trap", [a_fifo, a_link, a_hard_link], ids=lambda trap: trap.__name__)
def test_a_journal_where_everybody_can_write_follows_no_link_and_waits_for_no_reader(
    tmp_path: Path, trap: Callable[[Path], None]
) -> None:
    tmp_path.chmod(0o1777)
    path = tmp_path / "journal.jsonl"
    trap(path)
    with pytest.raises(OSError, match=r"journal\.jsonl"):
        Journal(path)


def test_a_journal_may_be_a_link_in_a_directory_of_the_site(tmp_path: Path) -> None:
    a_link(tmp_path / "journal.jsonl")
    Journal(tmp_path / "journal.jsonl").close()


def test_the_health_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    a_link(tmp_path / f".health.json.{os.getpid()}")
    HealthFile(str(tmp_path / "health.json"), "report").write({"status": "ok"})
    assert json.loads((tmp_path / "health.json").read_text())["status"] == "ok"
    assert (tmp_path / "victim").read_text() == "precious"


class Helper:
    """Runs nothing, and remembers."""

    def __init__(self, home: Path) -> None:
        self.home, self.commands = home, list[tuple[str, ...]]()

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        assert timeout > 0
        self.commands.append(tuple(argv))
        self.home.mkdir(parents=True)
        return CommandResult(tuple(argv), 0, "", "")


def create_home(home: Path, tmp_path: Path) -> tuple[list[tuple[str, ...]], str]:
    helper = tmp_path / "mkhomedir_helper"
    helper.write_text("#!/bin/sh\n")
    helper.chmod(0o755)
    runner = Helper(home)
    homes = HomeDirectories(
        runner,
        CommandLineSettings(),
        lambda name: name,
        (helper,),
        lambda _: home,
        lambda _: os.getuid(),
    )
    outcome = homes.create(CreateHomeDirectories(("ada",)))
    return runner.commands, "".join(str(left.error) for left in outcome.skipped)


def test_a_home_is_made_below_directories_of_root(tmp_path: Path) -> None:
    commands, problem = create_home(tmp_path / "home" / "ada", tmp_path)
    assert (len(commands), problem) == (1, "")


@pytest.mark.guarantee("security: Threat model")
@needs_root
def test_no_home_is_made_below_a_directory_that_a_user_owns(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    os.chown(project, SOMEBODY, SOMEBODY)
    for home in (project / "ada", project / "deeper" / "ada"):
        commands, problem = create_home(home, tmp_path)
        assert commands == []
        assert str(project) in problem


def test_no_home_is_made_in_a_directory_that_everybody_can_write_to(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    scratch.chmod(0o1777)
    commands, problem = create_home(scratch / "ada", tmp_path)
    assert commands == []
    assert str(scratch) in problem


@needs_root
def test_no_home_is_made_behind_a_link_that_leads_through_a_users_directory(
    tmp_path: Path,
) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "homes").mkdir(parents=True)
    os.chown(theirs, SOMEBODY, SOMEBODY)
    (tmp_path / "home").symlink_to(theirs / "homes")
    commands, problem = create_home(tmp_path / "home" / "ada", tmp_path)
    assert commands == []
    assert str(theirs) in problem


@needs_root
def test_no_home_is_made_where_a_group_can_put_a_link_in_its_way(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    os.chown(project, 0, SOMEBODY)
    project.chmod(0o770)
    commands, problem = create_home(project / "ada", tmp_path)
    assert commands == []
    assert str(project) in problem
    os.chown(project, 0, 0)
    commands, problem = create_home(project / "ada", tmp_path)
    assert (len(commands), problem) == (1, "")


@needs_root
def test_a_dangling_link_of_a_user_is_not_taken_for_a_home_that_nobody_can_replace(
    tmp_path: Path,
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    scratch.chmod(0o1777)
    a_dangling_link(scratch / "ada")
    os.chown(scratch / "ada", SOMEBODY, SOMEBODY, follow_symlinks=False)
    commands, problem = create_home(scratch / "ada", tmp_path)
    assert commands == []
    assert str(scratch) in problem


@needs_root
def test_no_home_is_made_behind_links_of_which_a_user_can_replace_the_second(
    tmp_path: Path,
) -> None:
    theirs, safe = tmp_path / "theirs", tmp_path / "safe"
    theirs.mkdir()
    safe.mkdir()
    (theirs / "homes").symlink_to(safe)
    os.chown(theirs, SOMEBODY, SOMEBODY)
    (tmp_path / "home").symlink_to("theirs/homes")
    commands, problem = create_home(tmp_path / "home" / "ada", tmp_path)
    assert commands == []
    assert str(theirs) in problem


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
@needs_root
def test_a_directory_that_exists_does_not_make_its_parent_safe(tmp_path: Path, mode: int) -> None:
    base = tmp_path / "base"
    (base / "new").mkdir(parents=True)
    os.chown(base, 0, SOMEBODY)
    base.chmod(mode)
    assert directory_of_others(base / "new", groups=True) == base
    assert directory_of_others(base / "new" / "below", groups=True) == (
        None if mode & stat.S_ISVTX else base
    )


def test_a_path_through_links_that_go_round_in_circles_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        directory_of_others(tmp_path / "a" / "x")


def test_a_path_through_links_that_are_the_sites_own_is_usable(tmp_path: Path) -> None:
    (tmp_path / "real" / "homes").mkdir(parents=True)
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    (tmp_path / "relative").symlink_to("absolute/../real/homes")
    assert directory_of_others(tmp_path / "relative" / "ada", groups=True) is None


@pytest.mark.guarantee("security: Threat model")
def test_no_command_gets_the_token_or_a_variable_that_would_change_it() -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "WALDUR_API_TOKEN": "secret-token",
        "CREDENTIALS_DIRECTORY": "/secret",
        "LD_PRELOAD": "/evil.so",
        "PYTHONPATH": "/evil",
        "IFS": "x",
        "BASH_ENV": "/evil",
    }
    done = ProcessRunner(environment=environment).run(["env"], 60)
    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert names & environment.keys() == {"PATH"}
    assert "secret" not in done.stdout


@pytest.mark.parametrize("trap", [a_link, a_hard_link, a_dangling_link, a_fifo])
def test_the_file_of_budgets_replaces_what_is_there_and_is_never_written_through_it(
    tmp_path: Path, trap: Callable[[Path], None]
) -> None:
    file = tmp_path / "budgets.json"
    trap(file)
    Channels("HPC", Budgets(file=str(file))).publish([])
    assert json.loads(file.read_text())["budgets"] == []
    assert stat.S_IMODE(file.lstat().st_mode) == 0o644
    assert stat.S_ISREG(file.lstat().st_mode)
    victim = tmp_path / "victim"
    assert not victim.exists() or victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_no_two_plans_share_a_digest_by_the_way_that_names_are_written() -> None:
    plans = [
        [RemoveMembers("a", ("b,c",))],
        [RemoveMembers("a", ("b", "c"))],
        [RemoveMembers("a", ('b", "c',))],
        [RemoveMembers("a", ("b",)), RemoveMembers("a", ("c",))],
        [RemoveMembers("a,b", ("c",))],
        [RemoveMembers("A", ("b", "c"))],
    ]
    digests = {digest_of(Plan(tuple(Step(a, "") for a in plan)), "HPC") for plan in plans}
    assert len(digests) == len(plans)


TRAP = """
offerings:
- name: Trap
  waldur_api_url: http://127.0.0.1:9
  waldur_api_token: b8f7e0c19a5d4f2e8c3b6a7d9e0f1a2b3c4d5e6f
  waldur_offering_uuid: 0f6c2c5ae4d54a3fa1f2f6d2a6a0c9b1
  order_processing_backend: slurm
  backend_settings: {slurm_bin_path: BIN}
  backend_components:
    cpu: {measured_unit: h, unit_factor: 60, accounting_type: limit, label: CPU}
"""


def a_trap(directory: Path) -> Path:
    """A configuration under the default name that would start somebody's programs."""
    for name in ("sacctmgr", "sacct", "scontrol", "squeue"):
        program = directory / name
        program.write_text(f"#!/bin/sh\ntouch {directory}/sprung\n")
        program.chmod(0o755)
    file = directory / "waldur-site-agent-config.yaml"
    file.write_text(TRAP.replace("BIN", str(directory)))
    return file


def by_their_file(directory: Path) -> None:
    os.chown(a_trap(directory), SOMEBODY, SOMEBODY)


def by_their_directory(directory: Path) -> None:
    a_trap(directory)
    os.chown(directory, SOMEBODY, SOMEBODY)


def by_a_public_directory(directory: Path) -> None:
    a_trap(directory)
    directory.chmod(0o1777)


def by_a_public_file(directory: Path) -> None:
    a_trap(directory).chmod(0o666)


def by_a_link(directory: Path) -> None:
    theirs = directory / "theirs"
    theirs.mkdir()
    file = a_trap(theirs)
    os.chown(theirs, SOMEBODY, SOMEBODY)
    (directory / file.name).symlink_to(file)


@pytest.mark.parametrize(
    "set_up",
    [by_their_file, by_their_directory, by_a_public_directory, by_a_public_file, by_a_link],
)
@pytest.mark.parametrize("command", [("diagnose",), ("explain", "ada"), ("run", "--once")])
@pytest.mark.guarantee("security: Threat model")
@needs_root
def test_the_configuration_of_a_directory_of_somebody_else_is_not_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    set_up: Callable[[Path], None],
    command: tuple[str, ...],
) -> None:
    """Or a command of root in the home of a user would start programs of that user."""
    place = tmp_path / "place"
    place.mkdir()
    set_up(place)
    monkeypatch.chdir(place)
    done = run_in_process("waldur-site-agent", *command)
    assert done.code == 2
    assert "of the working directory is not read" in done.err
    assert not [*place.rglob("sprung")]


def test_the_configuration_of_a_directory_of_ones_own_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = a_trap(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_in_process("waldur-site-agent", "config", "check").code == 0
    tmp_path.chmod(0o1777)
    assert run_in_process("waldur-site-agent", "config", "check", "-c", str(file)).code == 0
