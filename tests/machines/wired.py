"""A world whose remote is behind real sockets: trackers and storage nodes of MogileFS, in threads of this process."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tests.machines.invariants import sha256
from tests.machines.world import World, files_below
from tests.servers.mogilefs import Cluster

# What an upload is called before it is renamed, or after that failed.
UPLOADS = "queued-upload/"


@dataclass
class WiredWorld(World):
    """Of one kind only: all its files lie in one domain."""

    cluster: Any = None

    def _entry(self, alias: str, options: dict[str, Any]) -> dict[str, Any]:
        entry = super()._entry(alias, options)
        entry["OPTIONS"]["remote"] = "queued_storage.remotes.mogilefs.MogileFSStorage"
        entry["OPTIONS"]["remote_options"] = {"trackers": self._cluster.trackers, "domain": "files", "read_timeout": 2}
        return entry

    @property
    def _cluster(self) -> Cluster:
        assert isinstance(self.cluster, Cluster)
        return self.cluster

    def _bodies(self) -> dict[str, bytes]:
        with self._cluster.lock:
            files = self._cluster.files.items()
            return {key: self._cluster.holder(row.paths[0]).file(row.paths[0]).read_bytes() for key, row in files}

    def remote_files(self, alias: str) -> dict[str, bytes]:
        """Return the objects of the remote."""
        return {key: body for key, body in self._bodies().items() if not key.startswith(UPLOADS)}

    def unfinished(self) -> int:
        """Return how many uploads lie unfinished on the remote."""
        return sum(key.startswith(UPLOADS) for key in self._cluster.files)

    def elsewhere(self) -> Any:
        """Return the state of the remote."""
        return sorted((key, sha256(body)) for key, body in self._bodies().items())

    def keep_elsewhere(self) -> Any:
        """Return what ``put_back_elsewhere()`` needs."""
        return deepcopy(self._cluster.files), [files_below(node.folder) for node in self._cluster.nodes]

    def put_back_elsewhere(self, kept: Any) -> None:
        """Bring the remote back to where it was."""
        files, bodies = deepcopy(kept)
        self._cluster.heal()
        self._cluster.open_fids.clear()
        for node, contents in zip(self._cluster.nodes, bodies, strict=True):
            for name in files_below(node.folder).keys() - contents.keys():
                (node.folder / name).unlink()
            for name, body in contents.items():
                (node.folder / name).write_bytes(body)
        self._cluster.files = files

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self.put_back_elsewhere(({}, [{} for _ in self._cluster.nodes]))
