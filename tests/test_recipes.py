"""The command lines that make what ships: hours of work, so that each must ask for the right thing at once.

`python -m clasp_lib.records` measures the records, `python -m clasp_lib.pretraining` trains encoders and models.
"""

from __future__ import annotations

import concurrent.futures
import csv
import itertools
import json
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import Clip

from clasp_lib import CLASP, get_profile
from clasp_lib.corpus import SPLITS
from clasp_lib.errors import ClaspError
from clasp_lib.evaluation import evaluate_both_directions
from clasp_lib.features import Features
from clasp_lib.pretraining import __main__ as pretraining
from clasp_lib.pretraining import ablation, clips, heads, measure, picture, sentence, speech
from clasp_lib.pretraining.clips import NOTHING, Clips
from clasp_lib.pretraining.measure import HeldOut
from clasp_lib.records import __main__ as command
from clasp_lib.records import moments, robustness, shifts, transcripts
from clasp_lib.transcription import Transcriber


class Asked:
    """Stands in for a function that takes long: keeps what it is asked, and answers with `answer`."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.calls: list[tuple[tuple, dict[str, Any]]] = []

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.calls.append((given, named))
        return self.answer(*given, **named) if callable(self.answer) else self.answer


# Records -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Asked]:
    """All four `measure` functions, instant."""
    found = {}
    for module in (transcripts, robustness, shifts, moments):
        name = module.__name__.rpartition(".")[2]
        found[name] = Asked({"rows": [name]})
        monkeypatch.setattr(module, "measure", found[name])
    return found


def test_each_record_says_what_was_typed_and_where_no_folder_was(measured: dict[str, Asked], tmp_path: Path) -> None:
    typed = [
        "shifts",
        "moments",
        "--recordings",
        f"people={tmp_path}",
        "--recordings",
        "more=here/there",
        "--seed",
        "5",
    ]
    assert command.main([*typed, "--output", str(tmp_path / "out")]) == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["moments.json", "shifts.json"]
    for name in ("shifts", "moments"):
        text = (tmp_path / "out" / f"{name}.json").read_text("utf-8")
        record = json.loads(text)
        assert (record["rows"], record["seed"]) == ([name], 5)
        assert record["command"] == (
            f"python -m clasp_lib.records {name} --recordings people=FOLDER --recordings more=FOLDER"
        )
        assert str(tmp_path) not in text and record["date"] and record["versions"] and record["machine"]
        ((profile, folders, seed), named), *more = measured[name].calls
        assert (profile.name, folders, seed) == ("pocket", {"people": tmp_path, "more": Path("here/there")}, 5)
        assert not named and not more
    assert not measured["robustness"].calls and not measured["transcripts"].calls


def test_without_names_all_records_are_measured(measured: dict[str, Asked], tmp_path: Path) -> None:
    assert command.main(["--output", str(tmp_path)]) == 0
    assert {file.stem for file in tmp_path.iterdir()} == set(command.RECORDS) == set(measured)
    assert all(asked.calls[0][0][1:] == ({}, 0) for asked in measured.values())


def test_a_record_that_fails_leaves_those_before_it(
    measured: dict[str, Asked], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*given: Any) -> None:
        raise ClaspError("people/metadata.csv: lacks the column text.")

    measured["robustness"].answer = fails
    assert command.main(["transcripts", "robustness", "shifts", "--output", str(tmp_path)]) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["transcripts.json"]
    said = capsys.readouterr()
    assert said.err == "error: people/metadata.csv: lacks the column text.\n"
    assert said.out == f"{tmp_path / 'transcripts.json'}\n" and not measured["shifts"].calls


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["shift"], "unknown: shift. Choose from transcripts, robustness, shifts, moments"),
        (["--recordings", "people"], "'people': give a name, =, and a folder"),
        (["--recordings", "=people"], "'=people': give a name, =, and a folder"),
        (["--recordings", "people="], "'people=': give a name, =, and a folder"),
        (["--seed", "one"], "invalid int value: 'one'"),
    ],
)
def test_what_was_typed_wrong_is_named_before_anything_is_measured(
    measured: dict[str, Asked], typed: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(typed)
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not any(asked.calls for asked in measured.values())


def held_out(clips: Sequence[Clip]) -> HeldOut:
    return HeldOut([c.samples for c in clips], [c.text for c in clips], [c.text for c in clips])


def recordings_of(clips: Sequence[Clip], folder: Path) -> Path:
    """The clips as a folder of recordings."""
    folder.mkdir()
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "text"])
        for number, clip in enumerate(clips):
            soundfile.write(folder / f"{number}.flac", clip.samples, 16_000)
            table.writerow([f"{number}.flac", clip.text])
    return folder


@pytest.mark.slow
def test_the_record_of_transcripts_keeps_texts_of_its_own_test_only(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcripts, "pocket_brown_test", lambda profile: held_out(clips))
    monkeypatch.setattr(transcripts, "MODELS", transcripts.MODELS[:1])
    monkeypatch.setattr(transcripts, "RESAMPLES", 60)
    monkeypatch.setattr(transcripts, "measure_costs", Asked({"stages": []}))
    found = transcripts.measure(get_profile("pocket"), {"people": recordings_of(clips[:4], tmp_path / "people")}, 2)
    assert {name: test["clips"] for name, test in found["tests"].items()} == {transcripts.OWN: 6, "people": 4}
    assert len(found["transcripts"]) == 6
    for ranks in found["ranks"].values():
        assert all(len(column) == 6 and min(column) >= 1 for column in ranks.values())
    people = json.dumps(found["tests"]["people"])
    assert not any(clip.text in people for clip in clips) and ".flac" not in people
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
def test_the_record_of_moments_hears_joined_clips_and_recordings_of_people(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "pocket_brown_test", lambda profile: held_out(clips))
    monkeypatch.setattr(moments, "MINUTES", (1, 4))
    (one,) = moments.join_all([clip.samples for clip in clips[:3]], [clip.text for clip in clips[:3]], 1)
    folder = tmp_path / "long"
    folder.mkdir()
    soundfile.write(folder / "tape_en_1.wav", one.samples, 16_000)
    with open(folder / "segments.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "start_s", "end_s", "text"])
        table.writerows(["tape_en_1.wav", *segment] for segment in one.segments)
    found = moments.measure(get_profile("pocket"), {"long_recordings": folder}, 0)
    rows = {(row["recordings"], row.get("minutes")): 0 for row in found["rows"]}
    assert set(rows) == {("joined", 1), ("joined", 4), ("people, en 1", None)}
    fixed = {(row["recordings"], row.get("minutes")) for row in found["rows"] if row["system"] == moments.FIXED}
    assert fixed == {("joined", 4), ("people, en 1", None)}  # of a minute, only the chapter's own windows
    for row in found["rows"]:
        assert row["n"] == (3 if row["recordings"] == "people, en 1" else 6)
        assert 0 <= row["recall_at_1"]["low"] <= row["recall_at_1"]["value"] <= row["recall_at_5"]["value"] <= 1
    both = {row["system"]: row["recall_at_1"]["value"] for row in found["rows"] if row.get("minutes") == 1}
    assert both[moments.BOTH + moments.KNOWN] >= both[moments.CHANCE]  # told where clips end, it does not guess
    assert len(found["slice"]["moments"]) == 6 and found["clips"] == 6
    for about in found["windows"]:
        assert about["windows_per_minute"] > 0 and 0 < about["reachable"] <= 1
    text = json.dumps(found, allow_nan=False)
    assert "tape" not in text and not any(clip.text in text for clip in clips)


def test_the_record_of_shifts_leaves_out_every_category_and_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)

    def part(n: int) -> Features:
        text = rng.standard_normal((n, 6)).astype(np.float32)
        numbers = [str(i) for i in range(n)]
        texts = [" ".join(["word"] * (1 + i % 9)) for i in range(n)]
        kinds = ["news" if i % 2 else "lore" for i in range(n)]
        picture = rng.standard_normal((n, 4)).astype(np.float32)
        return Features(text + 0.1, picture, text, numbers, texts, kinds, ["anna"] * n)

    parts = {name: part(n) for name, n in zip(SPLITS, (40, 20, 20), strict=True)}
    monkeypatch.setattr(shifts, "splits", lambda profile: parts)
    monkeypatch.setattr(shifts, "fit", lambda train, validation, seed: lambda features: features.speech)
    found = shifts.measure(get_profile("pocket"), {}, 7)
    assert found["pairs"] == {"train": 40, "validation": 20, "test": 20}
    assert {row["left_out"] for row in found["domain"]} == {"news", "lore"}
    assert {row["left_out"] for row in found["length"]} == {"shortest", "longest"}
    assert {row["seeds"] for row in found["domain"]} == {shifts.DOMAIN_SEEDS}
    assert {row["seeds"] for row in found["length"]} == {shifts.LENGTH_SEEDS}
    assert all(row["value"] == 0 for row in found["domain"])  # this fit learns nothing that could be missed
    assert {row["n"] for row in found["over_categories"]} == {2}
    assert (found["fusion"], found["learning_rate"]) == (shifts.FUSION, shifts.RATE)


# What ships --------------------------------------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder in place of `clasp_lib/pocket`."""
    folder = tmp_path / "pocket"
    (folder / "reports").mkdir(parents=True)
    monkeypatch.setattr("clasp_lib.encoders.checkpoints.pocket_folder", lambda name: folder / name)
    return folder


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["pretraining", *map(str, arguments)])
    pretraining.main()


def some_clips(*texts: str) -> Clips:
    return Clips([np.ones(4, np.int16)] * len(texts), list(texts), [[]] * len(texts), [[]] * len(texts))


def test_the_encoders_are_trained_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def asked(name: str, module: Any, answer: Any = None) -> Asked:
        stand_in = Asked(lambda *given, **named: order.append(name) or answer)
        monkeypatch.setattr(module, name, stand_in)
        return stand_in

    parts = some_clips("rain", "snow", "rain"), {"some": some_clips("hail")}
    gathered = asked("gather", clips, parts)
    heard = asked("pretrain_speech", speech)
    pool = asked("text_vectors", sentence, np.arange(6.0).reshape(2, 3))
    meant = asked("pretrain_sentence", sentence)
    seen = asked("pretrain_picture", picture)
    encoder = SimpleNamespace(encode=lambda texts: np.full((len(texts), 3), 9.0))
    monkeypatch.setattr("clasp_lib.encoders.TextEncoder", lambda name: encoder)

    table = tmp_path / "sentences.tsv.gz"
    arguments = ["encoders", tmp_path, "--sentences", table, "--recordings", "people", "--also", "pico"]
    typed(monkeypatch, *arguments, "--clips", 70, "--ctc-minutes", 3, "--search-minutes", 2, "--seconds-a-batch", 40)
    assert order == ["gather", "pretrain_speech", "text_vectors", "pretrain_sentence", "pretrain_picture"]
    (given, _), *_ = gathered.calls
    assert given[:4] == (table, 70, [Path("people")], tmp_path / "clips") and given[5] == ["pico"]
    (train, _, folder, recipe, start), _ = heard.calls[0]
    assert (train, folder, start) == (parts[0], tmp_path, None)
    assert (recipe.loop.minutes, recipe.loop.seconds_a_batch, recipe.loop.weights) == (3, 40, speech.WEIGHTS)
    assert pool.calls[0][0] == (encoder, ["rain", "snow"], tmp_path)  # each text once
    (_, texts, others, ctc, folder, recipe), _ = meant.calls[0]
    assert texts.tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]] and (ctc, folder) == (tmp_path / "ctc", tmp_path)
    assert others["some"][0] is parts[1]["some"] and others["some"][1].tolist() == [[9, 9, 9]]
    assert (recipe.loop.minutes, recipe.loop.weights) == (2, sentence.WEIGHTS)
    assert seen.calls[0][0][3].minutes == pretraining.STAGES["picture"]

    order.clear()
    typed(monkeypatch, *arguments, "--stages", "picture", "--picture-minutes", 0.5)
    assert order == ["gather", "pretrain_picture"] and seen.calls[1][0][3].minutes == 0.5
    order.clear()
    typed(monkeypatch, *arguments, "--stages", "ctc", "--start", "finished", "--compiled")
    (*_, recipe, start), _ = heard.calls[1]
    assert order == ["gather", "pretrain_speech"] and start == Path("finished") and recipe.loop.compiled


def test_finished_encoders_and_their_records_are_installed_and_nothing_else(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    for name, file in (("ctc", "model.safetensors"), ("ctc", "vocab.json"), ("search", "config.json")):
        (work / name).mkdir(parents=True, exist_ok=True)
        (work / name / file).write_text(f"new {file}", encoding="utf-8")
    (work / "clips").mkdir()
    for file in ("ctc.json", "ctc.jsonl", "ctc.state.safetensors", "clips/train-0-0000.json"):
        (work / file).write_text("{}", encoding="utf-8")
    (shipped / "ctc").mkdir()
    (shipped / "ctc" / "model.safetensors").write_text("old", encoding="utf-8")
    typed(monkeypatch, "install", work)
    found = {file.relative_to(shipped).as_posix() for file in shipped.rglob("*") if file.is_file()}
    assert found == {"ctc/model.safetensors", "ctc/vocab.json", "reports/ctc.json", "reports/ctc.jsonl"}
    assert (shipped / "ctc" / "model.safetensors").read_text("utf-8") == "new model.safetensors"


def test_the_models_are_trained_on_both_encoders_and_recorded(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Asked(lambda profile, names, folder, settings, more: dict.fromkeys(names, 0.5))
    featured = Asked(lambda clips, profile, known: f"features by {profile.speech_encoder}")
    monkeypatch.setattr(heads, "train_heads", trained)
    monkeypatch.setattr(heads, "features_of_clips", featured)
    opened = Asked(some_clips("rain", "snow"))
    monkeypatch.setattr(clips, "open_clips", opened)
    monkeypatch.setattr(clips, "read_training_recordings", Asked((some_clips("hail"), NOTHING)))
    typed(monkeypatch, "heads", "--more", tmp_path, "--more-clips", 2, "--recordings", "people", "--epochs", 4)
    assert opened.calls[0][0] == (tmp_path / "clips", "train", 2)
    assert [given[0].speech_encoder for given, _ in trained.calls] == ["pocket-ctc", "pocket-search"]
    for (_, names, folder, settings, more), encoder in zip(
        [c[0] for c in trained.calls], pretraining.HEADS, strict=True
    ):
        assert tuple(names.values()) == pretraining.HEADS[encoder] and all(n.startswith(encoder) for n in names)
        assert (folder, settings.epochs, more) == (shipped, 4, f"features by pocket-{encoder}")
    assert [given[2] for given, _ in featured.calls] == [
        None,
        "features by pocket-ctc",
    ]  # pictures and texts are shared
    record = json.loads((shipped / "reports" / "heads.json").read_text("utf-8"))
    assert record["more_clips"] == 3 and set(record["validation_mrr"]) >= {"ctc-speech-only", "search-linear"}
    assert record["command"] == (
        "python -m clasp_lib.pretraining heads --more WORKDIR --more-clips 2 --recordings FOLDER ... --epochs 4"
    )

    typed(monkeypatch, "heads")  # on Pocket Brown alone
    assert [given[4] for given, _ in trained.calls[2:]] == [None, None] and len(featured.calls) == 2
    record = json.loads((shipped / "reports" / "heads.json").read_text("utf-8"))
    assert record["command"] == "python -m clasp_lib.pretraining heads --epochs 30" and record["more_clips"] == 0


def test_the_ablation_of_disturbances_is_recorded(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, ablated = Asked(lambda folder, split, n: some_clips(split)), Asked({"letter_error_rate": {}})
    monkeypatch.setattr(clips, "open_clips", opened)
    monkeypatch.setattr(ablation, "ablate", ablated)
    typed(monkeypatch, "ablate", tmp_path, "--clips", 30, "--clean-minutes", 1.5, "--minutes", 0.25)
    assert [given[1:] for given, _ in opened.calls] == [("train", 30), ("validation", 200)]
    (train, kept, folder, recipe, clean), _ = ablated.calls[0]
    assert (train.texts, kept.texts, folder, clean) == (["train"], ["validation"], tmp_path / "ablation", 1.5)
    assert recipe.loop.minutes == 0.25 and recipe.loop.weights == speech.WEIGHTS
    record = json.loads((shipped / "reports" / "augmentations.json").read_text("utf-8"))
    assert record["command"].endswith("ablate WORKDIR --clips 30 --clean-minutes 1.5 --minutes 0.25")
    assert record["letter_error_rate"] == {} and str(tmp_path) not in json.dumps(record)


def test_every_system_is_asked_the_same_and_compared_with_every_other(clips: list[Clip]) -> None:
    models = {name: CLASP.from_pretrained(name, device="cpu") for name in ("pocket-speech-only", "pocket-linear")}
    transcriber, encoded = Transcriber("pocket-ctc", device="cpu"), []
    for model in models.values():
        encode = model.speech_encoder.encode
        model.speech_encoder.encode = lambda *given, encode=encode: encoded.append(1) or encode(*given)
    test = held_out(clips)
    found = measure.measure(models, transcriber, test, 3)
    assert len(encoded) == 1  # both stand on the same encoder
    assert list(found["systems"]) == [measure.TRANSCRIPT, *models] and found["clips"] == 6
    assert found["seconds"] == pytest.approx(sum(map(len, test.waves)) / 16_000, abs=0.1)
    assert 0 <= found["transcription"]["letter_error_rate"]["value"] < 0.5  # it is English that it hears
    for name, model in models.items():
        own = evaluate_both_directions(
            model.encode_speech(test.waves, show_progress_bar=False),
            model.encode_text(test.texts, show_progress_bar=False),
            test.ids,
            3,
        )
        for way, report in own.items():
            assert found["systems"][name][way]["mrr"]["value"] == pytest.approx(report.mrr.value, abs=1e-6)
    pairs = [(row["first"], row["second"]) for row in found["comparisons"]]
    assert pairs[::2] == pairs[1::2] == list(itertools.combinations(found["systems"], 2))
    for row in found["comparisons"]:
        one, two = (
            found["systems"][row[side]]["speech_to_text"][row["measure"]]["value"] for side in ("first", "second")
        )
        assert row["difference"]["value"] == pytest.approx(one - two, abs=1e-6) and row["n"] == 6
        assert row["difference"]["low"] <= row["difference"]["value"] <= row["difference"]["high"]
    json.dumps(found, allow_nan=False)


def test_the_same_sentences_are_spoken_by_both_synthesizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["The/at rain/nn fell/vbd on/in the/at roof/nn ./.", "The/at rain/nn fell/vbd on/in the/at Roof/nn ./."]
    said += ["In/in 1961/cd there/ex was/bedz no/at rain/nn ./.", "Too/rb short/jj ./."]
    said += [f"Nobody/pn saw/vbd the/at {word}/nn fall/nn ,/, again/rb ./." for word in ("snow", "hail", "frost")]
    with zipfile.ZipFile(tmp_path / "brown.zip", "w") as archive:
        archive.writestr("brown/cats.txt", "ca01 news\n")
        archive.writestr("brown/ca01", "\n\n".join(said))
    drawn = measure.brown_sentences(tmp_path / "brown.zip", 10)
    assert sorted(drawn) == [
        "Nobody saw the frost fall, again.",
        "Nobody saw the hail fall, again.",
        "Nobody saw the snow fall, again.",
        "The rain fell on the roof.",
    ]
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", concurrent.futures.ThreadPoolExecutor)
    parts = measure.synthetic_tests(tmp_path / "brown.zip", 3)
    assert list(parts) == ["brown_espeak", "brown_flite"]
    for part in parts.values():
        assert part.texts == measure.brown_sentences(tmp_path / "brown.zip", 3) and len(set(part.ids)) == 3
        assert all(len(wave) > 8_000 and np.abs(wave).max() > 0.01 for wave in part.waves)
    assert not np.array_equal(parts["brown_espeak"].waves[0], parts["brown_flite"].waves[0])


def test_all_that_ships_is_measured_on_all_that_is_held_out(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    both = {way: {"hits_at_1": interval} for way in ("speech_to_text", "text_to_speech")}
    rates = {"letter_error_rate": interval, "word_error_rate": interval}
    answer: Callable[..., dict] = lambda models, transcriber, test, seed: {  # noqa: E731
        "clips": len(test.waves), "transcription": rates, "systems": dict.fromkeys([*models, measure.TRANSCRIPT], both)
    }  # fmt: skip
    asked = Asked(answer)
    test = HeldOut([np.zeros(4, np.float32)] * 3, list("abc"), list("abc"))
    monkeypatch.setattr(measure, "measure", asked)
    monkeypatch.setattr(measure, "pocket_brown_test", lambda profile: test)
    monkeypatch.setattr(measure, "synthetic_tests", lambda zip_file: {"brown_espeak": test, "brown_flite": test})
    monkeypatch.setattr(measure, "recordings", lambda folder: HeldOut(test.waves[:2], list("ab"), list("ab")))
    monkeypatch.setattr("clasp_lib.model.CLASP.from_pretrained", lambda name: name)
    monkeypatch.setattr("clasp_lib.transcription.Transcriber", lambda name: name)
    card = shipped / "README.md"
    card.write_text("Before.\n<!-- measured -->\nold\n<!-- /measured -->\nAfter.\n", encoding="utf-8")
    typed(monkeypatch, "measure", "--brown", "brown.zip", "--recordings", f"common_voice_100_en={tmp_path}")
    names = ["pocket_brown_test", "brown_espeak", "brown_flite", "common_voice_100_en"]
    record = json.loads((shipped / "reports" / "retrieval.json").read_text("utf-8"))
    assert list(record["tests"]) == names and record["tests"]["common_voice_100_en"]["clips"] == 2
    assert record["command"].endswith("measure --brown brown.zip --recordings common_voice_100_en=FOLDER")
    assert all("pocket" not in given[0] and given[1] == "pocket-ctc" for given, _ in asked.calls)  # an alias of another
    assert str(tmp_path) not in json.dumps(record)
    text = card.read_text("utf-8")
    assert text.startswith("Before.\n<!-- measured -->\n") and text.endswith("<!-- /measured -->\nAfter.\n")
    assert "old" not in text and "`common_voice_100_en` 2 clips" in text and "0.500 [0.400, 0.600]" in text
    assert "| brown_espeak | 0.95 |" in text and "missed by 0.45" in text
    assert "HITS@1" in capsys.readouterr().out
