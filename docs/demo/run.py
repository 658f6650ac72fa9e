"""Show what the package does, from a fresh clone, with nothing but Python: ``python3 docs/demo/run.py``.

Makes a virtual environment in ``.venv-demo`` beside the package, installs the package and what the demo needs into it,
and starts the show: a small Django project, a Celery worker, beat and an S3 server, each a process of its own.

``--serve``: stay up at the end and print the addresses and the login of the admin.
``--keep``: keep the folder with the database, the files and the logs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

DEMO = Path(__file__).resolve().parent
PROJECT = DEMO.parents[1]
ENVIRONMENT = PROJECT / ".venv-demo"
PYTHON = ENVIRONMENT / "bin" / "python"
STAMP = ENVIRONMENT / "installed"

# Settings that people keep for their own environments and that would send our packages somewhere else.
FOREIGN = ("PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "PIP_TARGET", "PIP_USER", "PYTHONHOME", "PYTHONPATH")

NO_PIP = f"""\
This Python cannot fill a virtual environment: it has no ensurepip, and no pip of its own.
On Debian and Ubuntu: apt install python3-venv (or python3.{sys.version_info[1]}-venv). Then run this again."""


def environment() -> dict[str, str]:
    """Return the environment of every child: ours without what points outside the virtual environment."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN}


def run(*command: str | Path) -> int:
    """Run a command in the project's folder and return its exit code."""
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=PROJECT, env=environment(), stdin=subprocess.DEVNULL, check=False).returncode


def fingerprint() -> str:
    """Return the digest of what is installed from here: a change there installs again."""
    files = [PROJECT / "pyproject.toml", DEMO / "requirements.txt", *sorted((PROJECT / "queued_storage").rglob("*"))]
    content = b"".join(file.read_bytes() for file in files if file.is_file() and file.suffix != ".pyc")
    return hashlib.sha256(content).hexdigest()


def make_environment() -> None:
    """Make the virtual environment, with pip in it; exits with advice where this Python cannot."""
    try:
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
    except subprocess.CalledProcessError:
        # Debian takes ensurepip out of Python; a pip outside can fill an environment that has none.
        venv.create(ENVIRONMENT, clear=True, with_pip=False)
        if run(sys.executable, "-m", "pip", "--python", PYTHON, "install", "--quiet", "pip") != 0:
            sys.exit(NO_PIP)


def install() -> None:
    """Install the package and what the demo needs, unless that was done before."""
    interpreter, wanted = f"{sys.version} {sys.base_prefix} {PROJECT}", fingerprint()
    found = STAMP.read_text() if STAMP.exists() else ""
    if found == interpreter + wanted:
        return
    started = time.monotonic()
    print(f"Installing into {ENVIRONMENT} (a minute, once)", flush=True)
    # It may be active, and then it is this very Python.
    if not found.startswith(interpreter) and Path(sys.prefix) != ENVIRONMENT:
        make_environment()
    pip: list[str | Path] = [PYTHON, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    if run(*pip, ".[s3]", "--requirement", DEMO / "requirements.txt") != 0:
        sys.exit("The installation failed; pip's message is above.")
    STAMP.write_text(interpreter + wanted)
    print(f"Installed in {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    """Install, then become the show."""
    if sys.version_info < (3, 10):  # noqa: UP036 - this file runs before pip could refuse an older Python
        sys.exit("Python 3.10 or later is needed.")
    if os.name != "posix":
        sys.exit("The demo kills processes as only POSIX systems can: run it on Linux or macOS, or in WSL.")
    if not {"-h", "--help"} & set(sys.argv):
        install()
    elif not STAMP.exists():
        print(__doc__)
        sys.exit()
    os.chdir(DEMO)
    os.execve(PYTHON, [str(PYTHON), "-m", "show", *sys.argv[1:]], environment())


if __name__ == "__main__":
    main()
