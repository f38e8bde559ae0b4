"""Reader tokens: which streams are private, and who may read them.

A token is a JWT (RFC 7519) that a site signs for its own readers. It is verified without the store: its signature with
the keys of a file, then its claims. The settings choose the algorithms, never the token (RFC 8725, 3.1): each key has
one algorithm, and a shared secret is never in use beside public keys.
"""

from __future__ import annotations

import fnmatch
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ..codec import read_json
from ..errors import BadToken, Fault, Forbidden, Refused, shorten
from ..model import instant
from ..settings import Settings

ALGORITHMS = ("EdDSA", "ES256", "RS256", "HS256")
TOKEN_LIMIT = 4_096  # characters of a token
FILE_LIMIT = 65_536  # bytes of the file of keys
KEYS_LIMIT = 16  # keys in it: a token that names none may be tried with each
SECRET_LEAST, RSA_LEAST = 32, 2_048  # bytes, bits
LEEWAY = 30  # seconds that the issuer's clock may be ahead; there is none for `exp`
LAST_SECOND = 253_402_300_799  # the end of the year 9999; a later one is most likely in milliseconds
CHALLENGE = 'Bearer realm="pushserver"'  # RFC 6750, 3

# What a JSON Web Key is for, by its type and curve (RFC 7518, 6; RFC 8037, 2).
KINDS = {("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256", ("RSA", None): "RS256", ("oct", None): "HS256"}


class Key(NamedTuple):
    """A Key verifies tokens: it is a public key or a secret, for one algorithm. `id` is the JWKS's `kid`."""

    id: str | None
    algorithm: str
    key: Any


class Tokens:
    """Tokens knows which streams are private, and verifies the tokens of their readers."""

    def __init__(self, private: list[str], keys: list[Key], algorithms: list[str], audience: str) -> None:
        self._private = re.compile("|".join(map(fnmatch.translate, private))) if private else None
        self._keys = keys
        self._algorithms = algorithms
        self._audience = audience
        self._jws = jwt.PyJWS(algorithms=algorithms)

    @classmethod
    def of(cls, settings: Settings) -> Tokens:
        """The tokens that the settings describe.

        Raises ValueError, OSError where nobody could read the private streams, or everybody could.
        """
        private, algorithms = _list(settings.private), _list(settings.token_algorithms)
        if not private:
            return cls([], [], algorithms, settings.token_audience)
        for pattern in private:
            if not re.fullmatch(r"[a-z0-9*?-]{1,64}", pattern):
                raise ValueError(
                    f"PUSHSERVER_PRIVATE: expected patterns of stream names, such as desk-*, got {pattern!r}"
                )
        if not algorithms or any(name not in ALGORITHMS for name in algorithms):
            raise ValueError(_expected("ALGORITHMS", f"some of {', '.join(ALGORITHMS)}", settings.token_algorithms))
        if "HS256" in algorithms and len(algorithms) > 1:
            raise ValueError(_expected("ALGORITHMS", "HS256 alone, or without it", settings.token_algorithms))
        if not settings.token_keys:
            raise ValueError(_expected("KEYS", "a file of keys, since some streams are private", "none"))
        if not settings.token_audience:
            raise ValueError(
                _expected("AUDIENCE", "the audience that tokens name, since some streams are private", "nothing")
            )
        file_keys = _read_setting(settings.token_keys)
        keys = [key for key in file_keys if key.algorithm in algorithms]
        if not keys:
            got = ", ".join(sorted({key.algorithm for key in file_keys})) or "none"
            hint = "; set PUSHSERVER_TOKEN_ALGORITHMS=HS256 for a shared secret" if got == "HS256" else ""
            raise ValueError(_expected("KEYS", f"a key for {' or '.join(algorithms)}", f"keys for {got}{hint}"))
        return cls(private, keys, algorithms, settings.token_audience)

    @property
    def any_private(self) -> bool:
        return self._private is not None

    def is_private(self, stream: str) -> bool:
        """Whether a stream of this name is private. It need not exist: an answer must not reveal which ones do."""
        return self._private is not None and self._private.fullmatch(stream) is not None

    def admit(self, token: str, stream: str) -> float:
        """The end of a token's right to read a stream, in seconds since 1970. Raises BadToken, Forbidden."""
        claims = self._verified(token)
        now = time.time()
        until = _seconds(claims, "exp")
        if until <= now:
            raise bad_token("The token has expired.", "exp", "an instant in the future", _instant(until))
        for name in ("nbf", "iat"):
            if name in claims and (since := _seconds(claims, name)) > now + LEEWAY:
                raise bad_token("The token is not valid yet.", name, "an instant in the past", _instant(since))
        audiences = _strings(claims, "aud")
        if self._audience not in audiences:
            raise bad_token("The token is for another audience.", "aud", self._audience, shorten(", ".join(audiences)))
        patterns = _strings(claims, "streams")
        if not any(fnmatch.fnmatchcase(stream, pattern) for pattern in patterns):
            fault = Fault("streams", f"a pattern that covers {shorten(stream)}", shorten(", ".join(patterns)))
            challenge = f'{CHALLENGE}, error="insufficient_scope"'
            raise Forbidden("This token is not for this stream.", fault, headers={"WWW-Authenticate": challenge})
        return until

    def _verified(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature is that of a known key."""
        if len(token) > TOKEN_LIMIT:
            got = f"{len(token)} characters"
            raise bad_token("The token is too long.", "token", f"at most {TOKEN_LIMIT} characters", got)
        try:
            header = self._jws.get_unverified_header(token)
        except jwt.PyJWTError:
            raise bad_token(
                "The token is not a signed JSON Web Token.", "token", "a JWS in compact form", "something else"
            ) from None
        algorithm, id = header.get("alg"), header.get("kid")
        if algorithm not in self._algorithms:
            raise bad_token(
                "The token is signed with an algorithm that is not accepted.",
                "alg",
                " or ".join(self._algorithms),
                shorten(algorithm),
            )
        keys = [key for key in self._keys if key.algorithm == algorithm and (id is None or key.id in (None, id))]
        if not keys:
            got = f"{algorithm} and {shorten(id)}" if id is not None else f"{algorithm} and no kid"
            raise bad_token("The token names an unknown key.", "kid", "a key of this server for its alg", got)
        for key in keys:
            payload = self._payload(token, key)
            if payload is not None:
                return _claims(payload)
        raise bad_token("The token's signature is not valid.", "signature", "one by a key of this server", "another")

    def _payload(self, token: str, key: Key) -> bytes | None:
        """The payload of a token that this key signed, None where it did not."""
        try:
            payload: bytes = self._jws.decode_complete(token, key.key, algorithms=[key.algorithm])["payload"]
        except jwt.PyJWTError:
            return None
        return payload


def bad_token(detail: str, claim: str, expected: str, got: str) -> BadToken:
    """The refusal of a token. It says what is wrong, and never repeats the token."""
    headers = {"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'}
    return BadToken(detail, Fault(claim, expected, got), headers=headers)


# --- claims


def _claims(payload: bytes) -> dict[str, Any]:
    try:
        claims = read_json(payload)
    except Refused as refused:
        fault = refused.faults[0]
        raise bad_token("The token's claims are not a JSON object.", "claims", fault.expected, fault.got) from None
    if not isinstance(claims, dict):
        raise bad_token("The token's claims are not a JSON object.", "claims", "a JSON object", shorten(claims))
    return claims


def _seconds(claims: dict[str, Any], name: str) -> float:
    """A claim that is an instant: RFC 7519's NumericDate, which may have a fraction."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_SECOND:
        got = shorten(value) if name in claims else "nothing"
        raise bad_token(f"The token's claim {name} is not an instant.", name, "seconds since 1970, as a number", got)
    return float(value)


def _strings(claims: dict[str, Any], name: str) -> list[str]:
    """A claim that is a list of strings, or for `aud` one string (RFC 7519, 4.1.3)."""
    value = claims.get(name)
    values = [value] if isinstance(value, str) and name == "aud" else value
    if not isinstance(values, list) or not values or not all(isinstance(each, str) for each in values):
        got = shorten(value) if name in claims else "nothing"
        raise bad_token(f"The token's claim {name} is not a list of strings.", name, "a list of strings", got)
    return values


def _instant(seconds: float) -> str:
    return instant(int(seconds * 1000))


# --- keys


def read_keys(path: Path) -> list[Key]:
    """The keys of a file: a JWKS (RFC 7517), PEM public keys, or one shared secret. Raises ValueError, OSError."""
    with path.open("rb") as file:
        content = file.read(FILE_LIMIT + 1)
    if len(content) > FILE_LIMIT:
        raise ValueError(f"{path}: expected at most {FILE_LIMIT} bytes, got more")
    # A file that looks like a public key, whole or broken, is never taken for a secret: anybody who has that public key
    # could sign tokens with it.
    try:
        if content.lstrip()[:1] in (b"{", b"["):
            keys = _of_jwks(content)
        elif b"-----" in content:
            keys = _of_pem(content)
        else:
            keys = [_of_secret(content.strip())]
        for key in keys:
            _check_strength(key)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if len(keys) > KEYS_LIMIT:
        raise ValueError(f"{path}: expected at most {KEYS_LIMIT} keys, got {len(keys)}")
    return keys


def _of_jwks(content: bytes) -> list[Key]:
    try:
        document = read_json(content)
    except Refused as refused:
        raise ValueError(f"expected {refused.faults[0].expected}, got {refused.faults[0].got}") from None
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise ValueError('expected a JWKS, {"keys": [{…}]}, got other JSON')
    keys = [_of_jwk(member, number) for number, member in enumerate(members, 1)]
    return [key for key in keys if key is not None]


def _of_jwk(member: dict[str, Any], number: int) -> Key | None:
    """The key of a member; None for a key of another use, which RFC 7517, 5 says to ignore."""
    kind, curve, id = member.get("kty"), member.get("crv"), member.get("kid")
    algorithm = KINDS.get((str(kind), curve if isinstance(curve, str) else None))
    if algorithm is None or member.get("alg", algorithm) != algorithm or member.get("use", "sig") != "sig":
        return None
    if "d" in member:
        raise ValueError(f"key {number}: expected a public key, got a private one")
    if not isinstance(id, str | None):
        raise ValueError(f"key {number}: expected a string as its kid, got {shorten(id)}")
    try:
        return Key(id, algorithm, jwt.PyJWK(member, algorithm).key)
    except (jwt.PyJWTError, KeyError):
        raise ValueError(f"key {number}: expected an {kind} key with the members of RFC 7518, 6, got others") from None


def _of_pem(content: bytes) -> list[Key]:
    blocks = list(re.finditer(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", content, re.DOTALL))
    if not blocks or not all(block[1].endswith(b"PUBLIC KEY") for block in blocks):
        got = ", ".join(block[1].decode() for block in blocks) or "a PEM without beginning or end"
        raise ValueError(f"expected PEM blocks BEGIN PUBLIC KEY, got {got}")
    return [_of_pem_block(block[0], number) for number, block in enumerate(blocks, 1)]


def _of_pem_block(block: bytes, number: int) -> Key:
    try:
        key = load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"key {number}: expected a public key in PEM, got one that cannot be read") from None
    if isinstance(key, Ed25519PublicKey):
        return Key(None, "EdDSA", key)
    if isinstance(key, RSAPublicKey):
        return Key(None, "RS256", key)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return Key(None, "ES256", key)
    raise ValueError(f"key {number}: expected Ed25519, EC P-256 or RSA, got {type(key).__name__}")


def _of_secret(content: bytes) -> Key:
    if b"\n" in content:
        raise ValueError("expected a JWKS, PEM public keys, or a secret on one line, got several lines")
    try:
        secret = jwt.get_algorithm_by_name("HS256").prepare_key(content)
    except jwt.PyJWTError:
        raise ValueError("expected a JWKS, PEM public keys, or a secret, got nothing or another form of key") from None
    return Key(None, "HS256", secret)


def _check_strength(key: Key) -> None:
    if key.algorithm == "HS256" and len(key.key) < SECRET_LEAST:
        raise ValueError(f"expected a secret of at least {SECRET_LEAST} bytes, got {len(key.key)}")
    if key.algorithm == "RS256" and key.key.key_size < RSA_LEAST:
        raise ValueError(f"expected an RSA key of at least {RSA_LEAST} bits, got {key.key.key_size}")


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _read_setting(path: str) -> list[Key]:
    """The keys of the file that the setting names. Raises ValueError, which names the setting."""
    try:
        return read_keys(Path(path))
    except OSError as error:
        raise ValueError(_expected("KEYS", "a file that can be read", f"{path}: {error.strerror}")) from None
    except ValueError as error:
        raise ValueError(f"PUSHSERVER_TOKEN_KEYS: {error}") from None


def _expected(name: str, expected: str, got: str) -> str:
    return f"PUSHSERVER_TOKEN_{name}: expected {expected}, got {got}"
