"""Commands become processes; their answers become success or a failure with a remedy."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

from harness.patience import eventually
from waldur_site_agent.backends import TemporaryError
from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent_slurm.answers import (
    ControllerUnavailableError,
    DatabaseUnavailableError,
    JobsActiveError,
    failure,
)
from waldur_site_agent_slurm.client import (
    CommandMissingError,
    CommandTimedOutError,
    ProcessRunner,
    SlurmClient,
)


def script(directory: Path, name: str, text: str) -> ProcessRunner:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return ProcessRunner(directory, {"PATH": os.environ["PATH"], "SLURM_CONF": "/x", "TOKEN": "s"})


def test_arguments_arrive_as_they_are_and_both_outputs_come_back(tmp_path: Path) -> None:
    runner = script(tmp_path, "sacctmgr", 'printf "%s\\n" "$@"; echo oops >&2; exit 3')
    argv = ("sacctmgr", "name=a b", "$HOME;`id`", "")
    expected = CommandResult(argv, 3, "name=a b\n$HOME;`id`\n\n", "oops\n")
    assert runner.run(argv, 10) == expected


def test_commands_see_a_small_english_environment_and_no_input(tmp_path: Path) -> None:
    runner = script(tmp_path, "sacctmgr", "env; cat")
    seen = runner.run(("sacctmgr",), 10).stdout.splitlines()
    assert {"LC_ALL=C", "TZ=UTC", "SLURM_CONF=/x"} <= set(seen)
    assert not any(line.startswith("TOKEN=") for line in seen)


def test_a_command_that_hangs_is_killed_with_everything_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    runner = script(tmp_path, "sacctmgr", f"sleep 600 & echo $! $$ > {pids}; wait")
    with pytest.raises(CommandTimedOutError, match=r"sacctmgr show.*no answer within 0\.5 seconds"):
        runner.run(("sacctmgr", "show"), 0.5)
    for pid in pids.read_text(encoding="ascii").split():  # killed children take a moment
        eventually(lambda p=int(pid): not _is_alive(p), f"the end of process {pid}")  # type: ignore[misc]  # a loop variable as default


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_nobody_waits_for_a_command_that_cannot_even_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survivors: list[int] = []
    monkeypatch.setattr("os.killpg", lambda group, _signal: survivors.append(group))
    monkeypatch.setattr("waldur_site_agent.backends.processes._SECONDS_TO_DIE", 0.1)
    command = tmp_path / "sacctmgr"
    command.write_text("#!/bin/sh\nexec sleep 30\n")
    command.chmod(0o755)
    with pytest.raises(CommandTimedOutError, match="gave no answer"):
        ProcessRunner(tmp_path).run(["sacctmgr"], 0.1)
    monkeypatch.undo()
    os.killpg(survivors[0], signal.SIGKILL)
    os.waitpid(survivors[0], 0)
    gc.collect()  # the abandoned process object complains here, not in a later test


def test_a_missing_command_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CommandMissingError, match=f"{tmp_path}.*slurm_bin_path"):
        ProcessRunner(tmp_path).run(("sacctmgr", "-V"), 10)


@pytest.mark.parametrize(
    ("exit_code", "stderr", "family", "words"),
    [
        (1, "failed to open persistent connection to host:x:6819: Connection refused",
         DatabaseUnavailableError, "slurmdbd cannot be reached"),
        (1, ("Something happened with the receiving/processing of the persistent connection init "
         "message to x: Unable to connect to database"),
         DatabaseUnavailableError, "no connection to its database"),
        (1, "Error with request: Access/permission denied",
         DatabaseUnavailableError, "name=agent set adminlevel=operator"),
        (8, ("scancel: error: Kill job error on job id 1: Unable to contact slurm controller "
         "(connect failure)"), ControllerUnavailableError, "slurmctld cannot be reached"),
        (1, "Error with request: Job(s) active, cancel job(s) before remove",
         JobsActiveError, "runawayjobs"),
        (1, "slurmdb_format_tres_str: no TRES known by type gpus", TemporaryError,
         "AccountingStorageTRES"),
        (0, "These associations don't have access to their default qos.", TemporaryError,
         "not be in its QOS list.*exit code 0"),
        (0, "Invalid unit type 'a'", TemporaryError, "Invalid unit type"),
    ],
)  # fmt: skip
def test_failures_are_told_apart_with_command_output_and_remedy(
    exit_code: int, stderr: str, family: type[TemporaryError], words: str
) -> None:
    result = CommandResult(("sacctmgr", "-i", "modify"), exit_code, "", stderr)
    with pytest.raises(family, match=f"(?s){words}") as caught:
        raise failure(result, "agent") or AssertionError
    assert "sacctmgr -i modify" in str(caught.value)


def test_a_remark_is_logged_once_and_the_answer_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remark = "squeue: error: CPUs=32 does not match, resetting CPUs"
    runner = script(tmp_path, "squeue", f'echo "7|qa|ada"; echo "{remark}" >&2')
    client = SlurmClient(runner, None, 10)
    for _ in range(3):
        assert [job.user for job in client.jobs(["qa"])] == ["ada"]
    assert [remark in record.getMessage() for record in caplog.records] == [True]


def test_a_known_failure_on_standard_error_fails_a_read_with_exit_code_0(tmp_path: Path) -> None:
    said = "squeue: error: Sending PersistInit msg: Connection refused"
    runner = script(tmp_path, "squeue", f'echo "7|qa|ada"; echo "{said}" >&2')
    with pytest.raises(DatabaseUnavailableError, match="slurmdbd cannot be reached"):
        SlurmClient(runner, None, 10).jobs(["qa"])


@pytest.mark.guarantee("Secrets are in no log, plan, metric, process argument or error report")
@pytest.mark.parametrize("streamed", [False, True])
def test_commands_get_the_token_of_slurm_and_nobody_is_shown_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, streamed: bool
) -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.secret"
    tool = tmp_path / "sacct"
    tool.write_text('#!/bin/sh\necho "$SLURM_CONF_SERVER"\necho "bad token $SLURM_JWT" >&2\n')
    tool.chmod(0o755)
    environment = {"SLURM_JWT": token, "SLURM_CONF_SERVER": "ctl:6817", "PATH": os.environ["PATH"]}
    runner = ProcessRunner(tmp_path, environment)
    client = SlurmClient(runner, None, 10)
    lines: list[str] = []
    if streamed:
        client.stream(("sacct",), 10, lines.extend)
    else:
        lines = client.ask(("sacct",)).splitlines()
    assert lines == ["ctl:6817"]
    assert "bad token ***" in caplog.text
    assert token not in caplog.text
    assert token not in repr(runner)
    assert token not in repr(runner.run(("sacct",), 10))


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_an_account_list_that_ends_in_the_middle_of_a_line_is_no_reading(tmp_path: Path) -> None:
    rows = "c|root||||normal||||root\\nc|a|root||||||"
    client = SlurmClient(script(tmp_path, "sacctmgr", f"printf '{rows}'"), None, 10)
    with pytest.raises(TemporaryError, match="ended in the middle of a line"):
        client.accounts()


def test_an_account_list_of_a_command_that_failed_is_no_reading(tmp_path: Path) -> None:
    text = "printf 'c|root||||normal||||root\\n'; echo ' Unable to contact slurmdbd' >&2; exit 1"
    client = SlurmClient(script(tmp_path, "sacctmgr", text), None, 10)
    with pytest.raises(TemporaryError, match="Unable to contact slurmdbd"):
        client.accounts()


def test_an_account_list_that_hangs_names_the_setting_for_it(tmp_path: Path) -> None:
    client = SlurmClient(script(tmp_path, "sacctmgr", "exec sleep 600"), None, 0.2)
    with pytest.raises(CommandTimedOutError, match=" raise command_timeout_seconds"):
        client.accounts()
