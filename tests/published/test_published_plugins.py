"""Plugins that others published for version 1, installed by name from the package index.

``make test-v1-plugins`` installs them into an environment of their own. A test whose plugin is not
installed is skipped. The services that the plugins speak to are fakes made for these tests; none of
the plugins was tried with the real one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.v1_site import V1Site, a_v1_storage_site, a_v1_usage_site
from published import clouds, metering, storage
from published.service import Service
from waldur_site_agent.backends import CheckStatus
from waldur_site_agent.backends.plugins import (
    PluginError,
    installed_plugins,
    installed_username_plugins,
)
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Order

pytestmark = [pytest.mark.published, pytest.mark.filterwarnings("default")]

LOADED = (
    *("azure", "ceph_s3", "croit_usage", "cscs-dwdi-compute", "cscs-dwdi-inference"),
    *("cscs-dwdi-storage", "cscs-hpc-storage", "digitalocean", "envoy-usage", "harbor"),
    *("k8s-ut-namespace", "litellm-usage", "mup", "nextcloud", "okd", "opennebula", "rancher"),
)
REFUSED = ("croit_s3", "envoy", "ldap-roles", "litellm", "rancher-kc-crd")


def plugin(name: str) -> Any:
    found = installed_plugins().get(name)
    if found is None:
        pytest.skip(f"the plugin {name} is not installed: make test-v1-plugins")
    return found


@pytest.mark.parametrize("name", LOADED)
def test_a_published_plugin_loads_and_says_what_it_lacks(name: str) -> None:
    cls = plugin(name).load()
    assert cls.interface == "version 1"
    with a_v1_storage_site(cls) as site, site.agent() as agent:
        checks = [*agent.backend.diagnose()]
    assert checks
    if name != "cscs-hpc-storage":  # it answers for itself
        assert any(check.verdict is CheckStatus.FAILED for check in checks)


@pytest.mark.parametrize("name", REFUSED)
def test_a_published_plugin_that_cannot_run_is_refused_by_name(name: str) -> None:
    with pytest.raises(PluginError, match=f'"{name}" of .* cannot run with version 2'):
        plugin(name).load()


def test_published_usernames_load() -> None:
    found: Any = installed_username_plugins().get("ldap")
    if found is None:
        pytest.skip("the plugin ldap is not installed: make test-v1-plugins")
    assert found.load().interface == "version 1"


Settings = Callable[[str, Path], dict[str, Any]]


@dataclass(frozen=True)
class Served:
    """A plugin's service, and the settings that lead to it."""

    make: Callable[[], Service]
    settings: Settings
    tells_members: bool = False
    """Whether the fake knows who has access; others keep it in an identity service."""
    address_variable: str = ""
    """The environment variable of a client library that takes no address from settings."""


def kubeconfig(url: str, folder: Path) -> dict[str, Any]:
    """The settings of a plugin that reads a kubeconfig."""
    path = folder / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "tokens"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(config))
    return {"kubeconfig_path": str(path)}


SERVED: dict[str, Served] = {
    "harbor": Served(
        storage.Harbor,
        lambda url, _: {"harbor_url": url, "robot_username": "robot", "robot_password": "robots"},
    ),
    "nextcloud": Served(
        storage.Nextcloud,
        lambda url, _: {
            "nextcloud_url": url,
            "admin_username": "boss",
            "admin_password": "bosses",
        },
    ),
    "ceph_s3": Served(
        storage.Croit,
        lambda url, _: {"api_url": url, "token": "tokens", "s3_endpoint": url},
    ),
    "okd": Served(
        clouds.Kubernetes,
        lambda url, _: {"api_url": url, "token": "tokens"},
        tells_members=True,
    ),
    "k8s-ut-namespace": Served(clouds.Kubernetes, kubeconfig),
    "rancher": Served(
        clouds.Rancher,
        lambda url, _: {
            "backend_url": url,
            "username": "key",
            "password": "keys",
            "cluster_id": "c-1",
        },
    ),
    "digitalocean": Served(
        clouds.DigitalOcean,
        lambda _url, _: {
            "token": "tokens",
            "default_region": "ams3",
            "default_image": "image",
            "default_size": "s-1",
            "size_mapping": {"s-1": {"storage": 10}, "s-2": {"storage": 20}},
        },
        address_variable="DIGITALOCEAN_END_POINT",
    ),
}
METERED: dict[str, tuple[type[Service], dict[str, str], dict[str, float]]] = {
    "litellm-usage": (
        metering.Gateway,
        {"api_url": "", "api_token": "tokens"},
        {"input_tokens": 700, "output_tokens": 90, "token_cost": 1.5},
    ),
    "envoy-usage": (
        metering.Gateway,
        {"api_url": "", "api_token": "tokens"},
        {"input_tokens": 700, "output_tokens": 90},
    ),
    "cscs-dwdi-compute": (metering.Warehouse, {"cscs_dwdi_api_url": ""}, {"nodeHours": 3}),
    "cscs-dwdi-storage": (
        metering.Warehouse,
        {
            "cscs_dwdi_api_url": "",
            "storage_filesystem": "lustre",
            "storage_data_type": "projects",
        },
        {"storage_space": 5_000_000_000},
    ),
}
"""By plugin: its service, its settings (an empty one is the address), and what it reports."""


def has(service: Any) -> list[str]:
    """What the fake has."""
    kinds = ("projects", "folders", "users")
    held: dict[Any, Any] = next(v for k in kinds if isinstance(v := getattr(service, k, 0), dict))
    return sorted(map(str, held))


def ordered(site: V1Site, name: str = "Ocean") -> Order:
    return site.order(site.project(ada="ada01", bob="bob01"), name, storage=10)


@contextlib.contextmanager
def a_served_site(name: str, folder: Path) -> Iterator[tuple[Any, V1Site]]:
    """A plugin, its service, and the sandbox."""
    cls, served = plugin(name).load(), SERVED[name]
    service = served.make()
    with service.served() as url, pytest.MonkeyPatch.context() as environment:
        if served.address_variable:
            environment.setenv(served.address_variable, f"{url}/v2/")
        with a_v1_storage_site(cls, **served.settings(url, folder)) as site:
            yield service, site


@pytest.mark.parametrize("name", SERVED)
def test_a_resource_lives_from_order_to_termination(name: str, tmp_path: Path) -> None:
    with a_served_site(name, tmp_path) as (service, site):
        order = ordered(site)
        site.cycle()
        assert site.state(order) == "done"
        assert site.resource(order).backend_id
        assert len(has(service)) == 1
        for _ in range(2):
            assert not site.sync().failed
        if SERVED[name].tells_members:
            assert service.members == {"ada01", "bob01"}
        side = site.sandbox.customer
        update = side.place_update_order(site.resource(order), {"storage": 20})
        site.cycle()
        assert site.state(update) == "done"
        assert site.report().failures == ()
        side.remove_member(order.project, site.person("bob", "bob01"))
        assert not site.sync().failed
        if SERVED[name].tells_members:
            assert service.members == {"ada01"}
        requests, writes = len(service.requests), service.writes
        assert not site.sync().failed
        assert len(service.requests) > requests
        assert len(service.writes) - len(writes) == len(pings(service.writes[len(writes) :]))
        end = side.place_terminate_order(site.resource(order))
        site.cycle()
        assert site.state(end) == "done"
        assert has(service) == []


def pings(writes: list[str]) -> list[str]:
    """Requests that only log in or look whether the service is there."""
    return [each for each in writes if each.split(" ")[:2] == ["POST", "/v3"]]


@pytest.mark.parametrize("trouble", ["500", "away", "half"])
@pytest.mark.parametrize("name", SERVED)
def test_a_service_in_trouble_errs_and_removes_nothing(
    name: str, trouble: str, tmp_path: Path
) -> None:
    with a_served_site(name, tmp_path) as (service, site):
        first = ordered(site)
        site.cycle()
        site.sync()
        before = has(service)
        second = ordered(site, "Lake")
        end = site.sandbox.customer.place_terminate_order(site.resource(first))
        service.trouble = trouble
        for work in (site.cycle, site.sync, site.report) * 2:
            with contextlib.suppress(TemporaryError):
                work()
        assert set(before) <= set(has(service))
        assert site.state(second) in ("executing", "pending-provider")
        assert site.state(end) in ("executing", "pending-provider")
        assert not site.sandbox.requests.count("*_erred")
        service.trouble = ""
        site.cycle()
        assert site.state(end) == "done"
        # What was made although its answer broke off may need a person to tell whose it is.
        made = trouble == "half" and len(has(service)) > 0
        assert site.state(second) == "done" or (made and site.state(second) == "executing")


@contextlib.contextmanager
def a_metered_site(name: str) -> Iterator[tuple[Service, V1Site]]:
    """A plugin that only reports usage, and a resource that another backend made."""
    cls = plugin(name).load()
    make, settings, reported = METERED[name]
    service = make()
    with service.served() as url:
        written = {key: value or url for key, value in settings.items()}
        if "cscs_dwdi_api_url" in written:
            secrets = {"cscs_dwdi_client_id": "us", "cscs_dwdi_client_secret": "secrets"}
            written |= {**secrets, "cscs_dwdi_oidc_token_url": f"{url}/token"}
        with a_v1_usage_site(cls, reported, **written) as site:
            yield service, site


@pytest.mark.parametrize("name", METERED)
def test_usage_is_reported_for_a_resource_that_another_backend_made(name: str) -> None:
    with a_metered_site(name) as (service, site):
        backend_id = "/store/lake" if name.endswith("storage") else "lake"
        order = site.made_elsewhere(backend_id)
        assert site.report().failures == ()
        used = site.sandbox.customer.usages(site.resource(order))
        assert used == METERED[name][2]
        for service.trouble in ("500", "away", "half"):
            with contextlib.suppress(TemporaryError):
                site.report()
        assert site.sandbox.customer.usages(site.resource(order)) == used
        assert site.resource(order).state == "OK"


@pytest.mark.parametrize("name", METERED)
def test_a_resource_without_usage_is_not_taken_for_missing(name: str) -> None:
    with a_metered_site(name) as (_, site):
        order = site.made_elsewhere("pond")
        site.report()
        assert site.resource(order).state == "OK"


@pytest.mark.parametrize("name", METERED)
def test_a_backend_for_usage_errs_no_order_that_it_is_given_by_mistake(name: str) -> None:
    with a_metered_site(name) as (_, site):
        order = site.order(site.project(ada="ada01"), "Lake")
        report = site.cycle()
        assert site.state(order) == "executing"
        assert "name another backend" in report.results[0].reason
