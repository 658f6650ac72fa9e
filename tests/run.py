"""Run the whole suite from a fresh clone, with nothing but Python: ``python3 tests/run.py [pytest's arguments]``.

Makes a virtual environment in ``.venv-tests`` in the project's folder, installs into it, and runs the suite on SQLite,
then every test that touches a database on PostgreSQL, which comes from pip as well. ``TEST_DATABASE`` in the
environment chooses one database. Ends with pytest's summary line; the exit code is 0 only if every run passed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
ENVIRONMENT = PROJECT / ".venv-tests"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = ENVIRONMENT / "installed"

# Settings that people keep for their own environments and that would send our packages somewhere else.
FOREIGN = ("PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "PIP_TARGET", "PIP_USER", "PYTHONHOME", "PYTHONPATH")

NO_PIP = """\
This Python cannot fill a virtual environment: it has no ensurepip, and no pip of its own.
On Debian and Ubuntu: apt install python3-venv. Then run this again.
"""


def environment() -> dict[str, str]:
    """Return the environment of every child: ours without what points outside the virtual environment."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN}


def say(text: str) -> None:
    """Print one line at once, also when the output goes to a file."""
    print(f"tests/run.py: {text}", flush=True)


def run(*command: str | Path) -> int:
    """Run a command in the project's folder and return its exit code."""
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=PROJECT, env=environment(), stdin=subprocess.DEVNULL).returncode


def fingerprint() -> str:
    """Return what the installed packages depend on: a change here installs again."""
    text = (PROJECT / "pyproject.toml").read_bytes() + f"{sys.version}{sys.executable}{PROJECT}".encode()
    return hashlib.sha256(text).hexdigest()


def make_environment() -> list[str | Path]:
    """Make the virtual environment and return the command that is its pip."""
    pip: list[str | Path] = [PYTHON, "-m", "pip"]
    try:
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
    except subprocess.CalledProcessError:
        # Debian takes ensurepip out of Python; a pip outside can fill an environment that has none.
        venv.create(ENVIRONMENT, clear=True, with_pip=False)
        pip = [sys.executable, "-m", "pip", "--python", PYTHON]
        if run(*pip, "install", "--quiet", "pip") != 0:
            sys.exit(NO_PIP)
    return [PYTHON, "-m", "pip"]


def install() -> None:
    """Install the package with its test requirements, unless that was done before."""
    if STAMP.exists() and STAMP.read_text() == fingerprint():
        return
    started = time.monotonic()
    say(f"installing into {ENVIRONMENT} (some minutes, once)")
    pip = [*make_environment(), "install", "--quiet", "--disable-pip-version-check"]
    if run(*pip, "--editable", ".[tests]") != 0:
        sys.exit("tests/run.py: the installation failed; pip's message is above")
    if run(PYTHON, "-m", "tests.servers.redis") != 0:
        say("no Redis from pip for this platform; tests that need one say so")
    install_beat(pip)
    STAMP.write_text(fingerprint())
    say(f"installed in {time.monotonic() - started:.0f} s")


def install_beat(pip: list[str | Path]) -> None:
    """Add django-celery-beat where it has a release for the Django at hand."""
    version = subprocess.check_output([PYTHON, "-c", "import django; print(django.__version__)"], text=True).strip()
    if run(*pip, "django-celery-beat>=2.8", f"Django=={version}") != 0:
        say(f"no django-celery-beat for Django {version} yet; its tests are skipped")


def test(database: str, arguments: list[str]) -> int:
    """Run the suite on one database and return pytest's exit code."""
    say(f"the suite on {database}")
    os.environ["TEST_DATABASE"] = database
    return run(PYTHON, "-m", "pytest", *arguments)


def main(arguments: list[str]) -> int:
    """Install, then run the suite on each database; stop at the first that fails, so that its summary comes last."""
    if sys.version_info < (3, 10):  # noqa: UP036 -- somebody may well start it with an older one
        sys.exit("tests/run.py: Python 3.10 or later is needed")
    install()
    if chosen := os.environ.get("TEST_DATABASE"):
        return test(chosen, arguments)
    return test("sqlite", arguments) or test("postgresql", ["--database-only", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
