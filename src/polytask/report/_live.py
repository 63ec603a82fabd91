"""The page of a running training, on this machine only."""

import json
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from polytask._errors import UserError
from polytask.compare._names import COST, DEFINITION, RESULTS, RUNS
from polytask.report._entries import collect
from polytask.report._page import body, figures_json, page, shell
from polytask.report._plotly import library
from polytask.report._sections import sections

_ADDRESS = "127.0.0.1"
_BUG = "The page cannot be drawn: the terminal says why."
_WATCHED = (
    "metrics.csv",
    "config.yaml",
    "records/*.parquet",
    DEFINITION,
    RESULTS,
    "remarks.json",
    f"{RUNS}/*/config.yaml",
    f"{RUNS}/*/metrics.csv",
    f"{RUNS}/*/{COST}",
    f"{RUNS}/*/environment.json",
    f"{RUNS}/*/records/*.parquet",
)


class LiveServer(ThreadingHTTPServer):
    """Serves the page of one run or comparison on 127.0.0.1, and what is new in it; it reads only.

    Only requests that name this machine are answered, so that no site in the browser can read a run.

    Args:
        folder: The folder of a run or of a comparison.
        port: The port; 0 for any that is free.
        refresh_seconds: Time between two questions of the page.

    Raises:
        UserError: Where the folder is neither, its records are damaged, the port is taken, or
            plotly is not installed.

    Example:
        >>> LiveServer(Path("runs/nothing"))
        Traceback (most recent call last):
        ...
        polytask._errors.UserError: runs/nothing: must be the folder of a run or of a comparison, got no ...
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0, refresh_seconds: float = 5.0) -> None:
        self.folder = folder
        self.refresh_ms = round(refresh_seconds * 1000)
        self.reading = threading.Lock()
        collect([folder])
        library()
        try:
            super().__init__((_ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            found = getattr(error, "strerror", None) or error
            raise UserError(f"--port {port}", "must be a free port", found, "Name another") from error

    @property
    def name(self) -> str:
        """What the page is called."""
        return self.folder.resolve().name

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{_ADDRESS}:{self.server_port}/"

    def version(self) -> str:
        """Changes with the records."""
        files = sorted(file for pattern in _WATCHED for file in self.folder.glob(pattern))
        return str(hash(tuple((str(file), *_state(file)) for file in files)))

    def page(self) -> str:
        """The whole page."""
        version = self.version()
        return page(collect([self.folder]), self.refresh_ms, version)

    def news(self, since: str) -> str:
        """What has changed since a version, as JSON."""
        version = self.version()
        if version == since:
            return json.dumps({"version": version})
        collection = collect([self.folder])
        parts = sections(collection)
        told = {"version": version, "body": body(collection, parts)}
        return json.dumps(told)[:-1] + f', "figures": {figures_json(parts)}}}'


def _state(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except FileNotFoundError:
        # The training has just joined it with another.
        return 0, 0
    return found.st_mtime_ns, found.st_size


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    server_version = "polytask"
    sys_version = ""

    def handle(self) -> None:
        # A browser may go away before it is answered, and while it is.
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self._hosts():
            self.send_error(HTTPStatus.FORBIDDEN, "This server answers this machine only")
            return
        try:
            asked = urlsplit(self.path)
            since = parse_qs(asked.query).get("since", [""])[0]
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        if asked.path not in ("/", "/news"):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            with self.server.reading:
                text = self.server.page() if asked.path == "/" else self.server.news(since)
        except UserError as error:
            # A file that is being written is whole again at the next question.
            self._send_problem(asked.path, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except Exception:
            # Also where nobody waits for the answer, the terminal is to say why.
            with suppress(ConnectionError):
                self._send_problem(asked.path, HTTPStatus.INTERNAL_SERVER_ERROR, _BUG)
            raise
        else:
            self._send(HTTPStatus.OK, "text/html" if asked.path == "/" else "application/json", text)

    def _send_problem(self, path: str, status: HTTPStatus, problem: str) -> None:
        """One line for the page, which asks again; whoever opens it gets the page without its content."""
        if path == "/":
            text = shell(self.server.name, self.server.refresh_ms, problem)
            self._send(HTTPStatus.OK, "text/html", text)
        else:
            self._send(status, "application/json", json.dumps({"error": problem}))

    def do_HEAD(self) -> None:
        self.do_GET()

    def _hosts(self) -> tuple[str, ...]:
        return tuple(f"{name}:{self.server.server_port}" for name in (_ADDRESS, "localhost"))

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal is the user's."""
