"""A real S3 API on loopback (moto) that fails on demand."""

import base64
import hashlib
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


class Failing:
    """Moto's S3 behind errors: what `faults` lists happens to the next uploads, one after the other."""

    def __init__(self) -> None:
        from moto.server import (  # type: ignore[attr-defined]
            DomainDispatcherApplication,
            create_backend_app,
        )

        self.app = DomainDispatcherApplication(create_backend_app)
        self.faults: list[str] = []
        self.happened: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer, or fail (WSGI)."""
        with self._lock:
            is_upload = environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].count("/") > 1
            fault = self.faults.pop(0) if self.faults and is_upload else ""
            if fault:
                self.happened.append(fault)
        if fault == "reset":
            start_response("500 Error", [])
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return [b""]
        if fault in ("500", "503", "403"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{fault} Error", [("Content-Type", "application/xml"), ("Content-Length", "0")])
            return []
        if fault == "torn":  # a byte of the body changes on its way: S3 compares, which moto does not
            body = bytearray(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            body[len(body) // 2] ^= 1
            digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
            assert digest != environ["HTTP_X_AMZ_CHECKSUM_SHA256"]
            text = b"<Error><Code>BadDigest</Code><Message>The checksum is another</Message></Error>"
            start_response("400 Bad Request", [("Content-Length", str(len(text)))])
            return [text]
        return self.app(environ, start_response)


@contextmanager
def failing_s3(bucket: str) -> Iterator[tuple[Failing, Any]]:
    """Serve a bucket, to which the environment leads; gives what fails, and a client."""
    import boto3
    from werkzeug.serving import make_server

    app = Failing()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    variables = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "value",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        with patch.dict(os.environ, variables):
            reset = urllib.request.Request(f"{address}/moto-api/reset", method="POST")  # noqa: S310
            urllib.request.urlopen(reset).close()  # noqa: S310 - moto's state is the process's
            client = boto3.client("s3")
            client.create_bucket(Bucket=bucket)
            yield app, client
            client.close()
    finally:
        server.shutdown()
        thread.join()


def objects(client: Any, bucket: str = "results") -> dict[str, bytes]:
    """Everything in a bucket."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
