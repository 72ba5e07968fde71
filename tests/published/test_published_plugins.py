"""Plugins that others published for version 1, installed by name from the package index.

``make test-v1-plugins`` installs them into an environment of their own. A test whose plugin is not
installed is skipped. The services that the plugins speak to are fakes made for these tests; none of
the plugins was tried with the real one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.v1_site import V1Site, a_v1_storage_site
from waldur_site_agent.backends import CheckStatus
from waldur_site_agent.backends.plugins import (
    PluginError,
    installed_plugins,
    installed_username_plugins,
)
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_sandbox import Order

pytestmark = [pytest.mark.published, pytest.mark.filterwarnings("default")]

_SPEC = importlib.util.spec_from_file_location(
    "published_services", Path(__file__).with_name("services.py")
)
assert _SPEC is not None
assert _SPEC.loader is not None
services: Any = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = services
_SPEC.loader.exec_module(services)

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


SERVED: dict[str, Any] = {
    "harbor": (
        services.Harbor,
        lambda url: {"harbor_url": url, "robot_username": "robot", "robot_password": "robots"},
    ),
    "nextcloud": (
        services.Nextcloud,
        lambda url: {"nextcloud_url": url, "admin_username": "boss", "admin_password": "bosses"},
    ),
    "ceph_s3": (
        services.Croit,
        lambda url: {"api_url": url, "token": "tokens", "s3_endpoint": url},
    ),
}


def has(service: Any) -> list[str]:
    """What the fake has."""
    kinds = ("projects", "folders", "users")
    held: dict[Any, Any] = next(v for k in kinds if isinstance(v := getattr(service, k, 0), dict))
    return sorted(map(str, held))


def ordered(site: V1Site, name: str = "Ocean") -> Order:
    return site.order(site.project(ada="ada01", bob="bob01"), name, storage=10)


@pytest.mark.parametrize("name", SERVED)
def test_a_resource_lives_from_order_to_termination(name: str) -> None:
    cls = plugin(name).load()
    make, settings = SERVED[name]
    service = make()
    with service.served() as url, a_v1_storage_site(cls, **settings(url)) as site:
        order = ordered(site)
        site.cycle()
        assert site.state(order) == "done"
        backend_id = site.resource(order).backend_id
        assert len(has(service)) == 1
        for _ in range(2):
            assert not site.sync().failed
        side = site.sandbox.customer
        update = side.place_update_order(site.resource(order), {"storage": 20})
        site.cycle()
        assert site.state(update) == "done"
        assert site.report().failures == ()
        side.remove_member(order.project, site.person("bob", "bob01"))
        assert not site.sync().failed
        requests = len(service.requests)
        writes = [r for r in service.requests if r.split(" ")[0] not in ("GET", "HEAD")]
        assert not site.sync().failed
        assert len(service.requests) > requests
        assert writes == [r for r in service.requests if r.split(" ")[0] not in ("GET", "HEAD")]
        end = side.place_terminate_order(site.resource(order))
        site.cycle()
        assert site.state(end) == "done"
        assert backend_id
        assert has(service) == []


@pytest.mark.parametrize("trouble", ["500", "away"])
@pytest.mark.parametrize("name", SERVED)
def test_a_service_in_trouble_errs_and_removes_nothing(name: str, trouble: str) -> None:
    cls = plugin(name).load()
    make, settings = SERVED[name]
    service = make()
    with service.served() as url, a_v1_storage_site(cls, **settings(url)) as site:
        first = ordered(site)
        site.cycle()
        site.sync()
        before = has(service)
        second = ordered(site, "Lake")
        end = site.sandbox.customer.place_terminate_order(site.resource(first))
        service.fails = trouble == "500"
        broken = {key: "http://127.0.0.1:9" for key, v in settings(url).items() if v == url}
        if trouble == "away":
            site.backend_settings = {**settings(url), **broken}
        for work in (site.cycle, site.sync, site.report) * 2:
            with contextlib.suppress(TemporaryError):
                work()
        assert has(service) == before
        assert site.state(second) in ("executing", "pending-provider")
        assert site.state(end) in ("executing", "pending-provider")
        assert not site.sandbox.requests.count("*_erred")
        service.fails, site.backend_settings = False, settings(url)
        site.cycle()
        assert site.state(second) == site.state(end) == "done"


@pytest.mark.parametrize("name", ["litellm-usage", "envoy-usage", "cscs-dwdi-compute"])
def test_a_backend_for_usage_errs_no_order_that_it_is_given_by_mistake(name: str) -> None:
    cls = plugin(name).load()
    service = services.Dwdi() if "dwdi" in name else services.UsageOfModels()
    with service.served() as url:
        settings = {
            "api_url": url,
            "api_token": "tokens",
            "cscs_dwdi_api_url": url,
            "cscs_dwdi_client_id": "us",
            "cscs_dwdi_client_secret": "secrets",
            "cscs_dwdi_oidc_token_url": f"{url}/token",
        }
        with a_v1_storage_site(cls, **settings) as site:
            order = ordered(site)
            report = site.cycle()
            assert site.state(order) == "executing"
            assert "name another backend" in report.results[0].reason
