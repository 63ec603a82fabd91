"""Serves the page of a running training to this machine only."""

import json
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from polytask._errors import UserError
from polytask.compare._names import COST, DEFINITION, RESULTS, RUNS
from polytask.report._collect import collect
from polytask.report._page import body, figures_json, page, shell
from polytask.report._plotly import library
from polytask.report._sections import sections

_ADDRESS = "127.0.0.1"
_BUG = "The page cannot be drawn: see the traceback in the terminal."
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
    """Serves the page of one run or comparison on 127.0.0.1, and its changes; it writes nothing.

    Only requests whose host is this machine are answered, so that no web site can read a run.

    Args:
        folder: The folder of a run or of a comparison.
        port: The port; 0 for a free one.
        refresh_seconds: Seconds between two requests of the page.

    Raises:
        UserError: If the folder is neither, its records are damaged, the port is taken, or plotly is not
            installed.

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
        """The page's title."""
        return self.folder.resolve().name

    @property
    def address(self) -> str:
        """The page's URL."""
        return f"http://{_ADDRESS}:{self.server_port}/"

    def version(self) -> str:
        """A string that changes with the records."""
        files = sorted(file for pattern in _WATCHED for file in self.folder.glob(pattern))
        return str(hash(tuple((str(file), *_state(file)) for file in files)))

    def page(self) -> str:
        """The whole page."""
        version = self.version()
        return page(collect([self.folder]), self.refresh_ms, version)

    def news(self, since: str) -> str:
        """The changes since a version, as JSON.

        Args:
            since: The version that the page has.
        """
        version = self.version()
        if version == since:
            return json.dumps({"version": version})
        collection = collect([self.folder])
        parts = sections(collection)
        changes = {"version": version, "body": body(collection, parts)}
        return json.dumps(changes)[:-1] + f', "figures": {figures_json(parts)}}}'


def _state(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except FileNotFoundError:
        # The training has just merged it into another file.
        return 0, 0
    return found.st_mtime_ns, found.st_size


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    server_version = "polytask"
    sys_version = ""

    def handle(self) -> None:
        # A browser may close the connection at any time.
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self._hosts():
            self.send_error(HTTPStatus.FORBIDDEN, "This server answers requests from this machine only")
            return
        try:
            url = urlsplit(self.path)
            since = parse_qs(url.query).get("since", [""])[0]
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        if url.path not in ("/", "/news"):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            with self.server.reading:
                text = self.server.page() if url.path == "/" else self.server.news(since)
        except UserError as error:
            # A file that is being written is complete at the next request.
            self._send_problem(url.path, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except Exception:
            # The traceback goes to the terminal even if the connection is closed.
            with suppress(ConnectionError):
                self._send_problem(url.path, HTTPStatus.INTERNAL_SERVER_ERROR, _BUG)
            raise
        else:
            self._send(HTTPStatus.OK, "text/html" if url.path == "/" else "application/json", text)

    def _send_problem(self, path: str, status: HTTPStatus, problem: str) -> None:
        """Send one line to an open page, which tries again; send a page without content to a new one."""
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
        """Log nothing to the user's terminal."""
