"""``waldur_sync_offering_users`` as an administrator types it."""

from __future__ import annotations

import pytest

from harness import Installation

COMMAND = "waldur_sync_offering_users"
TEMPLATE = {
    "username_management_backend": "template",
    "username_management_settings": {"pattern": "{first_name[0]}{last_name}"},
}


def person(installation: Installation, name: str, full_name: str) -> None:
    side = installation.testbed.sandbox.customer
    side.set_account(side.add_user(name, full_name), "", "Requested")


def shown(installation: Installation) -> dict[str, tuple[str, str]]:
    world = installation.testbed.sandbox.customer.world
    return {
        world.users[row.user].username: (row.state, row.username or "")
        for row in world.offering_users.values()
    }


@pytest.fixture
def site(installation: Installation) -> Installation:
    """Two people without names, of whom one can get none."""
    installation.write(**TEMPLATE)
    person(installation, "ada", "Ada Lovelace")
    return installation


def test_people_get_usernames(site: Installation) -> None:
    done = site.run(command=COMMAND)
    assert done.code == 0, done.err
    assert (
        done.out
        == "Test cluster:\n  ~ ada            username none -> alovelace; state Requested -> OK\n"
    )
    assert shown(site) == {"ada": ("OK", "alovelace")}
    again = site.run(command=COMMAND)
    assert again.out == "Test cluster:\n  No changes.\n"


def test_the_other_command_does_the_same(site: Installation) -> None:
    done = site.run("users", "sync", command="waldur-site-agent")
    assert done.code == 0, done.err
    assert shown(site) == {"ada": ("OK", "alovelace")}


def test_a_dry_run_changes_nothing(site: Installation) -> None:
    done = site.run("--dry-run", command=COMMAND)
    assert done.code == 0, done.err
    assert "~ ada            username none -> alovelace; state Requested -> OK" in done.out
    assert site.testbed.sandbox.requests.writes() == []
    assert shown(site) == {"ada": ("Requested", "")}


def test_somebody_without_a_name_gives_exit_code_one_and_the_reason(site: Installation) -> None:
    person(site, "eve", "")
    done = site.run(command=COMMAND)
    assert done.code == 1
    assert '! eve            no username  user "eve": Waldur shows no first_name' in done.out
    assert shown(site) == {"ada": ("OK", "alovelace"), "eve": ("Error creating", "")}


def test_duplicates_are_shown(site: Installation) -> None:
    side = site.testbed.sandbox.customer
    for name in ("bob", "cyd"):
        side.set_account(side.add_user(name), "same")
    done = site.run(command=COMMAND)
    assert "! same           is the username of several people in Waldur: bob, cyd" in done.out


def test_an_offering_whose_names_waldur_makes_is_left_alone(site: Installation) -> None:
    sandbox = site.testbed.sandbox
    options = sandbox.offering.plugin_options | {"username_generation_policy": "full_name"}
    sandbox.customer.edit(sandbox.offering, plugin_options=options)
    done = site.run(command=COMMAND)
    assert done.code == 0
    assert 'Waldur sets the usernames of this offering (policy "full_name")' in done.out
    assert sandbox.requests.writes() == []


def test_wrong_settings_give_exit_code_two_and_the_place(site: Installation) -> None:
    site.write(**TEMPLATE | {"username_management_settings": {"patern": "{last_name}"}})
    done = site.run(command=COMMAND)
    assert done.code == 2
    assert "username_management_settings.patern: unknown key" in done.err
    assert 'did you mean "pattern"?' in done.err
    assert site.testbed.sandbox.requests.snapshot() == []


def test_an_offering_that_is_not_there_gives_exit_code_two(site: Installation) -> None:
    done = site.run("--offering", "Other", command=COMMAND)
    assert done.code == 2
    assert 'has no offering "Other"' in done.err


def test_a_refused_token_gives_exit_code_one_and_the_remedy(site: Installation) -> None:
    site.testbed.sandbox.customer.expire_token(site.testbed.sandbox.agent)
    done = site.run(command=COMMAND)
    assert done.code == 1
    assert "check waldur_api_token" in done.out
