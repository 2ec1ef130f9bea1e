#!/usr/bin/python3
"""A registry that means harm, without anything in it.

usage: registry_hostile.py PORT-FILE MODE

MODE: sizes     a manifest whose layers are as large together as no number is
      later     429 with a Retry-After beyond all numbers
      error     404 with a text that does not end
      redirect  a redirect with a text that does not end
      large     a manifest that announces 1 TiB
      busy      503 with a text that announces 1 TiB, and then 404
      realm     names a token service without TLS on another machine
"""

import http.server
import json
import os
import socketserver
import sys

port_file, mode = sys.argv[1:3]
asked = []
DIGEST = "sha256:" + 64 * "0"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"{}", **headers):
        self.send_response(status)
        for k, v in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(k.replace("_", "-"), v)
        self.end_headers()
        self.wfile.write(body)

    def endless(self, status, **headers):
        self.send_response(status)
        for k, v in {"Transfer-Encoding": "chunked", **headers}.items():
            self.send_header(k.replace("_", "-"), v)
        self.end_headers()
        while True:
            self.wfile.write(b"10000\r\n" + 65536 * b"x" + b"\r\n")

    def do_GET(self):
        if mode == "sizes":
            blob = {"digest": DIGEST, "size": 9 * 10**18}
            self.answer(200, json.dumps({"schemaVersion": 2, "config": {"digest": DIGEST, "size": 2}, "layers": [blob, blob]}).encode())
        elif mode == "later":
            self.answer(429, Retry_After=str(10**30))
        elif mode == "error":
            self.endless(404)
        elif mode == "redirect":
            self.endless(302, Location=self.path + "x")
        elif mode == "large":
            self.answer(200, **{"Content-Length": str(1 << 40)})
        elif mode == "busy":
            self.answer(404 if asked else 503, **{} if asked else {"Content-Length": str(1 << 40)})
            asked.append(self.path)
        else:
            self.answer(401, WWW_Authenticate='Bearer realm="http://192.0.2.1/token",service="x"')


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


server = Server(("127.0.0.1", 0), Handler)
with open(port_file + ".new", "w", encoding="ascii") as f:
    f.write(str(server.server_address[1]))
os.rename(port_file + ".new", port_file)
server.serve_forever()
