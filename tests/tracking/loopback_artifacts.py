"""Artifacts on the loopback server: sequences of versions with files and manifests, as stored by W&B.

Fields and states are those queried by the installed client version (the queries are in its package, under
`wandb/sdk/artifacts/_generated`, and in the text of `wandb-core`). Missing values are null, not omitted.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote


@dataclass
class StoredArtifact:
    """An artifact version. Its state is PENDING until it is committed, as on the server."""

    id: str
    name: str
    version: int
    asked: dict[str, Any]
    state: str = "PENDING"
    files: dict[str, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)


@dataclass
class Artifacts:
    """All artifacts of one project.

    Attributes:
        url: URL of the server.
        answers_nonsense: respond to every query with an object without fields.
        refuses_files: respond to uploads with status 403.
    """

    url: str = ""
    answers_nonsense: bool = False
    refuses_files: bool = False
    stored: list[StoredArtifact] = field(default_factory=list)

    def answer(self, operation: str, values: dict[str, Any]) -> dict[str, Any] | None:
        """Return the `data` of an operation; None for one that is not about artifacts."""
        asked = values.get("input", values)
        if self.answers_nonsense and "Artifact" in operation:
            return {}
        if operation == "ArtifactType":
            known = self._latest(asked["name"].partition(":")[0])
            found = None if known is None else {"artifactType": {"name": known.asked["artifactTypeName"]}}
            return {"project": {"artifact": found}}
        if operation == "ArtifactByID":
            return {"artifact": self._fields(self._by_id(asked["id"]))}
        if operation == "CreateArtifact":
            return {"createArtifact": {"artifact": self._create(asked)}}
        if operation == "CreateArtifactManifest":
            return {"createArtifactManifest": {"artifactManifest": self._manifest(asked["artifactID"], asked)}}
        if operation == "UpdateArtifactManifest":
            return {"updateArtifactManifest": {"artifactManifest": self._manifest(asked["artifactManifestID"], asked)}}
        if operation == "CreateArtifactFiles":
            edges = [{"node": self._new_file(file)} for file in asked["artifactFiles"]]
            return {"createArtifactFiles": {"files": {"edges": edges}}}
        if operation == "CommitArtifact":
            artifact = self._by_id(asked["artifactID"])
            artifact.state = "COMMITTED"
            return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.asked["digest"]}}}
        if operation == "FetchArtifactDigestAlgorithm":
            return {"project": {"artifactType": None}}
        if operation == "XXHashDigestsEnabled":
            return {"entity": {"xxhashDigestsEnabled": False}}
        return None

    def upload(self, artifact: str, file: str, body: bytes) -> int:
        """Store a file or the manifest; return the HTTP status."""
        if self.refuses_files:
            return 403
        stored = self._by_id(artifact)
        if file == "manifest":
            stored.manifest = json.loads(body)
        else:
            stored.files[file] = body
        return 200

    def _latest(self, name: str) -> StoredArtifact | None:
        versions = [artifact for artifact in self.stored if artifact.name == name and artifact.state == "COMMITTED"]
        return versions[-1] if versions else None

    def _by_id(self, wanted: str) -> StoredArtifact:
        return next(artifact for artifact in self.stored if artifact.id == wanted)

    def _create(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return a new version, or the existing one with the same content."""
        name, latest = asked["artifactCollectionName"], self._latest(asked["artifactCollectionName"])
        if latest is None or latest.asked["digest"] != asked["digest"]:
            identifier = base64.b64encode(f"Artifact:{len(self.stored) + 1}".encode()).decode()
            version = 0 if latest is None else latest.version + 1
            artifact = StoredArtifact(identifier, name, version, asked)
            self.stored.append(artifact)
        else:
            artifact = latest
        before = None if latest is None else {"id": latest.id}
        return {"id": artifact.id, "state": artifact.state, "artifactSequence": {"latestArtifact": before}}

    def _manifest(self, identifier: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the manifest of a version, which has the artifact's id, as there is only one."""
        file = {"id": "f", "uploadUrl": f"{self.url}/artifact/{identifier}?file=manifest", "uploadHeaders": []}
        return {"id": identifier, "file": file if asked["includeUpload"] else {"id": "f"}}

    def _new_file(self, asked: dict[str, Any]) -> dict[str, Any]:
        address = f"{self.url}/artifact/{asked['artifactID']}?file={quote(asked['name'])}"
        return {
            "storagePath": f"wandb_artifacts/{asked['md5']}", "uploadUrl": address, "uploadHeaders": [],
            "uploadMultipartUrls": None, "artifact": {"id": asked["artifactID"]},
        }  # fmt: skip

    def _fields(self, artifact: StoredArtifact) -> dict[str, Any]:
        project = {
            "id": "p", "internalId": base64.b64encode(b"Project:v1:proj:me").decode(), "name": "proj",
            "entity": {"name": "me"},
        }  # fmt: skip
        return {
            "__typename": "Artifact", "id": artifact.id, "versionIndex": artifact.version,
            "artifactSequence": {"__typename": "ArtifactSequence", "name": artifact.name, "project": project},
            "artifactType": {"name": artifact.asked["artifactTypeName"]},
            "description": artifact.asked.get("description"), "metadata": artifact.asked.get("metadata"),
            "ttlDurationSeconds": -2, "ttlIsInherited": True, "tags": [], "historyStep": None, "state": artifact.state,
            "size": sum(len(body) for body in artifact.files.values()), "digest": artifact.asked["digest"],
            "digestAlgorithm": "MANIFEST_MD5", "commitHash": "c", "fileCount": len(artifact.files),
            "createdAt": "2026-01-01T00:00:00Z", "updatedAt": None, "aliases": [],
        }  # fmt: skip
