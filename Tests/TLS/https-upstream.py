"""An upstream that speaks TLS: https-upstream.py PORT CERTIFICATE KEY CLIENT-CA

Answers every request with what it saw: path, fields, SNI, and whom the client's certificate names.
"""
import http.server
import json
import ssl
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        peer = self.connection.getpeercert() or {}
        answer = json.dumps(
            {
                "path": self.path,
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "peer": str(peer.get("subject")),
                "sni": getattr(self.connection, "sni", None),
                "usage": {"prompt_tokens": 1, "completion_tokens": 1},
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256


def remember(connection, name, _context):
    connection.sni = name


port, certificate, key, authorities = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.load_verify_locations(authorities)
context.verify_mode = ssl.CERT_OPTIONAL
context.sni_callback = remember
server = Server(("127.0.0.1", int(port)), Handler)
# Handshakes happen with the first read, in the connection's own thread.
server.socket = context.wrap_socket(
    server.socket, server_side=True, do_handshake_on_connect=False
)
print("listening", flush=True)
server.serve_forever()
