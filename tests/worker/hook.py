#!/usr/bin/env python3
"""Sends a webhook as Standard Webhooks has it and prints the status of the answer.

usage: hook.py URL KEY[,KEY...] TYPE SESSION [id=X] [at=SECONDS] [body=TEXT] [send=TEXT] [signature=TEXT]
at is relative to now; body is what is signed, send what is sent instead of it."""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request

url, keys, kind, session = sys.argv[1:5]
more = dict(a.split("=", 1) for a in sys.argv[5:])
body = more.get("body") or json.dumps({"type": "event", "data": {"type": kind, "id": session, "organization_id": "o", "workspace_id": "w"}})
ident = more.get("id") or "msg_" + os.urandom(8).hex()
at = str(int(time.time()) + int(more.get("at", 0)))


def sign(key):
    mac = hmac.new(base64.b64decode(key.removeprefix("whsec_")), f"{ident}.{at}.{body}".encode(), hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


headers = {"webhook-id": ident, "webhook-timestamp": at, "content-type": "application/json",
           "webhook-signature": more.get("signature") or " ".join(sign(k) for k in keys.split(","))}
request = urllib.request.Request(url + "/webhook", (more.get("send") or body).encode(), headers, method="POST")
try:
    print(urllib.request.urlopen(request, timeout=10).status)
except urllib.error.HTTPError as e:
    print(e.code)
