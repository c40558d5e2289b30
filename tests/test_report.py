"""One command measures a model on a folder and writes a report: what it says is what was measured, and safe to open."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping, Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import Clip

from clasp_lib import CLASP
from clasp_lib.audio import encode_audio
from clasp_lib.errors import AudioError, ClaspError, DatasetError, MissingDependencyError
from clasp_lib.evaluation import evaluate_both_directions
from clasp_lib.metrics import MEASURES, Interval, rank_queries
from clasp_lib.report import Report, charts, command, evaluate_folder, files, read_report, write_report
from clasp_lib.report.__main__ import main
from clasp_lib.report.blocks import MEASURES as SAID
from clasp_lib.report.contents import WARNING
from clasp_lib.report.markdown import escaped, markdown
from clasp_lib.report.page import page
from clasp_lib.speech_brown import save_dataset

WAYS = ("text_to_speech", "speech_to_text")


class Known:
    """A model whose vectors are known: a text's by its letters, a clip's that of its text and noise."""

    def __init__(self, texts: Mapping[str, str], noise: float = 0.8) -> None:
        self.device, self.fingerprint = torch.device("cpu"), "0123"
        self.config = {"fusion": "none", "text_encoder": "letters"}
        self.texts, self.noise = texts, noise

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        rows = [np.random.default_rng(list(text.casefold().strip(".").encode())).standard_normal(12) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32)

    def encode_speech(self, items: Sequence[Mapping[str, str]], show_progress_bar: bool | None = None) -> np.ndarray:
        names = [item["path"] for item in items]
        noise = [np.random.default_rng(list(name.encode())).standard_normal(12) for name in names]
        rows = self.encode_text([self.texts[name] for name in names]) + self.noise / 12**0.5 * np.array(noise)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write_table(folder: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    folder.mkdir(exist_ok=True)
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def write_clips(folder: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Noise of different length for each row of the table."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for number, row in enumerate(rows):
        samples = 0.1 * rng.standard_normal(1600 + 160 * (number % 40))
        soundfile.write(folder / row["file"], samples, 16_000)
    return write_table(folder, rows)


WORDS = ["rain", "snow", "hail", "fog", "wind", "sun", "frost", "thunder", "mist", "storm", "dew"]
TEXTS = [f"First came {one}, then {two}." for one in WORDS for two in WORDS if one != two]  # 110
ROWS = [
    {"file": f"{i:03d}.wav", "text": TEXTS[i % 110] if i < 115 else TEXTS[i % 110].upper(), "licence": "CC0"}
    | {
        "language": "en" if i % 3 else "de",
        "category": ("news", "hobbies", "")[i % 3],
        "speaker": f"person{i % 12:02d}",
    }
    for i in range(120)
]
"""120 recordings of 110 texts by 12 people."""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("many") / "recordings", ROWS)


def known(rows: Sequence[Mapping[str, str]] = ROWS, noise: float = 0.8) -> CLASP:
    return Known({row["file"]: row["text"] for row in rows}, noise)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def report(recordings: Path) -> Report:
    return evaluate_folder(known(), recordings, name="known", seed=3, command=["clasp", "evaluate", "my recordings"])


@pytest.fixture(scope="module")
def saved_model(model: CLASP, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("saved") / "model")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def spoken(tmp_path: Path, clips: list[Clip]) -> Path:
    """Six sentences, the first two of them twice."""
    rows = []
    for number, clip in enumerate([*clips, *clips[:2]]):
        rows.append({"file": f"{number}.mp3", "text": clip.text, "speaker": f"secret-{number % 3}"})
        (tmp_path / "spoken").mkdir(exist_ok=True)
        (tmp_path / "spoken" / f"{number}.mp3").write_bytes(encode_audio(clip.samples, 16_000, "MP3"))
    return write_table(tmp_path / "spoken", rows)


# What is measured --------------------------------------------------------------------------------------------------


def test_the_report_holds_what_the_measures_give(report: Report) -> None:
    model = known()
    ids = [row["text"].casefold() for row in ROWS]
    speech = model.encode_speech([{"path": row["file"]} for row in ROWS])  # type: ignore[list-item]
    texts = model.encode_text([row["text"] for row in ROWS])
    assert report.retrieval == evaluate_both_directions(speech, texts, ids, seed=3)
    assert 0.1 < report.retrieval["speech_to_text"].hits_at_1.value < 0.9
    assert report.recordings["clips"] == 120 and report.recordings["texts"] == 110
    assert report.recordings["speakers"] == 12
    assert report.recordings["languages"] == {"de": 40, "en": 80}
    assert report.recordings["categories"] == {"news": 40, "hobbies": 40, "": 40}
    assert report.recordings["seconds"] == pytest.approx(
        sum(1600 + 160 * (i % 40) for i in range(120)) / 16_000, abs=0.1
    )
    assert report.duplicates == {"texts": 10, "clips": 20, "most": 2}
    assert report.skipped == [] and report.leaks is None and report.transcripts is None


def test_smaller_pools_lead_to_the_whole_pool(report: Report) -> None:
    for way in WAYS:
        assert [pool["pool"] for pool in report.pools[way]] == [10, 100]
        sizes = [row["pool"] for row in report.curve[way]]
        exact = [row["hits_at_1"]["value"] for row in report.curve[way]]
        drawn = report.pools[way][0]["hits_at_1"]["value"]
        assert drawn == pytest.approx(np.interp(10, sizes, exact), abs=0.05)
        assert sizes[0] == 2 and exact == sorted(exact, reverse=True) and exact[0] > drawn > exact[-1]
    whole = report.retrieval["speech_to_text"]
    assert max(row["pool"] for row in report.curve["speech_to_text"]) == whole.candidates
    assert report.curve["speech_to_text"][-1]["mrr"]["value"] == pytest.approx(whole.mrr.value)


def test_groups_are_parts_of_the_whole(report: Report) -> None:
    assert list(report.groups) == ["category", "language", "speaker", "length"]
    for ways in report.groups.values():
        for way, groups in ways.items():
            whole = report.retrieval[way]
            assert sum(group["n"] for group in groups) == whole.n
            mean = sum(group["n"] * group["measures"]["mrr"]["value"] for group in groups) / whole.n
            assert mean == pytest.approx(whole.mrr.value)
    assert [group["group"] for group in report.groups["category"]["speech_to_text"]] == [
        "(not given)",
        "hobbies",
        "news",
    ]
    assert {group["group"] for group in report.groups["language"]["text_to_speech"]} == {"de", "en", "(several)"}
    assert report.groups["length"]["speech_to_text"][0]["group"].endswith(" s")
    assert report.groups["length"]["text_to_speech"][0]["group"].endswith(" letters")
    assert all(group["small"] for group in report.groups["speaker"]["speech_to_text"])


def test_speakers_are_numbers(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path / "out")
    assert [group["group"] for group in report.groups["speaker"]["speech_to_text"]] == [str(n) for n in range(1, 13)]
    for name in files.FILES:
        assert "person0" not in (tmp_path / "out" / name).read_text("utf-8")
    assert report.other_speakers is not None
    assert report.other_speakers["mrr"]["value"] == report.retrieval["speech_to_text"].mrr.value
    assert report.other_speakers["mrr"] != report.retrieval["speech_to_text"].mrr._asdict()


def test_the_worst_queries_are_the_worst(report: Report, recordings: Path) -> None:
    model = known()
    texts = list(dict.fromkeys(row["text"].casefold() for row in ROWS))
    speech = model.encode_speech([{"path": row["file"]} for row in ROWS])  # type: ignore[list-item]
    ranks = rank_queries(speech, model.encode_text(texts), [row["text"].casefold() for row in ROWS], texts).rank
    assert report.examples is not None
    worst = report.examples["speech_to_text"]
    assert [row["rank"] for row in worst] == sorted(ranks, reverse=True)[:10]
    of = {row["file"]: row["text"] for row in ROWS}
    for way in WAYS:
        for row in report.examples[way]:
            assert of[row["file"]] == row["text"] and row["found"] != row["text"] and row["found"] in of.values()
    none = evaluate_folder(known(), recordings, examples=0)
    assert none.examples is None and ".wav" not in json.dumps(none.to_dict())
    perfect = evaluate_folder(known(noise=0), recordings)
    assert perfect.examples == {way: [] for way in WAYS}
    assert "worst" not in page(perfect) and "worst" in page(report)


def test_rules_are_passed_on_and_told(recordings: Path) -> None:
    rules = {"seed": 1, "ties": "optimistic", "method": "percentile", "resamples": 60}
    report = evaluate_folder(known(), recordings, **rules)
    for found in report.retrieval.values():
        assert {name: getattr(found, name) for name in rules} == rules
    assert rules.items() <= report.settings.items()
    for text in (markdown(report), page(report)):
        assert "optimistic" in text and "percentile, 60 resamples" in text
    for wrong in ({"ties": "lots"}, {"method": "guess"}, {"resamples": 0}, {"seed": -1}):
        with pytest.raises(ClaspError, match=next(iter(wrong))):
            evaluate_folder(None, recordings, **wrong)  # type: ignore[arg-type]


def test_a_small_plain_folder_is_enough(tmp_path: Path) -> None:
    rows = [{"file": f"{i}.wav", "text": text} for i, text in enumerate(("One.", "Two.", "Three."))]
    report = evaluate_folder(known(rows), write_clips(tmp_path / "few", rows))
    assert report.groups == {} and report.other_speakers is None
    assert report.pools == {way: [] for way in WAYS}
    assert "too few to draw a pool of ten" in markdown(report)
    single = write_clips(tmp_path / "one", rows[:1])
    report = evaluate_folder(known(rows), single)
    assert report.retrieval["speech_to_text"].hits_at_1 == (1, 1, 1) and report.groups == {}
    assert "all of 1 texts hit" in markdown(report) and "may still be 100% away" in page(report)
    assert "</html>" in page(report) and "1 recording of 1 text," in page(report)


def test_what_cannot_be_read_is_refused_or_listed(tmp_path: Path) -> None:
    rows = [{"file": f"{i}.wav", "text": f"Number {i}."} for i in range(4)]
    folder = write_clips(tmp_path / "broken", rows)
    (folder / "2.wav").write_bytes(b"not audio")
    with pytest.raises(AudioError, match=r"2\.wav"):
        evaluate_folder(known(rows), folder)
    report = evaluate_folder(known(rows), folder, on_error="skip")
    assert [clip["file"] for clip in report.skipped] == ["2.wav"] and report.recordings["clips"] == 3
    for text in (markdown(report), page(report)):
        assert "2.wav" in text and "Left out: 1 recording." in text
    for row in rows:
        (folder / row["file"]).unlink()
    with pytest.raises(DatasetError, match="none of its 4 recordings"):
        evaluate_folder(known(rows), folder, on_error="skip")
    (folder / "metadata.csv").unlink()
    with pytest.raises(DatasetError, match=r"metadata\.csv"):
        evaluate_folder(known(rows), folder)


# Leaks -------------------------------------------------------------------------------------------------------------


def test_a_test_that_was_seen_in_training_is_refused(recordings: Path, tmp_path: Path) -> None:
    clean = write_table(tmp_path / "clean", [{"file": "a", "text": "Nothing of the kind.", "speaker": "somebody"}])
    text = write_table(tmp_path / "text", [{"file": "a", "text": "first came RAIN then snow", "speaker": "else"}])
    person = write_table(tmp_path / "person", [{"file": "a", "text": "Something else.", "speaker": "person03"}])
    report = evaluate_folder(known(), recordings, train=[clean])
    assert report.leaks is not None and report.leaks["found"] == {}
    assert report.leaks["checked"] == ["text", "speaker", "near text"] and report.leaks["train"] == ["clean"]
    assert "Nothing is shared." in markdown(report)
    with pytest.raises(DatasetError, match=r"text: 1 shared, in 2 of 120 test rows.*--allow-leaks"):
        evaluate_folder(known(), recordings, train=[clean, text])
    with pytest.raises(DatasetError, match=r"speaker: 1 shared, in 10 of 120") as refused:
        evaluate_folder(known(), recordings, train=[person])
    assert "person03" not in str(refused.value)
    allowed = evaluate_folder(known(), recordings, train=[person], allow_leaks=["speaker"])
    assert allowed.leaks is not None and allowed.leaks["found"]["speaker"] == {"shared": 1, "rows": 10, "n": 120}
    assert "has been seen in training" in markdown(allowed) and "person03" not in json.dumps(allowed.to_dict())
    with pytest.raises(DatasetError, match="near text"):
        evaluate_folder(known(), recordings, train=[text], allow_leaks=["text"])
    evaluate_folder(known(), recordings, train=[text], allow_leaks=True)


def test_what_was_not_looked_for_is_not_called_clean(report: Report, recordings: Path, tmp_path: Path) -> None:
    assert "Nothing was checked for leaks" in markdown(report) and "Nothing was checked for leaks" in page(report)
    nameless = write_table(tmp_path / "nameless", [{"file": "a", "text": "Nothing of the kind.", "speaker": ""}])
    found = evaluate_folder(known(), recordings, train=[nameless])
    assert found.leaks is not None and found.leaks["checked"] == ["text", "near text"]
    assert found.leaks["unchecked"] == ["speaker", "voice"]
    assert "Not checked, since one side does not have it: speaker, voice." in markdown(found)
    with pytest.raises(ClaspError, match="name that with train"):
        evaluate_folder(known(), recordings, allow_leaks=True)
    with pytest.raises(ClaspError, match="'voices'"):
        evaluate_folder(known(), recordings, train=[nameless], allow_leaks=["voices"])
    with pytest.raises(DatasetError, match=r"neither metadata\.csv nor dataset_dict\.json"):
        evaluate_folder(known(), recordings, train=[tmp_path])


def test_a_saved_dataset_is_training_data_but_for_its_test(recordings: Path, tmp_path: Path) -> None:
    from datasets import DatasetDict

    from clasp_lib.speech_brown import read_recordings

    part = read_recordings(write_clips(tmp_path / "learnt", ROWS[:2]))[0]
    other = [{"file": "x.wav", "text": "Something else entirely.", "speaker": "stranger"}]
    harmless = read_recordings(write_clips(tmp_path / "harmless", other))[0]
    save_dataset(DatasetDict(train=harmless, validation=harmless, test=part), tmp_path / "clean")
    found = evaluate_folder(known(), recordings, train=[tmp_path / "clean"])
    assert found.leaks is not None and found.leaks["checked"] == ["text", "voice", "near text"]
    save_dataset(DatasetDict(train=harmless, validation=part, test=harmless), tmp_path / "leaky")
    with pytest.raises(DatasetError, match=r"text: 2 shared.*voice: 2 shared"):
        evaluate_folder(known(), recordings, train=[tmp_path / "leaky"])


# What is written ---------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What is in a page: tags, ids, links, text; and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                self.links.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            self.links += re.findall(r"url\(([^)]*)\)", value or "")
            if name == "aria-labelledby":
                self.links.append(f"#{value}")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_nobody_for_anything(report: Report) -> None:
    text = page(report)
    found = Page(text)
    assert found.open == [] and found.tags[0] == "html"
    assert len(set(found.ids)) == len(found.ids)
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.links)
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert not re.search(r"https?://(?!www\.w3\.org/)", text)
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    assert '<meta name="viewport"' in text and '<html lang="en">' in text
    assert len(text) < 500_000


def test_every_plot_says_what_it_shows(report: Report) -> None:
    text = page(report)
    plots = re.findall(r"<svg .*?</svg>", text, re.S)
    assert len(plots) == 2 + 2 * 4 and text.count("<figcaption>") == len(plots)
    for plot in plots:
        said = re.search(r'role="img" aria-labelledby="([^"]+)".*?<title id="\1">([^<]+)</title>', plot)
        assert said is not None and len(said[2]) > 50
        assert not re.search(r"#[0-9a-f]{6}", plot), "a colour that does not follow the page's"
    assert str(report.retrieval["speech_to_text"].mrr) in plots[0]


def test_the_page_and_the_markdown_say_the_same(report: Report) -> None:
    for text in (page(report), markdown(report)):
        plain = unescape(re.sub(r"<[^>]+>", "", text))
        assert WARNING in plain
        for name in MEASURES:
            label, explained = SAID[name]
            assert label in plain and explained in plain
        for way in WAYS:
            for name in MEASURES:
                assert str(getattr(report.retrieval[way], name)) in plain
        for fact in ("120 recordings of 110 texts", "12 speakers", "'my recordings'", report.made["date"], "0123"):
            assert fact in plain, fact
        assert "bootstrap over texts, bca, 1,000 resamples" in plain


ODD = ("<script>alert(1)</script> & so on", "a | b | c", "*starred* `code` [link](x)", "$x^2$ and $y", 'say "no" & go')


def test_texts_are_shown_and_never_obeyed(tmp_path: Path) -> None:
    rows = [
        {"file": f"{i}|<b>.wav", "text": f"{odd} number {i}", "category": odd, "language": "en", "speaker": odd}
        for i, odd in enumerate(ODD * 6)
    ]
    folder = write_clips(tmp_path / "odd <i>|", rows)
    report = evaluate_folder(known(rows, noise=3), folder, name="<model> | *", command=["clasp", "<u>", "|"])
    text = page(report)
    found = Page(text)
    assert found.open == [] and not {"script", "b", "i", "u", "model"} & set(found.tags) and not found.handlers
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; so on" in text
    columns = 0
    for line in markdown(report).splitlines():
        assert not re.search(r"(?<!\\)[<>]", line.removeprefix("> ")), line
        assert not re.search(r"(?<!\\)[`*$]", line.removeprefix("> **").removesuffix("**")), line
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1 if line.startswith("|") else 0
        assert cells == columns or not cells or not columns, line
        columns = cells
    assert read_after(report, tmp_path).to_dict() == report.to_dict()


def read_after(report: Report, folder: Path) -> Report:
    write_report(report, folder / "out")
    return read_report(folder / "out")


def test_markdown_shows_what_is_written() -> None:
    assert escaped("a|b\nc <d> & `e` *f*") == r"a\|b c &lt;d&gt; &amp; \`e\` \*f\*"
    assert escaped("_so_ common_voice_en") == r"\_so\_ common_voice_en"
    assert escaped("[a](b) 0.5 [0.4, 0.6]") == r"[a\](b) 0.5 [0.4, 0.6]"
    assert escaped("# no heading") == r"\# no heading"


def test_a_report_is_read_as_it_was_written(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == set(files.FILES)
    assert read_report(tmp_path / "out") == read_report(tmp_path / "out" / "report.json") == report
    mrr = json.loads((tmp_path / "out" / "report.json").read_text())["retrieval"]["speech_to_text"]["mrr"]
    assert mrr["value"] == report.retrieval["speech_to_text"].mrr.value  # all digits


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "made": {}}'])
def test_what_is_no_report_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(DatasetError, match=r"report\.json.*Evaluate again"):
        read_report(tmp_path)


def test_an_older_report_stays_until_the_new_one_is_whole(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()  # empty: nothing is lost
    write_report(report, out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    for broken in ("page", "markdown"):
        with monkeypatch.context() as patch:
            patch.setattr(files, broken, lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                write_report(report, out)
    write, calls = Path.write_text, []

    def full(self: Path, *args: str) -> int:
        calls.append(self)
        if len(calls) == 2:
            raise OSError("no space left")
        return write(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(DatasetError, match=r"cannot be written .no space"):
            write_report(report, out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert os.listdir(tmp_path) == ["out"]
    write_report(report, out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before  # the same report, the same bytes


def test_a_folder_with_other_files_is_never_replaced(report: Report, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"mine\.txt"):
        write_report(report, tmp_path)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"mine\.txt"):
        write_report(report, tmp_path)
    with pytest.raises(DatasetError, match="is a file"):
        write_report(report, tmp_path / "mine.txt")
    with pytest.raises(DatasetError, match="no folder that can be written"):
        write_report(report, tmp_path / "mine.txt" / "out")


# Beside a transcript pipeline --------------------------------------------------------------------------------------


class Parrot:
    """A recogniser that heard it all before, and slips once."""

    name, sampling_rate = "parrot", 16_000

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = ["something else", *texts[1:]]

    def transcribe(
        self, waves: Sequence[np.ndarray], batch_size: int = 16, show_progress_bar: bool = False
    ) -> list[str]:
        assert len(waves) == len(self.texts)
        return self.texts


def test_the_three_columns_are_in_the_report(model: CLASP, spoken: Path, clips: list[Clip]) -> None:
    parrot = Parrot([clip.text for clip in [*clips, *clips[:2]]])
    report = evaluate_folder(model, spoken, recogniser=parrot, cost=False)
    assert report.transcripts is not None and report.transcripts["recogniser"] == "parrot"
    columns = report.transcripts["columns"]
    assert list(columns) == ["oracle transcript", "recognised transcript", "direct"]
    assert columns["direct"]["speech_to_text"]["mrr"]["value"] == report.retrieval["speech_to_text"].mrr.value
    rates = report.transcripts["transcription"]
    for text in (markdown(report), re.sub(r"<[^>]+>", "", page(report))):
        assert str(Interval(**rates["word_error_rate"])) in text and "parrot" in text
        assert str(Interval(**columns["oracle transcript"]["text_to_speech"]["mrr"])) in text
        assert "recognised transcript minus direct" in text
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_costs_are_told_stage_by_stage(model: CLASP, spoken: Path, clips: list[Clip]) -> None:
    report = evaluate_folder(model, spoken, recogniser=Parrot([c.text for c in [*clips, *clips[:2]]]), cost=False)
    assert report.transcripts is not None
    took = {"value": 0.0125, "low": 0.0120, "high": 0.0140}
    size = {"parameters": 2_500_000, "bytes": 10_100_000}
    of = {phase: size | {"seconds": 0.0125, "stages": {"recognise": took}} for phase in ("index", "query")}
    report.transcripts["costs"] = {
        "device": "cpu", "threads": 2, "clips": 8, "seconds": 20.0, "queries": 8, "batch_size": 16, "passes": 5,
        "stages": {"recognise": size},
        "columns": {"recognised transcript": of | {"whole": size, "peak_memory": {"index": 1e8, "whole": 1.5e8}}},
    }  # fmt: skip
    for text in (markdown(report), page(report)):
        for said in ("12.5 ms", "2.50 M", "10.1 MB", "150.0 MB", "[12 ms, 14 ms]", "cpu, 2 threads"):
            assert said in text, said


# The command line --------------------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_what_was_measured(
    saved_model: str, spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(spoken), "--model", saved_model, "--output", str(out), "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    report = read_report(out)
    assert report.to_dict() | {"made": 0} == (
        evaluate_folder(CLASP.from_pretrained(saved_model), spoken, name="model", seed=3).to_dict() | {"made": 0}
    )
    assert "6 queries, 8 candidates" in printed and str(out / "report.html") in printed
    for way in WAYS:
        assert str(report.retrieval[way]) in printed
    assert report.made["command"].startswith("python -m clasp_lib.report ") and "--seed 3" in report.made["command"]
    assert report.model["name"] == "model" and report.model["config"]["fusion"] == "concatenation"
    assert "secret" not in (out / "report.json").read_text()


def test_the_command_says_what_went_wrong(
    saved_model: str, spoken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def fails(*arguments: str) -> str:
        assert main([str(spoken), "--model", saved_model, "--output", str(out), *arguments]) == 1
        shown = capsys.readouterr()
        assert shown.out == "" and not out.exists()
        return shown.err.splitlines()[-1]

    assert fails("--model", str(tmp_path / "nowhere")).startswith("error: ")
    assert "--allow-leaks" in fails("--train", str(spoken))
    assert "allow=('text',)" in fails("--train", str(spoken), "--allow-leaks", "speaker")
    (spoken / "2.mp3").write_bytes(b"not audio")
    assert "2.mp3" in fails()
    ran = [str(spoken), "--model", saved_model, "--output", str(out), "--on-error", "skip", "--no-examples"]
    assert main([*ran, "--train", str(spoken), "--allow-leaks"]) == 0
    assert "left out, as the report lists: 1" in capsys.readouterr().err
    found = read_report(out)
    assert found.examples is None and found.leaks is not None and found.leaks["allowed"] == ["speaker", "text"]


def test_nothing_is_computed_that_cannot_be_written(
    spoken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "load_model", lambda *_: pytest.fail("computed in vain"))
    (tmp_path / "mine").write_text("mine")
    assert main([str(spoken), "--output", str(tmp_path)]) == 1
    assert "no part of a report" in capsys.readouterr().err
    assert main([str(spoken), "--output", str(tmp_path / "out"), "--device", "abacus"]) == 1
    assert "device 'abacus': cannot be used" in capsys.readouterr().err
    monkeypatch.setattr(charts, "find_spec", lambda _: None)
    assert main([str(spoken), "--output", str(tmp_path / "out")]) == 1
    assert "'clasp-lib[book]'" in capsys.readouterr().err
    with pytest.raises(MissingDependencyError):
        charts.require_matplotlib()


# Recordings of people ----------------------------------------------------------------------------------------------

FOLDERS = (
    "kathleen_en",
    "common_voice_en",
    *(f"common_voice_100/{language}" for language in ("en", "fa", "de", "fr", "es", "zh-CN")),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_it_runs_on_recordings_of_people(
    name: str, test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = test_data / "real_speech" / name
    assert main([str(folder), "--output", str(tmp_path / "out")]) == 0
    report = read_report(tmp_path / "out")
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert report.recordings["clips"] == len(rows) and report.recordings["languages"] == {
        rows[0]["language"]: len(rows)
    }
    assert Page((tmp_path / "out" / "report.html").read_text("utf-8")).open == []
    written = "".join((tmp_path / "out" / file).read_text("utf-8") for file in files.FILES)
    named = {row["speaker"] for row in rows} - {"kathleen"}  # who is the folder's name, too
    assert not [speaker for speaker in named if speaker in written]
