"""The web configuration file of Prometheus exporters: TLS, basic authentication, headers.

The format is that of the exporter-toolkit, https://github.com/prometheus/exporter-toolkit,
docs/web-configuration.md. The file is read once, at the start; certificates that are replaced on
disk are picked up without a restart. Unknown keys are errors.

Where Python's ssl differs from Go's, the file is honoured on the safe side or refused:

    min_version TLS10, TLS11     TLS 1.2 is the lowest that is spoken; as max_version: refused
    cipher_suites                Go's secure suites; those of TLS 1.3 are always on, as in Go
    curve_preferences            one curve; several are refused before Python 3.15
    client_auth_type             RequestClientCert is as NoClientCert: both let everyone in.
                                 RequireAnyClientCert (RequireClientCert) is refused: certificates
                                 that nobody has checked cannot be asked for.
                                 VerifyClientCertIfGiven, RequireAndVerifyClientCert need a client
                                 CA: Go would trust every public one
    client_allowed_sans          needs RequireAndVerifyClientCert
    tls_server_config            without a certificate it is refused: it would be plain HTTP
    http2                        accepted, and HTTP/1.1 is spoken in any case
    basic_auth_users             hashes above cost 18 are refused: a login would take minutes
"""

from __future__ import annotations

import difflib
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobwatt.errors import ReadError, UsageError
from jobwatt.exposition.basic_auth import BasicAuth
from jobwatt.exposition.rate_limit import RateLimit
from jobwatt.exposition.tls import Pem, Tls, TlsPolicy
from jobwatt.host.files import read_bytes
from jobwatt.units import duration_seconds

__all__ = ["WebConfig", "load_web_config"]

_SECTIONS = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
_TLS_KEYS = (
    "cert",
    "cert_file",
    "key",
    "key_file",
    "client_auth_type",
    "client_ca",
    "client_ca_file",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
)

_NULL = {"", "~", "null", "Null", "NULL"}
_YES = {"y", "yes", "on", "true"}
_NO = {"n", "no", "off", "false"}

_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1_2,
    "TLS11": ssl.TLSVersion.TLSv1_2,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_TOO_OLD = {"TLS10", "TLS11"}

_CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
"""Go's secure suites of TLS 1.2 in OpenSSL's names."""

_TLS13_CIPHERS = {
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
}

_CURVES = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}

_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "RequestClientCert": ssl.CERT_NONE,
    "RequireAnyClientCert": None,
    "RequireClientCert": None,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
"""Go's policies; None cannot be had."""

_HEADERS: Mapping[str, Sequence[str] | None] = {
    "Content-Security-Policy": None,
    "Strict-Transport-Security": None,
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": None,
}
"""The headers that may be set, and the values that they may have; None for any."""

_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_COSTS = range(4, 19)


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the file asks for.

    Attributes:
        tls: None for plain HTTP.
        auth: None where everyone may come in.
        headers: added to every answer that does not set them itself.
        rate_limit: None for no limit.
    """

    tls: Tls | None = None
    auth: BasicAuth | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    rate_limit: RateLimit | None = None


def load_web_config(path: Path) -> WebConfig:
    """Return what the file asks for; paths in it are relative to it.

    Raises:
        UsageError: the file cannot be read or something in it is wrong; the message names file, key
            and remedy.
    """
    root = _Section(path, "", _tree(path), _SECTIONS)
    http = root.section("http_server_config", ("http2", "headers"))
    http.flag("http2", default=True)
    return WebConfig(
        _tls(root.section("tls_server_config", _TLS_KEYS)),
        _auth(root.section("basic_auth_users", None)),
        _headers(http.section("headers", tuple(_HEADERS))),
        _rate_limit(root.section("rate_limit", ("interval", "burst"))),
    )


def _tree(path: Path) -> object:
    """Return the file's content: dictionaries, lists and text.

    Scalars stay text, whatever YAML takes them for (a user may be called `on`), and nothing in the
    file can make Python objects.
    """
    import yaml  # noqa: PLC0415 - only where there is a file

    from jobwatt.yaml_keys import DuplicateKeyError, TextLoader  # noqa: PLC0415 - likewise

    try:
        return yaml.load(read_bytes(path).decode(), TextLoader)  # noqa: S506 - text only
    except DuplicateKeyError as error:
        raise UsageError(f"{path}: {error}") from error
    except ReadError as error:
        raise UsageError(f"--web.config.file: {error}; give a file that can be read") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        sentence = " ".join(str(error).split())
        raise UsageError(f"{path}: not YAML, mend it: {sentence}") from error


class _Section:
    """A mapping of the file whose keys are known."""

    def __init__(self, file: Path, name: str, tree: object, known: Sequence[str] | None) -> None:
        """Take the section's dotted name, its content, and the keys that it may have (None: any).

        Raises:
            UsageError: it is no mapping, or has an unknown key.
        """
        self.file = file
        self.name = name
        if tree is None or (isinstance(tree, str) and tree in _NULL):
            tree = {}
        if not isinstance(tree, dict):
            where = f"{file}: {name}" if name else f"{file}"
            raise UsageError(f"{where}: expected keys with values, not {_kind(tree)}")
        self.values: dict[str, object] = tree
        if known is not None:
            for key in tree:
                if key not in known:
                    near = difflib.get_close_matches(key, known, 1)
                    remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                    raise self.error(key, f"unknown key; {remedy}")

    def error(self, key: str, problem: str) -> UsageError:
        """Return the error that names this key."""
        return UsageError(f"{self.where(key)}: {problem}")

    def where(self, key: str) -> str:
        """Return file and key, for messages."""
        # A key may be of any length and content: it comes from the file.
        shown = key if key.isprintable() and len(key) <= 64 else ascii(key[:64])  # noqa: PLR2004
        return f"{self.file}: {self.name}.{shown}" if self.name else f"{self.file}: {shown}"

    def section(self, key: str, known: Sequence[str] | None) -> _Section:
        """Return the section below; an absent one is empty."""
        name = f"{self.name}.{key}" if self.name else key
        return _Section(self.file, name, self.values.get(key), known)

    def text(self, key: str) -> str:
        """Return a text, "" where it is absent."""
        value = self.values.get(key, "")
        if not isinstance(value, str):
            raise self.error(key, f"expected a text, not {_kind(value)}")
        return "" if value in _NULL else value

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.text(key).lower()
        if value in _YES or value in _NO:
            return value in _YES
        if value:
            raise self.error(key, "expected true or false")
        return default

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        """Return one of several words."""
        value = self.text(key) or default
        if value not in choices:
            raise self.error(key, f"unknown value; choose one of {', '.join(choices)}")
        return value

    def texts(self, key: str, choices: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return a list of texts, empty where it is absent."""
        value = self.values.get(key, "")
        if isinstance(value, str) and value in _NULL:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, "expected a list of texts")
        if choices is not None:
            for item in value:
                if item not in choices:
                    raise self.error(key, f"unknown value; choose of {', '.join(choices)}")
        return tuple(value)

    def pem(self, inline: str, in_file: str) -> Pem | None:
        """Return PEM text that is given by one of two keys."""
        text, name = self.text(inline), self.text(in_file)
        if text and name:
            raise self.error(inline, f"{in_file} is given too; leave one of the two")
        if text:
            return Pem(self.where(inline), inline=text)
        if name:
            return Pem(self.where(in_file), self.file.parent / name)
        return None


def _kind(value: object) -> str:
    """Return what a value is; never the value, which may be a secret."""
    if isinstance(value, dict):
        return "keys with values"
    return "a list" if isinstance(value, list) else "a text"


def _tls(section: _Section) -> Tls | None:
    if not section.values:
        return None
    certificate, key = section.pem("cert", "cert_file"), section.pem("key", "key_file")
    if certificate is None:
        raise section.error("cert_file", "missing; give the server's certificate")
    if key is None:
        raise section.error("key_file", "missing; give the private key of the certificate")
    oldest, newest, ciphers = _versions(section)
    verify, client_ca = _client_auth(section)
    allowed = frozenset(section.texts("client_allowed_sans"))
    if "client_allowed_sans" in section.values and not allowed:
        raise section.error(
            "client_allowed_sans", "an empty list lets nobody in; name a SAN, or leave the key out"
        )
    if allowed and verify is not ssl.CERT_REQUIRED:
        raise section.error(
            "client_allowed_sans", "needs client_auth_type RequireAndVerifyClientCert"
        )
    return Tls(
        TlsPolicy(
            where=f"{section.file}: {section.name}",
            certificate=certificate,
            key=key,
            client_ca=client_ca,
            verify=verify,
            oldest=oldest,
            newest=newest,
            ciphers=ciphers,
            server_prefers=section.flag("prefer_server_cipher_suites", default=True),
            curves=tuple(
                _CURVES[name] for name in section.texts("curve_preferences", tuple(_CURVES))
            ),
            allowed_sans=allowed,
        )
    )


def _versions(section: _Section) -> tuple[ssl.TLSVersion, ssl.TLSVersion, tuple[str, ...]]:
    """Return the lowest and highest version, and the ciphers of TLS 1.2."""
    names = tuple(_VERSIONS)
    oldest = _VERSIONS[section.choice("min_version", names, "TLS12")]
    newest_name = section.choice("max_version", names, "TLS13")
    if newest_name in _TOO_OLD:
        raise section.error("max_version", "nothing below TLS 1.2 is spoken; choose TLS12 or TLS13")
    newest = _VERSIONS[newest_name]
    if oldest > newest:
        raise section.error("max_version", "it is lower than min_version; raise it")
    suites = section.texts("cipher_suites", (*_CIPHERS, *_TLS13_CIPHERS))
    ciphers = tuple(_CIPHERS[name] for name in suites if name in _CIPHERS)
    if suites and not ciphers:
        # No suite of TLS 1.2 is wanted, so no TLS 1.2 either.
        oldest = ssl.TLSVersion.TLSv1_3
        if newest is not oldest:
            raise section.error(
                "cipher_suites", "these are of TLS 1.3, which max_version rules out; add others"
            )
    return oldest, newest, ciphers


def _client_auth(section: _Section) -> tuple[ssl.VerifyMode, Pem | None]:
    """Return whether clients show a certificate, and who signs it."""
    verify = _CLIENT_AUTH[section.choice("client_auth_type", tuple(_CLIENT_AUTH), "NoClientCert")]
    if verify is None:
        raise section.error(
            "client_auth_type",
            "certificates that nobody has checked cannot be asked for here; "
            "use RequireAndVerifyClientCert with client_ca_file",
        )
    client_ca = section.pem("client_ca", "client_ca_file")
    if client_ca is None and verify is not ssl.CERT_NONE:
        raise section.error(
            "client_ca_file", "missing; give the CA that signs the clients' certificates"
        )
    if client_ca is not None and verify is ssl.CERT_NONE:
        raise section.error(
            "client_auth_type",
            "there is a client CA and nobody is asked for a certificate; "
            "use RequireAndVerifyClientCert",
        )
    return verify, client_ca


def _auth(section: _Section) -> BasicAuth | None:
    hashes: dict[str, str] = {}
    for user in section.values:
        stored = section.text(user)
        if not user or ":" in user:
            raise section.error(user, "a user's name is not empty and has no colon; rename it")
        match = _BCRYPT.fullmatch(stored)
        if match is None or not _is_salt(stored):
            raise section.error(
                user, "this is no bcrypt hash; make one with `htpasswd -nBC 10 \"\" | tr -d ':\\n'`"
            )
        if int(match[1]) not in _COSTS:
            raise section.error(
                user, f"its cost is not within {_COSTS[0]} to {_COSTS[-1]}; hash it with 10"
            )
        hashes[user] = stored
    return BasicAuth(hashes) if hashes else None


def _is_salt(stored: str) -> bool:
    """Return whether the library takes the salt, tried at the lowest cost."""
    import bcrypt  # noqa: PLC0415 - only where there are users

    try:
        bcrypt.hashpw(b"", f"$2b$04${stored[7:29]}".encode())
    except ValueError:
        return False
    return True


def _headers(section: _Section) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name in section.values:
        value = section.text(name).strip()
        allowed = _HEADERS[name]
        if not value:
            continue
        if allowed is not None and value not in allowed:
            raise section.error(name, f"unknown value; choose {' or '.join(allowed)}")
        if not _HEADER_VALUE.fullmatch(value):
            raise section.error(name, "a header is one line of ASCII; take other characters out")
        headers[name] = value
    return headers


def _rate_limit(section: _Section) -> RateLimit | None:
    text, burst = section.text("interval"), section.text("burst") or "0"
    if not re.fullmatch(r"[0-9]{1,9}", burst):
        raise section.error("burst", "expected a whole number")
    try:
        interval = duration_seconds(text or "0")
    except ValueError as error:
        raise section.error("interval", str(error)) from error
    if not interval:
        return None
    if text[-1:].isdigit():
        raise section.error("interval", "the unit is missing; write it like 1s or 100ms")
    if interval == float("inf"):
        raise section.error("interval", "too long; write it like 1s or 100ms")
    if int(burst) < 1:
        raise section.error("burst", "0 lets nothing through; give 1 or more")
    return RateLimit(interval, int(burst))
