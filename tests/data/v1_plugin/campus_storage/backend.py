import logging
from typing import Optional

from campus_storage import service
from waldur_api_client.models.resource import Resource as WaldurResource
from waldur_api_client.models.resource_limits import ResourceLimits

from waldur_site_agent.backend import BackendType, backends, clients, logger, structures
from waldur_site_agent.backend.exceptions import BackendError, UserNotProvisionedError


class CampusClient(clients.BaseClient):
    def list_resources(self):
        service.call("list")
        return [structures.ClientResource(name=name) for name in service.FOLDERS]

    def get_resource(self, resource_id):
        found = service.folder(resource_id)
        return structures.ClientResource(name=resource_id) if found else None

    def create_resource(self, name, description, organization, parent_name=None):
        service.call("create " + name)
        service.FOLDERS[name] = {
            "title": description,
            "project": organization,
            "users": set(),
            "limits": {},
            "paused": False,
        }
        return name

    def delete_resource(self, name):
        service.call("delete " + name)
        service.FOLDERS.pop(name)
        return name

    def set_resource_limits(self, resource_id, limits_dict):
        service.call("limits " + resource_id)
        service.FOLDERS[resource_id]["limits"].update(limits_dict)

    def get_association(self, user, resource_id):
        found = service.folder(resource_id)
        return structures.Association(resource_id, user) if user in found["users"] else None

    def create_association(self, username, resource_id, default_account=None):
        service.call("add " + username)
        if username == "newcomer":
            raise UserNotProvisionedError("newcomer has not logged in yet")
        if username == "banned":
            raise BackendError("banned is banned")
        service.FOLDERS[resource_id]["users"].add(username)
        return username

    def delete_association(self, username, resource_id):
        service.call("remove " + username)
        service.FOLDERS[resource_id]["users"].discard(username)
        return username

    def list_resource_users(self, resource_id):
        return sorted(service.folder(resource_id)["users"])


class CampusBackend(backends.BaseBackend):
    tells_members = True

    def __init__(self, backend_settings, backend_components):
        super().__init__(backend_settings, backend_components)
        self.backend_type = BackendType.CUSTOM.value
        self.client = CampusClient()

    def ping(self, raise_exception=False):
        try:
            service.call("ping")
        except ConnectionError as error:
            if raise_exception:
                raise BackendError("cannot ping: %s" % error)
            return False
        return True

    def diagnostics(self):
        logger.info("Everything is %s", "fine")
        return self.ping()

    def list_components(self):
        return list(self.backend_components)

    def _get_usage_report(self, resource_backend_ids):
        return {
            name: {
                "TOTAL_ACCOUNT_USAGE": {"cpu": 3, "mem": 1},
                "ada01": {"cpu": 2.5},
            }
            for name in resource_backend_ids
        }

    def get_usage_report_for_period(self, resource_backend_ids, year, month, waldur_resource=None):
        return {}

    def _collect_resource_limits(self, waldur_resource):
        assert isinstance(waldur_resource.limits, ResourceLimits)
        limits = waldur_resource.limits.to_dict()
        factors = {k: v["unit_factor"] for k, v in self.backend_components.items()}
        return {k: int(v * factors[k]) for k, v in limits.items() if k in factors}, limits

    def _pre_create_resource(self, waldur_resource: WaldurResource, user_context: Optional[dict] = None):
        service.CALLS.append("team of %d" % len(user_context["team"]))
        form = waldur_resource.attributes.additional_properties.get("protocol")
        service.CALLS.append("protocol %s for %s" % (form, waldur_resource.project_slug))

    def post_create_resource(self, resource, waldur_resource, user_context=None):
        resource.endpoints = [{"name": "share", "url": "smb://campus/" + resource.backend_id}]

    def pause_resource(self, resource_backend_id):
        service.call("pause")
        service.FOLDERS[resource_backend_id]["paused"] = True
        return True

    def downscale_resource(self, resource_backend_id):
        return False

    def restore_resource(self, resource_backend_id):
        service.call("restore")
        service.FOLDERS[resource_backend_id]["paused"] = False
        return True

    def get_resource_metadata(self, resource_backend_id):
        return {"share": "smb://campus/" + resource_backend_id}


class CloudBackend(CampusBackend):
    """Names its resources itself, tells no members, swallows failures, and can be slow."""

    tells_members = False
    marks_resources = True
    supports_async_orders = True

    def create_resource(self, waldur_resource, user_context=None):
        service.call("create")
        mark = str(waldur_resource.uuid)
        for name, found in service.FOLDERS.items():
            if found["project"] == mark:
                break
        else:
            name = "Folder-%d" % (len(service.FOLDERS) + 1)
            self.client.create_resource(name, waldur_resource.name, mark)
        info = structures.BackendResourceInfo(backend_id=name)
        if service.STATE["slow"] and mark not in service.JOBS:
            info.pending_order_id = "job-" + mark
            service.JOBS[mark] = False
        return info

    def check_pending_order(self, order_backend_id):
        service.call("check")
        return service.JOBS[order_backend_id[4:]]

    def delete_resource(self, waldur_resource, **kwargs):
        try:
            self.client.delete_resource(waldur_resource.backend_id)
        except Exception:
            logger.exception("could not delete")

    def _pull_backend_resource(self, resource_backend_id):
        try:
            if service.folder(resource_backend_id) is None:
                return None
        except Exception:
            if self.strict_pull_requested():
                raise
            return None
        return structures.BackendResourceInfo(backend_id=resource_backend_id)


class OldBackend(CampusBackend):
    """As version 0.7 had it: members by id, and a creation that returns the id."""

    def _create_resource_in_backend(self, waldur_resource):
        name = "old-" + waldur_resource.slug
        self.client.create_resource(name, waldur_resource.name, waldur_resource.project_slug)
        return name

    def pull_resources(self, waldur_resources):
        return super().pull_resources(waldur_resources)

    def add_user(self, resource_backend_id, username):
        assert isinstance(resource_backend_id, str)
        self.client.create_association(username, resource_backend_id)
        return True

    def remove_user(self, resource_backend_id, username):
        assert isinstance(resource_backend_id, str)
        self.client.delete_association(username, resource_backend_id)
        return True


class DecidingBackend(CampusBackend):
    def evaluate_pending_order(self, order, waldur_rest_client):
        return backends.PendingOrderDecision.PENDING


class ReportingBackend(CampusBackend):
    supported_roles = frozenset({backends.BackendRole.REPORTING})


class SwallowingBackend(CampusBackend):
    """Takes whatever fails for an absence, and only its log knows."""

    def pull_resource(self, waldur_resource):
        try:
            return super().pull_resource(waldur_resource)
        except Exception as error:
            logger.error("Cannot read %s: %s", waldur_resource.backend_id, error)
            return None

    def list_resources(self):
        try:
            return super().list_resources()
        except Exception as error:
            logging.getLogger("campus_storage").error("Cannot list: %s", error)
            return []


class NotFoundError(Exception):
    pass


class RaisingClient(CampusClient):
    """Raises for what does not exist, as client libraries do."""

    def get_resource(self, resource_id):
        found = super().get_resource(resource_id)
        if found is None:
            raise NotFoundError()
        return found


class RaisingBackend(CampusBackend):
    def __init__(self, backend_settings, backend_components):
        super().__init__(backend_settings, backend_components)
        self.client = RaisingClient()


class BreakingBackend(CampusBackend):
    """Its creation is cut short, and it cannot tell afterwards whose the folder is."""

    marks_resources = True

    def create_resource_with_id(self, waldur_resource, resource_backend_id, user_context=None):
        if resource_backend_id in service.FOLDERS:
            raise BackendError("HTTP status 409")
        self.client.create_resource(resource_backend_id, waldur_resource.name, "campus")
        service.call("mark")
        return structures.BackendResourceInfo(backend_id=resource_backend_id)

    def _pull_backend_resource(self, resource_backend_id):
        found = service.folder(resource_backend_id)
        if found is None or found["project"] == "campus":
            return None
        return structures.BackendResourceInfo(backend_id=resource_backend_id)
