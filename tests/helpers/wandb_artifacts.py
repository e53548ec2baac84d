"""The stand-in for W&B's server: artifacts, which also hold the tables that a run logs."""

import json
from typing import Any


class ArtifactAnswers:
    """GraphQL operations about artifacts; each takes the variables and returns ``data``."""

    state: Any
    url: str

    def on_CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        asked = given.get("input", given)
        name = f"QXJ0{len(self.state.artifacts)}"
        given_names = [asked.get("artifactCollectionName"), *(asked.get("artifactCollectionNames") or ())]
        names = [one for one in given_names if one]
        self.state.artifacts[name] = {
            "type": asked.get("artifactTypeName"), "collection": names, "run": asked.get("runName"),
            "digest": asked.get("digest"), "committed": False, "files": [], "deleted": False,
            "aliases": [one["alias"] for one in asked.get("aliases") or ()],
            "metadata": json.loads(asked.get("metadata") or "{}"),
            "project": (asked.get("entityName"), asked.get("projectName")),
        }  # fmt: skip
        artifact = {"id": name, "state": "PENDING", "artifactSequence": {"id": f"S{name}", "latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def on_CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.url}/storage/artifact/{given['artifactID']}/{given['name']}"
        file = {"id": "F1", "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": f"M{given['artifactID']}", "file": file}}}

    def on_UpdateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        manifest = given["artifactManifestID"]
        url = f"{self.url}/storage/artifact/{manifest.removeprefix('M')}/wandb_manifest.json"
        file = {"id": "F1", "uploadUrl": url, "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": manifest, "file": file}}}

    def on_CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        nodes = []
        for spec in given["input"]["artifactFiles"]:
            owner, name = spec["artifactID"], spec["name"]
            self.state.artifacts.get(owner, {"files": []})["files"].append(name)
            node: dict[str, Any] = {
                "storagePath": f"{owner}/{name}", "uploadUrl": f"{self.url}/storage/artifact/{owner}/{name}",
                "uploadHeaders": [], "uploadMultipartUrls": None, "artifact": {"id": owner},
            }  # fmt: skip
            nodes.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def on_CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        artifact = self.state.artifacts.setdefault(given["artifactID"], {})
        artifact["committed"] = True
        for other in self.state.artifacts.values():  # an alias names one version
            if other is not artifact and other["collection"] == artifact["collection"]:
                other["aliases"] = [one for one in other["aliases"] if one not in artifact["aliases"]]
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": artifact.get("digest")}}}

    def on_UseArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"useArtifact": {"artifact": {"id": given["input"].get("artifactID")}}}

    def on_ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given["name"].partition(":")[0]
        known = [one for one in self.state.artifacts.values() if name in one.get("collection", ())]
        return {"project": {"artifact": {"artifactType": {"name": known[-1]["type"]}} if known else None}}

    def on_OrganizationCoreWeaveOrganizationID(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"organization": None}}

    def on_FetchArtifactDigestAlgorithm(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifactType": None}}

    def on_ArtifactMembershipByName(self, given: dict[str, Any]) -> dict[str, Any]:
        """Find a version by ``NAME:ALIAS``."""
        name, alias = given["name"].split(":")
        for key, one in self.state.artifacts.items():
            same = name in one["collection"] and one["project"] == (given["entity"], given["project"])
            if same and one["committed"] and not one["deleted"] and alias in one["aliases"]:
                return {"project": {"artifactCollectionMembership": self._membership(key, one)}}
        return {"project": {"artifactCollectionMembership": None}}

    def on_ArtifactByID(self, given: dict[str, Any]) -> dict[str, Any]:
        """Describe a version."""
        return {"artifact": self._artifact(given["id"], self.state.artifacts[given["id"]])}

    def on_DeleteArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        """Delete a version."""
        self.state.artifacts[given["input"]["artifactID"]]["deleted"] = True
        return {"deleteArtifact": {"artifact": {"id": given["input"]["artifactID"]}}}

    def on_ArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        """Say where the list of files is."""
        url = f"{self.url}/storage/artifact/{given.get('artifact_id') or given['id']}/wandb_manifest.json"
        return {"artifact": {"currentManifest": {"file": {"directUrl": url}}}}

    on_FetchArtifactManifest = on_ArtifactManifest

    def on_ArtifactFileURLsByManifestEntries(self, given: dict[str, Any]) -> dict[str, Any]:
        """Say where the files are."""
        files = [
            {"node": {"name": one["name"], "directUrl": f"{self.url}/storage/artifact/{given['id']}/{one['name']}"}}
            for one in given["entries"]
        ]
        page = {"pageInfo": {"hasNextPage": False, "endCursor": ""}, "edges": files}
        return {"artifact": {"filesByManifestEntries": page}}

    def on_GetArtifactMembershipFileUrls(self, given: dict[str, Any]) -> dict[str, Any]:
        """Say where the files of a version are."""
        for key, one in self.state.artifacts.items():
            if given["collection"] in one["collection"] and given["alias"] == f"v{self._version(key)}":
                edges = [
                    {"node": {"__typename": "File", "id": "RjE=", "name": name, "url": url, "directUrl": url}}
                    for name in one["files"]
                    for url in [f"{self.url}/storage/artifact/{key}/{name}"]
                ]
                page = {"__typename": "PageInfo", "hasNextPage": False, "endCursor": None}
                files = {"pageInfo": page, "edges": edges}
                return {
                    "project": {
                        "artifactCollection": {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}
                    }
                }
        return {"project": None}

    def _version(self, key: str) -> int:
        artifacts = self.state.artifacts
        return [other for other, one in artifacts.items() if one["collection"] == artifacts[key]["collection"]].index(
            key
        )

    def _collection(self, one: dict[str, Any]) -> dict[str, Any]:
        entity, project = one["project"]
        owner = {"__typename": "Entity", "name": entity}
        described = {
            "__typename": "Project",
            "id": "UDE6cDpl",
            "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ==",
            "name": project,
            "entity": owner,
        }
        return {"__typename": "ArtifactSequence", "id": "UzE6cw==", "name": one["collection"][0], "project": described}

    def _artifact(self, key: str, one: dict[str, Any]) -> dict[str, Any]:
        aliases = [
            {
                "__typename": "ArtifactAlias",
                "id": f"{key}{name}",
                "alias": name,
                "artifactCollection": self._collection(one),
            }
            for name in one["aliases"]
        ]
        return {
            "__typename": "Artifact", "id": key, "artifactSequence": self._collection(one),
            "versionIndex": self._version(key), "artifactType": {"name": one["type"]}, "description": None,
            "metadata": json.dumps(one["metadata"]),
            "ttlDurationSeconds": -2, "ttlIsInherited": False, "tags": [], "historyStep": None, "state": "COMMITTED",
            "size": 1, "digest": one["digest"], "commitHash": "c0", "fileCount": 1,
            "createdAt": "2026-01-01T00:00:00Z", "updatedAt": None, "aliases": aliases,
        }  # fmt: skip

    def _membership(self, key: str, one: dict[str, Any]) -> dict[str, Any]:
        artifact = self._artifact(key, one)
        return {
            "__typename": "ArtifactCollectionMembership", "id": f"M{key}", "versionIndex": self._version(key),
            "createdAt": "2026-01-01T00:00:00Z", "aliases": artifact["aliases"],
            "artifactCollection": self._collection(one), "artifact": artifact,
        }  # fmt: skip
