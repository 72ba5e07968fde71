"""Fakes of clouds: Kubernetes (and OKD), Rancher and DigitalOcean."""

from __future__ import annotations

from typing import Any

from published.service import Answer, Json, Service

_NOT_FOUND: Answer = (404, {"kind": "Status", "reason": "NotFound", "message": "not found"})
_VERSION = (
    *("major", "minor", "gitVersion", "gitCommit", "gitTreeState"),
    *("buildDate", "goVersion", "compiler", "platform"),
)


class Kubernetes(Service):
    """Objects of any kind, by namespace and name, as the API of Kubernetes keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[tuple[str, str, str], Json] = {}

    @property
    def projects(self) -> dict[str, Json]:
        """The projects of OKD, and the namespaces that an operator manages."""
        kinds = ("projects", "managednamespaces")
        return {name: each for (kind, _, name), each in self.objects.items() if kind in kinds}

    @property
    def members(self) -> set[str]:
        """Who is bound to a role."""
        return {
            subject["name"]
            for (kind, _, _), each in self.objects.items()
            if kind == "rolebindings"
            for subject in each["subjects"]
        }

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        """One collection or one object."""
        del query
        words = [word for word in path.split("/") if word]
        if words == ["version"]:
            return 200, dict.fromkeys(_VERSION, "1")
        rest = words[2:] if words[0] == "api" else words[3:]
        if not rest:
            return 200, {"kind": "APIResourceList", "resources": []}
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        if method == "POST":
            return self._create(rest[0], namespace, body)
        if len(rest) == 1:
            found = [
                each
                for (kind, place, _), each in self.objects.items()
                if kind == rest[0] and namespace in ("", place)
            ]
            return 200, {"kind": "List", "items": found, "metadata": {}}
        return self._one(method, (rest[0], namespace, rest[1]), body)

    def _create(self, kind: str, namespace: str, body: Any) -> Answer:
        if kind == "projectrequests":
            kind, body = "projects", {**body, "kind": "Project", "status": {"phase": "Active"}}
        key = (kind, namespace, body["metadata"]["name"])
        if key in self.objects:
            return 409, {"kind": "Status", "reason": "AlreadyExists", "message": "exists"}
        self.objects[key] = body
        return 201, body

    def _one(self, method: str, key: tuple[str, str, str], body: Any) -> Answer:
        if key not in self.objects:
            return _NOT_FOUND
        match method:
            case "DELETE":
                del self.objects[key]
                return 200, {"kind": "Status", "status": "Success"}
            case "PUT":
                self.objects[key] = body
            case "PATCH":
                _merge(self.objects[key], body)
        return 200, self.objects[key]


def _merge(held: Json, patch: Json) -> None:
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(held.get(key), dict):
            _merge(held[key], value)
        else:
            held[key] = value


class Rancher(Service):
    """Collections of Rancher's API, version 3; a project's namespaces stay empty."""

    def __init__(self) -> None:
        super().__init__()
        self.projects: dict[str, Json] = {}
        self.numbers = 0

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        """Projects of one cluster."""
        del query
        match method, [word for word in path.removeprefix("/v3").split("/") if word]:
            case _, []:
                return 200, {"type": "collection"}
            case "GET", ["clusters", "c-1"]:
                return 200, {"id": "c-1", "name": "campus", "state": "active"}
            case "GET", ["clusters", "c-1", "namespaces"]:
                return 200, {"data": []}
            case "GET", ["projects"]:
                return 200, {"data": list(self.projects.values())}
            case "POST", ["projects"]:
                self.numbers += 1
                made = {**body, "id": f"c-1:p-{self.numbers}", "state": "active"}
                self.projects[made["id"]] = made
                return 201, made
            case "GET", ["projects", _, "projectroletemplatebindings"]:
                return 200, {"data": []}
            case _, ["projects", number] if number in self.projects:
                held = self.projects[number]
                if method == "DELETE":
                    del self.projects[number]
                return 200, held
            case _:
                return 404, {"type": "error", "status": 404, "code": "NotFound"}


_SIZES = {"s-1": (1, 2048, 20), "s-2": (2, 4096, 40)}


class DigitalOcean(Service):
    """Machines of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.projects: dict[str, Json] = {}
        self.numbers = 100

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        """The account, its machines, and actions on them."""
        match method, [word for word in path.removeprefix("/v2").split("/") if word]:
            case "GET", ["account"]:
                return 200, {"account": {"droplet_limit": 25, "status": "active"}}
            case "GET", ["account", "keys"]:
                return 200, {"ssh_keys": []}
            case "GET", ["droplets"]:
                tag = query.get("tag_name")
                found = [each for each in self.projects.values() if tag in (None, *each["tags"])]
                return 200, {"droplets": found, "links": {}, "meta": {"total": len(found)}}
            case "POST", ["droplets"]:
                self.numbers += 1
                self.projects[str(self.numbers)] = self._machine(self.numbers, body)
                links = {"actions": [{"id": 1, "rel": "create"}]}
                return 202, {"droplet": self.projects[str(self.numbers)], "links": links}
            case _, ["droplets", number, *rest] if number in self.projects:
                return self._one(method, number, rest, body)
            case _:
                return 404, {"id": "not_found", "message": "not found"}

    def _one(self, method: str, number: str, rest: list[str], body: Any) -> Answer:
        if method == "DELETE":
            del self.projects[number]
            return 204, ""
        if rest == ["actions"]:
            if body["type"] == "resize":
                self.projects[number] |= _size(body["size"])
            action = {"id": 7, "status": "completed", "type": body["type"]}
            return 201, {"action": action}
        return 200, {"droplet": self.projects[number]}

    def _machine(self, number: int, body: Json) -> Json:
        return {
            "id": number,
            "name": body["name"],
            "status": "active",
            "created_at": "2026-11-01T00:00:00Z",
            "tags": body["tags"],
            "networks": {"v4": [], "v6": []},
            "region": {"slug": body["region"]},
            **_size(body["size"]),
        }


def _size(slug: str) -> Json:
    vcpus, memory, disk = _SIZES[slug]
    size = {"slug": slug, "vcpus": vcpus, "memory": memory, "disk": disk}
    return {"size_slug": slug, "size": size, "vcpus": vcpus, "memory": memory, "disk": disk}
