"""A site that signs tokens for its readers, with real keys made for this run."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pushserver import settings

ED25519 = ed25519.Ed25519PrivateKey.generate()
P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGER = ed25519.Ed25519PrivateKey.generate()
SECRET = "a secret that only the site and the server know"
SIGNED_WITH: dict[str, Any] = {"EdDSA": ED25519, "ES256": P256, "RS256": RSA, "HS256": SECRET}


def token(*streams: str, algorithm: str = "EdDSA", kid: Any = None, key: Any = None, **claims: Any) -> str:
    """A token for these streams that is good for a minute, unless a claim says otherwise; None leaves a claim out."""
    all_claims = {"aud": "pushserver", "exp": time.time() + 60, "streams": list(streams), **claims}
    claims = {name: value for name, value in all_claims.items() if value is not None}
    headers = {"kid": kid} if kid is not None else None
    return signed(json.dumps(claims).encode(), algorithm=algorithm, headers=headers, key=key)


def signed(payload: bytes, *, algorithm: str = "EdDSA", headers: dict[str, Any] | None = None, key: Any = None) -> str:
    """Whatever is to be signed, as a token."""
    return jwt.PyJWS().encode(payload, key or SIGNED_WITH[algorithm], algorithm, headers)


def unsigned(header: Any, claims: Any, signature: bytes = b"") -> str:
    """A token made by hand."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def pem(key: Any) -> bytes:
    public: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def jwk(key: Any, **members: Any) -> dict[str, Any]:
    """A public key as a member of a JWKS."""
    algorithms: dict[type, Any] = {
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
    }
    (algorithm,) = (found for kind, found in algorithms.items() if isinstance(key, kind))
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **members}


def jwks(*members: dict[str, Any]) -> bytes:
    return json.dumps({"keys": members}).encode()


ALL = jwks(jwk(ED25519, kid="ed"), jwk(P256, kid="ec"), jwk(RSA, kid="rsa"))


def settings_with(path: Path, content: bytes, **more: Any) -> settings.Settings:
    """The settings of a server whose `desk-*` are private, with this file of keys."""
    path.write_bytes(content)
    return settings.Settings(private="desk-*", token_keys=str(path), **more)
