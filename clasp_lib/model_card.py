"""What lies in a model's folder beside weights and configuration: a card for people, and files for other libraries."""

from typing import Any

SENTENCE_TRANSFORMERS: dict[str, Any] = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "clasp_lib.sentence_transformers_modules.ClaspRouter"}
    ],
    "config_sentence_transformers.json": {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"},
}
"""Files by which `SentenceTransformer(folder)` finds what to load, and what is in them."""

CARD = """---
library_name: clasp-lib
license: mit
pipeline_tag: feature-extraction
tags: [clasp, speech-retrieval]
---

# A CLASP model

Maps speech and text to {dimension} dimensions, to search recordings with text (Abootorabi and Asgari 2025,
https://arxiv.org/abs/2412.13071). This folder holds the fusion encoder ({fusion}); the frozen encoders are loaded
by name: speech `{speech_encoder}`, picture `{spectrogram_encoder}`, text `{text_encoder}`.

    from clasp_lib import CLASP
    model = CLASP.from_pretrained("this folder")
    model.similarity(model.encode_text(["a query"]), model.encode_speech(["one.flac"]))

Where clasp-lib is installed, sentence-transformers loads this folder, too. It asks for the flag because the module that
`modules.json` names is clasp-lib's and not its own; the folder itself holds no code:

    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer("this folder", trust_remote_code=True)
    model.similarity(model.encode(["a query"]), model.encode(["one.flac"]))
"""
