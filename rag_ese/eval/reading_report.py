"""What reading cost, row by row, for people."""

from __future__ import annotations

from rag_ese.eval.reading import price
from rag_ese.eval.results import Results, SystemResult

READING = (
    "Questions per second: of those that were generated in this run, the loading of a model included in the first row "
    "that needed one; a dash where the cache had all answers. The trained reader reads a passage, or a pair, for a "
    "question once: what a row above has read costs the rows below nothing. Share: of the time from question to "
    "answer, in batches of all questions. Tokens and price are those of all answers, whether they were in the cache or "
    "not. Passages left out: they did not fit into the model's context; the question always does. Empty answers score "
    "0."
)


def reading_table(results: Results) -> str:
    """Speed, tokens and price per row; columns of tokens only where the generator counts them."""
    columns = ["questions/s", "share of the time", "generated now", "empty answers"]
    counts = any("prompt_tokens" in system.usage for system in results.systems)
    priced = results.config["price_in"] or results.config["price_out"]
    columns += ["tokens in", "tokens out", "tokens in per question", "passages left out"] if counts else []
    columns += ["price", "price of 1,000 questions"] if counts and priced else []
    lines = [["size", *columns], ["---", *("---:" for _ in columns)]]
    lines += [[system.name, *_cells(results, system)[: len(columns)]] for system in results.systems]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(results: Results, system: SystemResult) -> list[str]:
    speed, share = system.reading.get("per_second"), system.reading.get("share")
    usage, asked = system.usage, max(len(system.answers), 1)
    tokens_in, tokens_out = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    cost = price(usage, results.config["price_in"], results.config["price_out"])
    return [
        "–" if speed is None else f"{speed:,.1f}",
        "–" if share is None or system.kind == "bound" else f"{100 * share:.0f}%",
        str(system.reading.get("generated", 0)),
        str(system.empty_answers),
        f"{tokens_in:,}",
        f"{tokens_out:,}",
        f"{tokens_in / asked:,.0f}",
        str(usage.get("dropped_passages", 0)),
        f"{cost:,.4g}",
        f"{1000 * cost / asked:,.4g}",
    ]
