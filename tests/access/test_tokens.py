"""Which tokens are good, which files of keys are, and what is said of those that are not."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from pushserver.access.tokens import LAST_SECOND, TOKEN_LIMIT, Tokens
from pushserver.errors import BadToken, Forbidden
from pushserver.settings import Settings

from ..support import issuer
from ..support.issuer import ED25519, P256, RSA, SECRET, STRANGER, settings_with, token
from ..support.server import LIMIT, ROOT, clean_environment


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """With a key of each kind, each with its id."""
    return Tokens.of(settings_with(tmp_path_factory.mktemp("tokens") / "keys", issuer.ALL))


# --- good tokens


@pytest.mark.parametrize(("algorithm", "kid"), [("EdDSA", "ed"), ("ES256", "ec"), ("RS256", "rsa"), ("RS256", None)])
def test_a_token_lets_its_bearer_read_until_it_expires(tokens: Tokens, algorithm: str, kid: str | None) -> None:
    exp = time.time() + 60.5
    assert tokens.admit(token("desk-*", algorithm=algorithm, kid=kid, exp=exp), "desk-7") == exp


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["elsewhere", "pushserver"]},
        {"exp": LAST_SECOND},
        {"nbf": 0, "iat": 1.5},
        {"nbf": time.time() + 20},
        {"streams": ["other", "desk-7"]},
        {"streams": ["*"]},
        {"sub": 7, "more": {"of": "the issuer's"}},
    ],
)
def test_these_claims_are_as_good(tokens: Tokens, claims: dict[str, Any]) -> None:
    assert tokens.admit(token("desk-*", **claims), "desk-7") > time.time()


def test_a_secret_is_shared_where_it_is_named(tmp_path: Path) -> None:
    tokens = Tokens.of(settings_with(tmp_path / "keys", f"{SECRET}\n".encode(), token_algorithms="HS256"))
    assert tokens.admit(token("desk-*", algorithm="HS256"), "desk-7") > time.time()


def test_the_keys_of_a_rotation_are_good_at_once(tmp_path: Path) -> None:
    for content in (
        issuer.jwks(issuer.jwk(STRANGER), issuer.jwk(ED25519)),
        issuer.jwks(issuer.jwk(STRANGER, kid="old"), issuer.jwk(ED25519, kid="new")),
        issuer.pem(STRANGER) + b"\n" + issuer.pem(ED25519),
    ):
        tokens = Tokens.of(settings_with(tmp_path / "keys", content))
        assert tokens.admit(token("desk-*"), "desk-7") > time.time()
        assert tokens.admit(token("desk-*", kid="new"), "desk-7") > time.time()
        assert tokens.admit(token("desk-*", key=STRANGER), "desk-7") > time.time()


def test_a_pattern_tells_private_streams_from_public_ones(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(issuer.ALL)
    tokens = Tokens.of(Settings(private="desk-*, closed", token_keys=str(tmp_path / "keys")))
    names = ["desk-", "desk-7", "closed", "desk", "closed-2", "my-desk-7", "demo", ""]
    assert [name for name in names if tokens.is_private(name)] == ["desk-", "desk-7", "closed"]
    assert not any(Tokens.of(Settings()).is_private(name) for name in names)


# --- bad tokens


def confused(public: bytes) -> str:
    """Signed by HMAC with a public key for the secret: PyJWT itself would not, an attacker does."""
    signing_input = issuer.unsigned(
        {"alg": "HS256", "typ": "JWT"}, json.loads(claims_of(token("desk-*", exp=LAST_SECOND)))
    ).encode()
    signing_input = signing_input.rstrip(b".")
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signing_input, public)
    return f"{signing_input.decode()}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def claims_of(token: str) -> bytes:
    return base64.urlsafe_b64decode(token.split(".")[1] + "==")


def changed(token: str, **claims: Any) -> str:
    """With other claims under the same signature."""
    head, payload, signature = token.split(".")
    said = {**json.loads(claims_of(token)), **claims}
    payload = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    return f"{head}.{payload}.{signature}"


def lasting(*streams: str, **how: Any) -> str:
    """A token with nothing wrong but what is said: it may be long until its test."""
    return token(*streams, **{"exp": LAST_SECOND, **how})


good_claims = {"aud": "pushserver", "exp": LAST_SECOND, "streams": ["desk-*"]}
BAD: dict[str, tuple[str, str]] = {
    # name: (token, the field that is named)
    "empty": ("", "token"),
    "no token": ("rubbish", "token"),
    "a publish key": ("pk_0123456789ab_" + "x" * 43, "token"),
    "four parts": (lasting("desk-*") + ".x", "token"),
    "not ASCII": ("é.é.é", "token"),
    "too long": (lasting("desk-*", more="x" * TOKEN_LIMIT), "token"),
    "alg none": (issuer.unsigned({"alg": "none"}, good_claims), "alg"),
    "alg None": (issuer.unsigned({"alg": "None"}, good_claims, b"x"), "alg"),
    "no alg": (issuer.unsigned({"typ": "JWT"}, good_claims), "alg"),
    "alg a list": (issuer.unsigned({"alg": ["EdDSA"]}, good_claims), "alg"),
    "crit": (issuer.unsigned({"alg": "EdDSA", "crit": ["b64"], "b64": False}, good_claims), "token"),
    "kid a number": (issuer.unsigned({"alg": "EdDSA", "kid": 7}, good_claims), "token"),
    "HS256": (lasting("desk-*", algorithm="HS256"), "alg"),
    "HS256 with a public key": (confused(issuer.pem(RSA)), "alg"),
    "HS256 with a public key and its id": (lasting("desk-*", algorithm="HS256", kid="rsa"), "alg"),
    "wrong kid": (lasting("desk-*", kid="elsewhere"), "kid"),
    "kid of a key of another kind": (lasting("desk-*", kid="rsa"), "kid"),
    "another's signature": (lasting("desk-*", key=STRANGER), "signature"),
    "another's signature under a kid": (lasting("desk-*", key=STRANGER, kid="ed"), "signature"),
    "no signature": (issuer.unsigned({"alg": "EdDSA"}, good_claims), "signature"),
    "cut signature": (issuer.unsigned({"alg": "ES256"}, good_claims, b"x" * 63), "signature"),
    "changed streams": (changed(lasting("other"), streams=["desk-*"]), "signature"),
    "changed exp": (changed(lasting("desk-*", exp=1), exp=LAST_SECOND), "signature"),
    "claims no JSON": (issuer.signed(b"rubbish"), "claims"),
    "claims no object": (issuer.signed(b'["desk-*"]'), "claims"),
    "claims not UTF-8": (issuer.signed(b'{"aud": "\xff"}'), "claims"),
    "claims nested": (issuer.signed(b"[" * 2_000), "claims"),
    "claims twice": (issuer.signed(b'{"exp": 1, "exp": 99999999999}'), "claims"),
    "exp not a number": (issuer.signed(b'{"aud": "pushserver", "streams": ["*"], "exp": NaN}'), "claims"),
    "exp infinite": (issuer.signed(b'{"aud": "pushserver", "streams": ["*"], "exp": 1e999}'), "claims"),
    "no exp": (lasting("desk-*", exp=None), "exp"),
    "exp null": (issuer.signed(json.dumps({**good_claims, "exp": None}).encode()), "exp"),
    "exp a string": (lasting("desk-*", exp=str(LAST_SECOND)), "exp"),
    "exp true": (lasting("desk-*", exp=True), "exp"),
    "exp negative": (lasting("desk-*", exp=-1), "exp"),
    "exp huge": (lasting("desk-*", exp=10**300), "exp"),
    "exp in milliseconds": (lasting("desk-*", exp=int(time.time() * 1000)), "exp"),
    "exp now": (lasting("desk-*", exp=time.time()), "exp"),
    "exp a second ago": (lasting("desk-*", exp=int(time.time()) - 1), "exp"),
    "nbf to come": (lasting("desk-*", nbf=LAST_SECOND), "nbf"),
    "nbf a string": (lasting("desk-*", nbf="0"), "nbf"),
    "iat to come": (lasting("desk-*", iat=LAST_SECOND), "iat"),
    "no aud": (lasting("desk-*", aud=None), "aud"),
    "another aud": (lasting("desk-*", aud="elsewhere"), "aud"),
    "part of the aud": (lasting("desk-*", aud="push"), "aud"),
    "other auds": (lasting("desk-*", aud=["elsewhere", "pushserver/"]), "aud"),
    "aud empty": (lasting("desk-*", aud=[]), "aud"),
    "aud an object": (lasting("desk-*", aud={"pushserver": 1}), "aud"),
    "no streams": (lasting("desk-*", streams=None), "streams"),
    "streams empty": (lasting(), "streams"),
    "streams a string": (lasting("desk-*", streams="desk-*"), "streams"),
    "streams of numbers": (lasting("desk-*", streams=[7]), "streams"),
    "streams an object": (lasting("desk-*", streams={"desk-7": True}), "streams"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused_and_what_is_wrong_is_named(tokens: Tokens, name: str) -> None:
    bad, field = BAD[name]
    with pytest.raises(BadToken) as refused:
        tokens.admit(bad, "desk-7")
    (fault,) = refused.value.faults
    assert fault.field == field
    assert refused.value.headers["WWW-Authenticate"] == 'Bearer realm="pushserver", error="invalid_token"'
    if bad:
        assert bad not in json.dumps(refused.value.problem())


@pytest.mark.parametrize("streams", [["other"], ["desk-70"], ["desk"], ["DESK-7"], [""]])
def test_a_token_for_other_streams_is_not_for_this_one(tokens: Tokens, streams: list[str]) -> None:
    with pytest.raises(Forbidden) as refused:
        tokens.admit(token(*streams), "desk-7")
    assert refused.value.faults[0].field == "streams"
    assert "insufficient_scope" in refused.value.headers["WWW-Authenticate"]


def test_a_shared_secret_takes_no_other_signature(tmp_path: Path) -> None:
    tokens = Tokens.of(settings_with(tmp_path / "keys", SECRET.encode(), token_algorithms="HS256"))
    others = [token("desk-*"), token("desk-*", algorithm="HS256", key="x" * 32), BAD["alg none"][0]]
    for other in others:
        with pytest.raises(BadToken):
            tokens.admit(other, "desk-7")


HEADERS = st.fixed_dictionaries(
    {"alg": st.sampled_from(["EdDSA", "ES256", "RS256", "HS256", "none"]) | st.text() | st.none()},
    optional={
        "kid": st.sampled_from(["ed", "ec", "rsa"]) | st.integers(),
        "typ": st.text(),
        "crit": st.lists(st.text()),
    },
)
BY_HAND = st.builds(issuer.unsigned, HEADERS, st.just(good_claims), st.binary(max_size=300))
IN_PARTS = st.lists(st.binary(), max_size=4).map(lambda parts: ".".join(map(encoded, parts)))


@given(text=st.text() | IN_PARTS | BY_HAND)
def test_whatever_comes_for_a_token_is_refused_by_name(tokens: Tokens, text: str) -> None:
    with pytest.raises(BadToken):
        tokens.admit(text, "desk-7")


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


# --- files of keys


def private_pem(key: Any) -> bytes:
    private: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private


def der(key: Any) -> bytes:
    public: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return public


weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
ssh = ED25519.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
oct_key = {"kty": "oct", "k": encoded(SECRET.encode())}


@pytest.mark.parametrize(
    ("content", "algorithms", "said"),
    [
        (b"", "HS256", "got nothing"),
        (b"short", "HS256", "at least 32 bytes, got 5"),
        (SECRET.encode(), "EdDSA,ES256,RS256", "keys for HS256; set PUSHSERVER_TOKEN_ALGORITHMS=HS256"),
        (SECRET.encode() + b"\n" + SECRET.encode(), "HS256", "on one line"),
        (issuer.pem(RSA), "HS256", "a key for HS256, got keys for RS256"),
        (issuer.pem(RSA)[:-20], "HS256", "PEM"),
        (issuer.pem(RSA)[11:], "HS256", "PEM"),
        (der(RSA), "HS256", "expected"),
        pytest.param(ssh, "HS256", "another form of key", id="ssh"),
        (issuer.ALL, "HS256", "a key for HS256"),
        (issuer.ALL[:-1], "HS256", "JSON"),
        (issuer.pem(weak), "RS256", "at least 2048 bits, got 1024"),
        (issuer.pem(ec.generate_private_key(ec.SECP384R1())), "ES256", "EC P-256"),
        (private_pem(ED25519), "EdDSA", "got PRIVATE KEY"),
        (issuer.pem(P256) + private_pem(P256), "ES256", "got PUBLIC KEY, PRIVATE KEY"),
        (issuer.pem(P256).replace(b"M", b"!"), "ES256", "cannot be read"),
        (b"[]", "EdDSA", "a JWKS"),
        (b'{"keys": {}}', "EdDSA", "a JWKS"),
        (b'{"keys": [7]}', "EdDSA", "a JWKS"),
        (issuer.jwks(), "EdDSA", "got keys for none"),
        (issuer.jwks({"kty": "RSA", "kid": "x"}), "RS256", "key 1: expected an RSA key"),
        (issuer.jwks(issuer.jwk(P256), issuer.jwk(P256, x="AA")), "ES256", "key 2"),
        (issuer.jwks(issuer.jwk(P256, kid=7)), "ES256", "a string as its kid"),
        (issuer.jwks(issuer.jwk(P256, d="AA")), "ES256", "got a private one"),
        (issuer.jwks(issuer.jwk(RSA, use="enc")), "RS256", "got keys for none"),
        (issuer.jwks(issuer.jwk(RSA, alg="RS512")), "RS256", "got keys for none"),
        (issuer.jwks({"kty": "oct", "k": "c2hvcnQ"}), "HS256", "at least 32 bytes, got 5"),
        (issuer.jwks(oct_key), "EdDSA", "got keys for HS256"),
        (issuer.jwks(*[issuer.jwk(ED25519)] * 17), "EdDSA", "at most 16 keys, got 17"),
        (b" " * 70_000, "EdDSA", "at most 65536 bytes"),
        (issuer.ALL, "EdDSA,HS256", "HS256 alone"),
        (issuer.ALL, "none", "expected some of EdDSA"),
        (issuer.ALL, "", "expected some of EdDSA"),
    ],
)
def test_keys_that_are_not_fit_are_refused(tmp_path: Path, content: bytes, algorithms: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        Tokens.of(settings_with(tmp_path / "keys", content, token_algorithms=algorithms))
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


def test_keys_for_something_else_are_passed_over(tmp_path: Path) -> None:
    others = [{"kty": "future"}, {}, issuer.jwk(RSA, use="enc"), issuer.jwk(ED25519, crv="Ed448"), oct_key]
    tokens = Tokens.of(
        settings_with(tmp_path / "keys", issuer.jwks(*others, issuer.jwk(ED25519, use="sig", alg="EdDSA")))
    )
    assert tokens.admit(token("desk-*"), "desk-7") > time.time()
    for other in (token("desk-*", algorithm="HS256"), token("desk-*", algorithm="RS256")):
        with pytest.raises(BadToken):
            tokens.admit(other, "desk-7")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--private", "desk-*"], "PUSHSERVER_TOKEN_KEYS: expected a file of keys"),
        (["--private", "desk-*", "--token-keys", "{folder}/none"], "none"),
        (["--private", "desk-*", "--token-keys", "{folder}"], "directory"),
        (["--private", "Desk-*", "--token-keys", "{folder}/keys"], "PUSHSERVER_PRIVATE: expected patterns"),
        (["--private", "desk-*", "--token-keys", "{folder}/keys", "--token-audience", ""], "TOKEN_AUDIENCE"),
    ],
)
def test_a_server_that_could_not_keep_streams_private_does_not_start(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "keys").write_bytes(issuer.ALL)
    done = subprocess.run(
        [sys.executable, "-m", "pushserver", "serve", "--port", "0", "--data", str(tmp_path / "data")]
        + [argument.format(folder=tmp_path) for argument in arguments],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, "cannot start: " in done.stderr, said in done.stderr) == (3, True, True), done.stderr
    assert "Traceback" not in done.stderr
