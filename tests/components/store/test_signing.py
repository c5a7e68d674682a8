"""Signed lineage: what was changed, swapped, left unsigned or signed by others is named."""

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from components.errors import UserError
from components.store import signing
from components.store.sums import ENVELOPE, LINEAGE


def write_keys(folder: Path, name: str, key=None) -> tuple[Path, Path]:  # type: ignore[no-untyped-def]
    """A private and a public key as files."""
    key = key or ed25519.Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def signed(make, tmp_path: Path) -> tuple[Path, Path]:
    """A signed artifact, and the public key."""
    private, public = write_keys(tmp_path, "ours")
    folder = make(tmp_path, "text").path
    signing.sign(folder, signing.read_signer(private))
    return folder, public


@pytest.mark.parametrize("key", [None, ec.generate_private_key(ec.SECP256R1())], ids=["ed25519", "p256"])
def test_a_signature_is_checked_with_its_public_key(make, tmp_path: Path, key) -> None:  # type: ignore[no-untyped-def]
    private, public = write_keys(tmp_path, "ours", key)
    folder = make(tmp_path, "text").path
    assert signing.check(folder, signing.read_keys([public])).problem == "is not signed"
    signing.sign(folder, signing.read_signer(private))
    found = signing.check(folder, signing.read_keys([public]))
    assert (found.problem, len(found.by)) == ("", 1)
    assert found.by[0].startswith("ours.pub (")


def test_openssl_verifies_what_we_sign(make, tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-out", tmp_path / "e.pem"], check=True
    )
    subprocess.run(
        ["openssl", "ec", "-in", tmp_path / "e.pem", "-pubout", "-out", tmp_path / "e.pub"], check=True
    )
    folder = make(tmp_path, "text").path
    signing.sign(folder, signing.read_signer(tmp_path / "e.pem"))
    envelope = json.loads((folder / ENVELOPE).read_text())
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    assert payload == (folder / LINEAGE).read_bytes()
    # https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md: what is signed
    (tmp_path / "pae").write_bytes(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    check = ["openssl", "dgst", "-sha256", "-verify", "e.pub", "-signature", "sig", "pae"]
    assert "OK" in subprocess.run(check, cwd=tmp_path, check=True, capture_output=True, text=True).stdout


def test_a_renewed_key_signs_beside_the_earlier_one(signed: tuple[Path, Path], tmp_path: Path) -> None:
    folder, earlier = signed
    private, present = write_keys(tmp_path, "new")
    keys = signing.read_keys([present, earlier])
    assert signing.check(folder, keys).by[0].startswith("the earlier key ours.pub (")
    signing.sign(folder, signing.read_signer(private))
    assert [one.split(" (")[0] for one in signing.check(folder, keys).by] == [
        "the earlier key ours.pub",
        "new.pub",
    ]
    assert len(signing.check(folder, signing.read_keys([present])).by) == 1


def test_every_flipped_byte_of_statement_or_envelope_is_a_problem(signed: tuple[Path, Path]) -> None:
    folder, public = signed
    keys = signing.read_keys([public])
    for name in (LINEAGE, ENVELOPE):
        content = (folder / name).read_bytes()
        for place in range(0, len(content), 7):
            changed = bytearray(content)
            changed[place] ^= 1
            (folder / name).write_bytes(bytes(changed))
            found = signing.check(folder, keys)
            # white space of the envelope, and base64's unused bits, hold nothing
            assert found.problem or name == ENVELOPE
            if not found.problem:
                assert signing._read(folder).payload == (folder / LINEAGE).read_bytes()
        (folder / name).write_bytes(content)
    assert not signing.check(folder, keys).problem


def test_a_foreign_key_a_moved_envelope_and_an_edited_statement_are_named(
    make, signed: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, public = signed
    keys = signing.read_keys([public])
    private, foreign = write_keys(tmp_path, "foreign")
    other = make(tmp_path, "other").path
    signing.sign(other, signing.read_signer(private))
    assert "a key that was not given" in signing.check(other, keys).problem
    assert not signing.check(other, signing.read_keys([foreign])).problem
    (other / ENVELOPE).write_bytes((folder / ENVELOPE).read_bytes())
    assert "is not the statement that was signed" in signing.check(other, keys).problem
    with pytest.raises(UserError, match="is not signed again"):
        signing.sign(other, signing.read_signer(private))


def test_a_signature_under_another_key_s_name_is_wrong(signed: tuple[Path, Path], tmp_path: Path) -> None:
    folder, public = signed
    private, _ = write_keys(tmp_path, "foreign")
    envelope = json.loads((folder / ENVELOPE).read_text())
    ours = envelope["signatures"][0]["keyid"]
    (folder / ENVELOPE).unlink()
    signing.sign(folder, signing.read_signer(private))
    envelope = json.loads((folder / ENVELOPE).read_text())
    envelope["signatures"][0]["keyid"] = ours
    (folder / ENVELOPE).write_text(json.dumps(envelope))
    assert "has a wrong signature of ours.pub" in signing.check(folder, signing.read_keys([public])).problem


def test_the_environment_holds_a_key_or_its_path_until_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert signing.signer_of_environment() is None
    private, _ = write_keys(tmp_path, "ours")
    ids = set()
    for given in (str(private), private.read_text()):
        monkeypatch.setenv(signing.SIGNING_KEY, given)
        signer = signing.signer_of_environment()
        assert signer is not None
        ids.add(signer.public_key.keyid)
        assert signing.SIGNING_KEY not in os.environ
    assert len(ids) == 1


@pytest.mark.parametrize("kind", ["text", "cut", "encrypted", "rsa", "curve", "missing", "public"])
def test_what_is_no_key_is_refused_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    private, public = write_keys(tmp_path, "ours")
    text = private.read_text()
    if kind == "encrypted":
        key = ed25519.Ed25519PrivateKey.generate()
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")).decode()
    elif kind in ("rsa", "curve"):
        rsa_key = rsa.generate_private_key(65537, 2048)
        key = rsa_key if kind == "rsa" else ec.generate_private_key(ec.SECP384R1())
        text = write_keys(tmp_path, kind, key)[0].read_text()
    else:
        text = {
            "text": "secret",
            "cut": text[:60],
            "missing": "/no/secret.pem",
            "public": public.read_text(),
        }[kind]
    monkeypatch.setenv(signing.SIGNING_KEY, text)
    with pytest.raises(UserError, match=r"expected .*(PEM|Ed25519)") as caught:
        signing.signer_of_environment()
    assert "secret" not in str(caught.value) or kind == "missing"
    assert text.strip().splitlines()[-1] not in str(caught.value) or kind == "missing"
    with pytest.raises(UserError, match="is no public key"):
        signing.read_keys([private])
