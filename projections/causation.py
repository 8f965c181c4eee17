"""The story of one correlation id as a tree: the request or event that began it, the runs it started, their steps, and
what those led to. Pure; the API and the command line give it runs, their timelines and the causes of their triggers.

    request -> run -> step (a command) -> event -> run -> ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid5

from engine.recording import command_id

Record = dict[str, Any]


def tree(runs: Sequence[tuple[Record, Sequence[Record]]], causes: Mapping[str, str | None]) -> list[Record]:
    """Root nodes. `runs` come oldest first, each with its timeline entries; `causes` is what caused the events that
    started them, by event id. Every run is in the tree once: one whose cause is not known here is under a root.
    """
    by_id: dict[str, Record] = {}
    triggers: dict[str, Record] = {}
    nodes: list[tuple[Record, Record]] = []
    for run, entries in runs:
        node = _node("run", run["run_id"], run["workflow"], run["started_at"], run_id=run["run_id"])
        node["status"] = run["status"]
        nodes.append((run, node))
        for entry in entries:
            # Whatever the run sends names the event of its log that made it as its cause.
            by_id[str(uuid5(UUID(run["run_id"]), str(entry["version"])))] = node
        _add_steps(node, entries, by_id)
    roots: list[Record] = []
    for run, node in nodes:
        trigger = run["trigger"]
        ident = str(trigger.get("id") or run["correlation_id"])
        holder = triggers.get(ident)
        if holder is None:
            kind = "event" if trigger.get("kind") == "event" else "request"
            name = str(trigger.get("type") or "") if kind == "event" else f"{trigger.get('kind')} by {run['initiator']}"
            holder = triggers[ident] = _node(kind, ident, name, run["started_at"])
            parent = by_id.get(causes.get(ident) or "")
            # A run cannot be among its own causes; a wrong causation id must not make a ring.
            if parent is not None and not _within(node, parent):
                parent["children"].append(holder)
            else:
                roots.append(holder)
        holder["children"].append(node)
    return roots


def _add_steps(run: Record, entries: Sequence[Record], by_id: dict[str, Record]) -> None:
    found: dict[tuple[str, int], Record] = {}
    for entry in entries:
        topic, event = entry["topic"], entry["event"]
        key = (event.get("step"), event.get("visit"))
        if topic in ("step.scheduled", "undo.scheduled"):
            undo = topic == "undo.scheduled"
            ident = command_id(event["key"]) if event["kind"] == "command" else event["key"]
            if ident in by_id:
                continue
            node = _node("undo" if undo else "step", ident, event["action"], event["at"], run_id=run["id"])
            node["status"] = "open"
            by_id[ident] = node
            found[(f"undo of {key[0]}" if undo else str(key[0]), key[1])] = node
            run["children"].append(node)
        elif topic == "wait.matched":
            run["children"].append(_node("fact", event["event_id"], event["name"], event["at"], run_id=run["id"]))
        elif topic.startswith("step.") or topic in ("undo.succeeded", "undo.failed"):
            name = f"undo of {key[0]}" if topic.startswith("undo.") else str(key[0])
            step = found.get((name, key[1]))
            if step is not None and topic != "step.attempted":
                step["status"] = topic.partition(".")[2]


def _node(kind: str, ident: str, name: str, at: str, *, run_id: str | None = None) -> Record:
    return {"kind": kind, "id": ident, "name": name, "status": None, "at": at, "run_id": run_id, "children": []}


def _within(top: Record, sought: Record) -> bool:
    return top is sought or any(_within(child, sought) for child in top["children"])
