#!/usr/bin/env python3
"""Sends a webhook as Standard Webhooks has it for each session, and prints the statuses of the answers.

usage: hook.py URL KEY[,KEY...] TYPE SESSION[,SESSION...] [id=X] [at=SECONDS] [body=TEXT] [send=TEXT] [signature=TEXT]
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

url, keys, kind, sessions = sys.argv[1:5]
more = dict(a.split("=", 1) for a in sys.argv[5:])
at = str(int(time.time()) + int(more.get("at", 0)))


def sign(key, text):
    mac = hmac.new(base64.b64decode(key.removeprefix("whsec_")), text.encode(), hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


for session in sessions.split(","):
    data = {"type": kind, "id": session, "organization_id": "o", "workspace_id": "w"}
    body = more.get("body") or json.dumps({"type": "event", "data": data})
    ident = more.get("id") or "msg_" + os.urandom(8).hex()
    signed = " ".join(sign(k, f"{ident}.{at}.{body}") for k in keys.split(","))
    headers = {"webhook-id": ident, "webhook-timestamp": at, "content-type": "application/json",
               "webhook-signature": more.get("signature") or signed}
    request = urllib.request.Request(url + "/webhook", (more.get("send") or body).encode(), headers, method="POST")
    try:
        print(urllib.request.urlopen(request, timeout=10).status)
    except urllib.error.HTTPError as e:
        print(e.code)
