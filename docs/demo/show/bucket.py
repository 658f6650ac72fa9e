"""The bucket as S3 itself sees it: boto3, past the line and past the package."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import boto3
from botocore.exceptions import ClientError
from django.conf import settings

from show.material import MB, sha256


class Bucket:
    """Look into the bucket of ``STORAGES["default"]`` at the S3 server itself."""

    def __init__(self, port: int) -> None:
        options = settings.STORAGES["default"]["OPTIONS"]["remote_options"]
        self.name: str = options["bucket_name"]
        self._client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=options["access_key"],
            aws_secret_access_key=options["secret_key"],
            region_name=options["region_name"],
        )

    def create(self) -> None:
        """Create the bucket, for everybody to read."""
        self._client.create_bucket(Bucket=self.name)
        everybody = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}
        everything = {"Resource": f"arn:aws:s3:::{self.name}/*"}
        policy = {"Version": "2012-10-17", "Statement": [everybody | everything]}
        self._client.put_bucket_policy(Bucket=self.name, Policy=json.dumps(policy))

    def size(self, key: str) -> int | None:
        """Return the size of an object, ``None`` if there is none."""
        try:
            return int(self._client.head_object(Bucket=self.name, Key=key)["ContentLength"])
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise

    def sha256(self, key: str) -> tuple[int, str]:
        """Read an object and return its size and its SHA-256."""
        answer = self._client.get_object(Bucket=self.name, Key=key)
        with closing(answer["Body"]) as body:
            return answer["ContentLength"], sha256(body.iter_chunks(MB))

    def unfinished(self, key: str) -> dict[str, int]:
        """Return the bytes that have arrived in each unfinished upload of an object, by the upload's id."""
        uploads = self._client.list_multipart_uploads(Bucket=self.name, Prefix=key).get("Uploads", [])
        ids = [upload["UploadId"] for upload in uploads if upload["Key"] == key]
        return {upload_id: self._arrived(key, upload_id) for upload_id in ids}

    def _arrived(self, key: str, upload_id: str) -> int:
        try:
            answer = self._client.list_parts(Bucket=self.name, Key=key, UploadId=upload_id)
        except ClientError:
            # Completed since it was listed.
            return 0
        return sum(part["Size"] for part in answer.get("Parts", []))
