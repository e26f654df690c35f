"""The web configuration file, and TLS and basic authentication as a client meets them."""

from __future__ import annotations

import base64
import dataclasses
import errno
import http.client
import ipaddress
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import bcrypt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.certificates import LOCAL, Issued, issue
from jobwatt.errors import Denied, UsageError
from jobwatt.exposition import basic_auth, tls
from jobwatt.exposition.rate_limit import RateLimit
from jobwatt.exposition.server import Limits, Request, Response, Server
from jobwatt.exposition.tls import Pem, Tls, TlsPolicy
from jobwatt.exposition.web_config import WebConfig, load_web_config

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()


AUTHORITY = issue("authority")
SERVER = issue("server", AUTHORITY, *LOCAL)
OTHER_SERVER = issue("other server", AUTHORITY, *LOCAL)
CLIENT = issue(
    "client",
    AUTHORITY,
    x509.DNSName("prometheus.example"),
    x509.RFC822Name("ops@example.org"),
    x509.UniformResourceIdentifier("spiffe://cluster/prometheus"),
    x509.IPAddress(ipaddress.ip_address("10.1.2.3")),
    x509.IPAddress(ipaddress.ip_address("2001:db8::7")),
)
NAMELESS = issue("nameless", AUTHORITY)
STRANGER = issue("stranger", issue("other authority"))

TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
MUTUAL = TLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
USERS = f"basic_auth_users:\n  prom: {HASH}\n"

Serve = Callable[..., Server]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with certificates and a few files that are none."""
    for name, text in {
        "server.crt": SERVER.cert,
        "server.key": SERVER.key,
        "other.key": OTHER_SERVER.key,
        "ca.crt": "# Zürich\n" + AUTHORITY.cert,
        "locked.key": SERVER.encoded(serialization.BestAvailableEncryption(b"word")),
        "text": "not PEM",
        "broken.crt": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def load(folder: Path) -> Callable[[str | bytes], WebConfig]:
    """Load a configuration file with this content."""

    def loader(content: str | bytes) -> WebConfig:
        path = folder / "web.yml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_web_config(path)

    return loader


Load = Callable[[str | bytes], WebConfig]


def handle(request: Request) -> Response:
    """Answer with the path."""
    return Response(200, "text/plain", request.path.encode())


@pytest.fixture
def serve(load: Load) -> Iterator[Serve]:
    """Start servers with this configuration that end with the test."""
    with ExitStack() as stack:

        def starter(content: str, address: str = "127.0.0.1:0", **limits: float) -> Server:
            chosen = Limits(**limits) if limits else None  # type: ignore[arg-type]
            server = Server(address, handle, load(content), limits=chosen)
            server.start()
            stack.callback(server.stop)
            return server

        yield starter


def trusting(client: Issued | None = None, folder: Path | None = None) -> ssl.SSLContext:
    """Return a client's context that trusts the authority, with a certificate or without."""
    context = ssl.create_default_context(cadata=AUTHORITY.cert)
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", ssl.VerifyFlags(0))
    if client is not None and folder is not None:
        path = folder / "client.pem"
        path.write_text(client.cert + client.key)
        context.load_cert_chain(path)
    return context


def get(
    server: Server,
    path: str = "/metrics",
    headers: dict[str, str] | None = None,
    context: ssl.SSLContext | None = None,
    source: str = "127.0.0.1",
) -> http.client.HTTPResponse:
    """Return the answer to one request; its body is read."""
    host, port = server.address
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection(host, port, 10, (source, 0))
    else:
        connection = http.client.HTTPSConnection(host, port, timeout=10, context=context)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        response.read()
        return response
    finally:
        connection.close()


def login(user: str, password: str) -> dict[str, str]:
    """Return the header that a client with these credentials sends."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def served_serial(server: Server, context: ssl.SSLContext) -> int:
    """Return the serial number of the certificate that the server shows."""
    with (
        socket.create_connection(server.address, timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        shown = sock.getpeercert()
    assert shown is not None
    return int(str(shown["serialNumber"]), 16)


def indented(pem: str) -> str:
    """Return PEM text as a YAML block of a section's key."""
    return "|\n" + "".join(f"    {line}\n" for line in pem.splitlines())


class TestFile:
    @pytest.mark.parametrize(
        "content",
        [
            "",
            "# nothing\n",
            "~\n",
            "{}",
            "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\nrate_limit:\n",
            "tls_server_config: {}\nbasic_auth_users: null\n",
            "http_server_config:\n  http2: false\n  headers:\n",
            "http_server_config:\n  headers:\n    X-Frame-Options: ''\n",
            "rate_limit:\n  interval: 0\n",
        ],
    )
    def test_nothing_asked_for(self, load: Load, content: str) -> None:
        """An empty file, or empty sections, ask for plain HTTP for everyone."""
        config = load(content)
        assert config == WebConfig(None, None, {}, None)

    def test_everything_at_once(self, load: Load) -> None:
        """A file with all keys of the format is taken."""
        config = load(
            MUTUAL
            + "  client_allowed_sans: [prometheus.example]\n"
            + "  min_version: TLS12\n  max_version: TLS13\n"
            + "  cipher_suites:\n"
            + "    - TLS_AES_128_GCM_SHA256\n"
            + "    - TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\n"
            + "    - TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA\n"
            + "  prefer_server_cipher_suites: no\n"
            + "  curve_preferences: [X25519]\n"
            + "http_server_config:\n  http2: true\n  headers:\n"
            + "    Content-Security-Policy: default-src 'none'\n"
            + "    Strict-Transport-Security: max-age=31536000; includeSubDomains\n"
            + "    X-Content-Type-Options: nosniff\n"
            + "    X-Frame-Options: deny\n"
            + "    X-XSS-Protection: '1; mode=block'\n"
            + USERS
            + "  on: "
            + HASH.replace("$2b$", "$2y$")
            + "\nrate_limit:\n  interval: 100ms\n  burst: 20\n"
        )
        assert config.tls is not None
        assert config.auth is not None
        assert config.rate_limit is not None
        assert len(config.headers) == 5
        context = config.tls.context()
        names = [cipher["name"] for cipher in context.get_ciphers()]
        assert "ECDHE-ECDSA-AES128-GCM-SHA256" in names
        assert "ECDHE-ECDSA-AES256-SHA" in names
        assert "ECDHE-RSA-AES128-GCM-SHA256" not in names
        assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE

    @pytest.mark.parametrize(
        ("content", "where", "remedy"),
        [
            ("[1]", "", "expected keys with values, not a list"),
            ("text", "", "expected keys with values, not a text"),
            ("a: {b", "", "not YAML, mend it"),
            (b"\xff\xfe\xff", "", "not YAML, mend it"),
            ("[" * 5000, "", "not YAML, mend it"),
            ("a: 1\n---\nb: 2\n", "", "not YAML, mend it"),
            ("? [a]\n: b\n", "", "not YAML, mend it"),
            ("rate_limit:\nrate_limit:\n", "line 1", "leave one of the two"),
            (USERS + f"  prom: {HASH}\n", "line 2", "leave one of the two"),
            ("tls_config:\n", "tls_config", "did you mean tls_server_config?"),
            ("x: 1\n", "x", "known are tls_server_config, http_server_config"),
            ('"a\\n\\0": 1\n', r"'a\n\x00'", "unknown key"),
            ("x" * 90 + ": 1\n", "x" * 64, "unknown key"),
            ("tls_server_config: yes\n", "tls_server_config", "expected keys with values"),
            (TLS + "  certfile: a\n", "tls_server_config.certfile", "did you mean cert_file?"),
            ("tls_server_config:\n  min_version: TLS13\n", ".cert_file", "missing; give"),
            ("tls_server_config:\n  cert_file: server.crt\n", ".key_file", "missing; give"),
            (TLS + "  cert: text\n", ".cert", "cert_file is given too; leave one"),
            (TLS + "  key: text\n", ".key", "key_file is given too; leave one"),
            (TLS.replace("server.crt", "none"), ".cert_file", "none is no file; give the path"),
            (TLS.replace("server.crt", "."), ".cert_file", "is no file; give the path"),
            (TLS.replace("server.crt", '"a\\0b"'), ".cert_file", "is no file; give the path"),
            (TLS.replace("server.crt", "[a]"), ".cert_file", "expected a text, not a list"),
            (TLS.replace("server.crt", "{a: b}"), ".cert_file", "not keys with values"),
            (TLS.replace("server.crt", "text"), ".cert_file", "no PEM certificate in it"),
            (TLS.replace("server.crt", "broken.crt"), ".cert_file", "OpenSSL does not take"),
            (TLS.replace("server.key", "none"), ".key_file", "none is no file"),
            (TLS.replace("server.key", "text"), ".key_file", "no PEM private key in it"),
            (TLS.replace("server.key", "other.key"), ".key_file", "does not belong to"),
            (TLS.replace("server.key", "locked.key"), ".key_file", "decrypt it with"),
            (TLS + "  min_version: 1.2\n", ".min_version", "choose one of TLS10, TLS11"),
            (TLS + "  max_version: TLS11\n", ".max_version", "choose TLS12 or TLS13"),
            (TLS + "  min_version: TLS13\n  max_version: TLS12\n", ".max_version", "raise it"),
            (TLS + "  cipher_suites: [RC4]\n", ".cipher_suites", "choose of TLS_ECDHE"),
            (TLS + "  cipher_suites: TLS_RSA\n", ".cipher_suites", "expected a list of texts"),
            (TLS + "  cipher_suites: [[a]]\n", ".cipher_suites", "expected a list of texts"),
            (
                TLS + "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n  max_version: TLS12\n",
                ".cipher_suites",
                "add others",
            ),
            (TLS + "  prefer_server_cipher_suites: 2\n", ".prefer_server", "true or false"),
            (TLS + "  curve_preferences: [P256]\n", ".curve_preferences", "CurveP256, CurveP384"),
            (TLS + "  client_auth_type: Any\n", ".client_auth_type", "choose one of NoClientCert"),
            (
                TLS + "  client_auth_type: RequireAnyClientCert\n",
                ".client_auth_type",
                "use RequireAndVerifyClientCert",
            ),
            (
                TLS + "  client_auth_type: RequireClientCert\n",
                ".client_auth_type",
                "use RequireAndVerifyClientCert",
            ),
            (
                TLS + "  client_auth_type: RequireAndVerifyClientCert\n",
                ".client_ca_file",
                "give the CA",
            ),
            (TLS + "  client_auth_type: VerifyClientCertIfGiven\n", ".client_ca_file", "give"),
            (TLS + "  client_ca_file: ca.crt\n", ".client_auth_type", "nobody is asked"),
            (MUTUAL.replace("ca.crt", "none"), ".client_ca_file", "none is no file"),
            (MUTUAL.replace("ca.crt", "text"), ".client_ca_file", "no PEM certificate in it"),
            (MUTUAL.replace("ca.crt", "broken.crt"), ".client_ca_file", "does not take"),
            (MUTUAL + "  client_allowed_sans: []\n", ".client_allowed_sans", "lets nobody in"),
            (TLS + "  client_allowed_sans: [a]\n", ".client_allowed_sans", "needs client_auth"),
            ("http_server_config:\n  http3: true\n", "http_server_config.http3", "http2?"),
            ("http_server_config:\n  http2: maybe\n", ".http2", "expected true or false"),
            ("http_server_config: {headers: a}\n", ".headers", "expected keys with values"),
            ("http_server_config: {headers: {Server: a}}\n", ".headers.Server", "known are"),
            (
                "http_server_config: {headers: {X-Frame-Options: allow}}\n",
                ".headers.X-Frame-Options",
                "choose deny or sameorigin",
            ),
            (
                "http_server_config: {headers: {X-XSS-Protection: 'a\n\n  b'}}\n",
                ".headers.X-XSS-Protection",
                "one line of ASCII",
            ),
            (
                "http_server_config: {headers: {X-XSS-Protection: é}}\n",
                ".headers.X-XSS-Protection",
                "one line of ASCII",
            ),
            ("basic_auth_users: [prom]\n", "basic_auth_users", "not a list"),
            ("basic_auth_users: {prom: hunter2}\n", "basic_auth_users.prom", "htpasswd -nBC 10"),
            ("basic_auth_users: {prom: }\n", "basic_auth_users.prom", "no bcrypt hash"),
            ("basic_auth_users: {prom: [a]}\n", "basic_auth_users.prom", "expected a text"),
            (f"basic_auth_users: {{prom: {HASH[:-1]}}}\n", ".prom", "no bcrypt hash"),
            (f"basic_auth_users: {{prom: {HASH}a}}\n", ".prom", "no bcrypt hash"),
            (f"basic_auth_users: {{prom: {HASH[:28]}/{HASH[29:]}}}\n", ".prom", "no bcrypt hash"),
            (f"basic_auth_users: {{'': {HASH}}}\n", "basic_auth_users", "rename it"),
            (f"basic_auth_users: {{'a:b': {HASH}}}\n", "basic_auth_users.a:b", "rename it"),
            (USERS.replace("$04$", "$19$"), ".prom", "hash it with 10"),
            (USERS.replace("$04$", "$03$"), ".prom", "hash it with 10"),
            ("rate_limit: {interval: soon}\n", "rate_limit.interval", "write it like"),
            ("rate_limit: {interval: 5, burst: 1}\n", ".interval", "the unit is missing"),
            (
                "rate_limit: {interval: " + "9" * 400 + "s, burst: 1}\n",
                ".interval",
                "too long",
            ),
            ("rate_limit: {interval: 1s}\n", "rate_limit.burst", "give 1 or more"),
            ("rate_limit: {interval: 1s, burst: -1}\n", ".burst", "whole number"),
            ("rate_limit: {interval: 1s, burst: 1, per: ip}\n", "rate_limit.per", "unknown key"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, load: Load, folder: Path, content: str | bytes, where: str, remedy: str
    ) -> None:
        """Each mistake is a usage error in one line that names file, key and remedy, no secret."""
        with pytest.raises(UsageError) as caught:
            load(content)
        message = str(caught.value)
        assert message.startswith(f"{folder / 'web.yml'}: ")
        assert where in message.partition(": ")[2]
        assert remedy in message
        assert "\n" not in message
        assert "hunter2" not in message
        assert HASH[7:] not in message

    @pytest.mark.skipif(hasattr(ssl.SSLContext, "set_groups"), reason="this Python takes several")
    def test_several_curves(self, load: Load) -> None:
        """Python before 3.15 takes one curve, and says so where there are more."""
        with pytest.raises(UsageError, match=r"curve_preferences: .* one curve only; name one"):
            load(TLS + "  curve_preferences: [X25519, CurveP256]\n")

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        """A missing file, and a folder, are usage errors that name the flag."""
        for path in (tmp_path / "none.yml", tmp_path):
            with pytest.raises(UsageError, match=r"--web\.config\.file: .*; give a file"):
                load_web_config(path)

    def test_no_secret_shows(self, load: Load) -> None:
        """What is loaded can be printed without giving hashes or keys away."""
        config = load(
            f"tls_server_config:\n  cert_file: server.crt\n  key: {indented(SERVER.key)}{USERS}"
        )
        assert config.tls is not None
        shown = repr(config) + repr(config.tls._policy)
        assert HASH not in shown
        assert SERVER.key.splitlines()[1] not in shown

    @settings(
        max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        st.one_of(
            st.binary(max_size=100),
            st.text(max_size=100),
            st.lists(
                st.one_of(
                    st.sampled_from(
                        [
                            "tls_server_config:\n",
                            "http_server_config:\n",
                            "basic_auth_users:\n",
                            "rate_limit:\n",
                            "  cert_file: server.crt\n",
                            "  key_file: server.key\n",
                            "  client_auth_type: NoClientCert\n",
                            "  headers:\n",
                            "    X-Frame-Options: deny\n",
                            f"  prom: {HASH}\n",
                            "  interval: 1s\n",
                            "  burst: 1\n",
                            "  - &a [*a]\n",
                            "!!timestamp x",
                            "!!binary x",
                            "<<: ",
                        ]
                    ),
                    st.text(max_size=5),
                ),
                max_size=8,
            ).map("".join),
        )
    )
    def test_any_content(self, load: Load, content: str | bytes) -> None:
        """Whatever stands in the file, it is a configuration or a usage error."""
        if isinstance(content, str):
            content = content.encode(errors="surrogatepass")
        with suppress(UsageError):
            assert isinstance(load(content), WebConfig)


class TestTls:
    def test_a_client_that_trusts_the_authority(self, serve: Serve) -> None:
        """Paths are relative to the file, and a client gets its answer over TLS 1.3."""
        server = serve(TLS)
        response = get(server, context=trusting())
        assert (response.status, response.getheader("Content-Length")) == (200, "8")

    def test_a_certificate_within_the_file(self, serve: Serve) -> None:
        """Certificate, key and client CA may stand in the file itself."""
        server = serve(
            "tls_server_config:\n"
            f"  cert: {indented(SERVER.cert)}  key: {indented(SERVER.key)}"
            f"  client_ca: {indented(AUTHORITY.cert)}"
            "  client_auth_type: VerifyClientCertIfGiven\n"
        )
        assert get(server, context=trusting()).status == 200

    def test_a_large_answer(self, load: Load) -> None:
        """A large answer arrives whole over TLS, and the connection goes on."""
        body = os.urandom(1 << 22)
        server = Server("127.0.0.1:0", lambda _: Response(200, "a/b", body), load(TLS))
        server.start()
        with ExitStack() as stack:
            stack.callback(server.stop)
            connection = http.client.HTTPSConnection(
                *server.address, context=trusting(), timeout=10
            )
            stack.callback(connection.close)
            for headers in ({}, {}, {"Connection": "close"}):
                connection.request("GET", "/", headers=headers)
                assert connection.getresponse().read() == body

    def test_plain_http_on_a_tls_port(self, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
        """A client that does not speak TLS gets no answer, and the log stays quiet."""
        server = serve(TLS)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            get(server)
        assert get(server, context=trusting()).status == 200
        assert not caplog.records

    def test_a_bad_request_over_tls(self, serve: Serve) -> None:
        """Garbage within TLS gets its 400 like any other."""
        server = serve(TLS, discard_seconds=0.1)
        with (
            socket.create_connection(server.address, timeout=10) as raw,
            trusting().wrap_socket(raw, server_hostname="localhost") as sock,
        ):
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 400 Bad Request\r\n")

    def test_silent_clients_keep_nobody_out(self, serve: Serve) -> None:
        """Connections that never begin a handshake are bounded, and dropped in time."""
        server = serve(TLS, connections=10, handshake_seconds=0.5)
        with ExitStack() as stack:
            socks = [
                stack.enter_context(socket.create_connection(server.address, timeout=10))
                for _ in range(30)
            ]
            assert get(server, context=trusting()).status == 200
            for sock in socks:
                with suppress(ConnectionError):
                    assert sock.recv(1) == b""

    @pytest.mark.parametrize(
        ("extra", "client", "spoken"),
        [
            ("  min_version: TLS13\n", ssl.TLSVersion.TLSv1_2, None),
            ("  min_version: TLS13\n", ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
            ("  max_version: TLS12\n", ssl.TLSVersion.TLSv1_3, "TLSv1.2"),
            ("  min_version: TLS10\n", ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
            ("  cipher_suites: [TLS_AES_128_GCM_SHA256]\n", ssl.TLSVersion.TLSv1_2, None),
        ],
    )
    def test_versions(
        self, serve: Serve, extra: str, client: ssl.TLSVersion, spoken: str | None
    ) -> None:
        """The versions that may be spoken are those of the file."""
        server = serve(TLS + extra)
        context = trusting()
        context.maximum_version = client
        with socket.create_connection(server.address, timeout=10) as raw:
            if spoken is None:
                with pytest.raises(ssl.SSLError):
                    context.wrap_socket(raw, server_hostname="localhost")
            else:
                with context.wrap_socket(raw, server_hostname="localhost") as sock:
                    assert sock.version() == spoken

    def test_a_cipher_of_choice(self, serve: Serve) -> None:
        """TLS 1.2 takes the cipher that the file names."""
        server = serve(TLS + "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]\n")
        context = trusting()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection(server.address, timeout=10) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as sock,
        ):
            cipher = sock.cipher()
        assert cipher is not None
        assert cipher[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"

    @pytest.mark.parametrize("curve", ["CurveP256", "CurveP384", "CurveP521", "X25519"])
    def test_a_curve_of_choice(self, serve: Serve, curve: str) -> None:
        """Each of Go's curves can be asked for."""
        assert get(serve(TLS + f"  curve_preferences: [{curve}]\n"), context=trusting()).status

    @pytest.mark.parametrize(
        ("policy", "client", "admitted"),
        [
            ("RequestClientCert", None, True),
            ("RequestClientCert", STRANGER, True),
            ("VerifyClientCertIfGiven", None, True),
            ("VerifyClientCertIfGiven", CLIENT, True),
            ("VerifyClientCertIfGiven", STRANGER, False),
            ("RequireAndVerifyClientCert", None, False),
            ("RequireAndVerifyClientCert", CLIENT, True),
            ("RequireAndVerifyClientCert", STRANGER, False),
        ],
    )
    def test_client_certificates(
        self, serve: Serve, folder: Path, policy: str, client: Issued | None, admitted: bool
    ) -> None:
        """Who may come in is what the policy says of its certificate."""
        content = MUTUAL.replace("RequireAndVerifyClientCert", policy)
        if policy == "RequestClientCert":
            content = content.replace("  client_ca_file: ca.crt\n", "")
        server = serve(content)
        context = trusting(client, folder)
        if admitted:
            assert get(server, context=context).status == 200
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                get(server, context=context)

    @pytest.mark.parametrize(
        ("allowed", "client", "admitted"),
        [
            ("prometheus.example", CLIENT, True),
            ("ops@example.org", CLIENT, True),
            ("spiffe://cluster/prometheus", CLIENT, True),
            ("10.1.2.3", CLIENT, True),
            ("2001:db8::7", CLIENT, True),
            ("elsewhere, prometheus.example", CLIENT, True),
            ("client", CLIENT, False),
            ("example", CLIENT, False),
            ("prometheus.example", NAMELESS, False),
        ],
    )
    def test_alternative_names(
        self, serve: Serve, folder: Path, allowed: str, client: Issued, admitted: bool
    ) -> None:
        """With allowed names, one of them must be in the client's certificate, letter by letter."""
        server = serve(MUTUAL + f"  client_allowed_sans: [{allowed}]\n")
        context = trusting(client, folder)
        if admitted:
            assert get(server, context=context).status == 200
        else:
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                get(server, context=context)


class TestOpenssl:
    """What this machine's OpenSSL, files or kernel refuse, whatever the configuration file says."""

    def policy(self, **changes: object) -> TlsPolicy:
        """Return a good policy but for these changes."""
        good = TlsPolicy(
            "web.yml: tls",
            Pem("web.yml: cert", inline=SERVER.cert),
            Pem("web.yml: key", inline=SERVER.key),
        )
        return dataclasses.replace(good, **changes)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"ciphers": ("NONE",)}, r"web\.yml: tls\.cipher_suites: OpenSSL here offers none"),
            (
                {"curves": ("none",)},
                r"web\.yml: tls\.curve_preferences: OpenSSL here does not know",
            ),
        ],
    )
    def test_an_openssl_that_knows_less(self, changes: dict[str, object], sentence: str) -> None:
        """Names that OpenSSL does not know here are usage errors."""
        with pytest.raises(UsageError, match=sentence):
            Tls(self.policy(**changes))

    def test_a_file_that_cannot_be_read(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key that this user may not read is a usage error that names it."""

        def deny(path: Path) -> bytes:
            raise Denied(f"{path}: Permission denied")

        monkeypatch.setattr(tls, "read_bytes", deny)
        with pytest.raises(UsageError, match=r"cannot read .*server\.key: Permission denied; give"):
            Tls(self.policy(key=Pem("web.yml: key_file", folder / "server.key")))

    def test_a_kernel_without_memory_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the certificate cannot be handed over, that is a usage error too."""

        def fail(*_: object) -> int:
            raise OSError(errno.ENOSYS, "not here")

        monkeypatch.setattr(os, "memfd_create", fail)
        with pytest.raises(UsageError, match=r"cannot be handed to OpenSSL \(not here\)"):
            Tls(self.policy())


class TestRotation:
    def test_new_connections_see_the_new_certificate(
        self, serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A replaced certificate is served within seconds, not before, and without a restart."""
        caplog.set_level(logging.INFO)
        server, now = serve(TLS), [1000.0]
        tick(server, now)
        context = trusting()
        assert served_serial(server, context) == SERVER.certificate.serial_number
        replace(folder / "server.crt", OTHER_SERVER.cert)
        replace(folder / "server.key", OTHER_SERVER.key)
        assert served_serial(server, context) == SERVER.certificate.serial_number
        now[0] += 3
        assert served_serial(server, context) == OTHER_SERVER.certificate.serial_number
        assert caplog.messages == [
            f"{folder / 'web.yml'}: tls_server_config: the certificates were replaced"
        ]

    def test_half_a_replacement_changes_nothing(
        self, serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """While files do not fit together, or are away, the old ones serve and the log says it."""
        server, now = serve(TLS), [1000.0]
        tick(server, now)
        context = trusting()
        replace(folder / "server.crt", OTHER_SERVER.cert)
        for _ in range(3):
            now[0] += 3
            assert served_serial(server, context) == SERVER.certificate.serial_number
        (message,) = caplog.messages
        assert "key_file: the private key does not belong to" in message
        assert "the previous certificates stay in use" in message
        (folder / "server.key").unlink()
        now[0] += 3
        assert served_serial(server, context) == SERVER.certificate.serial_number
        assert "is no file" in caplog.messages[-1]
        replace(folder / "server.key", OTHER_SERVER.key)
        now[0] += 3
        assert served_serial(server, context) == OTHER_SERVER.certificate.serial_number

    def test_a_new_client_authority(self, serve: Serve, folder: Path) -> None:
        """A replaced client CA decides who may come in from then on."""
        server, now = serve(MUTUAL), [1000.0]
        tick(server, now)
        context = trusting(CLIENT, folder)
        assert get(server, context=context).status == 200
        replace(folder / "ca.crt", issue("new authority").cert)
        now[0] += 3
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(server, context=context)


def tick(server: Server, now: list[float]) -> None:
    """Let the server's TLS go by a clock of the test's."""
    owner = server._service.context.__self__  # type: ignore[attr-defined]
    owner._clock = lambda: now[0]
    owner._looked = now[0]


def replace(path: Path, text: str) -> None:
    """Replace a file as certificate managers do: all at once."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


class SlowBcrypt:
    """Stands in for bcrypt: as slow as the test wants, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> None:
        self.calls = 0
        self.seconds = seconds
        self._real = bcrypt.checkpw
        monkeypatch.setattr(bcrypt, "checkpw", self)

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.calls += 1
        time.sleep(self.seconds)
        return self._real(password, hashed)


class TestBasicAuth:
    @pytest.mark.parametrize("path", ["/metrics", "/", "/-/healthy", "/-/ready"])
    def test_everything_needs_a_login(self, serve: Serve, path: str) -> None:
        """Without credentials every path answers 401 and says what is asked for."""
        server = serve(USERS)
        response = get(server, path)
        assert response.status == 401
        assert response.getheader("WWW-Authenticate") == 'Basic realm="jobwatt", charset="UTF-8"'
        assert get(server, path, login("prom", "secret")).status == 200

    @pytest.mark.parametrize(
        "headers",
        [
            login("prom", "wrong"),
            login("prom", ""),
            login("prom", "secret "),
            login("Prom", "secret"),
            login("nobody", "secret"),
            login("", "secret"),
            login("prom", "secret\0"),
            login("prom", "é" * 200),
            {"Authorization": ""},
            {"Authorization": "Basic"},
            {"Authorization": "Basic !!!"},
            {"Authorization": "Basic é"},
            {"Authorization": "Basic " + base64.b64encode(b"no colon").decode()},
            {"Authorization": "Bearer " + base64.b64encode(b"prom:secret").decode()},
        ],
    )
    def test_a_wrong_login(self, serve: Serve, headers: dict[str, str]) -> None:
        """Wrong, unknown or unreadable credentials are refused, also after a good login."""
        server = serve(USERS)
        assert get(server, headers=headers).status == 401
        assert get(server, headers=login("prom", "secret")).status == 200
        assert get(server, headers=headers).status == 401

    @pytest.mark.parametrize("version", ["2a", "2b", "2y"])
    def test_each_kind_of_hash(self, serve: Serve, version: str) -> None:
        """Hashes of all current kinds are taken, also what htpasswd makes."""
        server = serve(USERS.replace("$2b$", f"${version}$"))
        assert get(server, headers=login("prom", "secret")).status == 200
        assert get(server, headers={"authorization": "bASIC  cHJvbTpzZWNyZXQ="}).status == 200

    def test_a_long_password(self, serve: Serve) -> None:
        """A password beyond bcrypt's 72 bytes counts up to there, as with Go."""
        stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
        server = serve(f"basic_auth_users: {{prom: {stored}}}\n")
        assert get(server, headers=login("prom", "x" * 100)).status == 200
        assert get(server, headers=login("prom", "x" * 71)).status == 401

    def test_a_colon_in_the_password(self, serve: Serve) -> None:
        """The first colon ends the name; the password may have others."""
        stored = bcrypt.hashpw(b"a:b", bcrypt.gensalt(4)).decode()
        server = serve(f"basic_auth_users: {{prom: {stored}}}\n")
        assert get(server, headers=login("prom", "a:b")).status == 200

    def test_a_password_that_bcrypt_refuses(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the library will not even look at (a zero byte, to some releases) is wrong."""

        def refuse(*_: object) -> bool:
            raise ValueError

        monkeypatch.setattr(bcrypt, "checkpw", refuse)
        assert get(serve(USERS), headers=login("prom", "a\0")).status == 401

    def test_bcrypt_is_asked_once(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who was right is remembered; who was wrong is checked again."""
        checks = SlowBcrypt(monkeypatch)
        server = serve(USERS)
        for _ in range(3):
            assert get(server, headers=login("prom", "secret")).status == 200
        assert checks.calls == 1
        for _ in range(3):
            assert get(server, headers=login("prom", "wrong")).status == 401
        assert checks.calls == 4

    def test_an_unknown_user_costs_the_same(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An unknown name is checked as long as a known one, and even the right password fails."""
        checks = SlowBcrypt(monkeypatch)
        server = serve(USERS)
        assert get(server, headers=login("nobody", "secret")).status == 401
        assert checks.calls == 1

    def test_what_is_remembered_has_a_bound(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Beyond the bound the oldest login is forgotten and checked again."""
        monkeypatch.setattr(basic_auth, "_REMEMBERED", 2)
        stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
        server = serve(f"basic_auth_users: {{prom: {stored}}}\n")
        checks = SlowBcrypt(monkeypatch)
        for length in (72, 73, 74, 72, 72):
            assert get(server, headers=login("prom", "x" * length)).status == 200
        assert checks.calls == 4

    def test_guessing_does_not_keep_others_out(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While many guess, a known client passes at once and a new one waits behind a few."""
        server = serve(USERS)
        good = login("prom", "secret")
        assert get(server, headers=good).status == 200
        SlowBcrypt(monkeypatch, 0.05)
        statuses: list[int] = []

        def guess(number: int) -> None:
            statuses.append(get(server, headers=login("prom", f"guess {number}")).status)

        threads = [threading.Thread(target=guess, args=(number,)) for number in range(40)]
        for thread in threads:
            thread.start()
        before = time.monotonic()
        assert get(server, headers=good).status == 200
        assert time.monotonic() - before < 0.3
        server._auth._remembered.clear()  # type: ignore[union-attr]
        assert get(server, headers=good, source="127.0.0.2").status == 200
        for thread in threads:
            thread.join()
        assert set(statuses) == {401, 429}

    def test_too_many_guesses_are_told_to_wait(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever has many passwords waiting gets 429 and a time to come back."""
        monkeypatch.setattr(basic_auth, "_WAITING_PER_CLIENT", 0)
        response = get(serve(USERS), headers=login("prom", "secret"))
        assert (response.status, response.getheader("Retry-After")) == (429, "1")

    def test_stop_does_not_wait_for_guesses(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A check under way does not hold up the end by more than its grace."""
        SlowBcrypt(monkeypatch, 1.5)
        server = serve(USERS)
        with socket.create_connection(server.address, timeout=10) as sock:
            header = login("prom", "guess")["Authorization"]
            sock.sendall(f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {header}\r\n\r\n".encode())
            time.sleep(0.1)
            before = time.monotonic()
            server.stop()
            assert time.monotonic() - before < 1.4


class TestAnswers:
    def test_headers_of_the_file(self, serve: Serve) -> None:
        """Configured headers are on every answer, errors included."""
        server = serve(
            USERS + "http_server_config: {headers: {X-Frame-Options: deny, "
            "Strict-Transport-Security: max-age=1}}\n"
        )
        for headers in ({}, login("prom", "secret")):
            response = get(server, headers=headers)
            assert response.getheader("X-Frame-Options") == "deny"
            assert response.getheader("Strict-Transport-Security") == "max-age=1"
            assert response.getheader("X-Content-Type-Options") == "nosniff"

    def test_the_rate_limit(self, serve: Serve) -> None:
        """A burst passes, then requests are told that they are too many."""
        server = serve("rate_limit: {interval: 1h, burst: 2}\n")
        assert [get(server).status for _ in range(4)] == [200, 200, 429, 429]

    def test_the_bucket_fills_again(self) -> None:
        """One more request fits after each interval, and never more than a burst."""
        now = [0.0]
        limit = RateLimit(2.0, 3, lambda: now[0])
        assert [limit.allow() for _ in range(4)] == [True, True, True, False]
        now[0] = 2.0
        assert [limit.allow() for _ in range(2)] == [True, False]
        now[0] = 1000.0
        assert [limit.allow() for _ in range(4)] == [True, True, True, False]
