"""What the tests of stages share: jobs with made-up features, Hugging Face's hub as a server of this machine."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest

from .feature_world import World


class Site:
    """Files by path, served as Hugging Face's hub serves them; `fetched` lists what was sent."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.before_sending = lambda path: None

    def handler(site) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, body: bool) -> None:
                data = site.files.get(self.path)
                self.send_response(200 if data is not None else 404)
                if data is None:
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", "c" * 40)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if body:
                    site.fetched.append(self.path)
                    site.before_sending(self.path)
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        return Handler


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A server that stands for the hub, with an empty cache."""
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), site.handler())
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", site.address)
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        site.address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture
def world(tmp_path, stub_model, write_job) -> World:
    """A folder for a job over files that are no pictures, with made-up features: see `feature_world`."""
    return World(tmp_path, stub_model, write_job)
