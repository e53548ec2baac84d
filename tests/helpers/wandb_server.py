"""A stand-in for W&B's server on the loopback interface, in a thread of the tests.

It answers what the client (0.31) asks, keeps every request, and fails on demand: `WandbServer.fail`, or from another
process a POST to ``/fail`` with its arguments as JSON. Only what was observed of the client is answered; other
operations are counted in ``state.unknown``. The user interface, permissions and all other queries of the real server
cannot be stood in for.
"""

import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from .wandb_graphql import Answers, State, take_stream


class WandbServer:
    """A running server.

    Attributes:
        url: Its address.
        state: The runs, sweeps and artifacts that it has received.
        uploads: The content of each uploaded file, by its path: ``run/ID/NAME`` or ``artifact/ID/NAME``.
        operations: Names of the GraphQL operations, and paths of the other requests, in order.
    """

    def __init__(self, sweep_count: int = 1000) -> None:
        self.state, self.uploads = State(), dict[str, bytes]()
        self.operations: list[str] = []
        self.fail("normal")
        handler = type("BoundHandler", (Handler,), {"server_state": self})
        self.http = QuietServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.answers = Answers(self.state, self.url, sweep_count)

    def fail(self, mode: str | int, only: str = "", times: int | None = None) -> None:
        """Change how requests are answered.

        Args:
            mode: ``normal``; ``hang``: no answer comes; ``drop``: the connection is closed; or an HTTP status.
            only: Regular expression of the operations and paths that fail.
            times: Number of requests that fail; None: all.
        """
        self.mode, self.only, self.times = mode, only, times

    def fault(self, request: str) -> str | int:
        """How a request is to fail, or ``normal``."""
        if self.mode == "normal" or not re.search(self.only, request):
            return "normal"
        if self.times is not None:
            self.times -= 1
            if self.times < 0:
                return "normal"
        return self.mode

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which the client uses this server, online."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "a" * 40, "WANDB_MODE": "online", "WANDB_SILENT": "true"}

    def run(self) -> dict[str, Any]:
        """What was received of the only run."""
        (run,) = self.state.runs.values()
        return run

    def history(self, run: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """The rows of a run's history, in order; of the only run by default."""
        rows = (self.run() if run is None else run)["history"]
        return [json.loads(rows[place]) for place in sorted(rows)]


@contextmanager
def wandb_server(sweep_count: int = 1000) -> Iterator[WandbServer]:
    """Run a server until the end of the block.

    Args:
        sweep_count: Number of runs that a sweep hands out at most.
    """
    server = WandbServer(sweep_count)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.fail("normal")
        server.http.shutdown()
        server.http.server_close()
        thread.join()


class QuietServer(ThreadingHTTPServer):
    """Prints nothing when a client closes its connection, as a killed one does."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the error: requests that fail are counted where they are answered."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server_state: WandbServer

    def log_message(self, *_: Any) -> None:
        """Print nothing: the requests are kept."""

    def do_GET(self) -> None:
        """Answer a download."""
        self._serve()

    def do_POST(self) -> None:
        """Answer an operation or a stream of history."""
        self._serve()

    def do_PUT(self) -> None:
        """Take an upload."""
        self._serve()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _serve(self) -> None:
        server, path = self.server_state, unquote(urlsplit(self.path).path)
        body = self._body()
        if path == "/fail":
            server.fail(**json.loads(body))
            return self._reply({})
        operation, variables = "", dict[str, Any]()
        if path.endswith("/graphql"):
            asked = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", asked.get("query", ""))
            operation = asked.get("operationName") or (found[1] if found else "?")
            variables = asked.get("variables") or {}
        server.operations.append(operation or path)
        if (fault := server.fault(operation or path)) != "normal":
            return self._fail(fault)
        with server.state.lock:
            try:
                if operation:
                    return self._reply({"data": server.answers.answer(operation, variables)})
                if path.endswith("/file_stream"):
                    take_stream(server.state.run(path.split("/")[-2]), json.loads(body or b"{}"))
                    return self._reply({"exitcode": None, "limits": {}})
                if path.startswith("/sdk/otel/"):  # what the client reports about itself
                    return self._reply({})
                if path.startswith("/storage/"):
                    return self._storage(path.removeprefix("/storage/"), body)
            except Exception as error:  # counted, since the client would only try again
                return self._unknown(f"{operation or path}: {type(error).__name__}: {error}", 400)
            return self._unknown(path, 404)

    def _storage(self, name: str, body: bytes) -> None:
        uploads = self.server_state.uploads
        if self.command == "GET":
            return self._reply(uploads[name]) if name in uploads else self._unknown(f"GET {name}", 404)
        uploads[name] = body
        kind, owner, file = name.split("/", 2)
        if kind == "run":
            self.server_state.state.run(owner)["files"][file] = len(body)
        return self._reply({})

    def _unknown(self, what: str, status: int) -> None:
        unknown = self.server_state.state.unknown
        unknown[what] = unknown.get(what, 0) + 1
        self._reply({"errors": [{"message": what}]}, status)

    def _fail(self, fault: str | int) -> None:
        while fault == "hang" and self.server_state.mode == "hang":
            time.sleep(0.05)
        if isinstance(fault, int):
            self._reply({"errors": [{"message": "told to fail"}]}, fault)
        self.close_connection = True

    def _reply(self, content: Any, status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True
