"""The benchmark on an engine whose time is known: what it reports must be what was put in."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from timed_engine import MODEL, Clock, TimedEngine, TimedReference, factory, vector_of, words

from vaultvec.config_file import read_values
from vaultvec.config_keys import GUIDE_VALUES
from vaultvec.engines import create_engine
from vaultvec.errors import ModelError, VaultError
from vaultvec.measure import rounds, surroundings, ways
from vaultvec.measure.bench import Subject, run_benchmark
from vaultvec.measure.ceiling import Shapes, measure_ceiling, read_shapes
from vaultvec.measure.decisions import apply_changes, confirm
from vaultvec.measure.extras import Trying, attempt, doubled, try_compile, try_models, try_processes
from vaultvec.measure.pacing import LEAST_ROUNDS, Pace, Rates, even_order
from vaultvec.measure.prices import measure_prices, monitoring_price
from vaultvec.measure.reasons import _window_note
from vaultvec.measure.report import headline, price_cells, print_report, render_html, result_console
from vaultvec.measure.results import Mix, Place, Price, Report, as_dict, last_decisions, save_json
from vaultvec.measure.rounds import Ratio, Way, compare, cosines, ratio_of, time_in_turn, top_agreement
from vaultvec.measure.surroundings import measure_surroundings
from vaultvec.models import L6, ModelSpec, resolve, weights_path
from vaultvec.settings import Settings

PRESENT = read_values("")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(rounds, "clock", made)
    return made


HERE = Place("small", 2, gpu=False, model="timed", vault="notes-0")
MANY_TOKENS = 4096  # of a model for which so few texts are sorted at least that the window counts


def run(
    clock: Clock, tmp_path: Path, seconds: float = 2000, **traits: Any
) -> tuple[Report, list[TimedEngine], TimedReference]:
    made: list[TimedEngine] = []
    reference = TimedReference(clock)
    two_streams, traits = {"token_s": 0.0005}, {"max_tokens": MANY_TOKENS} | traits
    subject = Subject(
        Settings(data_dir=tmp_path), PRESENT, MODEL, words(60), seconds=seconds, place=HERE,
        engines=factory(clock, made, lambda s: traits | (two_streams if s.streams == 2 else {})),
        reference=lambda _model, _device: reference,
    )  # fmt: skip
    return run_benchmark(subject), made, reference


def test_a_report_says_what_was_put_in(clock: Clock, tmp_path: Path) -> None:
    report, engines, reference = run(clock, tmp_path)
    assert [row.key for row in report.rows] == ["one", "batch32", "batch2000", "present", "best"]
    one = next(row for row in report.rows if row.key == "one")
    lengths = [len(text.split()) for text in words(60)]
    lengths = [lengths[i] for i in even_order(lengths)[: one.texts]]
    assert one.texts_per_second == pytest.approx(one.texts / sum(0.2 + 0.002 * n for n in lengths))
    assert one.seconds_per_1000 == pytest.approx(1000 / one.texts_per_second)
    assert one.spread == pytest.approx(0)
    assert reference.calls.count(1) >= 2 * one.texts
    assert max(reference.calls) <= report.rows[2].texts
    assert all(row.cosine_low > 0.99999 for row in report.rows)
    assert all(engine.closed for engine in engines)
    assert report.proposal["STREAMS"] == 2
    assert report.proposal["EMBEDDING_BATCH_SIZE"] == 2000
    assert report.gain > 1.3
    assert report.present == PRESENT


def test_two_runs_agree(clock: Clock, tmp_path: Path) -> None:
    first, second = run(clock, tmp_path)[0], run(clock, tmp_path)[0]
    assert first.proposal == second.proposal
    assert [r.texts_per_second for r in first.rows] == pytest.approx([r.texts_per_second for r in second.rows])


def test_a_candidate_whose_vectors_differ_is_not_proposed(clock: Clock, tmp_path: Path) -> None:
    made: list[TimedEngine] = []
    subject = Subject(
        Settings(data_dir=tmp_path), PRESENT, MODEL, words(60),
        engines=factory(clock, made, lambda s: {"token_s": 0.0001, "blur": 2.0} if s.streams == 2 else {}),
        reference=lambda _model, _device: TimedReference(clock),
    )  # fmt: skip
    report = run_benchmark(subject)
    trial = next(row for row in report.trials if row.changes == {"STREAMS": 2})
    assert trial.ratio > 1.5
    assert not trial.kept
    assert "not fp32's" in trial.reason
    assert "STREAMS" not in report.proposal


def test_a_winner_that_loses_when_all_is_timed_together_leaves_the_window(clock: Clock, tmp_path: Path) -> None:
    report, *_ = run(clock, tmp_path, call_s=0.01)
    assert report.proposal["STREAMS"] == 2
    usual = {"call_s": 0.01, "max_tokens": MANY_TOKENS}
    tired = usual | {"token_s": 0.0005, "tires_after": 70}
    subject = Subject(
        Settings(data_dir=tmp_path, max_tokens_per_batch=512), PRESENT, MODEL, words(60), seconds=2000,
        engines=factory(clock, [], lambda s: tired if s.streams == 2 else usual),
        reference=lambda _model, _device: TimedReference(clock),
    )  # fmt: skip
    report = run_benchmark(subject)
    assert next(row for row in report.trials if row.changes == {"STREAMS": 2}).kept
    assert "STREAMS" not in report.proposal
    assert report.proposal == {"EMBEDDING_BATCH_SIZE": 2000}
    assert report.gain > 1


def test_nothing_of_the_guides_is_proposed_that_has_no_measured_gain(clock: Clock, tmp_path: Path) -> None:
    report, *_ = run(clock, tmp_path, max_tokens=64)  # 512 texts are sorted at least: the window changes nothing
    assert report.proposal.keys() & GUIDE_VALUES.keys() == set()
    rows = {row.key: row for row in report.decisions}
    for key in ("EMBEDDING_BATCH_SIZE", "DISABLE_COMPLEX_GPU_OPTIMIZATION", "GPU_MEMORY_FRACTION"):
        assert rows[key].gain == "no effect here"
    assert rows["EMBEDDING_BATCH_SIZE"].reason.startswith("512 texts are sorted by length at a time whatever it says")


@pytest.mark.parametrize(
    ("pads", "server", "gain", "reason"),
    [
        (True, False, "padding", "too few were timed"),
        (False, False, "no effect here", "the model runs without padding"),
        (False, True, "no effect here", "the server decides what is padded"),
    ],
)
def test_padding_is_spoken_of_where_there_is_some(
    clock: Clock, pads: bool, server: bool, gain: str, reason: str
) -> None:
    engine = TimedEngine(clock, max_tokens=MANY_TOKENS, pads=pads)
    settings = Settings(engine="ollama" if server else "auto", embedding_batch_size=1)
    said = _window_note(settings, engine, [1 + n % 50 for n in range(3000)])
    assert said[0].startswith(gain)
    assert reason in said[1]


@pytest.mark.parametrize("padded_is_faster", [False, True])
def test_the_torch_switch_is_tried_on_the_engine_that_is_written(
    clock: Clock, tmp_path: Path, padded_is_faster: bool
) -> None:
    def traits(settings: Settings) -> dict[str, Any]:
        if settings.engine == "openvino":
            return {}
        padded = settings.disable_complex_gpu_optimization
        return {"name": "torch", "token_s": 0.0003 if padded == padded_is_faster else 0.002}

    settings, made = Settings(data_dir=tmp_path, engine="openvino"), factory(clock, [], traits)
    subject = Subject(settings, PRESENT | {"ENGINE": "openvino"}, MODEL, words(60), engines=made,
                      reference=lambda _model, _device: TimedReference(clock))  # fmt: skip
    proposal = run_benchmark(subject).proposal
    if padded_is_faster:  # packed torch is slower than openvino, so nobody came to try the switch
        assert proposal.keys() & {"ENGINE", "DISABLE_COMPLEX_GPU_OPTIMIZATION"} == set()
    else:
        assert proposal["ENGINE"] == "torch"
        assert "DISABLE_COMPLEX_GPU_OPTIMIZATION" not in proposal


def test_what_is_claimed_is_what_the_written_settings_give(clock: Clock, tmp_path: Path) -> None:
    def traits(settings: Settings) -> dict[str, Any]:
        plain = {"call_s": 0.01, "max_tokens": MANY_TOKENS}
        if settings.engine == "openvino":
            return plain
        return plain | {"name": "torch", "token_s": 0.002 if settings.disable_complex_gpu_optimization else 0.0003}

    texts = words(60)
    settings, made = Settings(data_dir=tmp_path, engine="openvino"), factory(clock, [], traits)
    subject = Subject(settings, PRESENT | {"ENGINE": "openvino"}, MODEL, texts, engines=made, seconds=2000,
                      reference=lambda _model, _device: TimedReference(clock))  # fmt: skip
    report = run_benchmark(subject)

    def taken(wanted: Settings) -> float:
        engine, began = made(wanted, MODEL, tmp_path, None), clock.now
        engine.embed_documents([texts[i] for i in even_order([len(text.split()) for text in texts])])
        return clock.now - began

    written = apply_changes(settings, report.proposal)
    assert report.gain == pytest.approx(taken(settings) / taken(written), rel=0.02)


def test_without_sentence_transformers_the_engine_is_its_own_baseline(clock: Clock, tmp_path: Path) -> None:
    def missing(*_: object) -> object:
        raise ModelError("not installed")

    told: list[str] = []
    subject = Subject(
        Settings(data_dir=tmp_path), PRESENT, MODEL, words(40), engines=factory(clock, [], lambda _: {}),
        reference=missing, notify=told.append,
    )  # fmt: skip
    report = run_benchmark(subject)
    assert report.rows[0].note == "the same engine"
    assert any("not installed" in line for line in told)


def test_too_few_chunks_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="found 1 chunks to measure, expected at least 2"):
        run_benchmark(Subject(Settings(data_dir=tmp_path), PRESENT, MODEL, ["one"]))


def test_each_bottleneck_costs_what_it_costs(clock: Clock) -> None:
    engine = TimedEngine(clock, call_s=0.0, token_s=0.001, budget=256)
    texts = words(50)
    lengths = [len(row) for row in engine.tokenizer.encode(texts)]
    prices = {row.key: row for row in measure_prices(engine, texts, lengths, 2000, rounds=2, tick=lambda _: None)}
    padded = ways.padded_tokens(lengths, 256, 2000)
    assert prices["engine_one"].cost == pytest.approx(sum(lengths[:16]) / 16 * 50 / padded - 1)
    assert prices["large"].cost == pytest.approx(max(lengths) * 50 / padded - 1)
    by_length = sorted(lengths, reverse=True)
    assert prices["small"].cost == pytest.approx((by_length[0] * 32 + by_length[32] * 18) / padded - 1)
    assert prices["padding"].cost > 0.2
    assert prices["clearing"].cost == pytest.approx(0)
    assert set(prices) == {"engine_one", "small", "large", "monitoring", "clearing", "padding"}


def test_a_blocking_check_is_priced_by_what_it_takes() -> None:
    price = monitoring_price(lambda: 0.5)
    assert price.cost == pytest.approx(0.25)
    assert price.verdict == "+25% time by calculation, not run"
    assert price.how.startswith("one check takes 0.50 s, divided by 2 s;")
    assert "helps here" in Price("", "", -0.3, 0.02, "").verdict
    assert "no difference" in Price("", "", 0.01, 0.02, "").verdict


def test_the_headline_says_what_it_divides_and_how_far_the_rounds_differ(clock: Clock, tmp_path: Path) -> None:
    report, *_ = run(clock, tmp_path)
    one, best = report.rows[0], max(report.rows[-2:], key=lambda row: row.texts_per_second)
    assert report.times_one == pytest.approx(best.texts_per_second / one.texts_per_second)
    told = headline(replace(report, times_one_spread=0.34))
    assert f"{report.times_one:.1f} ± 0.3 times one call per chunk" in told
    assert "measure again" not in told
    assert "measure again" in headline(replace(report, times_one_spread=report.times_one * 0.6))
    assert f"(texts/s on {report.used.texts} chunks over texts/s on {one.texts} of them, round by round)" in told


def test_ways_are_timed_in_turn_and_in_both_orders(clock: Clock) -> None:
    order: list[str] = []

    def way(key: str, seconds: float) -> Way:
        def work(texts: Any) -> Any:
            order.append(key)
            clock.now += seconds
            return np.stack([vector_of(text) for text in texts])

        return Way(key, key, work)

    found = time_in_turn([way("a", 2.0), way("b", 1.0)], ["x", "y"], 10, 2, lambda _: None)
    assert order == ["a", "b", "b", "a"]
    assert found["a"].texts_per_second == 1.0
    assert found["b"].tokens_per_second == 10.0
    assert compare(found["a"], found["b"]) == Ratio(2.0, 0.0)


def test_further_rounds_are_timed_while_they_fit(clock: Clock) -> None:
    def work(texts: Any) -> Any:
        clock.now += 2.0
        return np.zeros((len(texts), 8), np.float32)

    way = Way("a", "a", work)
    counts = [len(time_in_turn([way], ["x"], 1, 3, lambda _: None, seconds=s)["a"].seconds) for s in (0, 7, 11, 1000)]
    assert counts == [3, 3, 5, rounds.MOST_ROUNDS]


def test_the_spread_is_the_round_farthest_from_the_median(clock: Clock) -> None:
    taken = iter((1.0, 1.1, 1.5))

    def work(_: Any) -> Any:
        clock.now += next(taken)
        return np.zeros((1, 8), np.float32)

    assert time_in_turn([Way("a", "a", work)], ["x"], 1, 3, lambda _: None)["a"].spread == pytest.approx(0.4 / 1.1)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("count", [2, 3, 65, 1000])
def test_every_beginning_of_the_order_has_the_mix_of_the_whole(count: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(10, 250, count)
    order = even_order(lengths.tolist(), seed)
    assert sorted(order) == list(range(count))
    for first in (32, 64, 256):
        if first <= count:
            assert lengths[order[:first]].mean() == pytest.approx(lengths.mean(), rel=0.06)


def test_the_plan_fits_the_time_that_is_left(clock: Clock) -> None:
    pace = Pace(thorough=False, seconds=50)
    clock.now += 10
    plan = pace.plan(Rates(engine=100, one=25, batch=50), 10_000, copies=2)
    assert plan.trials.seconds + plan.prices.seconds + plan.ways.seconds < 40
    each = 0.4 / 25 + 2 / 50 + 2 * 2 / 100  # seconds a text: one by one, two padded ways, present and best
    assert 0.8 < LEAST_ROUNDS * each * plan.ways.texts / plan.ways.seconds <= 1
    assert plan.times == 1
    gpu = Pace(thorough=False).plan(Rates(engine=20_000, one=100, batch=2000), 300, copies=1)
    assert gpu.ways.texts == 300
    assert gpu.times == 33  # 10,000 texts in half a second


@pytest.mark.parametrize(
    ("base", "other", "better", "worse"),
    [((2, 2), (1, 1), True, False), ((1, 1), (2, 2), False, True), ((1, 1.4), (1, 1), False, False),
     ((1.01, 1.01), (1, 1), False, False)],
)  # fmt: skip
def test_a_difference_within_the_noise_is_none(
    base: tuple[float, ...], other: tuple[float, ...], better: bool, worse: bool
) -> None:
    ratio = ratio_of(base, other)
    assert (ratio.better, ratio.worse) == (better, worse)


def test_what_is_written_after_all_was_timed_together() -> None:
    tuned = {"STREAMS": 2, "EMBEDDING_BATCH_SIZE": 2000}
    assert confirm(Ratio(1.5, 0.1), 1.0, tuned, int8=False) == tuned
    assert confirm(Ratio(1.0, 0.1), 1.0, tuned, int8=False) == {}
    assert confirm(Ratio(0.5, 0.1), 1.0, tuned, int8=False) == {}
    assert confirm(Ratio(0.9, 0.3), 1.0, tuned, int8=False) == {}
    assert confirm(Ratio(1.5, 0.1), 0.99, tuned, int8=False) == {}
    assert confirm(Ratio(1.5, 0.1), 0.99, tuned, int8=True) == tuned


def test_agreement_of_nearest_neighbours() -> None:
    rows = np.stack([vector_of(f"text {i}") for i in range(40)])
    assert top_agreement(rows, rows) == 1.0
    assert top_agreement(rows, rows[::-1].copy()) < 0.6
    assert cosines(rows, rows) == pytest.approx((1.0, 1.0))


def test_all_ways_give_the_same_vectors(clock: Clock) -> None:
    engine, texts = TimedEngine(clock, budget=128), words(30)
    truth = np.stack([vector_of(text) for text in texts])
    engine_way = partial(ways.engine_way, engine)
    reference_way = partial(ways.reference_way, TimedReference(clock), "")
    for way in [
        ways.fast(engine, "", "", window=7, budget=100), ways.one_by_one(engine), *ways.slow_ways(engine_way, 9),
        *ways.slow_ways(reference_way, 20), ways.arranged(engine, "", "", ways.as_they_come(99)),
    ]:  # fmt: skip
        np.testing.assert_allclose(way.run(texts), truth, atol=1e-6)
    assert (engine.window, engine.token_budget) == (32, 128)


@pytest.mark.parametrize("batch", [1, 8])
def test_sentence_transformers_puts_no_prompt_of_its_own_before_the_text(batch: int) -> None:
    class Prompting:
        """A model with a default prompt, as config_sentence_transformers.json may name one."""

        def encode(self, texts: list[str], prompt: str = "query: ", **_: Any) -> Any:
            return np.stack([vector_of(prompt + text) for text in texts])

    found = ways.reference_way(Prompting(), "passage: ", batch).run(["one", "two"])
    assert found.tolist() == np.stack([vector_of("passage: one"), vector_of("passage: two")]).tolist()


def test_the_batch_of_2000_fits_the_memory_and_says_its_true_size() -> None:
    assert ways.safe_count(1) == 2000
    assert ways.safe_count(10**9) == 1
    assert ways.literal_note(2000, 5000) == "2000 texts at once"
    assert ways.literal_note(2000, 48) == "48 texts at once, all that were timed"
    assert ways.literal_note(300, 5000) == "300 texts at once, what memory safely holds"


def test_work_per_token_is_counted_from_the_models_shapes() -> None:
    shapes = read_shapes(weights_path(resolve(L6)).parent)
    assert shapes == Shapes(6, 384, 1536)
    assert shapes.flops_per_token([200, 200]) == 2 * 12 * 384**2 * 6 + 4 * 200 * 384 * 6
    # 100 tokens look at 100 tokens each, 300 at 300: 250 on average.
    assert shapes.flops_per_token([100, 300]) == 2 * 12 * 384**2 * 6 + 4 * 250 * 384 * 6
    assert read_shapes(Path("nowhere")) is None


def test_int8_is_measured_against_no_ceiling_of_another_precision() -> None:
    engine: Any = SimpleNamespace(model=resolve(L6), name="openvino", precision="int8", device="cpu")
    assert measure_ceiling(engine, 1000, [100]) is None


def test_a_doubled_model_has_its_layers_twice(tiny_bert: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    folder = doubled(tiny_bert, tmp_path / "double", 4, 16)
    names = load_file(folder / "model.safetensors")
    assert {name.split("encoder.layer.")[1].split(".")[0] for name in names if "encoder.layer." in name} == set("0123")
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 4
    assert json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"] == 16


def test_json_comes_back_and_counts_only_for_the_config_it_measured(clock: Clock, tmp_path: Path) -> None:
    report, *_ = run(clock, tmp_path)
    path = save_json(report, tmp_path)
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(as_dict(report)))
    found = last_decisions(tmp_path, PRESENT, lambda: HERE)
    assert found is not None
    assert {row.key: row.proposed for row in found.decisions} == PRESENT | report.proposal
    after = last_decisions(tmp_path, PRESENT | report.proposal, lambda: HERE)
    assert after is not None
    assert all(row.proposed == row.present for row in after.decisions)
    assert last_decisions(tmp_path, PRESENT | {"STREAMS": 7}, lambda: HERE) is None
    path.write_text("{", encoding="utf-8")
    assert last_decisions(tmp_path, PRESENT, lambda: HERE) is None


@pytest.mark.parametrize(
    ("there", "differs"),
    [
        ({"cores": 64}, "64 cores, now 2 cores"),
        ({"gpu": True, "machine": "big"}, "big, now small; a GPU, now no GPU"),
        ({"model": "other"}, "model other, now timed"),
        ({"vault": "work-1"}, "vault work-1, now notes-0"),
    ],
)
def test_a_report_of_another_place_gives_no_decisions(
    clock: Clock, tmp_path: Path, there: dict[str, Any], differs: str
) -> None:
    report, *_ = run(clock, tmp_path)
    save_json(replace(report, place=replace(HERE, **there)), tmp_path)
    found = last_decisions(tmp_path, PRESENT, lambda: HERE)
    assert found is not None
    assert (found.decisions, found.differs) == ((), differs)
    save_json(replace(report, made="2020-01-01T00:00:00"), tmp_path)  # older, but of this place
    found = last_decisions(tmp_path, PRESENT, lambda: HERE)
    assert found is not None
    assert (found.made, found.differs) == ("2020-01-01T00:00:00", "")


def test_the_page_needs_no_network_and_escapes_what_it_shows(clock: Clock, tmp_path: Path) -> None:
    report, *_ = run(clock, tmp_path)
    row = replace(report.rows[0], label="<script>alert(1)</script>")
    page = render_html(replace(report, rows=(row, *report.rows[1:]), model="<img src=x>"))
    assert "<img src=x>" not in page
    assert "<script>alert(1)" not in page
    assert "u003cscript" not in page
    assert "&lt;script&gt;" in page
    assert 'src="http' not in page
    assert "default-src 'none'" in page
    assert "Before and after" in page


def test_the_screen_shows_every_table(clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, *_ = run(clock, tmp_path)
    print_report(report, result_console())
    text = capsys.readouterr().out
    assert [cells[1].endswith("not run") for cells in price_cells(report)].count(True) == 1
    for part in (
        "one call per chunk",
        "5 padding",
        "STREAMS 2",
        "model: text",
        "EMBEDDING_BATCH_SIZE",
        "times one call",
    ):
        assert part in text


def test_the_length_mix_is_told() -> None:
    mix = Mix.of([10, 20, 30, 40])
    assert (mix.texts, mix.tokens, mix.shortest, mix.middle, mix.longest) == (4, 100, 10, 25, 40)
    assert "25 tokens on average" in str(mix)


def test_what_stands_around_the_model_is_measured_without_touching_the_vault(tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    vault.mkdir()
    for i in range(3):
        (vault / f"{i}.md").write_text(f"# Note {i}\n\nA sentence about number {i}.\n", encoding="utf-8")
    settings = Settings(data_dir=tmp_path / "data", embedding_model=L6, workers=0)
    found = measure_surroundings(settings, resolve(L6), vault, rounds=1, thorough=False, tick=lambda _: None)
    assert found.why == ""
    assert (found.notes, found.chunks) == (3, 3)
    assert found.chunk_seconds >= 0
    assert found.guide is not None
    assert found.workers is not None
    assert found.workers[0] == "auto"
    assert sorted(path.name for path in vault.iterdir()) == ["0.md", "1.md", "2.md"]
    assert list((tmp_path / "data").glob("bench-*")) == []


def test_surroundings_that_cannot_be_measured_say_why(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    none = measure_surroundings(settings, resolve(L6), None, rounds=1, thorough=False, tick=lambda _: None)
    assert "no vault" in none.why
    assert none.helpful(1e6) == {}


def test_around_the_model_only_what_is_faster_by_itself_is_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def took(settings: Settings, _: ModelSpec, __: Path, limit: int) -> tuple[float, int, int]:
        if limit == surroundings.START_NOTES:
            return 5.0, 2, 1
        return (6.0 if settings.batch_size == 2000 else 7.0), 3, 9

    monkeypatch.setattr(surroundings, "_run", took)
    options: Any = {"rounds": 2, "thorough": False, "tick": lambda _: None}
    found = measure_surroundings(Settings(data_dir=tmp_path), resolve(L6), tmp_path, **options)
    assert found.chunk_seconds == 2 / 8  # what starting takes is not counted
    assert found.helpful(100) == {"BATCH_SIZE": 2000}
    assert found.helpful(1) == {}  # a quarter of a second is little beside a model that takes a second
    monkeypatch.setattr(surroundings, "_run", lambda *_: (2.0, 3, 9))
    assert measure_surroundings(Settings(data_dir=tmp_path), resolve(L6), tmp_path, **options).helpful(100) == {}


def trying(tmp_path: Path, model: ModelSpec, engines: Any, texts: list[str]) -> Trying:
    settings = Settings(data_dir=tmp_path)
    engine = engines(settings, model, settings.models_dir, lambda _: None)
    return Trying(settings, engine, texts, engines, lambda _: None, lambda _: None)


def test_processes_are_started_and_timed(tiny_bert: Path, tmp_path: Path) -> None:
    model = ModelSpec(name=str(tiny_bert), kind="transformer")
    found = try_processes(trying(tmp_path, model, create_engine, ["a short text", "another one", "a third"]))
    assert found.texts_per_second is not None
    assert "more" in found.finding


def test_the_guides_models_are_compared_with_l6(clock: Clock, tmp_path: Path) -> None:
    """L12 is not here: its shape is timed. The timed engine gives all models the same vectors and speed."""
    rows, models = try_models(trying(tmp_path, MODEL, factory(clock, [], lambda _: {}), words(12)))
    assert [row.label for row in rows] == ["all-MiniLM-L12-v2", "paraphrase-MiniLM-L3-v2"]
    assert "its shape was timed" in rows[0].finding
    assert "which it is not" not in rows[0].finding
    assert "100% of its ten nearest" in rows[1].finding
    assert [(row.name, row.agreement) for row in models] == [(L6, 1.0), (resolve("paraphrase-MiniLM-L3-v2").name, 1.0)]


def test_torch_compile_counts_its_first_run(clock: Clock, tmp_path: Path) -> None:
    build = factory(clock, [], lambda s: {"token_s": 0.0005 if s.torch_compile else 0.001, "call_s": 0.0})
    found = try_compile(trying(tmp_path, MODEL, build, words(12)))
    assert "2.00x ± 0.00 of torch without it" in found.finding
    assert "it pays after" in found.finding


def test_an_option_that_fails_is_told(clock: Clock, tmp_path: Path) -> None:
    def build(settings: Settings, *rest: Any) -> Any:
        if settings.torch_compile:
            raise ModelError("no compiler here")
        return factory(clock, [], lambda _: {})(settings, *rest)

    found = attempt("torch.compile", try_compile, trying(tmp_path, MODEL, build, words(5)))
    assert found.label == "torch.compile"
    assert "not possible here: no compiler here" in found.finding
