#!/usr/bin/python3
"""Calls containerd's CRI as a kubelet does.

usage: cri.py SOCKET METHOD JSON            one call; prints the answer as JSON
       cri.py SOCKET exec-stream JSON [IN]  Exec, then its stream by WebSocket; prints stdout, then the status
"""
import base64
import importlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import urllib.parse

import grpc
from google.protobuf import json_format

METHODS = {
    "RunPodSandbox": ("RunPodSandboxRequest", "RunPodSandboxResponse"),
    "StopPodSandbox": ("PodSandboxRequest", "Empty"),
    "RemovePodSandbox": ("PodSandboxRequest", "Empty"),
    "PodSandboxStatus": ("PodSandboxRequest", "PodSandboxStatusResponse"),
    "CreateContainer": ("CreateContainerRequest", "CreateContainerResponse"),
    "StartContainer": ("ContainerRequest", "Empty"),
    "StopContainer": ("StopContainerRequest", "Empty"),
    "RemoveContainer": ("ContainerRequest", "Empty"),
    "ContainerStatus": ("ContainerRequest", "ContainerStatusResponse"),
    "ContainerStats": ("ContainerRequest", "ContainerStatsResponse"),
    "UpdateContainerResources": ("UpdateContainerResourcesRequest", "Empty"),
    "ExecSync": ("ExecSyncRequest", "ExecSyncResponse"),
    "Exec": ("ExecRequest", "ExecResponse"),
}


def messages():
    """The protocol's messages, compiled once for all calls where CT, the test's directory, is set."""
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as scratch:
        out = os.environ.get("CT", scratch)
        if not os.path.exists(out + "/cri_pb2.py"):
            subprocess.run(["protoc", "-I", here, "--python_out", out, "cri.proto"], check=True)
        sys.path.insert(0, out)
        return importlib.import_module("cri_pb2")


def call(sock, method, request):
    pb = messages()
    asks, answers = (getattr(pb, name) for name in METHODS[method])
    with grpc.insecure_channel("unix:" + sock, options=[("grpc.default_authority", "localhost")]) as channel:
        f = channel.unary_unary(
            "/runtime.v1.RuntimeService/" + method,
            request_serializer=asks.SerializeToString,
            response_deserializer=answers.FromString,
        )
        message = f(json_format.ParseDict(json.loads(request), asks()), timeout=60)
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, including_default_value_fields=True)


def read_exactly(s, n):
    data = b""
    while len(data) < n:
        chunk = s.recv(n - len(data))
        if not chunk:
            return None
        data += chunk
    return data


def frames(s):
    while True:
        head = read_exactly(s, 2)
        if head is None:
            return
        n = head[1] & 127
        if n == 126:
            n = struct.unpack(">H", read_exactly(s, 2))[0]
        elif n == 127:
            n = struct.unpack(">Q", read_exactly(s, 8))[0]
        data = read_exactly(s, n) if n else b""
        if head[0] & 15 == 8:
            return
        yield data


def send_frame(s, data):
    mask = os.urandom(4)
    head = b"\x82" + (bytes([128 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data)))
    s.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))


def stream(url, data):
    """Channels: 0 standard input, 1 output, 2 errors, 3 the status at the end."""
    u = urllib.parse.urlparse(url)
    s = socket.create_connection((u.hostname, u.port), timeout=30)
    s.sendall((
        "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        % (u.path, u.netloc, base64.b64encode(os.urandom(16)).decode())).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read_exactly(s, 1)
    if b" 101 " not in head.split(b"\r\n")[0]:
        raise SystemExit(head.decode())
    if data is not None:
        send_frame(s, b"\0" + data.encode())
    for f in frames(s):
        if f[:1] == b"\1":
            sys.stdout.write(f[1:].decode())
        elif f[:1] == b"\3" and len(f) > 1:
            print(json.loads(f[1:]).get("status"))


def main():
    sock, method, request = sys.argv[1:4]
    try:
        if method == "exec-stream":
            stream(call(sock, "Exec", request)["url"], sys.argv[4] if len(sys.argv) > 4 else None)
        else:
            print(json.dumps(call(sock, method, request)))
    except grpc.RpcError as e:
        raise SystemExit("%s: %s" % (method, e.details()))


main()
