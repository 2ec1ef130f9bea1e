#!/usr/bin/python3
"""Stands between a client and a registry, and misbehaves.

usage: registry_faults.py PORT-FILE UPSTREAM-PORT MODE LOG

MODE: busy   every path answers 503 once, with Retry-After, then works
      cut    a blob of more than 1 MiB is cut in the middle, both ways, three times
      cut-whole  the same of downloads, and who asks for the rest gets all of it
      mute   of each kind of upload request the first one is done, and its answer lost with the connection
      liar   every blob comes with its last byte changed
      token  wants a bearer token, and is the token service (user agent, password secret)
      stray  wants the password, and sends blobs and uploads to another host name (localhost), which asks for it too
"""

import base64
import http.client
import http.server
import json
import socketserver
import sys
import urllib.parse

port_file, upstream, mode, log = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
seen, cuts = set(), {"GET": 0, "PATCH": 0, "PUT": 0}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def note(self, **what):
        with open(log, "a", encoding="utf-8") as f:
            f.write(json.dumps({"method": self.command, "path": self.path.split("?")[0], **what}) + "\n")

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def stray(self):
        auth = self.headers.get("Authorization", "")
        port = server.server_address[1]
        if not self.headers["Host"].startswith("127.0.0.1"):
            self.note(stray=True, auth=auth)
            self.answer(401, b"{}", WWW_Authenticate=f'Bearer realm="http://localhost:{port}/token"')
        elif auth != "Basic " + base64.b64encode(b"agent:secret").decode():
            self.answer(401, b"{}", WWW_Authenticate='Basic realm="r"')
        elif self.command == "POST":
            self.answer(202, Location=f"http://localhost:{port}{self.path}1")
        elif self.command == "GET" and "/blobs/" in self.path:
            self.answer(307, Location=f"http://localhost:{port}{self.path}")
        else:
            return True
        return False

    def allowed(self):
        if mode == "stray":
            return self.stray()
        if mode != "token":
            return True
        me = f"http://{self.headers['Host']}"
        auth = self.headers.get("Authorization", "")
        if self.path.startswith("/token"):
            query = urllib.parse.parse_qs(self.path.split("?", 1)[1])
            good = auth == "Basic " + base64.b64encode(b"agent:secret").decode()
            self.note(scope=query.get("scope"), service=query.get("service"), good=good)
            if good:
                self.answer(200, json.dumps({"token": "the-token"}).encode())
            else:
                self.answer(401, b"{}")
            return False
        if auth == "Bearer the-token":
            return True
        self.answer(401, b"{}", WWW_Authenticate=f'Bearer realm="{me}/token",service="reg",scope="whatever"')
        return False

    def serve(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = b""
        blob = "/blobs/" in self.path
        if mode == "cut" and self.command in ("PATCH", "PUT") and length > 1 << 20 and cuts[self.command] < 3:
            cuts[self.command] += 1
            part = self.rfile.read(length // 3)
            self.note(cut=len(part))
            # The first time the registry has what came so far, but its client does not know the place any more.
            if self.command == "PATCH" and cuts["PATCH"] == 1:
                begin = int(self.headers["Content-Range"].split("-")[0])
                self.forward(part, {"Content-Range": f"{begin}-{begin + len(part) - 1}"})
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if not self.allowed():
            return
        if mode == "busy" and (self.command, self.path.split("?")[0]) not in seen:
            seen.add((self.command, self.path.split("?")[0]))
            self.note(busy=True)
            self.answer(503, b"{}", Retry_After="0")
            return
        status, headers, data = self.forward(body, {})
        self.note(status=status, range=self.headers.get("Range"), bytes=len(data), sent=length)
        kind = self.command + self.path.split("/")[-2][:5]  # uploads/ID, manifests/TAG
        if mode == "mute" and self.command in ("POST", "PATCH", "PUT") and kind not in seen:
            seen.add(kind)
            self.note(mute=kind)
            self.close_connection = True
            return
        if mode == "liar" and blob and self.command == "GET" and status == 200:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(status)
        for k, v in headers:
            if k.lower() not in ("transfer-encoding", "connection"):
                self.send_header(k, v)
        if not any(k.lower() == "content-length" for k, _ in headers):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if mode in ("cut", "cut-whole") and blob and self.command == "GET" and len(data) > 1 << 20 and cuts["GET"] < 3:
            cuts["GET"] += 1
            self.note(cut=len(data) // 3)
            self.wfile.write(data[:len(data) // 3])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(data)

    def forward(self, body, changed):
        c = http.client.HTTPConnection("127.0.0.1", upstream)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "content-length", "authorization")}
        if mode == "cut-whole":
            headers.pop("Range", None)
        headers.update(changed)
        if body or self.command in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = str(len(body))
        c.request(self.command, self.path, body=body or None, headers=headers)
        r = c.getresponse()
        return r.status, r.getheaders(), r.read()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = serve


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


server = Server(("127.0.0.1", 0), Handler)
with open(port_file + ".new", "w", encoding="ascii") as f:
    f.write(str(server.server_address[1]))
import os  # noqa: E402

os.rename(port_file + ".new", port_file)
server.serve_forever()
