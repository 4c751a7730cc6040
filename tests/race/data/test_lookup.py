"""Where files are looked for, and downloads that break off, are damaged, or happen twice at once."""

import hashlib
import http.server
import threading

import pytest

from steepest.race.data.lookup import DataError, Source, cache_folder, find

CONTENT = bytes(range(256)) * 8000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NOWHERE = Source("thing.bin", "http://127.0.0.1:9/thing.bin", SHA256, ("unpacked",))


class Server(http.server.ThreadingHTTPServer):
    """Serves one file, with ranges; ``breaks`` says how many connections end half-way."""

    breaks = 0
    requests: list[str | None]
    content = CONTENT


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(self.server.content):
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *args):  # pyright: ignore[reportIncompatibleMethodOverride]
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("STEEPEST_OFFLINE")
    server = Server(("127.0.0.1", 0), Handler)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def source_at(server, sha256=SHA256):
    return Source("thing.bin", f"http://127.0.0.1:{server.server_address[1]}/thing.bin", sha256)


def test_order_of_places(tmp_path, cache, monkeypatch):
    given, named = tmp_path / "given", tmp_path / "named"
    for place in (given, named, cache):
        place.mkdir()
    monkeypatch.setenv("STEEPEST_DATA", str(named))
    (cache / "thing.bin").touch()
    assert find(NOWHERE, given) == cache / "thing.bin"
    (named / "unpacked").mkdir()
    assert find(NOWHERE, given) == named / "unpacked"
    (given / "thing.bin").touch()
    assert find(NOWHERE, given) == given / "thing.bin"


def test_an_error_names_all_places(tmp_path, cache, monkeypatch):
    with pytest.raises(DataError, match="STEEPEST_OFFLINE forbids") as raised:
        find(NOWHERE, tmp_path)
    for told in ("thing.bin or unpacked", str(tmp_path), "STEEPEST_DATA (not set)", str(cache), "--data"):
        assert told in str(raised.value)
    monkeypatch.delenv("STEEPEST_OFFLINE")
    with pytest.raises(DataError, match=r"downloading http://127.0.0.1:9/thing.bin failed"):
        find(NOWHERE)
    with pytest.raises(DataError, match=r"the folder given is '.*absent', which is not a folder"):
        find(NOWHERE, tmp_path / "absent")
    monkeypatch.setenv("STEEPEST_DATA", str(tmp_path / "absent"))
    with pytest.raises(DataError, match="STEEPEST_DATA is"):
        find(NOWHERE)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("STEEPEST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "steepest"


def test_download_once(server, cache, capsys):
    path = find(source_at(server))
    assert path == cache / "thing.bin"
    assert path.read_bytes() == CONTENT
    assert "downloading thing.bin (2.0 MB)" in capsys.readouterr().err
    assert find(source_at(server)) == path
    assert server.requests == [None]


def test_a_broken_download_goes_on_where_it_stopped(server, cache):
    server.breaks = 2
    for _ in range(2):
        with pytest.raises(DataError, match="downloading"):
            find(source_at(server))
        assert not (cache / "thing.bin").exists()
    assert find(source_at(server)).read_bytes() == CONTENT
    first, second, third = server.requests
    assert first is None
    assert second == f"bytes={len(CONTENT) // 2}-"
    assert third == f"bytes={len(CONTENT) * 3 // 4}-"


def test_complete_bytes_whose_check_was_interrupted(server, cache):
    cache.mkdir()
    (cache / "thing.bin.part").write_bytes(CONTENT)
    assert find(source_at(server)).read_bytes() == CONTENT


def test_damaged_files_are_not_kept(server, cache):
    with pytest.raises(DataError, match=f"has sha256 {SHA256}, expected 0000"):
        find(source_at(server, "0" * 64))
    assert not list(cache.glob("thing.bin*[!k]"))


def test_two_processes_at_once(server, cache):
    found = []
    threads = [threading.Thread(target=lambda: found.append(find(source_at(server)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cache / "thing.bin"] * 3
    assert server.requests == [None]
