"""A client of the local API on one blocking socket, which it keeps open; prints the ms to each first token."""

import json
import re
import socket
import sys
from time import perf_counter

QUESTION = "what does str.split do?"
"""What the tiny model knows the answer to."""

TOKEN = re.compile(rb'"content": ?"[^"]')
"""A first piece may hold nothing but a role; it does not count."""


def main(address: str, model: str, count: int) -> None:
    """Ask `count` times, one after the other."""
    host, port = address.rsplit(":", 1)
    body = json.dumps(
        {"model": model, "messages": [{"role": "user", "content": QUESTION}], "stream": True, "temperature": 0}
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    taken = []
    with socket.create_connection((host, int(port))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            began = perf_counter()
            sock.sendall(request)
            received, first = b"", 0.0
            while not received.endswith(b"\r\n0\r\n\r\n"):
                data = sock.recv(65536)
                if not data:
                    sys.exit(f"the API closed the connection after {received[:200]!r}")
                received += data
                if not first and TOKEN.search(received):
                    first = perf_counter()
            if not received.startswith(b"HTTP/1.1 200") or b"data: [DONE]" not in received:
                sys.exit(f"the API answered {received[:300]!r}")
            taken.append((first - began) * 1e3)
    print(json.dumps(taken))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
