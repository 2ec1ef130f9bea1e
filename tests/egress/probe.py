"""In front of the small programs that the egress tests run inside a sandbox."""
import errno, os, socket, ssl, struct, time
from sys import argv

NAMES = {errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset", errno.EHOSTUNREACH: "unreachable",
         errno.ENETUNREACH: "unreachable", errno.EACCES: "forbidden", errno.EPERM: "forbidden",
         errno.EAFNOSUPPORT: "no_family", errno.EPIPE: "reset"}
FAMILIES = {"any": socket.AF_UNSPEC, "4": socket.AF_INET, "6": socket.AF_INET6}


def word(e):
    if isinstance(e, socket.gaierror):
        return "no_name"
    if isinstance(e, TimeoutError):
        return "hangs"
    return NAMES.get(e.errno, errno.errorcode.get(e.errno, str(e)))


def addresses(host, family="any"):
    return [a[4][0] for a in socket.getaddrinfo(host, None, FAMILIES[family], socket.SOCK_STREAM)]


def connect(host, port, family="any"):
    for fam, kind, proto, _, sa in socket.getaddrinfo(host, port, FAMILIES[family], socket.SOCK_STREAM):
        s = socket.socket(fam, kind, proto)
        s.settimeout(20)
        s.connect(sa)
        return s


def exchange(s, data):
    """Send, and what comes back first; or the word for what happened. An end without an answer: "closed"."""
    try:
        s.sendall(data)
        return s.recv(65536) or "closed"
    except OSError as e:
        return word(e)


def dial(host, port, family="any"):
    """A line to an echo server and back: "ok", or what happened."""
    try:
        answer = exchange(connect(host, port, family), b"ping\n")
    except OSError as e:
        return word(e)
    if isinstance(answer, str):
        return answer
    return "ok" if answer == b"ping\n" else answer.decode(errors="replace").split("\r")[0]


def question(name, kind):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.rstrip(".").split("."))
    return struct.pack(">6H", 0x1234, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, 1)


def ask(name, kind, server="8.8.8.8", tcp=False):
    """(rcode, number of answers) of a query to any resolver one likes."""
    q = question(name, kind)
    s = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET,
                      socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    s.settimeout(5)
    try:
        s.connect((server, 53))
        s.sendall((struct.pack(">H", len(q)) if tcp else b"") + q)
        a = s.recv(4096)
    except OSError as e:
        return word(e)
    a = a[2:] if tcp else a
    return (a[3] & 15, struct.unpack(">H", a[6:8])[0])


def hello(sni=None, ech=False):
    """A ClientHello. An ECH one carries an outer name and an extension 0xfe0d whose content nobody can read."""
    ext = b""
    if sni:
        name = sni.encode()
        ext += struct.pack(">HHHBH", 0, len(name) + 5, len(name) + 3, 0, len(name)) + name
    if ech:
        inner = struct.pack(">BHHBH", 0, 1, 1, 7, 32) + os.urandom(32) + struct.pack(">H", 144) + os.urandom(144)
        ext += struct.pack(">HH", 0xFE0D, len(inner)) + inner
    ext += struct.pack(">HHBH", 43, 3, 2, 0x0304)
    body = b"\3\3" + os.urandom(32) + b"\x20" + os.urandom(32) + struct.pack(">HH", 2, 0x1301) + b"\1\0"
    body += struct.pack(">H", len(ext)) + ext
    message = b"\1" + struct.pack(">I", len(body))[1:] + body
    return b"\x16\3\1" + struct.pack(">H", len(message)) + message


def tls(host, port=443, sni=None, family="any"):
    """A verified handshake under the name sni (default: host), and one request; the answer's body."""
    context = ssl.create_default_context(cafile="/workspace/ca.pem")
    context.check_hostname = False
    try:
        with context.wrap_socket(connect(host, port, family), server_hostname=sni or host) as s:
            s.sendall(f"GET / HTTP/1.0\r\nHost: {sni or host}\r\n\r\n".encode())
            answer = b""
            while data := s.recv(65536):
                answer += data
            return answer.decode().split("\r\n\r\n", 1)[1].strip()
    except OSError as e:
        return word(e)


def http(host, path="/", name=None, port=80, family="any"):
    """Status and body of one plain request under the name name (default: host)."""
    try:
        s = connect(host, port, family)
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: {name or host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := s.recv(65536):
            answer += data
    except OSError as e:
        return word(e)
    head, _, body = answer.decode().partition("\r\n\r\n")
    return head.split(" ")[1] + " " + body.strip()
