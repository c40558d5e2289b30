"""How the demo looks: the book's blue, the system's fonts. Nothing is fetched from anywhere."""

from __future__ import annotations

from importlib import resources
from typing import Any


def look() -> dict[str, Any]:
    """Colours and fonts, as `launch` and `gradio.mount_gradio_app` take them."""
    import gradio as gr

    blue = gr.themes.Color(
        c50="#eef6fb", c100="#d6eaf6", c200="#b0d5ec", c300="#7fbadf", c400="#3f97cc", c500="#0072b2",
        c600="#00639b", c700="#005484", c800="#00466e", c900="#00395a", c950="#002a43", name="clasp",
    )  # fmt: skip
    fonts = [gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "monospace")]
    theme = gr.themes.Soft(primary_hue=blue, secondary_hue=blue, neutral_hue="slate", font=fonts, font_mono=mono)
    theme.set(
        block_title_background_fill="none", block_title_background_fill_dark="none", block_title_padding="0",
        block_title_text_color="*neutral_700", block_title_text_color_dark="*neutral_200",
        block_border_width="0", block_shadow="none", block_background_fill="none", block_background_fill_dark="none",
        block_padding="0", layout_gap="1.1rem", form_gap_width="0", input_border_width="1px",
        input_border_width_dark="1px", input_border_color="*neutral_300", input_border_color_dark="*neutral_600",
        input_shadow="none", input_radius="0.5rem", button_large_radius="0.5rem", button_primary_shadow="none",
        checkbox_label_shadow="none", slider_color="*primary_500",
    )  # fmt: skip
    return {"theme": theme, "css": packaged("style.css")}


def packaged(name: str) -> str:
    """A style or script that travels with this package."""
    return resources.files("clasp_lib.demo").joinpath(name).read_text("utf-8")
