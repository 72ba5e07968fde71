"""Fakes of storage services: a registry, a file share and S3."""

from __future__ import annotations

from typing import Any

from published.service import Answer, Json, Service


class Harbor(Service):
    """A registry: projects, their quotas, groups and labels."""

    def __init__(self) -> None:
        super().__init__()
        self.projects: dict[str, Json] = {}
        self.groups: list[Json] = []
        self.labels: list[Json] = []
        self.numbers = 0

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        """Harbor's API, version 2."""
        match method, path.removeprefix("/api/v2.0/").split("/"):
            case "GET", ["health"]:
                return 200, {"status": "healthy"}
            case "GET", ["usergroups", *_]:
                return 200, self.groups
            case "POST", ["usergroups"]:
                number = self._number()
                self.groups.append({"id": number, **body})
                return 201, {"Location": f"/api/v2.0/usergroups/{number}"}
            case _, ["labels", *rest]:
                return self._labels(method, rest, body)
            case _, ["projects", *rest]:
                return self._projects(method, rest, query, body)
            case _, ["quotas", *rest]:
                return self._quotas(method, rest, query, body)
            case _:
                return 404, {"errors": [{"message": f"{method} {path}"}]}

    def _labels(self, method: str, rest: list[str], body: Any) -> Answer:
        if method == "POST":
            label = {"id": self._number(), **body}
            self.labels.append(label)
            return 201, {"Location": f"/api/v2.0/labels/{label['id']}"}
        if method == "DELETE":
            self.labels = [each for each in self.labels if str(each["id"]) != rest[0]]
            return 200, {}
        return 200, self.labels

    def _projects(self, method: str, rest: list[str], query: dict[str, str], body: Any) -> Answer:
        found = self._project(rest[0]) if rest else None
        match method, rest:
            case "GET" | "HEAD", []:
                name = query.get("name", "")
                return 200, [each for each in self.projects.values() if name in each["name"]]
            case "POST", []:
                if body["project_name"] in self.projects:
                    return 409, {"errors": [{"code": "CONFLICT"}]}
                number = self._number()
                self.projects[body["project_name"]] = {
                    "project_id": number,
                    "name": body["project_name"],
                    "metadata": body.get("metadata", {}),
                    "repo_count": 0,
                    "quota": body.get("storage_limit", -1),
                    "members": [],
                }
                return 201, {"Location": f"/api/v2.0/projects/{number}"}
            case _ if found is None:
                return 404, {"errors": [{"code": "NOT_FOUND"}]}
            case "GET" | "HEAD", [_]:
                return 200, found
            case "DELETE", [_]:
                del self.projects[found["name"]]
                return 200, {}
            case "POST", [_, "members"]:
                number = self._number()
                found["members"].append({"id": number, **body})
                return 201, {"Location": f"/api/v2.0/projects/x/members/{number}"}
            case "GET", [_, "members"]:
                return 200, found["members"]
            case "GET", [_, "repositories", *_]:
                return 200, []
            case "GET", [_, "summary"]:
                quota = {"hard": {"storage": found["quota"]}, "used": {"storage": 3 * 2**30}}
                return 200, {"quota": quota, "repo_count": 0}
            case _:
                return 200, {}

    def _quotas(self, method: str, rest: list[str], query: dict[str, str], body: Any) -> Answer:
        if method == "PUT":
            found = self._project(rest[0])
            if found is None:
                return 404, {}
            found["quota"] = body["hard"]["storage"]
            return 200, {}
        quotas = [
            {
                "id": each["project_id"],
                "ref": {"id": each["project_id"], "name": each["name"]},
                "hard": {"storage": each["quota"]},
                "used": {"storage": 3 * 2**30},
            }
            for each in self.projects.values()
        ]
        wanted = query.get("reference_id")
        chosen = [each for each in quotas if wanted in (None, str(each["id"]))]
        if rest:
            return 200, next(each for each in quotas if str(each["id"]) == rest[0])
        return 200, chosen

    def _project(self, key: str) -> Json | None:
        return next(
            (p for p in self.projects.values() if key in (p["name"], str(p["project_id"]))), None
        )


class Nextcloud(Service):
    """Group folders, groups and users, by the OCS interface."""

    def __init__(self) -> None:
        super().__init__()
        self.folders: dict[int, Json] = {}
        self.groups: dict[str, set[str]] = {}
        self.users: set[str] = set()

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        """The parts of OCS and of the app for group folders that are asked for."""
        if path == "/status.php":
            return 200, {"installed": True, "maintenance": False}
        for start, part in (
            ("/ocs/v1.php/cloud/", self._cloud),
            ("/ocs/v2.php/cloud/", self._cloud),
            ("/index.php/apps/groupfolders/folders", self._folders),
            ("/apps/groupfolders/folders", self._folders),
        ):
            if path.startswith(start):
                words = [word for word in path.removeprefix(start).split("/") if word]
                code, data = part(method, words, query, body)
                status = 404 if code == 404 else 200
                return status, {"ocs": {"meta": {"status": "ok", "statuscode": code}, "data": data}}
        return 404, {}

    def _cloud(self, method: str, words: list[str], query: dict[str, str], body: Any) -> Answer:
        match method, words:
            case "POST", ["groups"]:
                self.groups.setdefault(body["groupid"], set())
                return 100, []
            case "DELETE", ["groups", name]:
                self.groups.pop(name, None)
                return 100, []
            case "GET", ["groups", name, *_]:
                return (
                    (100, {"users": sorted(self.groups[name])})
                    if name in self.groups
                    else (404, [])
                )
            case "GET", ["groups"]:
                found = [name for name in self.groups if query.get("search", "") in name]
                return 100, {"groups": found}
            case "POST", ["users", user, "groups"]:
                self.groups[body["groupid"]].add(user)
                return 100, []
            case "DELETE", ["users", user, "groups"]:
                self.groups[(body or query)["groupid"]].discard(user)
                return 100, []
            case "GET", ["users", user, "groups"]:
                return 100, {"groups": [g for g, users in self.groups.items() if user in users]}
            case "GET", ["users", user]:
                return 100, {"id": user, "enabled": True}
            case _:
                return 100, []

    def _folders(self, method: str, words: list[str], query: dict[str, str], body: Any) -> Answer:
        del query
        if method == "POST" and not words:
            number = len(self.folders) + 1
            self.folders[number] = {
                "id": number,
                "mount_point": body["mountpoint"],
                "groups": {},
                "quota": -3,
                "size": 3 * 2**30,
                "acl": False,
                "manage": [],
            }
            return 100, {"id": number}
        if not words:
            return 100, {str(number): folder for number, folder in self.folders.items()}
        found = self.folders.get(int(words[0]))
        if found is None:
            return 404, []
        match method, words[1:]:
            case "DELETE", []:
                del self.folders[found["id"]]
            case "GET", []:
                return 100, found
            case "POST", ["groups"]:
                found["groups"][body["group"]] = 31
            case "POST", ["groups", group]:
                found["groups"][group] = int(body["permissions"])
            case "POST", ["quota"]:
                found["quota"] = int(body["quota"])
        return 100, {"success": True}


class Croit(Service):
    """S3 users and buckets of a Ceph cluster, as croit serves them."""

    def __init__(self) -> None:
        super().__init__()
        self.users: dict[str, Json] = {}

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        """Users, their keys and quotas."""
        del query
        words = path.removeprefix("/api/s3/").strip("/").split("/")
        match method, words:
            case "GET", ["users"]:
                return 200, list(self.users.values())
            case "POST", ["users"]:
                self.users[body["uid"]] = {**body, "suspended": False}
                return 201, self.users[body["uid"]]
            case _, ["users", uid, *rest] if uid in self.users:
                if method == "DELETE":
                    del self.users[uid]
                    return 204, ""
                if rest == ["key"]:
                    return 200, {"access_key": "a", "secret_key": "s"}
                if rest == ["buckets"]:
                    return 200, []
                if method != "GET":
                    self.users[uid].update(body if isinstance(body, dict) else {})
                return 200, self.users[uid]
            case "GET", ["buckets"]:
                return 200, []
            case _:
                return 404, {"message": "not found"}
