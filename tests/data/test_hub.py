"""The hub is asked over the loopback only: servers that refuse, hang, trickle, forbid and answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rag_ese.data import hub
from rag_ese.errors import DataError, HubUnreachableError

PROBE = """
import time
import huggingface_hub.utils
from rag_ese.data import hub
start = time.monotonic()
reason = hub.unreachable({timeout})
assert hub.reachable({timeout}) is (reason is None)
print((time.monotonic() - start) / 2, reason)
"""


def probe(endpoint: str, timeout: float = 4.0, **environment: str) -> tuple[float, str]:
    """Runs the probe as a user would, with HF_ENDPOINT set; its seconds and its reason."""
    clean = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and "OFFLINE" not in key}
    result = subprocess.run(
        [sys.executable, "-c", PROBE.format(timeout=timeout)],
        env={**clean, "HF_ENDPOINT": endpoint, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    seconds, _, reason = result.stdout.strip().partition(" ")
    return float(seconds), reason


@contextmanager
def server(reply: bytes, pause: float = 0.0) -> Iterator[str]:
    """Answers every connection with `reply`; with `pause` one byte at a time; with no reply it never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept = []

    def serve(connection: socket.socket) -> None:
        try:
            connection.recv(65536)
            for piece in [reply[n : n + 1] for n in range(len(reply))] if pause else [reply]:
                connection.sendall(piece)
                time.sleep(pause)
            if reply:
                connection.close()
        except OSError:
            return  # the client has gone

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed below
            kept.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
        for connection in kept:
            connection.close()


def response(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


def test_a_hub_that_answers_is_reachable() -> None:
    with server(response("200 OK")) as endpoint:
        assert probe(endpoint)[1] == "None"


def test_a_proxy_that_forbids_the_host_is_not_the_hub() -> None:
    with server(response("403 Forbidden")) as endpoint:
        assert probe(endpoint)[1].endswith("answers with status 403")


def test_a_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    seconds, reason = probe(f"http://127.0.0.1:{port}")
    assert reason == "ConnectError" and seconds < 5


def test_a_server_that_hangs_is_noticed_within_five_seconds() -> None:
    with server(b"") as endpoint:
        seconds, reason = probe(endpoint)
    assert seconds < 5 and reason != "None"


def test_a_server_that_trickles_does_not_outlast_the_timeout() -> None:
    # Each byte comes within the HTTP library's timeout; only the thread's own limit ends this.
    with server(response("200 OK"), pause=0.3) as endpoint:
        seconds, reason = probe(endpoint, timeout=1.0)
    assert seconds < 5 and reason == f"no answer from {endpoint} in 1 seconds"


def test_offline_mode_asks_nobody() -> None:
    with server(response("200 OK")) as endpoint:
        assert probe(endpoint, HF_HUB_OFFLINE="1")[1] == "HF_HUB_OFFLINE is set"


def row(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "question": "Which river?",
        "answer": "Lune",
        "type": "bridge",
        "level": "easy",
        "supporting_facts": {"title": ["Lune", "Ada"], "sent_id": [0, 3]},
        "context": {"title": ["Ada", "Lune"], "sentences": [["Ada."], ["Lune", " flows."]]},
    }


def datasets(monkeypatch: pytest.MonkeyPatch, outcome: list[dict[str, Any]] | Exception) -> list[tuple[Any, ...]]:
    """Puts a stand-in for the `datasets` library in place; returns the list of its calls."""
    calls: list[tuple[Any, ...]] = []

    def load_dataset(path: str, name: str, *, split: str, revision: str) -> list[dict[str, Any]]:
        calls.append((path, name, split, revision))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    module = types.ModuleType("datasets")
    module.__dict__["load_dataset"] = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr(hub, "unreachable", lambda: None)
    return calls


def test_loads_the_pinned_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = datasets(monkeypatch, [row("a"), row("b")])
    hotpot = hub.load_hub()
    assert calls == [("hotpotqa/hotpot_qa", "distractor", "validation", "1908d6afbbead072334abe2965f91bd2709910ab")]
    assert (hotpot.source, hotpot.revision) == ("hotpotqa/hotpot_qa distractor validation", hub.PINNED)
    assert [question.id for question in hotpot.questions] == ["a", "b"]
    assert hotpot.questions[0].gold == tuple(passage.id for passage in hotpot.passages)
    assert hotpot.questions[0].supporting_facts == (("Lune", 0), ("Ada", 3))


def test_fullwiki_brings_no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets(monkeypatch, [row("a")])
    hotpot = hub.load_hub("fullwiki")
    assert hotpot.passages == [] and hotpot.questions[0].gold == ()


def test_a_failing_download_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets(monkeypatch, ConnectionResetError(104, "Connection\nreset by peer"))
    with pytest.raises(DataError, match=r"failed \(ConnectionResetError: .*Connection reset.*try again") as caught:
        hub.load_hub()
    assert not isinstance(caught.value, HubUnreachableError)
    assert "\n" not in str(caught.value)


def test_wrong_split_and_setting_are_noticed_before_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "unreachable", lambda: pytest.fail("asked the network"))
    with pytest.raises(DataError, match="the splits with gold are validation and train"):
        hub.load_hub(split="test")
    with pytest.raises(DataError, match="unknown setting"):
        hub.load_hub("wiki")  # type: ignore[arg-type]
