"""Speech of another kind than a system was trained on: what is lost when a category, or a length, was left out."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeAlias

import numpy as np

from clasp_lib.errors import ClaspError
from clasp_lib.features import Features
from clasp_lib.robustness import MEASURES, Row, sentence_scores
from clasp_lib.significance import compare_systems, holm

Fit: TypeAlias = Callable[[Features, Features, int], Callable[[Features], np.ndarray]]
"""`(train, validation, seed)` to a function from features to vectors in the space of their texts."""

Masks: TypeAlias = Mapping[str, Sequence[np.ndarray]]


def domain_shift(
    train: Features,
    validation: Features,
    test: Features,
    fit: Fit,
    categories: Sequence[str] | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    measures: Sequence[str] = MEASURES,
) -> list[Row]:
    """Train without one category and test on it, against training on as many clips of all categories.

    The training with the category gets as many clips as the one without, drawn by the seed, whole sentences together:
    else the loss would partly be that of having less to learn from. The validation split likewise. The queries are
    those of the category, the candidates the whole test split. A `fit` may be

        def fit(train, validation, seed):
            fusion = build_fusion("concatenation", 768, 1280, 384)
            settings = TrainingSettings(seed=seed)
            train_fusion(fusion, build_loss("contrastive", 384), train, validation, settings)
            return lambda features: fuse(fusion, features)

    Args:
        fit: `(train, validation, seed)` to a function from features to vectors in the space of their texts.
        categories: to leave out, one after the other; all if not given.
        seeds: of the trainings, two at least. Six are needed before a p-value over seeds can pass 0.05.

    Returns:
        tidy rows: `left_out`, `direction`, `measure`, `without`, `with_it` (means), `value`, `low`, `high` (without
        minus with, for other sentences and other seeds: `clasp_lib.significance.interval_over_both`), `p_items`,
        `p_seeds`, `p_value`, `corrected` (Holm, over what was left out), `n` (sentences), `clips`, `trained_on`
        (clips), `seeds`.

    Raises:
        ClaspError: a category that a split has not, or that is all it has; fewer than two seeds or sentences.
    """
    names = list(dict.fromkeys(test.categories)) if categories is None else categories
    masks = {name: [np.array(part.categories) == name for part in (train, validation, test)] for name in names}
    return _shift(train, validation, test, fit, masks, seeds, measures)


def length_shift(
    train: Features,
    validation: Features,
    test: Features,
    fit: Fit,
    lengths: Callable[[Features], np.ndarray] | None = None,
    share: float = 1 / 3,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    measures: Sequence[str] = MEASURES,
) -> list[Row]:
    """The same with the shortest and with the longest `share` of the training clips left out, and those of the test.

    Args:
        lengths: of each clip `(n,)`, in any unit; words of its text if not given. The limits are quantiles of the
            training split: clips at them are left out, too.

    Returns:
        rows as of `domain_shift`, `left_out` is "shortest" or "longest".
    """
    if not 0 < share < 1:
        raise ClaspError(f"share: is {share:g}; give what part of the clips is left out, between 0 and 1.")
    measured = [np.asarray((lengths or _words)(part), float) for part in (train, validation, test)]
    for found, part in zip(measured, (train, validation, test), strict=True):
        if found.shape != (len(part),) or not np.isfinite(found).all():
            raise ClaspError(f"lengths: gave shape {found.shape} for {len(part)} clips; one number each is needed.")
    low, high = np.quantile(measured[0], [share, 1 - share])
    masks = {"shortest": [found <= low for found in measured], "longest": [found >= high for found in measured]}
    return _shift(train, validation, test, fit, masks, seeds, measures)


def _shift(
    train: Features,
    validation: Features,
    test: Features,
    fit: Fit,
    masks: Masks,
    seeds: Sequence[int],
    measures: Sequence[str],
) -> list[Row]:
    """`masks`: by the name of what is left out, which clips of the three splits that is."""
    for name, left_out in masks.items():
        for split, mask in zip(("training", "validation", "test"), left_out, strict=True):
            if (mask.all() and split != "test") or not (mask.any() or split == "validation"):
                raise ClaspError(f"{name}: the {split} split has {'nothing else' if mask.all() else 'none of it'}.")
    if len(set(seeds)) < 2:
        raise ClaspError(f"seeds: are {tuple(seeds)}; another training may go otherwise, so give two at least.")
    rows = []
    for name, left_out in masks.items():
        queries = np.flatnonzero(left_out[2])
        rest = [np.flatnonzero(~mask) for mask in left_out[:2]]
        scores: dict[str, list[dict[str, dict[str, np.ndarray]]]] = {"without": [], "with_it": []}
        for seed in seeds:
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            even = [_drawn(part, len(kept), rng) for part, kept in zip((train, validation), rest, strict=True)]
            for way, (learned, checked) in {"without": rest, "with_it": even}.items():
                encode = fit(select(train, learned), select(validation, checked), seed)
                speech = np.asarray(encode(test), np.float32)
                scores[way].append(sentence_scores(speech, test.text, test.sentence_ids, queries))
        rows += _rows(name, scores, measures, {"clips": len(queries), "trained_on": len(rest[0]), "seeds": len(seeds)})
    panels: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        panels.setdefault((row["direction"], row["measure"]), []).append(row)
    for panel in panels.values():
        for row, p in zip(panel, holm([row["p_value"] for row in panel]), strict=True):
            row["corrected"] = p
    return rows


def _rows(
    name: str, scores: Mapping[str, Sequence[Mapping[str, Any]]], measures: Sequence[str], counts: Mapping[str, int]
) -> list[Row]:
    rows = []
    for direction, known in scores["without"][0].items():
        for measure in measures:
            if measure not in known:
                raise ClaspError(f"measure {measure!r} is not known. Choose from {', '.join(known)}.")
            without, with_it = (np.stack([one[direction][measure] for one in scores[way]]) for way in scores)
            found = compare_systems(without, with_it)  # (seeds, sentences) each
            said = {"left_out": name, "direction": direction, "measure": measure}
            means = {"without": float(without.mean()), "with_it": float(with_it.mean())}
            tests = {"p_items": found.p_items, "p_seeds": found.p_seeds, "p_value": found.p_value, "corrected": None}
            rows.append(said | means | found.difference.both._asdict() | tests | {"n": without.shape[1]} | dict(counts))
    return rows


def _drawn(features: Features, n: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of `n` clips, whole sentences one after the other until they are enough, in their order."""
    names, codes = np.unique(features.sentence_ids, return_inverse=True)
    turn = rng.permutation(len(names))[codes]  # (clips,)
    return np.sort(np.argsort(turn, kind="stable")[:n])


def select(features: Features, rows: np.ndarray) -> Features:
    """The clips of these numbers, in this order, with all that is known of them."""
    changed: dict[str, Any] = {"skipped": [], "columns": {name: c[rows] for name, c in features.columns.items()}}
    for name in (f.name for f in fields(features) if f.name not in changed):
        value = getattr(features, name)
        if value is not None:
            changed[name] = value[rows] if isinstance(value, np.ndarray) else [value[i] for i in rows]
    return replace(features, **changed)


def _words(features: Features) -> np.ndarray:
    return np.array([len(text.split()) for text in features.texts])
