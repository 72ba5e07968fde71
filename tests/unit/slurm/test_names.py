"""Which names become accounts and users, and where resources are placed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.backends import PermanentError
from waldur_site_agent.backends.testing import AWKWARD_NAMES
from waldur_site_agent.model.backend import ResourceRequest
from waldur_site_agent_moab.names import TREE as MOAB_TREE
from waldur_site_agent_moab.settings import MoabSettings
from waldur_site_agent_slurm import names
from waldur_site_agent_slurm.names import TREE
from waldur_site_agent_slurm.settings import SlurmSettings

Place: TypeAlias = Any
"""``place`` of either plugin, each with its own settings."""

REQUEST = ResourceRequest(
    resource_name="Climate | model",
    project_slug="proj",
    project_name="Project",
    customer_slug="cust",
    customer_name="Ünï",
)
PREFIXED = SlurmSettings(customer_prefix="c_", project_prefix="p_", allocation_prefix="HPC_")
MOAB_PREFIXED = MoabSettings(customer_prefix="c_", project_prefix="p_", allocation_prefix="HPC_")


def _user_name(name: str, kind: str) -> str:
    assert kind == "username"
    return names.user_name(name)


@pytest.mark.guarantee("A name from outside never becomes an option, a list or a second word")
@given(st.text())
def test_every_accepted_name_is_one_plain_word(text: str) -> None:
    for kind, accept in (("account", names.account_name), ("username", _user_name)):
        try:
            name = accept(text, kind)
        except PermanentError:
            continue
        account, user = r"[a-z0-9][a-z0-9_.-]{0,30}", r"[A-Za-z0-9_][A-Za-z0-9_.@+$-]{0,99}"
        assert re.fullmatch(account if kind == "account" else user, name)
        assert name.lower() != "root"


@pytest.mark.guarantee("A name from outside never becomes an option, a list or a second word")
@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_awkward_names_are_refused_with_name_and_rule(name: str) -> None:
    with pytest.raises(PermanentError, match="the account"):
        names.account_name(name, "account")


@given(st.text())
def test_descriptions_hold_nothing_that_breaks_the_listing(text: str) -> None:
    cleaned = TREE.description(text)
    assert not set(cleaned) & set("|'\"`\\\n\r\t")
    assert len(cleaned.encode()) <= 200
    assert cleaned == TREE.description(cleaned)


def test_the_tree_is_default_account_customer_project_allocation() -> None:
    placement = TREE.place(REQUEST, "Res-1", PREFIXED)
    tree = [(c.id, c.parent, c.organization) for c in placement.containers]
    assert tree == [("c_cust", "root", "c_cust"), ("p_proj", "c_cust", "p_proj")]
    allocation = (placement.id, placement.parent, placement.organization, placement.title)
    assert allocation == ("hpc_res-1", "p_proj", "p_proj", "Climate model")


def test_without_prefixes_equal_slugs_are_refused_naming_both_and_their_prefixes() -> None:
    with pytest.raises(
        PermanentError,
        match=r'project account and the allocation account would both be "proj".*'
        r"project_prefix.*allocation_prefix",
    ):
        TREE.place(REQUEST, "proj", SlurmSettings())


def test_a_name_that_is_the_default_account_is_refused() -> None:
    with pytest.raises(PermanentError, match=r"customer account would be .*default_account"):
        TREE.place(REQUEST, "one", SlurmSettings(default_account="cust"))


@pytest.mark.parametrize("missing", ["customer_slug", "project_slug"])
def test_a_missing_slug_is_named(missing: str) -> None:
    kind = missing.partition("_")[0]
    without = (
        replace(REQUEST, customer_slug="")
        if kind == "customer"
        else replace(REQUEST, project_slug="")
    )
    with pytest.raises(PermanentError, match=f"the {kind} has no slug"):
        TREE.place(without, "one", PREFIXED)


@pytest.mark.parametrize("slug", ["-1", "_x", ".x", "root"])
@pytest.mark.parametrize("place", [TREE.place, MOAB_TREE.place])
def test_a_slug_that_only_a_prefix_makes_valid_is_placed(place: Place, slug: str) -> None:
    request = replace(REQUEST, customer_slug=slug, project_slug=slug)
    placement = place(request, slug, PREFIXED if place == TREE.place else MOAB_PREFIXED)
    names_of_tree = [c.id for c in placement.containers] + [placement.id]
    assert names_of_tree == [f"c_{slug}", f"p_{slug}", f"hpc_{slug}"]


@pytest.mark.parametrize("kind", ["customer", "project", "allocation"])
@pytest.mark.parametrize("place", [TREE.place, MOAB_TREE.place])
def test_without_a_prefix_the_refusal_names_the_setting(place: Place, kind: str) -> None:
    slugs = {"customer": "cust", "project": "proj", "allocation": "one"} | {kind: "-1"}
    request = replace(REQUEST, customer_slug=slugs["customer"], project_slug=slugs["project"])
    settings = SlurmSettings() if place == TREE.place else MoabSettings()
    with pytest.raises(PermanentError, match=f"set {kind}_prefix in backend_settings"):
        place(request, slugs["allocation"], settings)


@pytest.mark.parametrize("slug", ["a,root", "x[1-3]", "\N{LATIN SMALL LETTER U WITH DIAERESIS}"])
def test_a_prefix_cannot_hide_an_awkward_slug_and_is_not_advised(slug: str) -> None:
    for settings in (PREFIXED, SlurmSettings()):
        with pytest.raises(PermanentError, match="change the slug of the allocation") as caught:
            TREE.place(REQUEST, slug, settings)
        assert "allocation_prefix" not in str(caught.value)


def test_a_slug_of_digits_needs_no_prefix() -> None:
    assert TREE.place(REQUEST, "123", SlurmSettings()).id == "123"
