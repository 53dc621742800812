"""Provides a stand-in of the Hugging Face hub: repositories in memory, behind the part of its HTTP API that is used."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "hf_secret"
COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """Holds the files of all repositories, as ``{OWNER/NAME: {path: content}}``, and the requests that it got."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.seen: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers downloads of single files, and uploads with the token."""

    server: Hub

    def do_HEAD(self):
        self.send_file(False)

    def do_GET(self):
        self.send_file(True)

    def send_file(self, body: bool):
        self.server.seen.append((self.command, self.path))
        repository, _, path = self.path[1:].partition("/resolve/main/")
        files = self.server.repositories.get(repository)
        content = None if files is None else files.get(path)
        if content is None:
            missing = "RepoNotFound" if files is None else "EntryNotFound"
            self.reply(404, b"", {"X-Error-Code": missing}, body)
        else:
            self.reply(200, content, {"ETag": f'"{hash(content)}"'}, body)

    def do_POST(self):
        self.server.seen.append((self.command, self.path))
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.reply(401, b'{"error": "Invalid user token."}', {})
            return
        if self.path == "/api/repos/create":
            asked = json.loads(text)
            name = f"{asked.get('organization') or 'user'}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            if asked.get("private") or asked.get("visibility") == "private":
                self.server.private.add(name)
            answer = {"url": f"{self.server.url}/{name}", "id": name, "name": name}
        elif self.path == "/api/validate-yaml":
            answer = {"errors": [], "warnings": []}
        else:
            name, action = re.fullmatch(r"/api/models/(.+)/(preupload|commit)/main", self.path).groups()
            answer = self.preupload(text) if action == "preupload" else self.commit(name, text)
        self.reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def preupload(self, text: str) -> dict:
        files = [
            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(text)["files"]
        ]
        return {"files": files}

    def commit(self, name: str, text: str) -> dict:
        for line in map(json.loads, text.splitlines()):
            if line["key"] == "file":
                self.server.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.server.url}/{name}/commit/{COMMIT}"}

    def reply(self, status: int, content: bytes, headers: dict, body: bool = True):
        self.send_response(status)
        for key, value in {**headers, "X-Repo-Commit": COMMIT, "Content-Length": len(content)}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def hub() -> Iterator[Hub]:
    """Runs a stand-in of the hub."""
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def run_with_hub(program: str, url: str, cache: Path, *arguments: str, **environment: str) -> list[str]:
    """Runs a program in a process of its own, since the hub's client reads its settings when it is imported.

    Returns:
        The lines that it printed.
    """
    settings = {"HF_ENDPOINT": url, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", **environment}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
