"""Components that can say their words in another language, at once and without reloading the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Words:
    """Components whose words depend on the language: made in one language, and all of them said anew in another."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._made: list[tuple[Any, Callable[[str], dict[str, Any]]]] = []

    def __call__(self, kind: Callable[..., Any], words: Callable[[str], dict[str, Any]], **fixed: Any) -> Any:
        """A component of this kind; `words` gives, for a language, the arguments that hold words."""
        component = kind(**words(self.language), **fixed)
        self._made.append((component, words))
        return component

    @property
    def components(self) -> list[Any]:
        return [component for component, _ in self._made]

    def updates(self, language: str) -> list[Any]:
        """What makes all components speak a language."""
        import gradio as gr

        return [gr.update(**words(language)) for _, words in self._made]
