"""STS results for people: tables for the console, and the same tables in Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from rag_ese.eval.controls import RANDOM_ROTATIONS
from rag_ese.eval.sts_results import Difference, ModelScores, StsResults, mean
from rag_ese.types import Size

_CONTROL_WORDS = {"pca": "by PCA", "random": "at random"}


@dataclass(frozen=True)
class Sheet:
    """A table before it is drawn: the first column is words, the others are numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def console(self) -> Group:
        """Title and table; the title stands by itself, because a table breaks its own to its width."""
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column(self.columns[0], overflow="fold")
        for name in self.columns[1:]:
            table.add_column(name, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return Group(Text(self.title, style="italic"), table)

    def markdown(self) -> str:
        lines = [self.columns, ["---", *("---:" for _ in self.columns[1:])], *self.rows]
        return f"## {self.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sheets(results: StsResults) -> list[Sheet]:
    """Averages by width, then for each model layer by width and set by width, then the differences."""
    found = [_averages(results)]
    for model in results.models:
        found += [_layers(model), _sets(model, results)]
    return [*found, *([_differences(results)] if results.differences else [])]


def headline(results: StsResults) -> str:
    names = f"{len(results.data)} sets" if len(results.data) > 1 else results.data[0]["set"]
    return f"STS {results.config['split']}: {results.pairs:,} pairs of {names}, Spearman x 100"


def legend(results: StsResults) -> str:
    """What the tables mean."""
    parts = [
        "Spearman's rank correlation of cosine and gold score x 100; embeddings are cut and then normalised.",
        f"Average: the plain mean over the {len(results.data)} sets. Shallow: the mean over all measured layers but "
        "the deepest.",
    ]
    if any(model.controls for model in results.models):
        parts.append(
            "Rotations of the space are controls: they keep the full width's score; by PCA: fitted on other texts; at "
            f"random: the mean of {RANDOM_ROTATIONS}."
        )
    if results.differences:
        resamples = f"{results.config['resamples']:,}"
        parts.append(f"[ ]: 95% bootstrap interval, {resamples} resamples of the pairs within each set.")
    return " ".join(parts)


def markdown(results: StsResults, picture: str | None = None) -> str:
    """The whole report; `picture` is the file name of the plot beside it."""
    parts = [f"# {headline(results)}"]
    parts += [f"> **{note}**" if note.startswith("WARNING") else f"> {note}" for note in results.notes]
    parts += [_facts(results), legend(results)]
    if picture:
        parts.append(f"![layer by width]({picture})")
    return "\n\n".join([*parts, *(sheet.markdown() for sheet in sheets(results))]) + "\n"


def _averages(results: StsResults) -> Sheet:
    dims = sorted({dim for model in results.models for dim in model.dims})
    rows = []
    for model in results.models:
        last = [_points(model.average(Size(model.last, dim))) for dim in dims]
        rows.append([f"{model.name}, {_last(model)}", *last])
        if len(model.layers) > 1:
            rows.append([f"{model.name}, shallow ({_shallow(model)})", *(_points(model.shallow(dim)) for dim in dims)])
        for name in model.controls:
            controls = [_points(model.control(name, dim)) for dim in dims]
            rows.append([f"{model.name}, L{model.last} rotated {_CONTROL_WORDS[name]}", *controls])
    return Sheet(f"Average over {len(results.data)} sets, by width", ["", *map(str, dims)], rows)


def _layers(model: ModelScores) -> Sheet:
    rows = [
        [f"L{layer}", *(_points(model.average(Size(layer, dim))) for dim in model.dims)] for layer in model.layers[::-1]
    ]
    return Sheet(f"{model.name}: average by layer and width", ["layer", *map(str, model.dims)], rows)


def _sets(model: ModelScores, results: StsResults) -> Sheet:
    names = [each["set"] for each in results.data]
    rows = []
    for dim in model.dims[::-1]:
        scores = model.scores[Size(model.last, dim)]
        rows.append([str(Size(model.last, dim)), *(_points(scores[name]) for name in names), _points(mean(scores))])
    short = [name.removesuffix("_test") for name in names]
    return Sheet(f"{model.name}: every set, {_last(model)}", ["size", *short, "average"], rows)


def _differences(results: StsResults) -> Sheet:
    first = results.models[0]
    others = list(dict.fromkeys(each.other for each in results.differences))
    places = list(dict.fromkeys((each.layers, each.dim) for each in results.differences))
    table = {(each.other, each.layers, each.dim): each for each in results.differences}
    rows = []
    for layers, dim in places:
        cells = [_interval(table.get((other, layers, dim))) for other in others]
        rows.append([f"{'last layer' if layers == 'last' else 'shallow'}, {dim}", *cells])
    widths = "; ".join(f"{model.name} {model.width}" for model in results.models)
    return Sheet(f"{first.name} minus another model (full: {widths})", ["average of", *others], rows)


def _interval(each: Difference | None) -> str:
    if each is None:
        return "–"
    bounds = "" if each.low is None or each.high is None else f" [{each.low:+.2f}, {each.high:+.2f}]"
    return f"{each.difference:+.2f}{bounds}"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _last(model: ModelScores) -> str:
    return f"last layer (L{model.last})" if model.last == model.depth else f"L{model.last} of {model.depth}"


def _shallow(model: ModelScores) -> str:
    names = model.layers[:-1]
    is_run = len(names) > 2 and names == list(range(names[0], names[-1] + 1))
    return f"L{names[0]}–L{names[-1]}" if is_run else ", ".join(f"L{layer}" for layer in names)


def _facts(results: StsResults) -> str:
    machine = results.hardware
    facts = {"Command": f"`{results.command}`"}
    for model in results.models:
        rate = model.encoding["sentences"] / max(model.encoding["seconds"], 1e-9)
        facts[f"Model {model.name}"] = (
            f"revision {model.revision}, {model.dtype}, {model.depth} layers, {model.width} dimensions; "
            f"{model.encoding['sentences']:,} distinct sentences at {rate:.0f} per second, all layers in one pass"
        )
    facts["Sets"] = ", ".join(f"{each['set']} ({each['pairs']:,}, {each['revision']})" for each in results.data)
    if texts := results.control_texts:
        facts["PCA fitted on"] = f"{texts['texts']:,} texts of {texts['file']} ({texts['revision']})"
    facts["Machine"] = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{decimal(machine['memory_bytes'])}, GPU {machine['gpu'] or 'none'}; "
        f"peak memory {decimal(results.peak_memory_bytes)}"
    )
    facts["Versions"] = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    facts["Seed"] = str(results.config["seed"])
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())
