"""A local W&B server with what the real client needs, which can also misbehave as servers do."""

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
    """A run as stored on the server: history lines in order, summary, config, and files by name."""

    config: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    preempting: bool = False


@dataclass
class Server:
    """The server of a user, `me`.

    Attributes:
        behaviour: ok, hang, or an HTTP status for all requests.
        hang_after: number of history lines after which the server hangs.
        stream_status: HTTP status for entries only.
        delay_s: duration of every response, in seconds.
        loses: history lines that the server loses when a run ends.
        hangs_at_end: whether the server hangs after a run has ended.
        overlaps: history lines that did not continue after the last line: from two writers at once, or from one that
            lost its position.
        entity: the user's default entity.
        sweep_config: YAML of the sweep, which starts a run for each of `sweep_parameters`.
        runs: runs by `project/id`.
    """

    behaviour: str = "ok"
    hang_after: int | None = None
    stream_status: int = 200
    delay_s: float = 0.0
    loses: slice | None = None
    hangs_at_end: bool = False
    overlaps: list[str] = field(default_factory=list)
    entity: str | None = "me"
    sweep_config: str = ""
    sweep_parameters: list[dict[str, Any]] = field(default_factory=list)
    sweep_started: int = 0
    port: int = 0
    runs: dict[str, StoredRun] = field(default_factory=dict)
    views: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
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
        """Return the response to an operation: `data`, or `errors`, such as for a field that is not in the schema."""
        data: dict[str, Any] = {}
        named = re.search(r"(?:query|mutation)\s+(\w+)", query)
        artifacts = self.artifacts.answer(named[1], values) if named else None
        if artifacts is not None:
            return {"data": artifacts}
        if "upsertBucket" in query and "name" not in values:  # the public API writes a summary
            (run,) = (run for key, run in self.runs.items() if key.partition("/")[2] == values["id"])
            run.summary = json.loads(values["summaryMetrics"])
            data["upsertBucket"] = {"bucket": {"id": values["id"]}}
        elif "notifyScriptableRunAlert" in query:
            self.alerts.append(values)
            data["notifyScriptableRunAlert"] = {"success": True}
        elif "upsertBucket" in query:
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
        elif re.search(r"query (?!Sweep)\w*Runs\b", query):
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
                    "id": values.get("id") or f"view{len(self.views)}", "name": values["name"],
                    "displayName": values["displayName"], "description": values.get("description") or "",
                    "type": values.get("type"),
                    "spec": values["spec"], "project": {"id": "1", "name": "proj", "entityName": "me"},
                    "createdAt": None, "updatedAt": None,
                },
                "inserted": not values.get("id"),
            }  # fmt: skip
        elif re.search(r"query \w*Projects\b", query):
            page = {"hasNextPage": False, "endCursor": None}
            node = {
                "id": "1", "name": "proj", "entityName": "me", "createdAt": "2026-01-01T00:00:00Z",
                "isBenchmark": False, "user": None,
            }  # fmt: skip
            data["models"] = {"edges": [{"node": node, "cursor": "1"}], "pageInfo": page}
        elif re.search(r"query SweepWithRuns\b", query):
            sweep = {"id": "s", "name": values["sweep"], "config": self.sweep_config, "runs": {"edges": []}}
            data["project"] = {"sweep": sweep}
        elif "createAgent" in query:
            data["createAgent"] = {"agent": {"id": "agent"}}
        elif "agentHeartbeat" in query:
            is_busy = bool(json.loads(values["runState"]))
            commands = [] if is_busy else self._next_sweep_run()
            data["agentHeartbeat"] = {"agent": {"id": "agent"}, "commands": json.dumps(commands)}
        elif "viewer" in query or "serverInfo" in query:
            data["viewer"] = {
                "id": "u", "entity": self.entity, "username": "me", "name": "me", "email": "", "flags": "{}",
                "admin": False, "deletedAt": None, "apiKeys": {"edges": []}, "teams": {"edges": []},
            }  # fmt: skip
            data["serverInfo"] = {"cliVersionInfo": {}, "latestLocalVersionInfo": None, "features": []}
        else:
            self.unknown.append(query)
            return {"data": None, "errors": [{"message": f"not known here: {query.strip().splitlines()[0]}"}]}
        return {"data": data}

    def _next_sweep_run(self) -> list[dict[str, Any]]:
        """Return the command to start the next run of the sweep, once; the runs are named r0, r1, ..."""
        if self.sweep_started == len(self.sweep_parameters):
            return [{"type": "exit"}]
        parameters = self.sweep_parameters[self.sweep_started]
        command = {
            "type": "run", "run_id": f"r{self.sweep_started}", "program": "repro",
            "args": {name: {"value": value} for name, value in parameters.items()},
        }  # fmt: skip
        self.sweep_started += 1
        return [command]

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
            if self.loses is not None:
                del run.history[self.loses]
            if self.hangs_at_end:
                self.behaviour = "hang"


@contextmanager
def serving(behaviour: str = "ok", hang_after: int | None = None) -> Iterator[Server]:
    """Run a server on a free port until the block ends."""
    server = Server(behaviour, hang_after)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Log nothing."""

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
                self.close_connection = True  # the client has gone, as it does not wait forever

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
