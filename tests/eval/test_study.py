"""The study end to end: bundled sample, embedded model, reader; what it writes is recomputed from what it wrote."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytrec_eval
from matplotlib.image import imread

from rag_ese.config import add_arguments, from_arguments
from rag_ese.data import load_sample
from rag_ese.eval import answers as answer_metrics
from rag_ese.eval.config import EvalConfig
from rag_ese.eval.significance import paired_difference
from rag_ese.generator import ExtractiveReader, Prompt
from rag_ese.index import Store
from rag_ese.retriever.on_device import OnDevice
from rag_ese.types import Answer, Question

Main = Callable[..., tuple[int, str, str]]

OPTIONS = [
    *("hotpotqa", "--data", "sample", "--limit", "20", "--seed", "3"),
    *("--sizes", "L2-d64,768", "--resamples", "500"),
]
FUNNELS = ["--funnel", "L2-d64:50 > 768:10; L2-d64:50 > 768:10; 64:20", "--latency-queries", "2"]
ROWS = ["L2-d64", "L6-d768", "L2-d64:50 > L6-d768:10", "L6-d64:20", "BM25", "L6-d768 + BM25"]
FILES = ["L2-d64", "L6-d768", "L2-d64_50_L6-d768_10", "L6-d64_20", "BM25", "L6-d768_BM25"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which the command has run once, as users run it."""
    folder = tmp_path_factory.mktemp("study")
    command = [sys.executable, "-m", "rag_ese.eval", *OPTIONS, *FUNNELS, "--generator", "rules", "--out", "out"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder / "console").write_text(done.stdout)
    return folder


@pytest.fixture
def there(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


@pytest.fixture(scope="module")
def metrics(home: Path) -> dict[str, Any]:
    return dict(json.loads((home / "out" / "metrics.json").read_text()))


@pytest.fixture(scope="module")
def questions(metrics: dict[str, Any]) -> list[Question]:
    found = load_sample(limit=20, seed=3).questions
    assert metrics["question_ids"] == [question.id for question in found] and len(found) == 20
    return found


def without_costs(system: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in system.items() if name not in ("latency", "reading")}


def test_vectors_on_a_device_rank_the_same(
    there: Path, run_main: Main, metrics: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, problem = run_main("eval", *OPTIONS, "--search-device", "tpu", "--generator", "none")
    assert code == 2 and "unknown device 'tpu'" in problem
    monkeypatch.setattr("rag_ese.eval.hotpotqa.placed", OnDevice)  # torch's CPU stands for a GPU
    options = [*OPTIONS, *FUNNELS[:2], "--generator", "none", "--search-device", "cpu", "--out", "device"]
    code, _, problem = run_main("eval", *options)
    assert code == 0, problem
    found = json.loads((there / "device" / "metrics.json").read_text())
    for name in ROWS[:4]:
        assert found["per_question"][name]["ndcg@10"] == pytest.approx(metrics["per_question"][name]["ndcg@10"])


def test_the_record_says_what_was_done(metrics: dict[str, Any]) -> None:
    assert metrics["schema"] == 1 and metrics["seed"] == 3 and metrics["question_count"] == 20
    assert metrics["config"]["sizes"] == "L2-d64,768" and metrics["config"]["resamples"] == 500
    assert metrics["data"]["source"] == "bundled sample" and metrics["data"]["revision"].startswith("xxh3:")
    assert metrics["pool"]["passages"] == len(load_sample().passages)  # the pool of all questions, not of these 20
    assert (metrics["model"]["name"], metrics["model"]["depth"], metrics["model"]["width"]) == ("embedded", 6, 768)
    assert metrics["generator"]["name"] == "rules" and metrics["reference"] == "L6-d768"
    assert metrics["encoding"]["passages"] == metrics["pool"]["passages"] and metrics["encoding"]["layers"] == [2, 6]
    assert metrics["hardware"]["cores"] >= 1 and metrics["versions"]["faiss-cpu"] and metrics["peak_memory_bytes"] > 0
    assert [system["name"] for system in metrics["systems"]] == ROWS == list(metrics["per_question"])
    assert [system["kind"] for system in metrics["systems"]] == ["size", "size", "funnel", "funnel", "BM25", "hybrid"]
    for system in metrics["systems"]:
        assert system["latency"]["queries"] == 2 and 0 < system["latency"]["p50_ms"] <= system["latency"]["p99_ms"]


def test_its_command_gives_the_same_configuration(metrics: dict[str, Any]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, EvalConfig)
    program, *words = shlex.split(metrics["command"].removeprefix("python -m rag_ese.eval "))
    again = from_arguments(EvalConfig, parser.parse_args(words)).keys()
    assert program == "hotpotqa" and {**again, "out": "out"} == metrics["config"]


def test_the_picture_shows_something(home: Path) -> None:
    pixels = imread(home / "out" / "sizes.png")
    assert pixels.shape[0] > 300 and pixels[..., :3].std() > 0.05  # lines and letters, not an empty sheet
    assert "(sizes.png)" in (home / "out" / "report.md").read_text()


def test_a_value_for_every_question(metrics: dict[str, Any]) -> None:
    for system in metrics["systems"]:
        columns = metrics["per_question"][system["name"]]
        assert columns.keys() == system["metrics"].keys()
        for name, column in columns.items():
            known = [value for value in column if value is not None]
            assert len(column) == 20
            if name.startswith("answer_hit") or not known:
                assert bool(known) == (system["metrics"][name] is not None)
            else:
                assert len(known) == 20
            if known:
                assert system["metrics"][name] == pytest.approx(sum(known) / len(known), abs=1e-5)


def test_answers_are_scored_as_predictions_say(home: Path, metrics: dict[str, Any], questions: list[Question]) -> None:
    lines = [json.loads(line) for line in (home / "out" / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == len(ROWS) * 20
    for row in ROWS:
        own = [line for line in lines if line["system"] == row]
        assert [(line["id"], line["gold"]) for line in own] == [(each.id, each.answer) for each in questions]
        answers = {line["id"]: Answer(line["answer"], tuple(map(tuple, line["supporting_facts"]))) for line in own}
        for name, column in answer_metrics.score(answers, questions).items():
            assert metrics["per_question"][row][name] == pytest.approx(column, abs=1e-5), name


def test_retrieval_is_scored_as_the_runs_say(home: Path, metrics: dict[str, Any], questions: list[Question]) -> None:
    relevant = {question.id: dict.fromkeys(question.gold, 1) for question in questions}
    assert sorted(path.stem for path in (home / "out" / "runs").iterdir()) == sorted(FILES)
    for row, file in zip(ROWS, FILES, strict=True):
        with (home / "out" / "runs" / f"{file}.trec").open() as lines:
            run = pytrec_eval.parse_run(lines)
        columns = metrics["per_question"][row]
        measured = pytrec_eval.RelevanceEvaluator(relevant, {"ndcg_cut.10", "map_cut.10", "recall.5"}).evaluate(run)
        for ours, theirs in (("ndcg@10", "ndcg_cut_10"), ("map@10", "map_cut_10"), ("support_recall@5", "recall_5")):
            expected = [measured.get(question.id, {}).get(theirs, 0.0) for question in questions]
            assert columns[ours] == pytest.approx(expected, abs=1e-5), (row, ours)
        assert columns["both_gold@5"] == [float(share == 1) for share in columns["support_recall@5"]]


def test_the_differences_are_those_of_the_values(metrics: dict[str, Any]) -> None:
    reference = metrics["per_question"]["L6-d768"]
    for system in metrics["systems"]:
        given = system["difference_to_reference"]
        if system["name"] == "L6-d768":
            assert given == {}
            continue
        assert list(given) == ["ndcg@10", "both_gold@10", "em", "f1"]
        for metric, difference in given.items():
            values = metrics["per_question"][system["name"]][metric]
            expected = paired_difference(values, reference[metric], 500, 3)._asdict()
            assert difference == pytest.approx(expected, abs=1e-5), (system["name"], metric)
            assert difference["n"] == 20 and difference["low"] <= difference["mean"] <= difference["high"]


def test_people_are_told_that_it_is_the_sample(home: Path, metrics: dict[str, Any]) -> None:
    report, console = (home / "out" / "report.md").read_text(), (home / "console").read_text()
    for text in (report, console):
        assert "20 questions over" in text and "NOT HotpotQA: the bundled sample" in text
    for row in ROWS:
        assert f"| {row} | " in report and row in console
    best = 100 * metrics["systems"][1]["metrics"]["ndcg@10"]
    assert f"| L6-d768 | {best:.1f} |" in report and f"{best:.1f}" in console
    assert "## Answers" in report and " EM " in console


def test_the_same_again_finds_index_and_answers(there: Path, run_main: Main, metrics: dict[str, Any]) -> None:
    code, printed, said = run_main("eval", *OPTIONS, *FUNNELS, "--generator", "rules", "--out", "again", "--json")
    assert code == 0 and "index: found" in said
    summary = json.loads(printed)
    written = json.loads((there / "again" / "metrics.json").read_text())
    assert {key: value for key, value in written.items() if key in summary} == summary
    assert written["per_question"] == metrics["per_question"]
    assert [without_costs(each) for each in summary["systems"]] == [without_costs(each) for each in metrics["systems"]]
    assert summary["answers"] == {"found_in_cache": 20 * len(ROWS), "generated": 0}
    for file in ("predictions.jsonl", *(f"runs/{name}.trec" for name in FILES)):
        assert (there / "again" / file).read_bytes() == (there / "out" / file).read_bytes()


def test_equal_prompts_were_answered_once(there: Path, metrics: dict[str, Any]) -> None:
    prompts = set()
    for file in FILES:
        tops: dict[str, list[str]] = {question: [] for question in metrics["question_ids"]}
        for line in (there / "out" / "runs" / f"{file}.trec").read_text().splitlines():
            tops[line.split()[0]].append(line.split()[2])
        prompts |= {(question, *ids[:10]) for question, ids in tops.items()}
    given = metrics["answers"]
    assert given["generated"] == len(prompts) < 20 * len(FILES)
    assert given["generated"] + given["found_in_cache"] == 20 * len(FILES)


def test_without_a_generator_there_are_no_answers(there: Path, run_main: Main, metrics: dict[str, Any]) -> None:
    options = ["--generator", "none", "--out", "none", "--latency-queries", "0", "--hybrid"]
    code, printed, said = run_main("eval", *OPTIONS, "--funnel", FUNNELS[1], *options)
    assert code == 0 and "index: found" in said
    assert " EM " not in printed and "nDCG@10" in printed
    written = json.loads((there / "none" / "metrics.json").read_text())
    assert written["generator"] is None and written["answers"] == {}
    names = [system["name"] for system in written["systems"]]
    assert names == [*ROWS[:-1], "L2-d64 + BM25", "L6-d768 + BM25"]
    for system in written["systems"]:
        assert system["latency"] is None and not {"em", "f1", "sp_em"} & system["metrics"].keys()
    assert written["per_question"]["BM25"]["ndcg@10"] == metrics["per_question"]["BM25"]["ndcg@10"]
    assert "## Answers" not in (there / "none" / "report.md").read_text()


def test_an_index_that_is_named_gets_what_it_lacks(there: Path, run_main: Main, metrics: dict[str, Any]) -> None:
    folder = next((there / "indexes").glob("bundled*"))
    options = ["--sizes", "L2-d64,L6-d32", "--generator", "none", "--index", folder, "--latency-queries", "0"]
    code, printed, said = run_main("eval", *OPTIONS, *options, "--out", "named", "--json")
    assert code == 0 and "adding L6-d32 to" in said and "which lacks them (quick)" in said
    summary = json.loads(printed)
    assert summary["systems"][0]["metrics"]["ndcg@10"] == metrics["systems"][0]["metrics"]["ndcg@10"]
    assert summary["reference"] == "L6-d32"
    code, printed, _ = run_main("index", "verify", folder)
    assert code == 0 and "all as they were built" in printed
    code, printed, _ = run_main("index", "inspect", folder)
    assert code == 0 and all(size in printed for size in ("L2-d64", "L6-d32", "L6-d64", "L6-d768"))


def test_further_sizes_are_added_to_the_index_that_is_there(there: Path, run_main: Main) -> None:
    options = ["--data", "sample", "--limit", "20", "--generator", "none", "--latency-queries", "0", "--out", "more"]
    code, _, errors = run_main("eval", "hotpotqa", *options, "--sizes", "L2-d32,L3-d64")
    assert code == 0 and "adding L2-d32, L3-d64 to indexes/" in errors and "encoding 1,034 passages at L3" in errors
    [folder] = (there / "indexes").glob("bundled*")
    assert {"L2-d32", "L2-d64", "L3-d64", "L6-d768"} <= {str(size) for size in Store(folder).sizes}


def test_funnels_say_where_they_lose(home: Path, metrics: dict[str, Any], questions: list[Question]) -> None:
    for system in metrics["systems"]:
        losses = system["losses"]
        assert bool(losses) == (system["kind"] == "funnel")
        if not losses:
            continue
        assert sum(losses.values()) == len(questions) and losses["not_indexed"] == 0
        columns = metrics["per_question"][system["name"]]
        both = [value == 1 for value in columns["both_gold@10"]]
        assert losses["cut"] + losses["reranked"] == both.count(False)
        answered = [found and f1 >= 0.5 for found, f1 in zip(both, columns["f1"], strict=True)]
        assert losses["kept"] == answered.count(True)
        assert f"| {system['name']} | {' | '.join(map(str, losses.values()))} |" in (
            home / "out" / "report.md"
        ).read_text(encoding="utf-8")


def test_a_plan_is_made_and_checked(there: Path, run_main: Main) -> None:
    folder = next((there / "indexes").glob("bundled*"))
    evaluated = load_sample(limit=20, seed=3).questions
    held_out = [question for question in load_sample().questions if question not in evaluated]
    (there / "held-out.jsonl").write_text("".join(json.dumps(each.text) + "\n" for each in held_out[:60]))
    options = ["--index", folder, "--recall", "0.6", "--p99-ms", "1e7", "--shortlist", "60", "--timed", "2"]
    code, printed, said = run_main("plan", *options, "--questions", "held-out.jsonl", "--resamples", "300")
    assert code == 0, said
    plan = json.loads((there / "plan.json").read_text())
    words = " ".join(printed.split())
    assert plan["funnel"] in words and "▶" in words and "had no part in the choice: recall@10" in words
    assert plan["recall"]["queries"] == 30 and plan["recall_when_chosen"]["low"] >= 0.6
    rest = ["--generator", "none", "--index", folder, "--latency-queries", "0", "--out", "planned", "--json"]
    code, printed, said = run_main("eval", *OPTIONS, *rest, "--plan", "plan.json")
    assert code == 0, said
    summary = json.loads(printed)
    [row] = [system for system in summary["systems"] if system["kind"] == "funnel"]
    assert row["name"] == plan["funnel"] and sum(row["losses"].values()) == 20
    [line] = [note for note in summary["notes"] if f"plan {plan['funnel']}: recall@10" in note]
    assert "the promised interval" in line and line in said.replace("\n", "")
    plan["basis"]["fingerprint"] = "0" * 16
    (there / "other.json").write_text(json.dumps(plan))
    code, _, said = run_main("eval", *OPTIONS, *rest[:4], "--out", "refused", "--plan", "other.json")
    assert code == 2 and "the plan was made for the index bundled" in said and not (there / "refused").exists()


def test_exact_search_is_a_row_of_its_own(there: Path, run_main: Main) -> None:
    options = [*OPTIONS, "--exact", "--generator", "none", "--latency-queries", "0"]
    code, _, _ = run_main("eval", *options, "--out", "exact")
    metrics = json.loads((there / "exact" / "metrics.json").read_text())
    assert code == 0 and [system["name"] for system in metrics["systems"]][:3] == ["L2-d64", "L6-d768", "L6-d768 exact"]
    rows = metrics["per_question"]
    assert rows["L6-d768 exact"] == rows["L6-d768"]
    note = next(note for note in metrics["notes"] if "L6-d768 exact read per question" in note)
    assert f"of {metrics['pool']['passages']}: " in note and "rows at 8 bits to 256" in note


def test_floor_ceiling_and_two_hops(
    there: Path, run_main: Main, metrics: dict[str, Any], questions: list[Question]
) -> None:
    options = [
        "--closed-book",
        "--oracle",
        "--hops",
        "2",
        "--latency-queries",
        "0",
        "--out",
        "bounds",
        "--cache",
        "none",
    ]
    code, printed, said = run_main("eval", *OPTIONS, *options, "--generator", "rules")
    assert code == 0 and "rules answers nothing without passages" in said
    written = json.loads((there / "bounds" / "metrics.json").read_text())
    rows = {system["name"]: system for system in written["systems"]}
    hops = [f"{name}, 2 hops" for name in ("L2-d64", "L6-d768", "BM25", "L6-d768 + BM25")]
    assert [*rows][-6:] == [*hops, "closed book", "gold passages"]
    assert rows["closed book"]["metrics"]["f1"] == 0 and rows["closed book"]["empty_answers"] == 20
    assert not {"ndcg@10", "both_gold@10"} & rows["gold passages"]["metrics"].keys()

    pool = {passage.id: passage for passage in load_sample().passages}
    prompts = [Prompt(each.text, tuple(pool[name] for name in each.gold)) for each in questions]
    given = ExtractiveReader().generate(prompts)
    answers = {question.id: answer for question, answer in zip(questions, given, strict=True)}
    scores = written["per_question"]
    for name, column in answer_metrics.score(answers, questions).items():
        assert scores["gold passages"][name] == pytest.approx(column, abs=1e-5), name

    lost = rows["L6-d768"]["difference_to"]["gold passages"]["f1"]
    expected = paired_difference(scores["L6-d768"]["f1"], scores["gold passages"]["f1"], 500, 3)
    assert lost == pytest.approx(expected._asdict(), abs=1e-5)
    gain = rows["BM25, 2 hops"]["difference_to"]["BM25"]["both_gold@10"]
    expected = paired_difference(scores["BM25, 2 hops"]["both_gold@10"], scores["BM25"]["both_gold@10"], 500, 3)
    assert gain == pytest.approx(expected._asdict(), abs=1e-5)
    assert scores["BM25"] == metrics["per_question"]["BM25"]  # one hop is what it was
    report = (there / "bounds" / "report.md").read_text()
    for heading in ("## Two hops against one", "## Reading", "## Examples", "Δ F1 to gold passages"):
        assert heading in report
    assert not (there / "bounds" / "runs" / "closed_book.trec").exists()
    assert "closed book" in printed and "gold passages" in printed


def test_bounds_need_a_generator_and_options_a_language_model(there: Path, run_main: Main) -> None:
    code, _, said = run_main("eval", *OPTIONS, "--oracle", "--generator", "none", "--out", "refused")
    assert code == 2 and "name a generator" in said and not (there / "refused").exists()
    options = ["--generator", "openai:http://127.0.0.1:9/v1#m", "--llm-options", "temperature=3", "--out", "refused"]
    code, _, said = run_main("eval", *OPTIONS, *options)
    assert code == 2 and "does not take the options {'temperature': 3}" in said
