"""The plain servers of the egress tests' world. Everything they hear goes into DIR/heard, one line each.

usage: servers.py internet|host DIR
"""
import asyncio
import socket
import sys

place, directory = sys.argv[1:]
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


async def tell(reader, writer, port):
    hear("tcp", port, b"connected")
    writer.write(b"host-service\n")


def guarded(serve, port):
    async def handler(reader, writer):
        try:
            await serve(reader, writer, port)
            writer.close()
            await writer.wait_closed()
        except OSError:
            writer.transport.abort()
    return handler


class Sink(asyncio.DatagramProtocol):
    def __init__(self, port):
        self.port = port

    def datagram_received(self, data, addr):
        hear("udp", self.port, data)


async def listen(serve, port, address=None):
    await asyncio.start_server(guarded(serve, port), address, port, backlog=1024)


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
        await listen(count, 9)
        for port in (123, 443, 853, 4433, 9999):
            await loop.create_datagram_endpoint(lambda port=port: Sink(port), sock=both_families(port))
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
