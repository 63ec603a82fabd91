"""The server of a running training: this machine only, read only, and it lives on."""

import http.client
import json
import socket
import threading

import pytest

from polytask._errors import UserError
from polytask.report import LiveServer
from tests.report_folders import write_metrics, write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "one", records=False)


@pytest.fixture
def server(run):
    with LiveServer(run, refresh_seconds=0.1) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


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
    for path in ("/", "/news?since="):
        answer, content = ask(server, path)
        assert answer.status == 503
        assert "metrics.csv" in json.loads(content)["error"]
    (run / "metrics.csv").write_text(whole)
    assert ask(server, "/")[0].status == 200


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
        with pytest.raises(UserError, match=r"must be a free port\. Found Address already in use"):
            LiveServer(run, other.getsockname()[1])
