"""HotpotQA from the Hugging Face hub, at a pinned revision."""

from __future__ import annotations

import threading
from typing import Any

from rag_ese.data.hotpotqa import HotpotQA, collect
from rag_ese.data.records import Setting, check
from rag_ese.errors import DataError, HubUnreachableError

DATASET = "hotpotqa/hotpot_qa"
PINNED = "1908d6afbbead072334abe2965f91bd2709910ab"
SPLITS = ("validation", "train")


def load_hub(
    setting: Setting = "distractor",
    split: str = "validation",
    revision: str = PINNED,
    limit: int | None = None,
    seed: int = 0,
) -> HotpotQA:
    """Downloads a split (or takes it from the cache of `datasets`); `limit` and `seed` as in `hotpotqa.collect`.

    The fullwiki setting has no passages of its own: its contexts are one retriever's results and may lack the gold
    passages. Read the Wikipedia abstracts from a corpus and fill `gold` with `resolve_gold`, which counts what the
    corpus lacks.

    Raises HubUnreachableError within 5 seconds when the hub does not answer, and DataError when the download fails.
    """
    check(setting)
    if split not in SPLITS:
        raise DataError(f"cannot evaluate on the split {split!r}: the splits with gold are {' and '.join(SPLITS)}")
    if reason := unreachable():
        raise HubUnreachableError(
            f"the Hugging Face hub cannot be reached ({reason}); check the network, HF_ENDPOINT and the proxy "
            "settings, or give the path of a HotpotQA file"
        )
    source = f"{DATASET} {setting} {split}"
    rows = _download(setting, split, revision)
    numbered = ((f"{source}, question {position}", row) for position, row in enumerate(rows, start=1))
    return collect(numbered, source, revision, setting, limit, seed)


def reachable(timeout: float = 4.0) -> bool:
    """Whether the hub serves the data set; answers within `timeout` seconds, whatever the network does."""
    return unreachable(timeout) is None


def unreachable(timeout: float = 4.0) -> str | None:
    """Why the hub cannot be used, or None where it answers. Respects HF_ENDPOINT, HF_HUB_OFFLINE, proxies."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    outcome: list[str | None] = []

    def probe() -> None:
        url = hf_hub_url(DATASET, "README.md", repo_type="dataset", revision=PINNED)
        try:
            status = get_session().head(url, timeout=timeout).status_code
        except Exception as error:  # noqa: BLE001 - the HTTP library differs between versions, and every failure means no
            outcome.append(type(error).__name__)
        else:
            # A proxy that forbids the host answers too, with 403 or 407.
            outcome.append(None if status < 400 else f"{constants.ENDPOINT} answers with status {status}")

    # The library's own timeout covers neither name resolution nor a server that sends one byte at a time. A daemon
    # thread can be left behind in either.
    thread = threading.Thread(target=probe, name="hub-probe", daemon=True)
    thread.start()
    thread.join(timeout)
    return outcome[0] if outcome else f"no answer from {constants.ENDPOINT} in {timeout:g} seconds"


def _download(setting: str, split: str, revision: str) -> Any:
    """The rows, as an iterable of dictionaries."""
    try:
        from datasets import load_dataset

        return load_dataset(DATASET, setting, split=split, revision=revision)
    except Exception as error:
        # Out of `datasets` come its own errors, those of the HTTP library, of Arrow and of the disk, without a common
        # root.
        cause = " ".join(str(error).split())[:200]
        raise DataError(
            f"downloading {DATASET} ({setting}, {split}, revision {revision[:8]}) failed ({type(error).__name__}: "
            f"{cause}); try again, or give the path of a HotpotQA file"
        ) from error
