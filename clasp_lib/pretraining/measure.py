"""How good the shipped models are: one table, on texts, voices and speakers that none of them was trained on.

Each test asks every system the same questions. The systems are the CLASP models, with both branches and with speech
alone, and the transcript pipeline: recognise the words, then embed the text.
"""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from clasp_lib.audio import load_audio
from clasp_lib.corpus import brown, normalise_text
from clasp_lib.evaluation import compare, evaluate_both_directions, first_rows
from clasp_lib.folders import write_whole
from clasp_lib.metrics import Interval
from clasp_lib.model import CLASP
from clasp_lib.profiles import Profile
from clasp_lib.speech_brown import read_recordings
from clasp_lib.synthesis import ESpeak, Flite, Synthesizer, Voice, draw_voices
from clasp_lib.transcription import NOTHING_HEARD, Transcriber, error_rates, spelled

TRANSCRIPT = "transcript"
"""The name of the transcript pipeline among the systems."""

GOALS = {"brown_espeak": 0.95, "brown_flite": 0.80, "pocket_brown_test": 0.95, "common_voice_100_en": 0.70}
"""HITS@1, speech to text, that this project set itself for its own small encoders."""


class HeldOut(NamedTuple):
    """Spoken sentences: waves at 16 kHz, what is said, and which of the texts are the same."""

    waves: list[np.ndarray]
    texts: list[str]
    ids: list[str]


def pocket_brown_test(profile: Profile) -> HeldOut:
    """The test split of the profile's dataset."""
    clips = profile.dataset()["test"]
    return HeldOut([load_audio(item) for item in clips["audio"]], list(clips["text"]), list(clips["sentence_id"]))


def recordings(folder: Path) -> HeldOut:
    """A folder of recordings with a `metadata.csv` of `file,text`."""
    dataset, _ = read_recordings(folder)
    return HeldOut([load_audio(item) for item in dataset["audio"]], list(dataset["text"]), list(dataset["sentence_id"]))


def brown_sentences(path: Path, n: int) -> list[str]:
    """Draw `n` distinct sentences of 5 to 25 words from NLTK's `brown.zip`, of letters and plain punctuation only."""
    texts: dict[str, str] = {}
    for sentence in brown(path):
        plain = sentence.text.replace("``", '"').replace("''", '"').replace(" ,", ",").replace(" ;", ";")
        if 5 <= len(plain.split()) <= 25 and plain.isascii() and not any(ch in "0123456789$%&*/+=" for ch in plain):
            texts.setdefault(normalise_text(plain), plain)
    drawn = np.random.default_rng(0).permutation(len(texts))[:n]
    pool = list(texts.values())
    return [pool[i] for i in drawn]


def spoken(texts: Sequence[str], engine: Synthesizer, voices: Sequence[Voice]) -> HeldOut:
    """Each text in its voice, by all cores."""
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        waves = list(pool.map(engine.synthesize, texts, voices, chunksize=16))
    return HeldOut(waves, list(texts), [normalise_text(text) for text in texts])


def synthetic_tests(brown_zip: Path, n: int = 1_500) -> dict[str, HeldOut]:
    """The same sentences of the Brown corpus twice: in eSpeak NG's test voices, and by flite."""
    texts = brown_sentences(brown_zip, n)
    others = [Voice("en-us", Flite.VOICES[i % len(Flite.VOICES)]) for i in range(n)]
    return {
        "brown_espeak": spoken(texts, ESpeak(), draw_voices("test", n, seed=1)),
        "brown_flite": spoken(texts, Flite(), others),
    }


def measure(models: Mapping[str, CLASP], transcriber: Transcriber, test: HeldOut, seed: int = 0) -> dict[str, Any]:
    """Error rates of the transcripts, both directions of retrieval for each system, and all pairs of systems compared.

    The comparisons are paired, speech to text, over the first recording of each text.
    """
    text_encoder = next(iter(models.values())).text_encoder
    texts = text_encoder.encode(test.texts, 64)
    transcripts = transcriber.transcribe(test.waves, 32)
    vectors = {TRANSCRIPT: text_encoder.encode([text or NOTHING_HEARD for text in transcripts], 64)}
    vectors |= _vectors(models, test.waves)
    rows = list(first_rows(test.ids).values())
    return {
        "clips": len(test.waves),
        "seconds": round(sum(map(len, test.waves)) / transcriber.sampling_rate, 1),
        "transcription": {
            name: rate._asdict()
            for name, rate in error_rates(list(map(spelled, test.texts)), list(map(spelled, transcripts))).items()
        },
        "systems": {
            name: {
                way: report.to_dict()
                for way, report in evaluate_both_directions(spoken_as, texts, test.ids, seed).items()
            }
            for name, spoken_as in vectors.items()
        },
        "comparisons": [
            {"first": one, "second": other, "measure": name, "n": found.n, "p_value": found.p_value}
            | {"difference": found.difference._asdict()}
            for one, other in combinations(vectors, 2)
            for name in ("hits_at_1", "mrr")
            for found in [
                compare(vectors[one][rows], vectors[other][rows], texts[rows], rows, name, resamples=2_000, seed=seed)
            ]
        ],
    }


def _vectors(models: Mapping[str, CLASP], waves: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Each model's vectors of the same clips; an encoder that several models share runs once."""
    speech: dict[str, torch.Tensor] = {}
    picture: dict[str, torch.Tensor] = {}
    found = {}
    for name, model in models.items():
        for encoder, known in ((model.speech_encoder, speech), (model.spectrogram_encoder, picture)):
            if encoder.name not in known:
                known[encoder.name] = torch.from_numpy(encoder.encode(waves, 32)).to(model.device)
        with torch.inference_mode():
            fused = model.fusion(speech[model.speech_encoder.name], picture[model.spectrogram_encoder.name])
        found[name] = torch.nn.functional.normalize(fused.float(), dim=-1).cpu().numpy()
    return found


def table(record: Mapping[str, Any], measure: str = "hits_at_1", way: str = "speech_to_text") -> list[dict[str, str]]:
    """One row a system, one column a test: a measure with its interval; then the error rates of the transcripts."""
    tests = record["tests"]
    systems = next(iter(tests.values()))["systems"]
    rows = [
        {"system": name}
        | {test: str(Interval(**found["systems"][name][way][measure])) for test, found in tests.items()}
        for name in systems
    ]
    return rows + [
        {"system": f"{TRANSCRIPT}, {name.replace('_', ' ')}"}
        | {test: str(Interval(**found["transcription"][name])) for test, found in tests.items()}
        for name in ("letter_error_rate", "word_error_rate")
    ]


def shortfalls(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """For each goal: the CLASP model that comes nearest to it, and how far that is."""
    rows = []
    for test, goal in GOALS.items():
        if test in record["tests"]:
            systems = record["tests"][test]["systems"]
            reached = {name: systems[name]["speech_to_text"]["hits_at_1"]["value"] for name in systems}
            best = max((name for name in systems if name != TRANSCRIPT), key=lambda name: reached[name])
            gap = goal - reached[best]
            verdict = f"missed by {gap:.2f}" if gap > 0 else "reached"
            rows.append({"test": test, "goal": f"{goal:.2f}", "best": best, "HITS@1": f"{reached[best]:.2f}"})
            rows[-1]["verdict"] = verdict
    return rows


def update_card(card: Path, record: Mapping[str, Any]) -> None:
    """Replace what stands between the two marks in a model card by the tables of a record."""
    begin, end = "<!-- measured -->", "<!-- /measured -->"
    before, _, rest = card.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    pool = ", ".join(f"`{test}` {found['clips']} clips" for test, found in record["tests"].items())
    text = (
        f"HITS@1, speech to text, with 95% intervals; every text of the test is a candidate ({pool}).\n\n"
        f"{_markdown(table(record))}\n\nThe goals that the project set itself:\n\n{_markdown(shortfalls(record))}"
    )
    write_whole(card, f"{before}{begin}\n{text}\n{end}{after}".encode())


def _markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as a table of Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
