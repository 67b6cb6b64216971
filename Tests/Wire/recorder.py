"""An upstream that writes down each request as it stood on the wire, and answers it."""

import re
import socket
import threading


LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + b"x" * 1048576


class Request:
    """One whole request: what a server behind a proxy acts upon."""

    def __init__(self, method, target, fields, body):
        self.method = method
        # Proxies differ in which form they forward; which resource is meant is the question here.
        self.target = re.sub(rb"^https?://[^/?]*", b"", target, flags=re.I) or b"/"
        self.fields = fields
        self.body = body

    def key(self):
        """What a request asks for."""
        return (self.method, self.target, self.body)

    def __repr__(self):
        body = f" {self.body[:40]!r}" if self.body else ""
        return f"{self.method.decode('latin1')} {self.target[:60].decode('latin1')}{body}"


class Recorder:
    """Listens on a port of its own; `requests` is in the order of their ends."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.requests = []
        self.broken = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def close(self):
        self.listener.close()

    def taken(self):
        """What came since the last call."""
        with self.lock:
            requests, self.requests = self.requests, []
            broken, self.broken = self.broken, []
        return requests, broken

    def serve(self, connection):
        connection.settimeout(30)
        stream = Stream(connection)
        try:
            while (request := stream.request()) is not None:
                with self.lock:
                    self.requests.append(request)
                if request.target == b"/large":
                    connection.sendall(LARGE)
                elif request.method == b"HEAD":
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
                else:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except Broken as problem:
            with self.lock:
                self.broken.append(str(problem))
        except OSError:
            pass
        finally:
            connection.close()


class Broken(Exception):
    """A proxy sent what no proxy may send."""


class Stream:
    def __init__(self, connection):
        self.connection = connection
        self.buffer = b""

    def fill(self):
        try:
            more = self.connection.recv(65536)
        except TimeoutError:
            return False
        self.buffer += more
        return bool(more)

    def line(self):
        while b"\n" not in self.buffer:
            if not self.fill():
                return None
        line, self.buffer = self.buffer.split(b"\n", 1)
        if not line.endswith(b"\r"):
            raise Broken(f"a bare line feed behind {line[-40:]!r}")
        return line[:-1]

    def exactly(self, count):
        while len(self.buffer) < count:
            if not self.fill():
                return None
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def request(self):
        """`None` at the end, also in the middle of a request, which nobody would act upon."""
        first = self.line()
        if first is None:
            return None
        parts = first.split(b" ")
        if len(parts) != 3:
            raise Broken(f"the request line {first!r}")
        fields = []
        while line := self.line():
            name, colon, value = line.partition(b":")
            if not colon or name != name.strip() or not name:
                raise Broken(f"the field line {line!r}")
            fields.append((name.lower(), value.strip()))
        if line is None:
            return None
        body = self.body(fields)
        return None if body is None else Request(parts[0], parts[1], fields, body)

    def body(self, fields):
        lengths = [value for name, value in fields if name == b"content-length"]
        codings = [value for name, value in fields if name == b"transfer-encoding"]
        if len(lengths) + len(codings) > 1:
            raise Broken(f"framed twice: {lengths} {codings}")
        if codings:
            if codings[0].lower() != b"chunked":
                raise Broken(f"the coding {codings[0]!r}")
            return self.chunks()
        return self.exactly(int(lengths[0])) if lengths else b""

    def chunks(self):
        body = b""
        while (line := self.line()) is not None:
            digits = line.split(b";")[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", digits):
                raise Broken(f"the chunk size {line!r}")
            size = int(digits, 16)
            if size == 0:
                while trailer := self.line():
                    pass
                return None if trailer is None else body
            data = self.exactly(size + 2)
            if data is None:
                return None
            if data[-2:] != b"\r\n":
                raise Broken("a chunk without its end")
            body += data[:-2]
        return None
