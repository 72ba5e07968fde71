"""Pausing and restoring accounts, on the simulated Slurm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import (
    Access,
    AddMembers,
    CreateResource,
    Outcome,
    PermanentError,
    Result,
    SetAccess,
)
from waldur_site_agent.backends.processes import CommandResult
from waldur_site_agent.model.backend import ResourceRequest
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.simulator import SimulatedSlurm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from waldur_site_agent.backends import Action

REQUEST = ResourceRequest(
    resource_name="Res", project_slug="p", project_name="Proj",
    customer_slug="c", customer_name="Cust",
)  # fmt: skip
PAUSED = "qos=paused DefaultQOS=paused"


@pytest.fixture
def slurm() -> SimulatedSlurm:
    slurm = SimulatedSlurm()
    with slurm.change() as state:
        state.qos.append("long")
    return slurm


@pytest.fixture
def settings(tmp_path: Path) -> SlurmSettings:
    return SlurmSettings(
        lock_file=tmp_path / "lock",
        require_system_user=False,
        qos_paused="Paused",
        qos_downscaled="limited",
    )


@pytest.fixture
def backend(slurm: SimulatedSlurm, settings: SlurmSettings) -> SlurmBackend:
    backend = SlurmBackend(settings, {}, runner=slurm.runner())
    apply(backend, *(CreateResource(backend.place(REQUEST, slug)) for slug in ("a", "b", "d")))
    apply(backend, AddMembers("a", ("ada", "bob")))
    slurm.history.clear()
    return backend


def apply(backend: SlurmBackend, *actions: Action) -> list[Outcome]:
    return list(backend.apply(actions))


def by_hand(slurm: SimulatedSlurm, entity: str, name: str, *changes: str) -> None:
    """Change something as an administrator does."""
    where = ["where", *(f"{key}={value}" for key, _, value in (w.partition("=") for w in
             name.split()))]  # fmt: skip
    code, _, complaint = slurm.run(["sacctmgr", "-i", "modify", entity, *where, "set", *changes])
    assert (code, complaint) == (0, "")
    slurm.history.clear()


def written(slurm: SimulatedSlurm) -> list[str]:
    lines = [" ".join(argv[2:]) for argv in slurm.history if "-i" in argv]
    slurm.history.clear()
    return lines


def test_accounts_are_paused_by_one_command_with_list_and_default_together(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    outcomes = apply(backend, *(SetAccess(name, Access.PAUSED) for name in ("b", "a", "d")))
    assert [outcome.result for outcome in outcomes] == [Result.DONE] * 3
    assert written(slurm) == [f"modify account where name=a,b,d set {PAUSED}"]


def test_a_list_and_default_of_the_site_come_back_as_they_were(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    by_hand(slurm, "account", "name=a", "qos=normal,long", "DefaultQOS=long")
    before = backend.observe().resources["a"]
    assert before.access is None
    assert dict(before.metadata) == {"qos": "long,normal", "default_qos": "long"}
    apply(backend, SetAccess("a", Access.PAUSED))
    apply(backend, SetAccess("a", Access.DOWNSCALED))
    written(slurm)
    apply(backend, SetAccess("a", Access.NORMAL, before.metadata))
    assert written(slurm) == ["modify account where name=a set qos=long,normal DefaultQOS=long"]
    assert before == backend.observe().resources["a"]


def test_what_was_inherited_is_inherited_again(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    before = backend.observe().resources["a"]
    apply(backend, SetAccess("a", Access.PAUSED))
    written(slurm)
    apply(backend, SetAccess("a", Access.NORMAL, before.metadata))
    assert written(slurm) == ["modify account where name=a set qos= DefaultQOS=-1"]


@pytest.mark.parametrize("memory", [{}, {"qos": ""}, {"qos": "paused", "default_qos": "paused"}])
def test_without_a_useful_memory_the_default_of_the_settings_is_set(
    backend: SlurmBackend, slurm: SimulatedSlurm, memory: dict[str, str]
) -> None:
    apply(backend, SetAccess("a", Access.PAUSED))
    written(slurm)
    apply(backend, SetAccess("a", Access.NORMAL, memory))
    assert written(slurm) == ["modify account where name=a set qos=normal DefaultQOS=-1"]


def test_a_list_of_the_site_is_not_touched_while_the_resource_is_normal(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    by_hand(slurm, "account", "name=a", "qos=normal,long")
    (outcome,) = apply(backend, SetAccess("a", Access.NORMAL, {"qos": "normal"}))
    assert outcome.result is Result.UNCHANGED
    assert written(slurm) == []


def test_users_with_a_qos_of_their_own_are_paused_too_and_get_it_back(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    by_hand(slurm, "user", "name=ada account=a", "qos=long,normal", "DefaultQOS=long")
    before = backend.observe().resources["a"]
    assert before.metadata["member_qos"] == "ada=long,normal/long"
    apply(backend, SetAccess("a", Access.PAUSED))
    assert written(slurm) == [
        "modify user where name=ada account=a set qos= DefaultQOS=-1",
        f"modify account where name=a set {PAUSED}",
    ]
    apply(backend, SetAccess("a", Access.NORMAL, before.metadata))
    assert before == backend.observe().resources["a"]


def test_one_user_with_another_qos_is_why_slurm_refuses_a_new_default(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    del backend
    by_hand(slurm, "user", "name=ada account=a", "qos=normal")
    pause = ["sacctmgr", "-i", "modify", "account", "where", "name=a,b", "set", *PAUSED.split()]
    code, _, complaint = slurm.run(pause)
    assert code == 0
    assert "don't have access to their default qos" in complaint
    assert slurm.state.accounts["b"].qos == []


class Meddling:
    """Lets somebody give ada a QOS of her own just before access changes."""

    def __init__(self, slurm: SimulatedSlurm) -> None:
        self._slurm = slurm

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        if "modify" in argv:
            with self._slurm.change() as state:
                state.accounts["a"].members["ada"].qos = ["normal"]
        return self._slurm.runner().run(argv, timeout)


def test_an_account_that_slurm_refuses_to_pause_does_not_keep_the_others_from_it(
    backend: SlurmBackend, slurm: SimulatedSlurm, settings: SlurmSettings
) -> None:
    del backend
    meddled = SlurmBackend(settings, {}, runner=Meddling(slurm))
    stuck, done = apply(meddled, SetAccess("a", Access.PAUSED), SetAccess("b", Access.PAUSED))
    assert "default qos" in str(stuck.error)
    assert done.result is Result.DONE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"qos_downscaled": ""}, "qos_downscaled"),
        ({"qos_downscaled": "stop"}, "'stop'.*qos_downscaled.*add qos"),
    ],
)
def test_a_missing_qos_is_named_with_its_setting_and_nothing_is_written(
    backend: SlurmBackend, slurm: SimulatedSlurm, settings: SlurmSettings,
    change: dict[str, str], words: str,
) -> None:  # fmt: skip
    del backend
    wrong = SlurmBackend(settings.model_copy(update=change), {}, runner=slurm.runner())
    (outcome,) = apply(wrong, SetAccess("a", Access.DOWNSCALED))
    with pytest.raises(PermanentError, match=words):
        raise outcome.error or AssertionError
    assert written(slurm) == []


def test_a_remembered_qos_that_is_gone_or_no_name_is_refused(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    apply(backend, SetAccess("a", Access.PAUSED))
    written(slurm)
    for qos in ("gone", "normal,x y", "-1"):
        (outcome,) = apply(backend, SetAccess("a", Access.NORMAL, {"qos": qos}))
        assert isinstance(outcome.error, PermanentError)
    assert written(slurm) == []


def test_the_qos_that_exist_are_read_once_and_only_when_access_changes(
    backend: SlurmBackend, slurm: SimulatedSlurm
) -> None:
    backend.observe()
    apply(backend, SetAccess("a", Access.NORMAL), AddMembers("a", ("cyd",)))
    assert not [argv for argv in slurm.history if "qos" in argv]
    apply(backend, SetAccess("a", Access.PAUSED))
    apply(backend, SetAccess("b", Access.PAUSED))
    assert len([argv for argv in slurm.history if "qos" in argv]) == 1
