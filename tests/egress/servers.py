"""The plain servers of the egress tests' world. Everything they hear goes into DIR/heard, one line each.

usage: servers.py internet|host DIR
"""
import asyncio
import json
import os
import resource
import socket
import ssl
import sys
import threading

place, directory = sys.argv[1:]
# The soft limit is what select(2) can bear.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
heard = open(f"{directory}/heard", "a", buffering=1)


def hear(kind, port, data):
    heard.write(f"{place} {kind} {port} {data[:200]!r}\n")


async def relay_back(reader, writer, port):
    """Echo until the end, then end."""
    while data := await reader.read(65536):
        hear("tcp", port, data)
        writer.write(data)
        await writer.drain()


async def greet(reader, writer, port):
    """The server speaks first, as ssh does."""
    writer.write(b"SSH-2.0-world\r\n")
    await relay_back(reader, writer, port)


async def count(reader, writer, port):
    """Read to the end, then answer: needs a half-closed connection."""
    total = 0
    while data := await reader.read(65536):
        total += len(data)
    writer.write(b"%d" % total)


async def body_of(reader, head):
    if "chunked" in head.get("transfer-encoding", ""):
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body
    return await reader.readexactly(int(head.get("content-length", 0)))


async def web(reader, writer, port):
    """HTTP that says what it was asked: keep-alive, chunks both ways, events, upgrade to an echo."""
    while line := await reader.readline():
        method, path, _ = line.decode().split(" ", 2)
        head = {}
        while (field := await reader.readline()).strip():
            name, value = field.decode("latin-1").split(":", 1)
            head[name.lower()] = value.strip()
        hear("web", port, f"{method} {path} {head.get('host')} {head.get('authorization')}".encode())
        if "upgrade" in head:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            await relay_back(reader, writer, port)
            return
        if head.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await body_of(reader, head)
        if path == "/events":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for i in range(3):
                event = b"data: %d\n\n" % i
                writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                await writer.drain()
                await asyncio.sleep(0.2)
            writer.write(b"0\r\n\r\n")
            continue
        said = {"method": method, "path": path, "length": len(body), "head": head}
        if tls := writer.get_extra_info("ssl_object"):
            said["resumed"] = tls.session_reused
        if len(body) < 4096:
            said["body"] = body.decode("latin-1")
        answer = json.dumps(said).encode() + b"\n"
        # As front ends do, to be found again in a log.
        same = "".join(f"X-Request-Id: {head[k]}\r\n" for k in head if k == "x-request-id")
        writer.write(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (same.encode("latin-1"), len(answer)))
        if method != "HEAD":
            writer.write(answer)
        await writer.drain()


async def late(reader, writer, port):
    """What port 8444 says after the handshake, the tickets first, comes when the file "tickets" is there."""
    up_reader, up_writer = await asyncio.open_connection("127.0.0.1", 8444)
    spoke = shaken = False

    async def back():
        nonlocal spoke
        while data := await up_reader.read(65536):
            spoke = True
            while shaken and not os.path.exists(f"{directory}/tickets"):
                await asyncio.sleep(0.05)
            writer.write(data)

    answers = asyncio.ensure_future(back())
    while data := await reader.read(65536):
        shaken = spoke
        up_writer.write(data)
    up_writer.close()
    await answers


def stuck(listener, tls):
    """Read the head of a request, say so, and read no more."""
    def serve(s):
        try:
            s = tls.wrap_socket(s, server_side=True)
            s.recv(4096)
            s.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            threading.Event().wait()
        except OSError:
            pass

    # What the kernel takes for us is little, and inherited.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


async def tell(reader, writer, port):
    hear("tcp", port, b"connected")
    writer.write(b"host-service\n")


def guarded(serve, port):
    async def handler(reader, writer):
        try:
            await serve(reader, writer, port)
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
    return handler


class Sink(asyncio.DatagramProtocol):
    def __init__(self, port):
        self.port = port

    def datagram_received(self, data, addr):
        hear("udp", self.port, data)


class Echo(Sink):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        super().datagram_received(data, addr)
        self.transport.sendto(data.upper(), addr)


async def listen(serve, port, address=None, tls=None):
    await asyncio.start_server(guarded(serve, port), address, port, backlog=1024, ssl=tls)


def both_families(port):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", port))
    sock.setblocking(False)
    return sock


async def main():
    loop = asyncio.get_running_loop()
    if place == "internet":
        for port in (7, 853, 5432, 8080):
            await listen(relay_back, port)
        await listen(greet, 22)
        await listen(web, 8000)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(f"{directory}/cert.pem", f"{directory}/key.pem")
        await listen(web, 8444, tls=tls)
        await listen(late, 8446)
        listener = socket.create_server(("", 8445), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
        threading.Thread(target=stuck, args=(listener, tls), daemon=True).start()
        await listen(count, 9)
        for port in (123, 443, 853, 4433, 9999):
            await loop.create_datagram_endpoint(lambda port=port: Sink(port), sock=both_families(port))
        # Without a wildcard, or the answer would come from another address than was asked.
        for address in ("9.9.9.10", "2600:9::10", "9.9.11.5", "9.9.9.20", "10.20.0.9"):
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            # IPV6_FREEBIND: a route makes the address local, not an interface.
            if ":" in address:
                sock.setsockopt(socket.IPPROTO_IPV6, 78, 1)
            sock.bind((address, 5000))
            sock.setblocking(False)
            await loop.create_datagram_endpoint(lambda: Echo(5000), sock=sock)
    else:
        await listen(tell, 8081, ("127.0.0.1", "::1"))
        await listen(tell, 8082)
        await listen(tell, 80)
        await listen(tell, 7)
        abstract = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        abstract.bind("\0" + directory)
        await asyncio.start_unix_server(guarded(tell, "abstract"), sock=abstract)
        await asyncio.start_unix_server(guarded(tell, "unix"), directory + "/host.sock")
    open(f"{directory}/{place}.ready", "w").close()
    await asyncio.Event().wait()


asyncio.run(main())
