"""Where the time of a query goes: a warm index of 10 000 clips in a folder, asked one text at a time.

The vectors are those of the clips of Pocket Brown's test part and mixtures of two of them, because what is timed does
not depend on what they say; the queries are its sentences. The three parts are what `SpeechIndex.search` does: the text
encoder makes a vector, the nearest are found, and the hits are put together. For comparison, the bare product of one
query with the same matrix.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from summary import Comparison, keep

from clasp_lib import CLASP, SpeechIndex, get_profile
from clasp_lib.index.entries import Entry
from clasp_lib.index.local import LocalStore
from clasp_lib.index.store import about_model

CLIPS, QUERIES, K = 10_000, 200, 10


def collection(model: CLASP, folder: Path) -> list[str]:
    """Fill an index; returns texts to ask it for."""
    clips = get_profile().dataset()["test"]
    real = model.encode_speech(list(clips["audio"]))  # (505, d)
    rng = np.random.default_rng(0)
    share = rng.uniform(0.5, 1, (CLIPS, 1)).astype(np.float32)
    one, other = rng.integers(0, len(real), (2, CLIPS))
    mixed = share * real[one] + (1 - share) * real[other]
    mixed[: len(real)] = real
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    store = LocalStore.create(folder, about_model(model.name, model.fingerprint, model.dimension))
    known = [{"category": clips["category"][i], "number": int(i)} for i in one]
    store.add([Entry(f"{i}", f"{i}.flac", 0.0, 3.0, None, facts) for i, facts in enumerate(known)], mixed)
    return list(clips["text"])[:QUERIES]


def spread(times: list[float]) -> str:
    """Median, and the 95th percentile, in milliseconds."""
    return f"{1e3 * np.median(times):7.2f} ms   95% below {1e3 * np.quantile(times, 0.95):7.2f} ms"


def main() -> None:
    """Print the split."""
    model = CLASP.from_pretrained("pocket-search-linear")
    with tempfile.TemporaryDirectory() as folder:
        texts = collection(model, Path(folder, "index"))
        index = SpeechIndex.load(Path(folder, "index"), model)
        for text in texts[:5]:
            index.search(text, K)  # warm
        matrix, finder, timer = index.vectors, index.nearest(), time.perf_counter
        parts: dict[str, list[float]] = {}
        for text in texts:
            moments = [timer()]
            query = model.encode_text([text])
            moments.append(timer())
            finder.search(query, K)
            moments.append(timer())
            index.search_vectors(query, K)
            moments.append(timer())
            index.search(text, K)
            moments.append(timer())
            query @ matrix.T
            moments.append(timer())
            encoded, nearest, both, whole, product = np.diff(moments)
            for name, seconds in (
                ("text encoder", encoded),
                ("nearest vectors", nearest),
                ("hits from entries", both - nearest),
                ("whole query", whole),
                ("bare product", product),
            ):
                parts.setdefault(name, []).append(seconds)
    setting = f"{CLIPS} clips, {model.dimension} wide, {len(texts)} texts one by one, {K} hits each"
    print(setting)
    for name, times in parts.items():
        print(f"{name:18} {spread(times)}")
    share = np.median(parts["text encoder"]) / np.median(parts["whole query"])
    print(f"the text encoder takes {share:.0%} of a query")
    seconds = {name: float(np.median(times)) for name, times in parts.items()}
    bare, nearest = seconds.pop("bare product"), seconds["nearest vectors"]
    print(f"ratio of the nearest vectors to the bare product {nearest / bare:.2f}")
    sides = ("exact search", 1e3 * nearest, "the bare product", 1e3 * bare, "ms")
    keep("search_latency", setting, [Comparison("The nearest vectors", *sides, nearest / bare, "bound")], seconds)


if __name__ == "__main__":
    main()
