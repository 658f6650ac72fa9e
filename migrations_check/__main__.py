"""Check the migrations: ``python -m migrations_check [--database sqlite|postgresql|mariadb|URL ...]``.

Exit code 0: all is well; 1: a check failed, stdout says which; 2: wrong use.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from migrations_check import databases, project
from migrations_check.databases import Unavailable
from migrations_check.releases import RELEASES, Release


def main(arguments: Sequence[str] | None = None) -> int:
    """Check on each database that was asked for, or on all that are there; one process each."""
    options = _parser().parse_args(arguments)
    wanted = options.database or databases.KINDS
    if len(wanted) == 1:
        return _check_one(wanted[0], options)
    passed_on = [word for pair in options.migrations for word in ("--migrations", "=".join(pair))]
    passed_on += [word for text in options.release for word in ("--release", text)]
    passed_on += ["--previous", options.previous] if options.previous else []
    code = 0
    for kind in wanted:
        command = [sys.executable, "-m", "migrations_check", "--database", kind, *passed_on]
        code = max(code, subprocess.run(command, check=False).returncode)
    print("All migrations are in order." if code == 0 else "Something is wrong; see above.")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m migrations_check", description=__doc__)
    parser.add_argument("--database", action="append", help="sqlite, postgresql, mariadb or a URL; default: all")
    parser.add_argument(
        "--migrations",
        action="append",
        default=[],
        type=_pair,
        metavar="APP=MODULE",
        help="migrations to check instead",
    )
    parser.add_argument(
        "--previous",
        metavar="WHEEL|SDIST|TAG",
        help="run this code beside the newest; default: the tag of the last release",
    )
    parser.add_argument(
        "--release",
        action="append",
        default=[],
        metavar="VERSION=APP:MIGRATION[,APP:MIGRATION]",
        help="upgrade from this schema too, beside those of the released versions",
    )
    return parser


def _pair(text: str) -> tuple[str, str]:
    left, sign, right = text.partition("=")
    if not (left and sign and right):
        raise argparse.ArgumentTypeError("write NAME=VALUE")
    return left, right


def _check_one(wanted: str, options: argparse.Namespace) -> int:
    print(f"== {wanted}", flush=True)
    try:
        with databases.scratch(wanted) as settings:
            project.configure(settings, dict(options.migrations))
            problems = _run(options.release, options.previous)
            _close()
    except Unavailable as reason:
        required = os.environ.get("QUEUED_STORAGE_TESTS_REQUIRE") == "all"
        print(f"{'FAILED' if required else 'skipped'}: {reason}")
        return 1 if required else 0
    print(f"{wanted}: {f'{problems} problems' if problems else 'in order'}", flush=True)
    return 1 if problems else 0


def _run(extra: list[str], previous: str | None) -> int:
    import django
    from django.db import connection

    from migrations_check import schema

    version = ".".join(map(str, connection.get_database_version()))
    print(f"{connection.display_name} {version}, Django {django.get_version()}")
    problems = _report("every change of the models has a migration", schema.missing_migrations)
    if problems := problems + _report("zero to newest to zero to newest", schema.round_trip):
        # Without the newest schema the others would only say the same again.
        return problems
    problems += _report("migrated schema is that of the models", schema.compare_with_models)
    problems += _upgrades(extra)
    problems += _roll_out(previous)
    problems += _lint()
    return problems + _locks(connection.vendor)


def _report(title: str, check: Callable[[], list[str]]) -> int:
    try:
        found = check()
    except Exception as error:
        found = [f"{type(error).__name__}: {error}"]
    print(f"{'FAILED' if found else 'ok'}: {title}", *(f"    {line}" for line in found), sep="\n", flush=True)
    return len(found)


def _upgrades(extra: list[str]) -> int:
    from migrations_check import upgrade

    releases = [*RELEASES, *map(_release, extra)]
    if not releases:
        print("ok: no released schema yet, so there is none to upgrade from")
    problems = 0
    for release in releases:
        counts: list[int] = []

        def check(release: Release = release, counts: list[int] = counts) -> list[str]:
            found, count = upgrade.upgrade(release)
            counts.append(count)
            return found

        problems += _report(f"upgrade from {release.version} with rows in every state, and back", check)
        print(f"    {sum(counts)} rows compared")
    return problems


def _roll_out(source: str | None) -> int:
    from migrations_check import previous

    if source is None:
        if not RELEASES:
            print("ok: no released code yet, so there is none to run beside the newest")
            return 0
        source = f"v{RELEASES[-1].version}"
    return _report(f"{Path(source).name} works beside the newest code", lambda: previous.roll_out(source))


def _release(text: str) -> Release:
    version, migrations = _pair(text)
    return Release(version, dict(_pair(pair.replace(":", "=")) for pair in migrations.split(",")))


def _lint() -> int:
    from migrations_check import lint

    if not lint.available():
        print("skipped: no lint, for django-migration-linter is not installed")
        return int(os.environ.get("QUEUED_STORAGE_TESTS_REQUIRE") == "all")
    return _report("lint", lint.lint)


def _locks(vendor: str) -> int:
    if vendor != "postgresql":
        return 0
    from migrations_check import locks

    held: list[locks.Held] = []

    def check() -> list[str]:
        held.extend(locks.locks())
        return [f"nobody can write for as long as this takes: {lock}" for lock in held if lock.harmful]

    problems = _report("no statement goes through a table that it locks", check)
    for migration, of_one in itertools.groupby(held, key=lambda lock: lock.migration):
        print(f"    {migration}", *(f"        {lock}" for lock in of_one), sep="\n")
    return problems


def _close() -> None:
    from django.db import connections

    connections.close_all()


if __name__ == "__main__":
    sys.exit(main())
