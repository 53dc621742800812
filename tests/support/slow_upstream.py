"""Serves completions as vLLM does, in a process that tests can kill; sends a character as a token every PACE seconds.

python slow_upstream.py PORT PACE
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXT = "Zwölf\u2028 und mehr. "


class Upstream(BaseHTTPRequestHandler):
    """Answers requests; prints a line for each completion whose client disconnected."""

    pace = 0.0

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._send(json.dumps({"data": [{"id": "slow", "max_model_len": 4096}]}), "application/json")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ids = [ord(letter) for letter in TEXT * 50][: asked["max_tokens"]]
        if not asked.get("stream"):
            return self._send(json.dumps({"choices": [{"token_ids": ids}]}), "application/json")
        self.send_response(200)
        self.end_headers()
        try:
            for token in ids:
                time.sleep(self.pace)
                self._write(json.dumps({"choices": [{"token_ids": [token], "text": chr(token)}]}, ensure_ascii=False))
            self._write("[DONE]")
        except OSError:
            print("client gone", flush=True)

    def _write(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def _send(self, body: str, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())


if __name__ == "__main__":
    Upstream.pace = float(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Upstream)
    print(server.server_address[1], flush=True)
    server.serve_forever()
