"""Connections that ask once and then stay."""

import resource
import socket

from . import messages
from .peers import client_context
from .stage import Missing, Stage


class Connections:
    """Use as a context: they are open inside it."""

    def __init__(self, stage: Stage, port: int, form: str, count: int) -> None:
        self.port = port
        self.count = count
        self.sockets: list[socket.socket] = []
        self.context = client_context(stage, form) if form in ("tls", "mtls") else None
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < count + 200:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 200), hard))

    def __enter__(self) -> "Connections":
        request = messages.request_bytes("/bytes/1024", None)
        try:
            for _ in range(self.count):
                self.sockets.append(self.asked(request))
        except BaseException:
            self.__exit__()
            raise
        return self

    def asked(self, request: bytes) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), 10)
        connection = plain
        if self.context:
            connection = self.context.wrap_socket(plain, server_hostname="agent.local")
        connection.sendall(request)
        answer = b""
        while len(answer) < 1024 or b"\r\n\r\n" not in answer:
            piece = connection.recv(1 << 16)
            if not piece:
                raise Missing("a connection was closed before its answer")
            answer += piece
        return connection

    def __exit__(self, *_: object) -> None:
        for connection in self.sockets:
            connection.close()
