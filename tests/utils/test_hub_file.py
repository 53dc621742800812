"""One file of a model at the hub, against a stand-in of the hub's HTTP API."""

from __future__ import annotations

from support.hub import hub, run_with_hub

FILE = '{"format": 1}'
PROGRAM = """
import sys
from verl_rsim.utils.hub_file import hub_file
for repository in sys.argv[1:]:
    file = hub_file(repository, "rsim_policy.json")
    print(file and file.read_text())
"""
NOWHERE = "http://127.0.0.1:9"


def test_the_file_alone_is_fetched_and_later_found_without_the_hub(tmp_path):
    names = ("owner/model", "owner/other", "nobody/model", "a/b/c")
    with hub() as server:
        server.repositories = {"owner/model": {"rsim_policy.json": FILE.encode(), "big": b"1"}, "owner/other": {}}
        assert run_with_hub(PROGRAM, server.url, tmp_path, *names) == [FILE, "None", "None", "None"]
        got = {path for command, path in server.seen if command == "GET" and "/resolve/" in path}
    assert got == {"/owner/model/resolve/main/rsim_policy.json"}
    assert run_with_hub(PROGRAM, NOWHERE, tmp_path, *names[:2]) == [FILE, "None"]
    assert run_with_hub(PROGRAM, NOWHERE, tmp_path, names[0], HF_HUB_OFFLINE="1") == [FILE]
