"""A prefix in a bucket of S3, or of a server that speaks its protocol (AWS_ENDPOINT_URL)."""

from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from components.errors import UserError

SCHEME = "s3://"


class Prefix:
    """A bucket, and what all keys begin with."""

    def __init__(self, url: str, named: str, connections: int = 10) -> None:
        """Connect with the keys of the environment; UserError if the bucket is not to be had.

        Args:
            url: s3://BUCKET/PREFIX.
            named: the setting that has the URL.
            connections: most that are kept open.
        """
        try:
            import boto3
            from boto3.exceptions import Boto3Error
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise UserError(
                f"{named} is {url}, but boto3 is not installed: pip install 'b1k[results]'"
            ) from error
        self.errors: tuple[type[Exception], ...] = (OSError, Boto3Error, BotoCoreError, ClientError)
        """What its requests raise."""
        parts = urlsplit(url)
        self.bucket, self.prefix = parts.netloc, parts.path.strip("/")
        config = Config(
            retries={"mode": "standard", "max_attempts": 6},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=connections,
        )
        try:
            self.client: Any = boto3.client("s3", config=config)
            self.client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:  # the server's own trouble, which passes
                return
            raise UserError(
                f"{named} is {url}: the bucket answers {status}; expected one that exists, and keys that may "
                "use it"
            ) from error
        except (BotoCoreError, ValueError) as error:
            raise UserError(f"{named} is {url}: {error}") from error

    def key(self, name: str) -> str:
        """The key of a name with slashes below the prefix."""
        return f"{self.prefix}/{name}".lstrip("/")
