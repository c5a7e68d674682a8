"""Where demonstrations come from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A version of a dataset in a git repository under DVC."""

    repository: str = ""
    """Folder or URL of a git repository in which DVC keeps the dataset."""
    revision: str = "HEAD"
    """Branch, tag or commit of the version."""
    path: str = "data"
    """The dataset's folder in the repository."""
    remote: str = ""
    """DVC remote: a name, a folder or a URL (s3://bucket/prefix); empty for the repository's default."""
