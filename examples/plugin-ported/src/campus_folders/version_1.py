"""The plugin as it was written for version 1 of the agent."""

from __future__ import annotations

import httpx
from waldur_site_agent.backend import backends, clients, structures
from waldur_site_agent.backend.exceptions import BackendError

from campus_folders.server import FileServer


class FolderClient(clients.BaseClient):
    def __init__(self, url, transport=None):
        self.server = FileServer(url, transport)

    def get_resource(self, resource_id):
        try:
            found = self.server.folders().get(resource_id)
        except httpx.HTTPError as error:
            raise BackendError(str(error)) from error
        return structures.ClientResource(name=resource_id) if found else None

    def list_resources(self):
        return [structures.ClientResource(name=name) for name in self.server.folders()]

    def create_resource(self, name, description, organization, parent_name=None):
        self.server.put(name, title=description, project=organization)
        return name

    def delete_resource(self, name):
        self.server.delete(name)
        return name

    def set_resource_limits(self, resource_id, limits_dict):
        self.server.put(resource_id, limits=limits_dict)

    def list_resource_users(self, resource_id):
        return self.server.folders()[resource_id]["users"]

    def get_association(self, user, resource_id):
        users = self.list_resource_users(resource_id)
        return structures.Association(resource_id, user) if user in users else None

    def create_association(self, username, resource_id, default_account=None):
        self.server.put_user(resource_id, username)
        return username

    def delete_association(self, username, resource_id):
        self.server.delete_user(resource_id, username)
        return username


class FolderBackend(backends.BaseBackend):
    tells_members = True
    transport = None

    def __init__(self, backend_settings, backend_components):
        super().__init__(backend_settings, backend_components)
        self.backend_type = "custom"
        self.client = FolderClient(backend_settings["url"], self.transport)

    def ping(self, raise_exception=False):
        try:
            self.client.server.folders()
        except httpx.HTTPError as error:
            if raise_exception:
                raise BackendError(str(error)) from error
            return False
        return True

    def diagnostics(self):
        return self.ping()

    def list_components(self):
        return list(self.backend_components)

    def _get_usage_report(self, resource_backend_ids):
        return {}

    def _pre_create_resource(self, waldur_resource, user_context=None):
        pass

    def _collect_resource_limits(self, waldur_resource):
        limits = waldur_resource.limits.to_dict()
        factors = {name: each["unit_factor"] for name, each in self.backend_components.items()}
        return {name: int(limits[name] * factors[name]) for name in limits}, limits

    def pause_resource(self, resource_backend_id):
        self.client.server.put(resource_backend_id, paused=True)
        return True

    def restore_resource(self, resource_backend_id):
        self.client.server.put(resource_backend_id, paused=False)
        return True

    def downscale_resource(self, resource_backend_id):
        return False

    def get_resource_metadata(self, resource_backend_id):
        return {}
