"""The accounts at the end of a run: manifest, public API, ledger and the raw bytes of both sides, compared."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.chaos.manifest import Promise, Reader
from tests.chaos.report import Report
from tests.chaos.subjects import OURS, Subject, rows


def objects(client: Any, bucket: str) -> dict[str, str]:
    """Return the digest of every object of the bucket by its key."""
    keys = [
        entry["Key"]
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        for entry in page.get("Contents", [])
    ]
    return {key: _sha256(client.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys}


def local_files(media: Path) -> dict[str, str]:
    """Return the digest of every local file by its name."""
    files = [path for path in media.rglob("*") if path.is_file()]
    return {path.relative_to(media).as_posix(): _sha256(path.read_bytes()) for path in files}


def draw_up(report: Report, subject: Subject, folder: Path, remote: dict[str, str], local: dict[str, str]) -> None:
    """Fill in what the manifests, the referee, the judge and the raw bytes say."""
    promises = Reader(folder).read()
    for promise in promises.values():
        _count(report, promise)
    seen = json.loads((folder / "referee.json").read_text())
    report.reads, report.violations = Counter(seen["counts"]), seen["violations"]
    verdicts = json.loads((folder / "judge.json").read_text())
    on_remote, anywhere = set(remote.values()), {*remote.values(), *local.values()}
    for file, promise in promises.items():
        if not promise.kept:
            continue
        verdict = verdicts[file]
        if verdict != "ok":
            report.violations.append({"file": file, "name": promise.name, "verdict": f"at the end: {verdict}"})
        report.kept += 1
        report.lost += promise.sha256 not in anywhere
        report.wrong += verdict == "wrong"
        report.unreadable += verdict not in ("ok", "wrong")
        report.stranded += promise.sha256 not in on_remote
    if subject is OURS:
        _compare_with_ledger(report, promises, remote)
    report.hits["staged leftovers"] = len([name for name in local if name.startswith(".queued_storage/")])


def _count(report: Report, promise: Promise) -> None:
    report.slowest_save = max(report.slowest_save, promise.seconds)
    report.acknowledged += "ack" in promise.events
    report.deleted += promise.deleted
    report.refused += "fail" in promise.events
    report.rolled_back += "rollback" in promise.events
    report.unknown += not promise.events & {"ack", "fail", "rollback"}


def _compare_with_ledger(report: Report, promises: dict[str, Promise], remote: dict[str, str]) -> None:
    """Acknowledged less deleted files, records and verified remote objects must be one to one."""
    records = {row["name"]: row for row in rows() if row["state"] == "transferred"}
    owners = Counter(row["remote_name"] for row in records.values())
    report.violations += [{"name": name, "verdict": "two files on one object"} for name in owners if owners[name] > 1]
    report.violations += [{"name": name, "verdict": "the ledger lies"} for name in owners.keys() - remote.keys()]
    for file, promise in promises.items():
        record = records.get(promise.name)
        if promise.kept and record is None:
            report.violations.append({"file": file, "verdict": "no transferred record"})
        elif promise.kept and record and remote.get(record["remote_name"]) != promise.sha256:
            report.violations.append({"file": file, "verdict": "other bytes on the remote"})
    report.orphans = len(remote.keys() - owners.keys())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
