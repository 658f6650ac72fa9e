"""The live table on a terminal, and plain lines where there is none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from show.watching import Row, Seen

STYLES = {"local": "yellow", "transferring": "cyan", "remote": "green", "failed": "bold red"}


def size(number: int) -> str:
    """Return a number of bytes as people write it."""
    value = float(number)
    for unit in ("B", "KB", "MB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GB"


class Display:
    """Say what happens, and show the rows; on a terminal as one table that moves, else line by line."""

    def __init__(self, rows: Callable[[], list[Row]]) -> None:
        self.console = Console(highlight=False)
        self._rows = rows
        self._started = time.monotonic()
        self._told: dict[int, str] = {}

    def say(self, text: str, style: str = "") -> None:
        """Print one line with the time since the beginning."""
        clock = f"{time.monotonic() - self._started:5.1f} s"
        self.console.print(f"[dim]{clock}[/]  {escape(text)}", style=style, soft_wrap=True)

    def title(self, text: str) -> None:
        """Announce an act."""
        self.console.print()
        self.say(text, "bold")

    @contextmanager
    def showing(self, first: int = 0) -> Iterator[None]:
        """Show the rows from ``first`` on while the block runs."""
        if self.console.is_terminal:
            with Live(get_renderable=lambda: self.table(first), console=self.console, refresh_per_second=8):
                yield
            return
        end = threading.Event()
        teller = threading.Thread(target=self._tell, args=(first, end), name="teller", daemon=True)
        teller.start()
        try:
            yield
        finally:
            end.set()
            teller.join(5)

    def table(self, first: int = 0) -> Group:
        """Return the table of the rows from ``first`` on; it fits into 80 columns."""
        table = Table(box=SIMPLE_HEAD, padding=0, header_style="bold", caption="Django, S3: SHA-256 of what each reads")
        for name in ("file", "size", "request", "where", "bytes on S3", "Django", "S3"):
            table.add_column(name, justify="right" if name in ("size", "request") else "left", no_wrap=True)
        for row in self._rows()[first:]:
            table.add_row(*self._cells(row))
        return Group(table)

    def _cells(self, row: Row) -> list[RenderableType]:
        arrived = Table.grid(padding=(0, 1))
        percent = 100 * row.arrived // row.material.size
        arrived.add_row(ProgressBar(total=100, completed=percent, width=10), size(row.arrived).rjust(6))
        request = f"{row.seconds:.2f} s" if row.name else ""
        seen = [self._digest(row, row.through_django), self._digest(row, row.on_s3)]
        where = Text(row.state, STYLES.get(row.state, ""))
        return [escape(row.material.name), size(row.material.size), request, where, arrived, *seen]

    def _digest(self, row: Row, seen: Seen | None) -> Text:
        if seen is None:
            return Text("")
        right = (seen.size, seen.sha256) == (row.material.size, row.material.sha256)
        return Text(seen.sha256[:8], STYLES[seen.side]) if right else Text("WRONG", "bold red")

    def _tell(self, first: int, end: threading.Event) -> None:
        while not end.wait(0.1):
            self._tell_news(first)
        self._tell_news(first)

    def _tell_news(self, first: int) -> None:
        for number, row in enumerate(self._rows()[first:], first):
            news = self._facts(row)
            if news and self._told.get(number) != news:
                self._told[number] = news
                self.say(f"    {row.material.name:<13} {size(row.material.size):>7}  {row.state:<12}  {news}")

    def _facts(self, row: Row) -> str:
        if row.state == "transferring":
            # In steps: a log is not a film.
            return f"{5 * row.arrived // row.material.size * 20:3} % of the bytes are on S3"
        if not row.name or (row.state == "remote" and not row.home):
            return ""
        seen = [("Django reads", row.through_django), ("S3 has", row.on_s3)]
        said = [f"{who} {what.size} bytes, sha256 {what.sha256[:8]}" for who, what in seen if what is not None]
        return "; ".join(said) or f"request {row.seconds:.2f} s"
