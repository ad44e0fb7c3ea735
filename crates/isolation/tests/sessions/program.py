#!/usr/bin/python3 -uB
"""The program of a session in tests: echoes on TCP $PORT and UDP 7002, and does on TCP 7001 what it is told."""
import json, os, signal, socket, socketserver, sys, threading


def do(order):
    match order:
        case {"read": path}:
            return open(os.path.join(os.environ["LYRA_SESSION_DIR"], path)).read()
        case {"write": path}:
            open(os.path.join(os.environ["LYRA_SESSION_DIR"], path), "w").write("mine")
        case {"env": name}:
            return os.environ.get(name)
        case {"print": text}:
            print(text)
        case {"serve": text}:
            host, port = os.environ["LYRA_SESSION_ADDRESS"].split(":")
            with socket.create_connection((host, int(port))) as service:
                service.sendall(text.encode())
                return service.recv(100).decode()
        case {"connect": [host, port]}:
            socket.create_connection((host, port), timeout=5).close()
        case {"send": [host, port]}:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                out.settimeout(2)
                out.connect((host, port))
                out.send(b"x")
                return out.recv(10).decode()
        case {"listen": port}:
            socket.create_server(("0.0.0.0", port))
        case {"interfaces": _}:
            return [name for _, name in socket.if_nameindex()]
        case {"flood": count}:
            for number in range(count):
                print(f"line {number}")
        case {"later": [seconds, count, status]}:
            def act():
                do({"flood": count})
                os._exit(status)
            threading.Timer(seconds, act).start()
        case {"exit": status}:
            os._exit(status)
    return "done"


class Orders(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            try:
                answer = {"ok": do(json.loads(line))}
            except OSError as error:
                answer = {"error": type(error).__name__}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        if os.environ.get("DEAF"):
            threading.Event().wait()
        while data := self.request.recv(65536):
            self.request.sendall(data.upper())
        # The client has ended its direction; ours still goes.
        self.request.sendall(b"bye")


class Datagrams(socketserver.BaseRequestHandler):
    def handle(self):
        data, out = self.request
        out.sendto(b"%d " % self.client_address[1] + data.upper(), self.client_address)


class Udp(socketserver.UDPServer):
    max_packet_size = 65536


class Threads(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024


signal.signal(signal.SIGTERM, lambda *_: (print("asked to end"), os._exit(3)))
# Python runs handlers in its first thread. Just after SIGCONT the system may well give a signal to another one, and the first would
# not wake for it.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
threading.stack_size(128 << 10)
for server in (
    Threads(("127.0.0.1", int(os.environ.get("PORT", "7000"))), Echo),
    Threads(("127.0.0.1", 7001), Orders),
    Udp(("127.0.0.1", 7002), Datagrams),
):
    threading.Thread(target=server.serve_forever).start()
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
print("up")
