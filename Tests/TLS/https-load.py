"""Load on a TLS listener: https-load.py PORT CA STOP-FILE BODY

Two threads keep their connection, two open one for each request, until the file STOP-FILE is there.
Writes what they saw as one line of JSON: requests, failures, and the names of the certificates
that were shown.
"""
import http.client
import json
import os
import ssl
import sys
import threading

port, authorities, stop_file, body = sys.argv[1:]
context = ssl.create_default_context(cafile=authorities)
lock = threading.Lock()
seen = {"requests": 0, "failures": [], "kept": [], "opened": []}


def ask(connection):
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise OSError(f"status {response.status}")


def run(keeps):
    connection = None
    while not os.path.exists(stop_file):
        try:
            if connection is None:
                connection = http.client.HTTPSConnection(
                    "localhost", int(port), context=context, timeout=10
                )
                connection.connect()
                name = dict(part[0] for part in connection.sock.getpeercert()["subject"])
                with lock:
                    names = seen["kept" if keeps else "opened"]
                    if name["commonName"] not in names:
                        names.append(name["commonName"])
            ask(connection)
            with lock:
                seen["requests"] += 1
        except (OSError, http.client.HTTPException) as error:
            with lock:
                seen["failures"].append(str(error))
            connection = None
        if not keeps and connection is not None:
            connection.close()
            connection = None


threads = [threading.Thread(target=run, args=(index < 2,)) for index in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(seen))
