"""A result file as the README's Markdown, with the rows where another way is ahead of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vaultvec.measure.rounds import Ratio, ratio_of

Result = dict[str, Any]
# (key path, text, limit): what the project set itself; a row is written with the number and whether it is met.
AIMS = (
    ("embedding", "times sentence-transformers", 3.5, "at least"),
    ("fastembed", "times fastembed", 5.0, "at least"),
    ("ceiling", "of the machine's ceiling", 0.85, "at least"),
    ("cosine", "lowest cosine to fp32", 0.999, "at least"),
    ("int8", "times sentence-transformers in int8", 5.0, "at least"),
    ("first_index", "times LangChain, the whole first index", 5.0, "at least"),
    ("unchanged", "s, an unchanged run", 1.0, "at most"),
    ("search", "s, a cold search", 2.0, "at most"),
    ("peak", "MB at most in memory", 1200.0, "at most"),
    ("growth", "times the memory for twice the notes", 1.05, "at most"),
    ("busy", "of the time the model is busy", 0.95, "at least"),
)


def markdown(result: Result) -> str:
    """Everything the README shows."""
    parts = [_header(result["environment"])]
    if "embedding" in result:
        parts.append(_embedding(result["embedding"]))
    if "commands" in result:
        parts.append(_commands(result["commands"]))
    if "savings" in result:
        parts.append(_savings(result["savings"]))
    parts += [_aims(result), _losses(result)]
    return "\n\n".join(parts) + "\n"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table, first column left, the rest right."""
    align = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, tuple(align), *rows])


def _header(env: Result) -> str:
    flags = " ".join(env["flags"])
    packages = (
        "torch",
        "openvino",
        "sentence-transformers",
        "fastembed",
        "model2vec",
        "chromadb",
        "langchain-community",
    )
    versions = ", ".join(f"{name} {env['versions'][name]}" for name in packages if name in env["versions"])
    return (
        f"{env['cores']} cores of {env['cpu']} ({flags}), {env['memory_gb']} GB, {env['system']}, "
        f"Python {env['python']}; commit {env['commit']}, {env['date'][:10]}; {versions}."
    )


def _embedding(found: Result) -> str:
    rows = [
        (
            row["label"], f"{row['texts_per_second']:,.1f} ± {row['spread']:.0%}", f"{row['tokens_per_second']:,}",
            f"{row['times_base']:.2f}x ± {row['times_base_spread']:.2f}", _share(row["share_of_ceiling"]),
            "another embedding" if row["lowest_cosine"] is None else f"{row['lowest_cosine']:.5f}",
            f"{row['top10_agreement']:.1%}",
        )
        for row in found["rows"]
    ]  # fmt: skip
    ceiling = found["ceiling"]
    text = (
        f"**Embedding** {found['texts']:,} chunks of a real vault, {found['mean_tokens']:.0f} tokens on average, the "
        f"same weights ({found['model']}), {found['rounds']} rounds in turn after a warm-up, medians. The ceiling is "
        f"{ceiling['tokens_per_second']:,} tokens/s: {ceiling['how']}, measured beside every round."
    )
    share = found["rows"][0]["share_of_ceiling"]
    if share:
        text += (
            f" The default stands at {share:.0%} of it, so {1 / share:.1f}x is the most that any way could reach in "
            f"{found['precision']} on this machine."
        )
    head = ("way", "texts/s", "tokens/s", "against the default", "of the ceiling", "lowest cosine", "same top ten")
    return f"{text}\n\n{table(head, rows)}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _commands(found: Result) -> str:
    first, later, memory = found["first_index"], found["later"], found["memory"]
    ours = [row["seconds"] for row in (first["ours"], later["unchanged"], later["one_edit"], later["search"])]
    names = (
        f"first index of {found['notes']:,} notes, the model's preparation included", "unchanged second run",
        "one edited note", "cold search",
    )  # fmt: skip
    theirs = (f"{first['langchain']['median_s']:.1f} s", "", "", "")
    peaks = (max(first["ours"]["peak_mb"]), *(max(later[k]["peak_mb"]) for k in ("unchanged", "one_edit", "search")))
    rows = [
        (name, f"{_median(seconds):.2f} s", other, f"{peak:,.0f} MB")
        for name, seconds, other, peak in zip(names, ours, theirs, peaks, strict=True)
    ]
    report = first["ours"]["reports"][-1]
    mine, others = _chunks_embedded(first)
    text = (
        f"**Whole commands**, from start to exit. The first index is **{first['times_faster']:.2f}x ± "
        f"{first['spread']:.2f}** faster than LangChain's loader, splitter, embeddings and Chroma on the same weights "
        f"({first['rounds']} rounds in turn; it takes {max(first['langchain']['peak_mb']):,.0f} MB). Of the same notes ours "
        f"embeds {mine:,} chunks, LangChain {others:,}. The model was "
        f"busy {report['model_busy_share']:.1%} of the time from first to last batch. Twice the notes take "
        f"{memory['growth']:.2f} times the memory (one run of twice the notes)."
    )
    return f"{text}\n\n{table(('command', 'ours', 'LangChain', 'peak memory'), rows)}"


def _chunks_embedded(first: Result) -> tuple[int, int]:
    """How many chunks went through the model in a first index, ours and LangChain's."""
    mine, others = (first[key]["reports"][-1] for key in ("ours", "langchain"))
    return mine["chunks_embedded"], others["chunks"]


def _ratio(row: Result, other: Result) -> Ratio:
    """How many times faster `row` is than `other`, round against round, on the same texts."""
    return ratio_of(other["seconds"], row["seconds"])


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _savings(found: Result) -> str:
    raw = found["reading"][0]["tokens"]
    rows = [
        (step["step"], f"{step['characters']:,}", f"{step['tokens']:,}", f"{step['tokens'] / raw:.0%}")
        for step in found["reading"]
    ]
    unmerged, unique, padded = found["unmerged"], found["unique"], found["padded"]
    total = found["chunk_tokens"]
    more = (
        f"- Lines that a template put into note after note: {found['boilerplate_lines']}, "
        f"{1 - total / found['with_boilerplate']['tokens']:.1%} of the tokens saved.\n"
        f"- Cut into chunks with title and headings: {found['chunks']:,} chunks, {total:,} tokens. Without merging "
        f"small sections it would be {unmerged['chunks']:,} chunks, {unmerged['tokens']:,} tokens "
        f"({unmerged['tokens'] / total - 1:+.1%}).\n"
        f"- Texts that occur twice are embedded once: {unique['chunks']:,} of {found['chunks']:,} chunks, "
        f"{1 - unique['tokens'] / total:.1%} of the tokens saved.\n"
        f"- Padding: {padded['usual'] / unique['tokens'] - 1:.1%} more tokens in batches of 32 sorted by characters "
        f"(sentence-transformers), {padded['usual_unsorted'] / unique['tokens'] - 1:.1%} unsorted (fastembed), "
        f"{padded['ours'] / unique['tokens'] - 1:.1%} ours as config.py comes, "
        f"{padded['ours_wide'] / unique['tokens'] - 1:.1%} with EMBEDDING_BATCH_SIZE = 2000, to attention alone."
    )
    head = ("the text of the notes", "characters", "tokens", "left")
    return f"**Less work**: what never reaches the model.\n\n{table(head, rows)}\n\n{more}"


def numbers(result: Result) -> dict[str, float]:
    """The measured number of each aim that this result holds."""
    found: dict[str, float] = {}
    rows = {row["key"]: row for row in result.get("embedding", {}).get("rows", [])}
    if rows:
        ours = rows["ours"]
        found |= {"embedding": ours["times_base"], "fastembed": _ratio(ours, _fastest_fastembed(rows)).median}
        found |= {"cosine": ours["lowest_cosine"] or 0.0}
        if ours["share_of_ceiling"] is not None:
            found["ceiling"] = ours["share_of_ceiling"]
        if "ours_int8" in rows:
            found["int8"] = rows["ours_int8"]["times_base"]
    if "commands" in result:
        commands = result["commands"]
        first, later = commands["first_index"], commands["later"]
        found |= {
            "first_index": first["times_faster"], "unchanged": later["unchanged"]["median_s"],
            "search": later["search"]["median_s"], "peak": max(first["ours"]["peak_mb"]),
            "growth": commands["memory"]["growth"], "busy": first["ours"]["reports"][-1]["model_busy_share"],
        }  # fmt: skip
    return found


def _fastest_fastembed(rows: dict[str, Result]) -> Result:
    return max((row for key, row in rows.items() if key.startswith("fastembed")), key=lambda r: r["texts_per_second"])


def spreads(result: Result) -> dict[str, float]:
    """The ± of those numbers that are ratios of rounds."""
    rows = {row["key"]: row for row in result.get("embedding", {}).get("rows", [])}
    found = {}
    if rows:
        found["embedding"] = rows["ours"]["times_base_spread"]
        found["fastembed"] = _ratio(rows["ours"], _fastest_fastembed(rows)).spread
        if "ours_int8" in rows:
            found["int8"] = rows["ours_int8"]["times_base_spread"]
    if "commands" in result:
        found["first_index"] = result["commands"]["first_index"]["spread"]
    return found


def _aims(result: Result) -> str:
    found, around = numbers(result), spreads(result)
    rows = []
    for key, text, limit, how in AIMS:
        if key in found:
            met = found[key] >= limit if how == "at least" else found[key] <= limit
            shown = f"{found[key]:,.5g}" + (f" ± {around[key]:.2f}" if key in around else "")
            rows.append((text, shown, f"{how} {limit:g}", "yes" if met else "**no**"))
    return f"**Aims**\n\n{table(('', 'measured', 'aim', 'met'), rows)}"


def _losses(result: Result) -> str:
    """Every row where something else is faster, smaller or closer than ours as it comes."""
    lines = _embedding_losses(result.get("embedding", {}).get("rows", [])) + _command_losses(result.get("commands"))
    lines += [
        f"the aim is missed: {found:,.5g} {text}, {how} {limit:g} was wanted"
        for key, text, limit, how in AIMS
        if (found := numbers(result).get(key)) is not None and (found < limit if how == "at least" else found > limit)
    ]
    if not lines:
        return "**Where we lose**: in no row above."
    return "**Where we lose**\n\n" + "\n".join(f"- {line}" for line in lines)


def _embedding_losses(rows: list[Result]) -> list[str]:
    known = {row["key"]: row for row in rows}
    if "ours" not in known:
        return []
    ours, lines = known["ours"], []
    for row in rows:
        times = _ratio(row, ours)
        if row["key"] != "ours" and times.better:
            cost = (
                ""
                if row["top10_agreement"] > 0.995
                else f", but names {row['top10_agreement']:.0%} of the same top ten"
            )
            speed = f"{times.median:,.1f} ± {times.spread:,.1f} times as many texts a second"
            lines.append(f"{row['label']} embeds {speed} as ours as it comes{cost}")
        if row["dimensions"] < ours["dimensions"]:
            lines.append(
                f"{row['label']}: {row['dimensions']} dimensions in place of {ours['dimensions']}, a smaller index"
            )
        if row["growth_mb"] + 50 < ours["growth_mb"]:
            lines.append(f"{row['label']} needs {ours['growth_mb'] - row['growth_mb']:.0f} MB less while it embeds")
    return lines


def _chunk_ratio(first: Result, embedded: int, others: int) -> Ratio:
    """The first index's ratio with the time divided by the chunks that each embedded."""
    return ratio_of(
        [seconds / others for seconds in first["langchain"]["seconds"]],
        [seconds / embedded for seconds in first["ours"]["seconds"]],
    )


def _command_losses(found: Result | None) -> list[str]:
    if not found:
        return []
    first, lines = found["first_index"], []
    if first["times_faster"] < 1:
        lines.append("LangChain makes the first index faster")
    if min(first["langchain"]["peak_mb"]) < max(first["ours"]["peak_mb"]):
        lines.append("LangChain needs less memory for the first index")
    embedded, others = _chunks_embedded(first)
    if others > embedded:
        lines.append(
            f"part of the first index's ratio is less work: LangChain embeds {others:,} chunks of these notes, ours "
            f"{embedded:,}; a chunk takes LangChain {_chunk_ratio(first, embedded, others)} as long"
        )
    mine, theirs = (first[key]["reports"][-1] for key in ("ours", "langchain"))
    if theirs["chunks"] < mine["chunks_total"]:
        lines.append(f"LangChain makes fewer chunks ({theirs['chunks']:,} against {mine['chunks_total']:,})")
    return lines
