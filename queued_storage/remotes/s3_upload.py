"""Create one object on S3: a single PUT or a multipart upload, checked, conditional, in bounded memory."""

from __future__ import annotations

import base64
import logging
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from botocore.exceptions import BotoCoreError, ClientError

from queued_storage.exceptions import MismatchError
from queued_storage.remotes.base import Stat
from queued_storage.remotes.s3_client import client_of
from queued_storage.remotes.s3_errors import is_not_implemented, status_of
from queued_storage.remotes.streams import Source

logger = logging.getLogger("queued_storage")

MEGABYTE = 1024 * 1024
#: A single PUT is held in memory up to this size; a storage configured for larger ones is left to django-storages.
LARGEST_PUT = 16 * MEGABYTE
SMALLEST_PART = 5 * MEGABYTE
MOST_PARTS = 10_000
#: More lanes than this cost memory (one part each) and are slower on few cores.
MOST_LANES = 3
PART_PARAMETERS = frozenset(
    {"SSECustomerAlgorithm", "SSECustomerKey", "SSECustomerKeyMD5", "RequestPayer", "ExpectedBucketOwner"}
)

#: The largest body that is sent twice, once in a process, to see whether the server refuses it: any small file.
LARGEST_PROOF = MEGABYTE

# Storages whose server does not know, or ignores, conditional requests, and those whose server was seen to heed them;
# asked once per storage and process.
_unconditional: WeakSet[Any] = WeakSet()
_conditional: WeakSet[Any] = WeakSet()


def knows(storage: Any, parameters: dict[str, Any]) -> bool:
    """Return whether ``create`` can honour this storage's configuration; if not, django-storages' own way must."""
    return storage.transfer_config.multipart_threshold <= LARGEST_PUT and not any(
        name.startswith("Checksum") for name in parameters
    )


def is_conditional(storage: Any) -> bool:
    """Tell whether the server has been seen to refuse a write to a taken key."""
    return storage in _conditional


def create(storage: Any, key: str, content: Any, parameters: dict[str, Any]) -> Stat | None:
    """Create the object ``key``; nothing is visible under it unless all bytes arrived and were checked.

    Returns what the server said of the object, if it said enough. Raises ``FileExistsError`` when the key is taken,
    ``MismatchError`` when the source or the server's answer has other bytes than announced, and botocore's exceptions.
    """
    target = _Target(storage, key, parameters)
    source = Source(content, "crc32")
    config = storage.transfer_config
    head = source.read(config.multipart_threshold)
    if len(head) < config.multipart_threshold:
        source.check()
        answer = _put(target, head, source)
    else:
        size = max(config.multipart_chunksize, SMALLEST_PART, -(-(source.announced_size or 0) // MOST_PARTS))
        lanes = min(config.max_concurrency, MOST_LANES) if config.use_threads else 1
        answer = _put_parts(target, source, _rechunk(source, head, size), lanes)
    theirs = _theirs(answer)
    return None if theirs is None else Stat(source.count, {"crc32": base64.b64decode(theirs).hex()})


def _rechunk(source: Source, head: bytes, size: int) -> Iterator[bytes]:
    pending = head
    while True:
        if len(pending) < size:
            pending += source.read(size - len(pending))
        if not pending:
            return
        block, pending = pending[:size], pending[size:]
        yield block


@dataclass
class _Target:
    storage: Any
    key: str
    parameters: dict[str, Any]

    @property
    def client(self) -> Any:
        return client_of(self.storage)

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Send one request about this object and return the answer."""
        answer: dict[str, Any] = getattr(self.client, operation)(
            Bucket=self.storage.bucket_name, Key=self.key, **arguments
        )
        return answer

    @property
    def may_be_conditional(self) -> bool:
        """Whether the server may know conditional requests."""
        return getattr(self.storage, "conditional_writes", True) and self.storage not in _unconditional

    def call_once(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Send a request that creates the object unless there is one; raises ``FileExistsError`` otherwise."""
        if self.may_be_conditional:
            try:
                return self.call(operation, **{"IfNoneMatch": "*", **arguments})
            except ClientError as error:
                if status_of(error) == 412:
                    raise FileExistsError(f"An object named {self.key!a} exists already") from None
                if not is_not_implemented(error):
                    raise
                _unconditional.add(self.storage)
        self._refuse_taken()
        return self.call(operation, **arguments)

    def _refuse_taken(self) -> None:
        try:
            self.call("head_object", **_only(self.parameters, PART_PARAMETERS))
        except ClientError as error:
            if status_of(error) != 404:
                raise
        else:
            raise FileExistsError(f"An object named {self.key!a} exists already")


def _put(target: _Target, body: bytes, source: Source) -> dict[str, Any]:
    checksum = _encode(source.digest("crc32"))
    request = {"Body": body, "ChecksumAlgorithm": "CRC32", "ChecksumCRC32": checksum, **target.parameters}
    answer = target.call_once("put_object", **request)
    _check_answer(answer, checksum)
    if target.may_be_conditional and not is_conditional(target.storage) and len(body) <= LARGEST_PROOF:
        _prove(target, request)
    return answer


def _prove(target: _Target, request: dict[str, Any]) -> None:
    # The same bytes once more do no harm to a server that takes them; from one that refuses them we know that it
    # would have refused the name if it had been taken.
    try:
        target.call("put_object", **{**request, "IfNoneMatch": "*"})
    except ClientError as error:
        if status_of(error) == 412:
            _conditional.add(target.storage)
    except BotoCoreError:
        return
    else:
        logger.warning("The server ignores If-None-Match: names are looked up before they are written")
        _unconditional.add(target.storage)


def _put_parts(target: _Target, source: Source, blocks: Iterator[bytes], lanes: int) -> dict[str, Any]:
    created = target.call(
        "create_multipart_upload", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT", **target.parameters
    )
    upload_id = created["UploadId"]
    try:
        parts = _send_parts(target, upload_id, blocks, lanes)
        source.check()
        checksum = _encode(source.digest("crc32"))
        answer = target.call_once(
            "complete_multipart_upload",
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
            ChecksumCRC32=checksum,
            ChecksumType="FULL_OBJECT",
            **_only(target.parameters, PART_PARAMETERS),
        )
        _check_answer(answer, checksum)
        return answer
    # Also for the exceptions that end a worker: parts that nobody aborts are paid for.
    except BaseException:
        _abort(target, upload_id)
        raise


def _send_parts(target: _Target, upload_id: str, blocks: Iterator[bytes], lanes: int) -> list[dict[str, Any]]:
    extra = _only(target.parameters, PART_PARAMETERS)
    # The storage keeps its connection per thread; botocore's client itself may be shared by threads.
    client = target.client

    def send(number: int, block: bytes) -> dict[str, Any]:
        checksum = _encode(f"{zlib.crc32(block):08x}")
        answer = client.upload_part(
            Bucket=target.storage.bucket_name,
            Key=target.key,
            UploadId=upload_id,
            PartNumber=number,
            Body=block,
            ChecksumAlgorithm="CRC32",
            ChecksumCRC32=checksum,
            **extra,
        )
        _check_answer(answer, checksum)
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": checksum}

    parts = []
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="queued_storage-s3")
    try:
        under_way: deque[Future[dict[str, Any]]] = deque()
        for number, block in enumerate(blocks, start=1):
            if len(under_way) == lanes:
                parts.append(under_way.popleft().result())
            under_way.append(pool.submit(send, number, block))
        parts.extend(future.result() for future in under_way)
    finally:
        # A part that arrives after the abort would stay.
        pool.shutdown(wait=True, cancel_futures=True)
    return parts


def _abort(target: _Target, upload_id: str) -> None:
    try:
        target.call("abort_multipart_upload", UploadId=upload_id)
    except Exception as error:
        logger.warning("An incomplete multipart upload was left on S3: %s", type(error).__name__)


def _check_answer(answer: dict[str, Any], checksum: str) -> None:
    if (theirs := _theirs(answer)) is not None and theirs != checksum:
        raise MismatchError("The server stored other bytes than it was sent.")


def _theirs(answer: dict[str, Any]) -> str | None:
    whole = answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    return answer.get("ChecksumCRC32") if whole else None


def _encode(crc32: str) -> str:
    return base64.b64encode(bytes.fromhex(crc32)).decode("ascii")


def _only(parameters: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name in names}
