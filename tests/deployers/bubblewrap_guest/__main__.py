"""
The smallest guest that the local deployer's tests need: a system Python, nothing else.

GET /fastapi/healthz; POST /run (shell), /exec (Python in the guest itself, which sets `result`),
/say and /exit take their argument as the body.
"""

import os
import socket
import subprocess
import threading


def answer(client, code, output):
    head = f"HTTP/1.1 200 OK\r\nX-Exit-Code: {code}\r\nContent-Length: {len(output)}\r\n"
    client.sendall(head.encode() + b"Connection: close\r\n\r\n" + output)


def serve(client):
    with client, client.makefile("rb") as request:
        path = request.readline().split()[1].decode()
        length = 0
        while line := request.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = request.read(length).decode()
        if path == "/run":
            done = subprocess.run(
                ["sh", "-c", body], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            code = done.returncode if done.returncode >= 0 else 128 - done.returncode
            answer(client, code, done.stdout)
        elif path == "/exec":
            names = {}
            exec(body, names)  # noqa: S102  # that is what it is for
            answer(client, 0, repr(names["result"]).encode())
        elif path == "/say":
            os.write(1, body.encode() + b"\n")
            answer(client, 0, b"")
        elif path == "/exit":
            answer(client, 0, b"")
            client.close()
            os._exit(int(body))
        else:
            answer(client, 0, b"OK")


listener = socket.socket(fileno=int(os.environ["GUEST_FD"]))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
