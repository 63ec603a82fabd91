"""The server of a running training: this machine only, read only, and it lives on."""

import html
import http.client
import json
import socket
import struct
import threading
from contextlib import contextmanager

import pytest

from polytask import UserError
from polytask.report import LiveServer
from tests.report_folders import write_comparison, write_metrics, write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "one", records=False)


@contextmanager
def serving(run):
    """A server whose threads have all ended behind it."""
    with LiveServer(run, refresh_seconds=0.1) as server:
        # An answer reaches the client before its thread has said in the terminal what went wrong.
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(run):
    with serving(run) as server:
        yield server


def ask(server, path, method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer, content


def test_it_listens_on_this_machine_only(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.address == f"http://127.0.0.1:{server.server_port}/"


def test_it_serves_the_page(server):
    answer, content = ask(server, "/")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Loss of digit" in content
    assert 'data-live="100"' in content


def test_news_come_once_records_change(server, run):
    first = json.loads(ask(server, "/news?since=")[1])
    assert "Loss of digit" in first["body"]
    assert first["figures"]
    assert json.loads(ask(server, f"/news?since={first['version']}")[1]) == {"version": first["version"]}
    write_metrics(run, ("digit", "parity"), 0, epochs=9)
    second = json.loads(ask(server, f"/news?since={first['version']}")[1])
    assert second["version"] != first["version"]
    assert len(second["figures"][0][0]["data"][0]["x"]) == 9


def test_a_damaged_file_is_said_and_the_server_goes_on(server, run):
    whole = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text("")
    answer, content = ask(server, "/news?since=")
    assert answer.status == 503
    assert "metrics.csv" in (problem := json.loads(content)["error"])
    answer, content = ask(server, "/")
    assert answer.status == 200
    assert problem in html.unescape(content)
    assert 'data-live="100" data-state=""' in content
    (run / "metrics.csv").write_text(whole)
    assert "Loss of digit" in json.loads(ask(server, "/news?since=")[1])["body"]


@pytest.mark.parametrize("path", ["http://[::1", "http://]/news"])
def test_an_address_that_is_none_is_answered(server, path, capfd):
    """Written by hand, as no client would."""
    host = f"127.0.0.1:{server.server_port}"
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        assert connection.makefile("rb").readline() == b"HTTP/1.0 400 Bad Request\r\n"
    assert ask(server, "/news?%")[0].status == 200
    assert capfd.readouterr() == ("", "")


DAMAGES = {
    "metrics.csv": ["step,x\n" + "9," + "1" * 131073 + "\n", "step,x\n9," + "a" * 9000 + "\n", None],
    "config.yaml": ["a: &a [*a]\n", "a: 2026-13-45\n"],
    "records/losses.parquet": ["PAR1", None],
}


@pytest.mark.parametrize(("name", "content"), [(name, each) for name in DAMAGES for each in DAMAGES[name]])
def test_whatever_is_damaged_is_said_in_one_line(server, run, name, content, capfd):
    damage(run / name, content)
    answer, text = ask(server, "/news?since=")
    assert answer.status == 503
    assert (run / name).name in (problem := json.loads(text)["error"])
    assert "\n" not in problem
    assert ask(server, "/")[0].status == 200
    assert capfd.readouterr() == ("", "")


def damage(file, content):
    """A folder in the file's place where there is no content."""
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    if content is None:
        file.mkdir()
    else:
        file.write_text(content)


def test_a_mistake_of_ours_is_said_on_the_page_and_shown_in_the_terminal(run, monkeypatch, capfd):
    with serving(run) as server:
        monkeypatch.setattr("polytask.report._live.collect", None)
        answer, content = ask(server, "/news?since=")
        assert (answer.status, json.loads(content)) == (
            500,
            {"error": "The page cannot be drawn: see the traceback in the terminal."},
        )
        assert "see the traceback in the terminal" in ask(server, "/")[1]
    assert capfd.readouterr().err.count("TypeError") == 2


@pytest.mark.parametrize("request_line", ["", "GET / HTTP/1.0", "GET /news HTTP/1.0"])
def test_a_browser_may_go_away_before_it_is_answered(run, request_line, capfd):
    with serving(run) as server, server.reading:
        connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=30)
        if request_line:
            host = f"127.0.0.1:{server.server_port}"
            connection.sendall(f"{request_line}\r\nHost: {host}\r\n\r\n".encode())
        # It hangs up at once instead of taking leave.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        # It takes them in turn: the one before is being answered by now.
        assert ask(server, "/nothing")[0].status == 404
    assert capfd.readouterr() == ("", "")


def test_a_comparison_is_watched_while_it_runs(tmp_path):
    folder = write_comparison(tmp_path / "cmp", methods=("equal",), seeds=1)
    (folder / "results.parquet").rename(tmp_path / "later.parquet")
    with LiveServer(folder) as server:
        first = json.loads(server.news(""))
        assert "and 4 of 4 runs are trained" in first["body"]
        (tmp_path / "later.parquet").rename(folder / "results.parquet")
        second = json.loads(server.news(first["version"]))
        assert "unfinished" not in second["body"]
        assert "delta_m" in second["body"]


def test_records_of_a_comparisons_runs_are_news(tmp_path):
    folder = write_comparison(tmp_path / "cmp", methods=("equal",), seeds=1)
    with LiveServer(folder) as server:
        before = server.version()
        (folder / "runs/equal-base-seed0/records/gradients.parquet").unlink()
        assert server.version() != before
        between = server.version()
        (folder / "runs/equal-base-seed0/records/losses-9.parquet").symlink_to("nothing")
        assert server.version() != between


@pytest.mark.parametrize("path", ["/config.yaml", "/../one/config.yaml", "/news/", "/%2e%2e/"])
def test_it_serves_nothing_else(server, path):
    assert ask(server, path)[0].status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_reads_only(server, method):
    assert ask(server, "/", method)[0].status == 501


def test_a_head_has_no_content(server):
    answer, content = ask(server, "/", "HEAD")
    assert (answer.status, content) == (200, "")


@pytest.mark.parametrize("host", ["example.org", "example.org:80", "127.0.0.1", ""])
def test_a_site_that_is_given_this_address_is_turned_away(server, host):
    assert ask(server, "/", host=host)[0].status == 403


def test_localhost_is_this_machine(server):
    assert ask(server, "/", host=f"localhost:{server.server_port}")[0].status == 200


def test_it_says_nothing_in_the_terminal(server, capfd):
    ask(server, "/nothing")
    assert capfd.readouterr() == ("", "")


def test_what_is_no_run_is_said_before_serving(tmp_path):
    with pytest.raises(UserError, match="must be the folder of a run"):
        LiveServer(tmp_path)


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_is_a_port(run, port):
    with pytest.raises(UserError, match=rf"--port {port}: must be a free port"):
        LiveServer(run, port)


def test_a_taken_port_is_said(run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match=r"must be a free port, got Address already in use"):
            LiveServer(run, other.getsockname()[1])
