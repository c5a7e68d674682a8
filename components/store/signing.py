"""Signatures of lineage: a DSSE envelope (version 1) of the statement, beside it.

The envelope `lineage.dsse.json` holds the bytes of `lineage.json` and any number of signatures over them, as
in-toto's and Sigstore's tools read it. It is not part of the artifact's content, so that a new key can sign
what an old one has signed. Keys are PEM files, Ed25519 or ECDSA over P-256:

    openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out key.pub
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from components.store.files import write_atomic
from components.store.sums import ENVELOPE, LINEAGE

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner, SSlibKey

SIGNING_KEY = "B1K_SIGNING_KEY"
"""Environment variable with the private key, or the path of its file."""
_PAYLOAD = "application/vnd.in-toto+json"
_SCHEMES = ("ed25519", "ecdsa-sha2-nistp256")
_DIGITS = 16


def signer_of_environment() -> "CryptoSigner | None":
    """The signer whose key the environment holds, which is then taken out of it; None where there is none.

    Programs that a stage starts, such as a simulator, do not get the key.

    Raises:
        UserError: it is no private key of a kind that we know. The message does not show it.
    """
    given = os.environ.pop(SIGNING_KEY, "")
    if not given:
        return None
    if given.lstrip().startswith("-----BEGIN"):
        return _signer(given.encode(), SIGNING_KEY)
    return read_signer(Path(given), f"{SIGNING_KEY}: ")


def read_signer(path: Path, origin: str = "") -> "CryptoSigner":
    """The signer with the private key of a file; UserError where there is none."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no path"
        raise UserError(
            f"{origin}the private key cannot be read ({reason}); expected a PEM file, or its text"
        ) from None
    return _signer(data, f"{origin}{path}")


def _signer(data: bytes, place: str) -> "CryptoSigner":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    try:
        signer = CryptoSigner(load_pem_private_key(data, None))
    except (ValueError, TypeError, UnsupportedAlgorithm):  # the text of the error may show the key
        raise UserError(
            f"{place} has no private key that can be used; expected PEM without password, Ed25519 or ECDSA "
            "over P-256"
        ) from None
    return _checked(signer, signer.public_key, place)


def read_keys(paths: Sequence[Path]) -> dict[str, "PublicKey"]:
    """Public keys of PEM files by their ids; UserError for a file that is none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    found = {}
    for number, path in enumerate(paths):
        try:
            key = SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise UserError(
                f"{path} is no public key ({type(error).__name__}); expected PEM, as `openssl pkey -pubout` "
                "writes it"
            ) from error
        found[key.keyid] = _checked(PublicKey(key, path.name, is_earlier=number > 0), key, str(path))
    return found


def _checked(thing: Any, key: "SSlibKey", place: str) -> Any:
    if key.scheme not in _SCHEMES:
        raise UserError(f"{place} is a key for {key.scheme}; expected Ed25519 or ECDSA over P-256")
    return thing


@dataclass(frozen=True)
class PublicKey:
    """A key that statements may be signed with."""

    key: "SSlibKey"
    name: str
    """Name of its file."""
    is_earlier: bool
    """Whether another key is signed with now."""

    def __str__(self) -> str:
        """Name and id, for people."""
        return f"{'the earlier key ' if self.is_earlier else ''}{self.name} ({short(self.key.keyid)})"


def short(keyid: str) -> str:
    """The beginning of a key's id, for people."""
    return keyid[:_DIGITS]


def sign(folder: Path, signer: "CryptoSigner") -> None:
    """Add a signature to the statement in a folder; UserError where another one was signed there."""
    from securesystemslib.dsse import Envelope

    payload = (folder / LINEAGE).read_bytes()
    envelope = Envelope(payload, _PAYLOAD, {})
    if (folder / ENVELOPE).exists():
        before = _read(folder)
        if before.payload != payload:
            raise UserError(
                f"{folder / LINEAGE} is not the statement that was signed; it is not signed again"
            )
        envelope.signatures |= before.signatures
    envelope.sign(signer)
    write_atomic(folder / ENVELOPE, json.dumps(envelope.to_dict(), indent=2) + "\n")


def _read(folder: Path) -> "Envelope":
    from securesystemslib.dsse import Envelope

    return Envelope.from_dict(json.loads((folder / ENVELOPE).read_text()))


@dataclass(frozen=True)
class Signed:
    """What the signatures of a statement are worth."""

    by: tuple[str, ...] = ()
    """The given keys that signed it, for people."""
    problem: str = ""
    """Why it counts as not signed by any of them."""


def check(folder: Path, keys: Mapping[str, PublicKey] | None = None) -> Signed:
    """Who signed the statement in a folder, as it is now; without keys, whether that one was signed."""
    from securesystemslib.exceptions import UnverifiedSignatureError

    if not (folder / ENVELOPE).is_file():
        return Signed(problem="is not signed")
    try:
        envelope = _read(folder)
        statement = (folder / LINEAGE).read_bytes()
    except Exception as error:  # whatever a damaged envelope makes the library raise
        return Signed(problem=f"has an envelope that cannot be read: {type(error).__name__}: {error}")
    if envelope.payload != statement or envelope.payload_type != _PAYLOAD:
        return Signed(problem=f"is not the statement that was signed: {ENVELOPE} holds another one")
    if keys is None:
        return Signed()
    by = []
    for keyid, signature in envelope.signatures.items():
        if keyid in keys:
            try:
                keys[keyid].key.verify_signature(signature, envelope.pae())
            except UnverifiedSignatureError:
                return Signed(problem=f"has a wrong signature of {keys[keyid]}")
            by.append(str(keys[keyid]))
    if not by:
        others = ", ".join(map(short, envelope.signatures)) or "nobody"
        return Signed(problem=f"is signed by {others}, a key that was not given")
    return Signed(tuple(by))
