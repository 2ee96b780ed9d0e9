"""A W&B server on this machine, as far as the real client needs one; or one that misbehaves as servers do."""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from loopback_artifacts import Artifacts

KEY = "0123456789" * 4


@dataclass
class StoredRun:
    """One run as the server has it: history lines in order, the summary, the config, files by name."""

    config: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    preempting: bool = False


@dataclass
class Server:
    """The server of a user, `me`; `runs` are by `project/id`.

    `behaviour` is ok, hang, or an HTTP status that every request gets; `hang_after` history lines it goes silent.

    `stream_status` is what entries alone get; `delay_s` how long every answer takes. `overlaps` are history lines that
    came at another place than after the last: of two writers at once, or of one that does not know where it was.
    """

    behaviour: str = "ok"
    hang_after: int | None = None
    stream_status: int = 200
    delay_s: float = 0.0
    overlaps: list[str] = field(default_factory=list)
    port: int = 0
    runs: dict[str, StoredRun] = field(default_factory=dict)
    views: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    artifacts: Artifacts = field(default_factory=Artifacts)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def graphql(self, query: str, values: dict[str, Any]) -> dict[str, Any]:
        """The answer to one operation: its `data`; or `errors`, as for a field that the schema does not have."""
        data: dict[str, Any] = {}
        named = re.search(r"(?:query|mutation)\s+(\w+)", query)
        artifacts = self.artifacts.answer(named[1], values) if named else None
        if artifacts is not None:
            return {"data": artifacts}
        if "upsertBucket" in query:
            run = self.runs.setdefault(self._key(values), StoredRun())
            run.config |= {key: item["value"] for key, item in json.loads(values["config"] or "{}").items()}
            run.about |= {key: value for key, value in values.items() if value is not None and key != "config"}
            data["upsertBucket"] = {"bucket": self._bucket(self._key(values), run), "inserted": not run.history}
        elif "RunResumeStatus" in query:
            known = self.runs.get(self._key(values))
            bucket = None if known is None else self._bucket(self._key(values), known)
            data["model"] = {
                "id": "p", "name": values["project"], "entity": {"id": "e", "name": "me"}, "bucket": bucket,
            }  # fmt: skip
        elif "createRunFiles" in query:
            to = f"{self.url}/upload/{values['project']}/{values['run']}"
            files = [{"name": name, "uploadUrl": f"{to}?file={name}"} for name in values["files"]]
            data["createRunFiles"] = {"runID": values["run"], "uploadHeaders": [], "files": files}
        elif re.search(r"query \w*Runs\b", query):
            asked = {key: run for key, run in self.runs.items() if key.startswith(f"{values['project']}/")}
            edges = [{"node": self._bucket(key, run), "cursor": key} for key, run in asked.items()]
            page = {"hasNextPage": False, "endCursor": None}
            data["project"] = {
                "internalId": base64.b64encode(b"Project:v1:proj:me").decode(), "readOnly": False,
                "runCount": len(edges), "runs": {"edges": edges, "pageInfo": page, "totalCount": len(edges)},
            }  # fmt: skip
        elif re.search(r"query Run(HistoryKeys)?\b", query):
            known = self.runs.get(self._key(values))
            data["project"] = {"run": None if known is None else self._bucket(self._key(values), known)}
        elif "upsertView" in query:
            self.views.append(values)
            data["upsertView"] = {
                "view": {
                    "id": f"view{len(self.views)}", "name": values["name"], "displayName": values["displayName"],
                    "description": values.get("description") or "", "type": values.get("type"),
                    "spec": values["spec"], "project": {"id": "1", "name": "proj", "entityName": "me"},
                    "createdAt": None, "updatedAt": None,
                },
                "inserted": True,
            }  # fmt: skip
        elif re.search(r"query \w*Projects\b", query):
            page = {"hasNextPage": False, "endCursor": None}
            node = {
                "id": "1", "name": "proj", "entityName": "me", "createdAt": "2026-01-01T00:00:00Z",
                "isBenchmark": False, "user": None,
            }  # fmt: skip
            data["models"] = {"edges": [{"node": node, "cursor": "1"}], "pageInfo": page}
        elif "viewer" in query or "serverInfo" in query:
            data["viewer"] = {
                "id": "u", "entity": "me", "username": "me", "name": "me", "email": "", "flags": "{}",
                "admin": False, "deletedAt": None, "apiKeys": {"edges": []}, "teams": {"edges": []},
            }  # fmt: skip
            data["serverInfo"] = {"cliVersionInfo": {}, "latestLocalVersionInfo": None, "features": []}
        else:
            self.unknown.append(query)
            return {"data": None, "errors": [{"message": f"not known here: {query.strip().splitlines()[0]}"}]}
        return {"data": data}

    def _key(self, values: dict[str, Any]) -> str:
        return f"{values['project']}/{values['name']}"

    def _bucket(self, key: str, run: StoredRun) -> dict[str, Any]:
        project, _, name = key.partition("/")
        return {
            "id": name, "name": name, "displayName": run.about.get("displayName"), "sweepName": None,
            "description": None, "notes": None, "commit": run.about.get("commit"), "host": "h", "readOnly": False,
            "state": "finished" if run.exit_code == 0 else "crashed", "group": run.about.get("groupName"),
            "jobType": run.about.get("jobType"), "createdAt": "2026-01-01T00:00:00Z", "heartbeatAt": None,
            "projectId": "1", "tags": run.about.get("tags") or [], "user": {"name": "me", "username": "me"},
            "config": json.dumps({key: {"value": value} for key, value in run.config.items()}),
            "wandbConfig": json.dumps(run.config.get("_wandb", {})), "systemMetrics": "{}",
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.history), "logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]",
            "historyKeys": {"lastStep": run.history[-1]["_step"]} if run.history else None,
            "lastHistoryStep": run.history[-1]["_step"] if run.history else -1,
            "historyTail": json.dumps([json.dumps(run.history[-1])] if run.history else []),
            "project": {"id": "p", "name": project, "entity": {"id": "e", "name": "me"}},
        }  # fmt: skip

    def stream(self, name: str, body: dict[str, Any]) -> None:
        run = self.runs[name]
        for file, part in body.get("files", {}).items():
            lines = [json.loads(line) for line in part["content"]] if file.endswith((".jsonl", "summary.json")) else []
            if file == "wandb-history.jsonl":
                if part["offset"] != len(run.history):
                    self.overlaps.append(f"{name}: {len(lines)} lines at {part['offset']} of {len(run.history)}")
                run.history[part["offset"] :] = lines
            elif file == "wandb-summary.json":
                run.summary = lines[-1]
        run.preempting = run.preempting or body.get("preempting", False)
        if body.get("complete"):
            run.exit_code = body["exitcode"]


@contextmanager
def serving(behaviour: str = "ok", hang_after: int | None = None) -> Iterator[Server]:
    """A server on a free port, until the block ends."""
    server = Server(behaviour, hang_after)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Silent."""

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            server.requests.append(self.path)
            status, answer = 200, b"{}"
            server.released.wait(server.delay_s)
            if server.behaviour == "hang":
                server.released.wait(120)
            elif server.behaviour != "ok":
                status = int(server.behaviour)
            elif self.path == "/graphql":
                asked = json.loads(body)
                answer = json.dumps(server.graphql(asked["query"], asked.get("variables") or {})).encode()
            elif self.path.endswith("/file_stream") and server.stream_status != 200:
                status = server.stream_status
            elif self.path.endswith("/file_stream"):
                server.stream("/".join(self.path.split("/")[-3:-1]), json.loads(body))
                lines = sum(len(run.history) for run in server.runs.values())
                if server.hang_after is not None and lines >= server.hang_after:
                    server.behaviour = "hang"
            elif self.path.startswith("/upload/"):
                name, _, file = self.path.removeprefix("/upload/").partition("?file=")
                server.runs[name].files[file] = body
            elif self.path.startswith("/artifact/"):
                name, _, file = self.path.removeprefix("/artifact/").partition("?file=")
                status = server.artifacts.upload(name, unquote(file), body)
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            except OSError:
                self.close_connection = True  # the client has gone: it does not wait for ever

        do_GET = do_POST = do_PUT = _answer  # noqa: N815 (names that http.server asks for)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are no news
        server.port = http.server_address[1]
        server.artifacts.url = server.url
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            time.sleep(0.05)
            http.shutdown()
            thread.join()
    assert not server.overlaps, server.overlaps
