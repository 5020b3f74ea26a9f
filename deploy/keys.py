"""Certificates and keys for a trial: a CA, the SuperLink's certificate, one key pair a SuperNode.

    python -m deploy.keys runs/trial [--nodes 3] [--days 30] [--name localhost]

Writes `ca.crt`, `superlink.crt`, `superlink.key`, and `node-K` with `node-K.pub` for each node, to DIR/keys.
Private files are readable by their owner only, and existing keys are never overwritten. The CA's own key is
forgotten at once: nothing else can be signed with it. These keys are for a trial on one machine. For anything
else, take a certificate for the SuperLink's real name from the CA you trust, and have every node make its own
key pair and hand over the public half.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fvlfp.errors import InputError


def make_keys(folder: Path, *, nodes: int = 3, days: int = 30, name: str = "localhost") -> None:
    """Write all files of a trial into `folder`.

    name: the host name in the SuperLink's certificate, beside 127.0.0.1.

    Raises:
        InputError: the folder holds keys already.
    """
    if (folder / "ca.crt").exists():
        raise InputError(f"{folder} holds keys already: remove it to make new ones")
    folder.mkdir(parents=True, exist_ok=True)
    authority = ec.generate_private_key(ec.SECP384R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fvlfp trial CA")])
    ca = _certificate(issuer, issuer, authority.public_key(), authority, days, ca=True)
    server = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = _certificate(subject, issuer, server.public_key(), authority, days, name=name)
    _write(folder / "ca.crt", ca.public_bytes(serialization.Encoding.PEM), 0o644)
    _write(folder / "superlink.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    _write(folder / "superlink.key", _private(server, serialization.PrivateFormat.PKCS8), 0o600)
    for k in range(nodes):
        make_node_key(folder / f"node-{k}")


def make_node_key(path: Path) -> None:
    """One SuperNode's key pair: `path` (private, OpenSSH) and `path.pub`."""
    key = ec.generate_private_key(ec.SECP384R1())
    _write(path, _private(key, serialization.PrivateFormat.OpenSSH), 0o600)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(path.with_suffix(".pub"), public, 0o644)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    days: int,
    *,
    ca: bool = False,
    name: str = "",
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if ca:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        for_servers = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(for_servers, critical=False)
    return builder.sign(signer, hashes.SHA384())


def _private(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(path: Path, body: bytes, mode: int) -> None:
    """Make the file with its mode from the start: a private key is never readable by others, even briefly."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(body)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the trial's folder")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--days", type=int, default=30, help="how long the certificates hold")
    parser.add_argument("--name", default="localhost", help="the SuperLink's name, beside 127.0.0.1")
    args = parser.parse_args()
    make_keys(args.folder / "keys", nodes=args.nodes, days=args.days, name=args.name)
    print(f"keys of one SuperLink and {args.nodes} SuperNodes in {args.folder / 'keys'}")


if __name__ == "__main__":
    main()
