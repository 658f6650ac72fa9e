"""A slow line to S3: without one, 100 MB on one machine are gone before anybody can see them move.

``python -m show.line PORT TARGET BYTES_PER_SECOND`` passes on every connection; what goes to the target is slowed down.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

CHUNK = 256 * 1024


class Budget:
    """So many bytes per second, for all connections together; zero: as many as there are."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._until = 0.0

    async def spend(self, size: int) -> None:
        """Wait until ``size`` more bytes may have passed."""
        if self.rate:
            self._until = max(self._until, time.monotonic()) + size / self.rate
            await asyncio.sleep(self._until - time.monotonic())


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: Budget) -> None:
    """Pass on bytes until one side ends."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            await budget.spend(len(data))
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def serve(port: int, target: int, rate: int) -> None:
    """Accept connections for ever."""
    there, back = Budget(rate), Budget(0)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target, limit=CHUNK)
        except OSError:
            return writer.close()
        try:
            await asyncio.gather(pump(reader, far_writer, there), pump(far_reader, writer, back))
        finally:
            far_writer.close()
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, limit=CHUNK)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:])))
