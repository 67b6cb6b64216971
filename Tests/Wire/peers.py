"""nginx and HAProxy as Debian ships them, as strict as they are by default."""

import subprocess

from weir import free_port, stop, wait_for_port

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log info;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    large_client_header_buffers 4 32k; client_max_body_size 0;
    upstream agent {{ server 127.0.0.1:{upstream}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://agent; proxy_http_version 1.1;
            proxy_set_header Connection ""; proxy_set_header Host $http_host;
        }}
    }}
}}
"""

HAPROXY = """
global
    maxconn 4096
    tune.bufsize 65536
defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s
    timeout http-request 10s
frontend front
    bind 127.0.0.1:{port}
    default_backend agent
backend agent
    server agent 127.0.0.1:{upstream}
"""


class Peer:
    def __init__(self, name, configuration, command, folder, upstream_port):
        self.name = name
        self.port = free_port()
        file = folder / f"{name}.conf"
        file.write_text(
            configuration.format(folder=folder, port=self.port, upstream=upstream_port)
        )
        self.log = folder / f"{name}.output"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*command, str(file)], stdout=log, stderr=subprocess.STDOUT
            )
        wait_for_port(self.port, self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop(self.process)


def nginx(folder, upstream_port):
    return Peer("nginx", NGINX, ["nginx", "-p", str(folder), "-c"], folder, upstream_port)


def haproxy(folder, upstream_port):
    # -db: in the foreground, one process, which SIGTERM ends.
    return Peer("haproxy", HAPROXY, ["haproxy", "-db", "-f"], folder, upstream_port)
