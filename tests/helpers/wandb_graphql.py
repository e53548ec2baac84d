"""What the stand-in for W&B's server remembers, and its answers to the client's GraphQL operations (client 0.31)."""

import base64
import hashlib
import itertools
import json
import math
import random
import threading
from collections.abc import Iterator
from typing import Any

import yaml

from .wandb_artifacts import ArtifactAnswers

ENTITY = "standin"
"""The only user."""


class State:
    """What the server remembers: runs, sweeps, artifacts."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runs: dict[str, dict[str, Any]] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, str] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.unknown: dict[str, int] = {}

    def run(self, name: str) -> dict[str, Any]:
        """A run by its id, made when first asked for."""
        empty = {
            "inserted": 0, "upserts": 0, "settings": {}, "config": {}, "history": {}, "summary": None, "console": {},
            "events": 0, "files": {}, "streams": 0, "complete": None, "exitcode": None, "resume_queries": 0,
            "rewrites": 0, "bytes": 0,
        }  # fmt: skip
        return self.runs.setdefault(name, empty)


class Sweep:
    """A sweep: hands out the points of a grid, or random ones, until `count` are out."""

    def __init__(self, name: str, config: dict[str, Any], count: int) -> None:
        self.name, self.config, self.count = name, config, count
        self.state = "PENDING"
        self.given: dict[str, dict[str, Any]] = {}
        parameters = config.get("parameters", {})
        if config.get("method") == "grid":
            choices = [_choices(one) for one in parameters.values()]
            self._points: Iterator[dict[str, Any]] = (
                dict(zip(parameters, point, strict=True)) for point in itertools.product(*choices)
            )
        else:
            rng = random.Random(0)
            self._points = ({key: _draw(one, rng) for key, one in parameters.items()} for _ in itertools.count())

    def next_run(self) -> tuple[str, dict[str, Any]] | None:
        """Id and arguments of the next run; None: the sweep is over."""
        point = next(self._points, None) if len(self.given) < self.count else None
        if point is None:
            self.state = "FINISHED"
            return None
        self.state = "RUNNING"
        name = hashlib.sha1(f"{self.name}{len(self.given)}".encode()).hexdigest()[:8]
        self.given[name] = point
        return name, point


def _choices(parameter: dict[str, Any]) -> list[Any]:
    if "value" in parameter:
        return [parameter["value"]]
    if "values" in parameter:
        return list(parameter["values"])
    if "parameters" in parameter:
        inner = parameter["parameters"]
        points = itertools.product(*(_choices(one) for one in inner.values()))
        return [dict(zip(inner, point, strict=True)) for point in points]
    return list(range(int(parameter["min"]), int(parameter["max"]) + 1))


def _draw(parameter: dict[str, Any], rng: random.Random) -> Any:
    if "parameters" in parameter:
        return {key: _draw(one, rng) for key, one in parameter["parameters"].items()}
    if "value" in parameter or "values" in parameter:
        return rng.choice(_choices(parameter))
    low, high, kind = parameter["min"], parameter["max"], parameter.get("distribution", "uniform")
    if kind == "int_uniform":
        return rng.randint(low, high)
    if kind == "log_uniform_values":
        return math.exp(rng.uniform(math.log(low), math.log(high)))
    return rng.uniform(low, high)


class Answers(ArtifactAnswers):
    """GraphQL operations by name; each takes the variables and gives ``data``."""

    def __init__(self, state: State, url: str, sweep_count: int) -> None:
        self.state, self.url, self.sweep_count = state, url, sweep_count

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        known = getattr(self, f"on_{operation}", None)
        if known is None:
            self.state.unknown[operation] = self.state.unknown.get(operation, 0) + 1
            return {}
        with self.state.lock:
            data: dict[str, Any] = known(variables)
            return data

    # -- who, and what the server can

    def on_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        user = {
            "id": "VXNlcjox", "entity": ENTITY, "username": ENTITY, "name": "Stand In", "email": "s@example.invalid",
            "flags": "{}", "admin": False, "deletedAt": None, "apiKeys": {"edges": []},
            "teams": {"edges": [{"node": {"name": ENTITY}}]},
        }  # fmt: skip
        return {"viewer": user}

    on_GetViewer = on_GetDefaultEntity = on_Viewer

    def on_ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def on_XXHashDigestsEnabled(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"xxhashDigestsEnabled": False}}

    # -- runs

    def on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given.get("name") or given.get("id") or "nameless"
        new = name not in self.state.runs or not self.state.runs[name]["inserted"]
        run = self.state.run(name)
        run["inserted"], run["upserts"] = 1, run["upserts"] + 1
        kept = {
            "project", "entity", "groupName", "displayName", "notes", "commit", "host", "program", "repo", "jobType",
            "state", "sweep", "tags",
        }  # fmt: skip
        run["settings"] |= {key: given[key] for key in kept if given.get(key) is not None}
        if given.get("config"):
            run["config"] = json.loads(given["config"])
        if given.get("summaryMetrics"):
            run["summary"] = json.loads(given["summaryMetrics"])
        bucket = self._bucket(name, run) | {"project": self._project(run["settings"].get("project"))}
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def on_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.state.runs.get(given["name"])
        if run is not None:
            run["resume_queries"] += 1
        bucket = None if run is None or not run["inserted"] else self._bucket(given["name"], run)
        return {"model": self._project(given.get("project")) | {"bucket": bucket}}

    def _project(self, name: str | None) -> dict[str, Any]:
        return {"id": "UHJvamVjdDox", "name": name or "uncategorized", "entity": {"id": "RW50aXR5OjE=", "name": ENTITY}}

    def _bucket(self, name: str, run: dict[str, Any]) -> dict[str, Any]:
        history = [run["history"][place] for place in sorted(run["history"])]
        return {
            "id": base64.b64encode(f"Run:{name}".encode()).decode(), "name": name,
            "displayName": run["settings"].get("displayName"), "description": None,
            "config": json.dumps(run["config"]), "sweepName": run["settings"].get("sweep"),
            "summaryMetrics": json.dumps(run["summary"] or {}), "tags": run["settings"].get("tags", []),
            "notes": run["settings"].get("notes"), "historyLineCount": len(history),
            "logLineCount": len(run["console"]), "eventsLineCount": run["events"],
            "historyTail": json.dumps(history[-1:]), "eventsTail": json.dumps([]),
            "wandbConfig": json.dumps({"t": 1}), "state": run["settings"].get("state", "running"),
        }  # fmt: skip

    def on_RunState(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"run": {"id": given["run"], "state": "running", "stopped": False}}}

    def on_RunStoppedStatus(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"run": {"stopped": False}}}

    def on_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        run = given["run"]
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/run/{run}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    def on_MarkRunFilesUploaded(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"markRunFilesUploaded": {"success": True}}

    # -- sweeps

    def on_UpsertSweep(self, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("id") in self.state.sweeps:
            sweep = self.state.sweeps[given["id"]]
            sweep.state = given.get("state") or sweep.state
        else:
            name = f"sweep{len(self.state.sweeps) + 1:03d}"
            sweep = Sweep(name, yaml.safe_load(given["config"] or "{}"), self.sweep_count)
            self.state.sweeps[name] = sweep
        described = {"name": sweep.name, "id": sweep.name, "project": self._project(given.get("projectName"))}
        return {"upsertSweep": {"sweep": described, "configValidationWarnings": []}}

    def on_SweepWithRuns(self, given: dict[str, Any]) -> dict[str, Any]:
        sweep = self.state.sweeps.get(given["sweep"])
        if sweep is None:
            return {"project": {"sweep": None}}
        described: dict[str, Any] = {
            "id": sweep.name, "name": sweep.name, "method": sweep.config.get("method"), "state": sweep.state,
            "description": None, "config": yaml.safe_dump(sweep.config, sort_keys=False), "createdAt": None,
            "heartbeatAt": None, "updatedAt": None, "earlyStopJobRunning": False, "bestLoss": None, "controller": None,
            "scheduler": None, "runs": {"edges": []},
        }  # fmt: skip
        return {"project": {"sweep": described}}

    on_SweepConfig = on_SweepWithRuns

    def on_GetSweepState(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"sweep": {"state": self.state.sweeps[given["sweep"]].state}}}

    def on_CreateAgent(self, given: dict[str, Any]) -> dict[str, Any]:
        name = f"agent{len(self.state.agents) + 1}"
        self.state.agents[name] = given["sweep"]
        return {"createAgent": {"agent": {"id": name}}}

    def on_Heartbeat(self, given: dict[str, Any]) -> dict[str, Any]:
        sweep = self.state.sweeps[self.state.agents[given["id"]]]
        commands: list[dict[str, Any]] = []
        if not any(json.loads(given.get("runState") or "{}").values()):
            following = sweep.next_run()
            if following is None:
                commands.append({"type": "exit"})
            else:
                name, point = following
                arguments = {key: {"value": value} for key, value in point.items()}
                program = sweep.config.get("program", "")
                commands.append({"type": "run", "run_id": name, "program": program, "args": arguments})
        return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}


def take_stream(run: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Put a file stream's parts into a run; returns how many lines of what there were."""
    run["streams"] += 1
    counts: dict[str, Any] = {}
    for name, part in (given.get("files") or {}).items():
        offset, lines = part.get("offset", 0), part.get("content", [])
        counts[name] = [offset, len(lines)]
        if name == "wandb-history.jsonl":
            for place, line in enumerate(lines, offset):
                run["rewrites"] += place in run["history"]
                run["history"][place] = line
        elif name == "wandb-summary.json":
            run["summary"] = json.loads(lines[-1]) if lines else run["summary"]
        elif name == "wandb-events.jsonl":
            run["events"] = max(run["events"], offset + len(lines))
        elif name == "output.log":
            run["console"] |= {str(place): line for place, line in enumerate(lines, offset)}
    for key in ("complete", "exitcode"):
        if given.get(key) is not None:
            run[key] = counts[key] = given[key]
    return counts | ({"uploaded": given["uploaded"]} if given.get("uploaded") else {})
