"""A dataset's clips as tasks of MTEB, and a CLASP model that MTEB can run on these and on its own.

    import mteb
    from sentence_transformers import SentenceTransformer

    model = mteb_model(SentenceTransformer("folder", trust_remote_code=True))
    dataset, _ = read_recordings("recordings")
    result = mteb.evaluate(model, [retrieval_task(dataset, direction) for direction in DIRECTIONS], cache=None)

It measures what `clasp_lib.evaluation.evaluate_both_directions` does, from other code, which makes each a check of the
other. MTEB rounds to five digits, knows no intervals, breaks exact ties by the names of the candidates, and keeps the
first 1000 of them, so that its MRR is called `mrr_at_1000`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clasp_lib.audio import SAMPLING_RATE, AudioItem, load_audio
from clasp_lib.errors import ClaspError, MissingDependencyError
from clasp_lib.sentence_transformers_modules import ClaspRouter

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb import SentenceTransformerEncoderWrapper
    from mteb.abstasks import AbsTaskRetrieval
    from sentence_transformers import SentenceTransformer

DIRECTIONS = {"text_to_speech": "t2a", "speech_to_text": "a2t"}
"""What MTEB calls them."""


def retrieval_task(
    dataset: Dataset, direction: str = "text_to_speech", name: str = "Recordings", language: str = "eng-Latn"
) -> AbsTaskRetrieval:
    """Find the clips of a sentence, or the sentence of a clip, among all of the dataset; nothing is downloaded.

    A sentence stands in it once, however many clips say it; all of these are right. Clips are decoded when their turn
    comes.

    Args:
        dataset: with the usual columns; see `clasp_lib.speech_brown`.
        direction: one of `DIRECTIONS`.
        name: of the task; its direction is put behind it.
        language: code and script, as MTEB has them.

    Raises:
        ClaspError: an empty dataset, clips with the same id, or an unknown direction.
        MissingDependencyError: MTEB is not installed.
    """
    mteb = _mteb()
    from datasets import Dataset

    if direction not in DIRECTIONS:
        raise ClaspError(f"direction {direction!r} is not known. Choose from {', '.join(DIRECTIONS)}.")
    ids, sentences = list(dataset["id"]), list(dataset["sentence_id"])
    if not ids or len(set(ids)) < len(ids):
        raise ClaspError(
            f"dataset: has {len(ids)} clips and {len(set(ids))} ids; give at least one, each with its own."
        )
    texts: dict[str, str] = {}
    right: dict[str, dict[str, int]] = {}
    for clip, sentence, text in zip(ids, sentences, dataset["text"]):
        texts.setdefault(sentence, text)
        query, answer = (sentence, clip) if direction == "text_to_speech" else (clip, sentence)
        right.setdefault(query, {})[answer] = 1
    said = Dataset.from_dict({"id": list(texts), "text": list(texts.values())})
    spoken = dataset.select_columns(["id", "audio"]).with_transform(_for_mteb)
    queries, corpus = (said, spoken) if direction == "text_to_speech" else (spoken, said)
    description = f"{len(ids)} clips of {len(texts)} sentences, {direction.replace('_', ' ')}."
    metadata = mteb.TaskMetadata(
        name=f"{name}-{direction}",
        description=description,
        dataset={"path": f"local/{name}", "revision": "local"},  # is not read: the data are here
        type="Any2AnyRetrieval",
        category=DIRECTIONS[direction],
        modalities=["text", "audio"],
        eval_splits=["test"],
        eval_langs=[language],
        main_score="ndcg_at_10",
    )
    # A class of its own, since MTEB finds a task's metadata by going through the classes.
    task = type("Recordings", (mteb.abstasks.AbsTaskRetrieval,), {"metadata": metadata, "__doc__": description})()
    split = {"queries": queries, "corpus": corpus, "relevant_docs": right, "top_ranked": None}
    task.dataset, task.data_loaded = {"default": {"test": split}}, True
    return task


def mteb_model(door: SentenceTransformer, name: str = "local/clasp") -> SentenceTransformerEncoderWrapper:
    """What `mteb.evaluate` takes: MTEB believes a model that is not on the hub to be one for texts only.

    Args:
        door: a saved CLASP folder as `SentenceTransformer`, or what `as_sentence_transformer` gives.
        name: in MTEB's results, "organisation/model"; the revision is the model's fingerprint.

    Raises:
        ClaspError: not a CLASP model.
        MissingDependencyError: MTEB is not installed.
    """
    mteb = _mteb()
    if not isinstance(door[0], ClaspRouter):
        raise ClaspError(f"door: its first module is a {type(door[0]).__name__}; give a CLASP model.")
    model = mteb.SentenceTransformerEncoderWrapper(door)
    known = {"name": name, "revision": door[0].clasp.fingerprint, "modalities": ["text", "audio"]}
    model.mteb_model_meta = model.mteb_model_meta.model_copy(update=known)
    return model


class _Samples:
    """A clip that is decoded when somebody asks for its numbers: MTEB asks for ids often, and gets whole rows."""

    def __init__(self, item: AudioItem) -> None:
        self.item = item

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return load_audio(self.item).astype(dtype or np.float32, copy=False)  # (samples,)


def _for_mteb(rows: dict[str, list]) -> dict[str, list]:
    """The audio as MTEB wants it; the ids as they are."""
    return rows | {"audio": [{"array": _Samples(item), "sampling_rate": SAMPLING_RATE} for item in rows["audio"]]}


def _mteb() -> Any:
    try:
        import mteb
        import mteb.abstasks
        import torchaudio  # noqa: F401 - MTEB asks for it only when the first clip comes
    except ImportError as error:
        raise MissingDependencyError(
            f"A task of MTEB needs mteb and torchaudio ({error}). Run: pip install 'clasp-lib[mteb]'"
        ) from error
    return mteb
