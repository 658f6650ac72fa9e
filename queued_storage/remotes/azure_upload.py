"""Create one blob on Azure: a single request or a list of blocks, checked, conditional, in bounded memory."""

from __future__ import annotations

import base64
import uuid
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceModifiedError
from azure.storage.blob import BlobBlock, ContentSettings
from django.core.files.utils import validate_file_name
from storages.utils import clean_name

from queued_storage.exceptions import ErrorKind, TransferError
from queued_storage.remotes.azure_errors import code_of
from queued_storage.remotes.streamed import taken
from queued_storage.remotes.streams import Source

BLOCK = 8 * 1024 * 1024
MOST_BLOCKS = 50_000


def create(storage: Any, name: str, content: Any) -> str:
    """Create the blob; nothing is visible under its name unless all bytes arrived and were checked."""
    blob = blob_of(storage, name)
    source = Source(content, "md5")
    parameters = storage._get_content_settings_parameters(name, content)
    size = max(BLOCK, -(-(source.announced_size or 0) // MOST_BLOCKS))
    head = source.read(size)
    try:
        if len(head) < size:
            source.check()
            settings = _settings(parameters, source)
            blob.upload_blob(head, overwrite=False, content_settings=settings, **_checked(storage))
        else:
            _create_in_blocks(storage, blob, head, size, parameters, source)
    except (ResourceExistsError, ResourceModifiedError) as error:
        # Other conflicts, such as a lease or an archived blob, come as the same exceptions.
        if code_of(error) in {"BlobAlreadyExists", "UnauthorizedBlobOverwrite", "ConditionNotMet"}:
            raise taken(name) from None
        raise
    return str(clean_name(name))


def blob_of(storage: Any, name: str) -> Any:
    """Return a client for the blob; raises a refusing ``TransferError`` where django-storages would rename it."""
    path = storage._get_valid_path(name)
    wanted = storage._normalize_name(clean_name(validate_file_name(str(name), allow_relative_path=True)))
    if path != wanted or any(part.endswith(".") for part in path.split("/")):
        raise TransferError(f"Azure would store {name!a} under another name.", ErrorKind.REFUSED)
    return storage.client.get_blob_client(path)


def limits_of(storage: Any) -> dict[str, Any]:
    """Return the time-outs of a request, and that it is not repeated: the ledger does that."""
    return {
        "connection_timeout": getattr(storage, "connect_timeout", 5),
        "read_timeout": getattr(storage, "read_timeout", 30),
        "retry_total": 0,
    }


def _create_in_blocks(
    storage: Any, blob: Any, head: bytes, size: int, parameters: dict[str, Any], source: Source
) -> None:
    if blob.exists(**limits_of(storage)):
        raise taken(blob.blob_name)
    blocks: list[BlobBlock] = []
    upload = uuid.uuid4().hex
    while head:
        block = base64.b64encode(f"{upload}{len(blocks):06}".encode()).decode()
        blob.stage_block(block, head, length=len(head), **_checked(storage))
        blocks.append(BlobBlock(block))
        head = source.read(size)
    source.check()
    # Blocks that are not named here are never seen; Azure forgets them after a week.
    only_new = {"match_condition": MatchConditions.IfMissing}
    try:
        blob.commit_block_list(blocks, content_settings=_settings(parameters, source), **only_new, **limits_of(storage))
    except HttpResponseError as error:
        # Somebody else's blob took the blocks of this one with it when it came into being.
        if code_of(error) == "InvalidBlockList" and blob.exists(**limits_of(storage)):
            raise taken(blob.blob_name) from None
        raise


def _checked(storage: Any) -> dict[str, Any]:
    return {"validate_content": True, **limits_of(storage)}


def _settings(parameters: dict[str, Any], source: Source) -> ContentSettings:
    return ContentSettings(**{"content_md5": bytearray.fromhex(source.digest("md5")), **parameters})
