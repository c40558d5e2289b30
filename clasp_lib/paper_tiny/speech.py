"""Tiny speech encoders, recognisers and a voice, with the files of the published ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_lib.paper_tiny.files import WIDTHS, save_pickled, write_json

if TYPE_CHECKING:
    import torch

HUBERT = "facebook/hubert-large-ls960-ft"
WAV2VEC2 = "facebook/wav2vec2-base-960h"
WHISPER = "openai/whisper-small"
VITS = "kakao-enterprise/vits-vctk"
SYMBOLS = (
    '_;:,.!?¡¿—…"«»“” ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
    "ɑɐɒæɓʙβɔɕçɗɖðʤəɘɚɛɜɝɞɟʄɡɠɢʛɦɧħɥʜɨɪʝɭɬɫɮʟɱɯɰŋɳɲɴøɵɸθœɶʘɹɺɾɻʀʁɽʂʃʈʧʉʊʋⱱʌɣɤʍχʎʏʑʐʒʔʡʕʢǀǁǂǃˈˌːˑʼʴʰʱʲʷˠˤ˞↓↑→↗↘'̩'ᵻ"
)
"""Of VITS (its text/symbols.py, and the conversion script of transformers): the second ' has the number of both, so
that the vocabulary of 178 has 177 entries."""


_SPEECH: dict[str, Any] = {
    "hidden_size": WIDTHS["speech"],
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (32,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "initializer_range": 0.2,
    "vocab_size": 32,
}
"""Smaller than the originals in width and depth only: kernels and strides, hence 50 frames a second, are theirs."""


def hubert(folder: Path) -> None:
    """As `facebook/hubert-large-ls960-ft`: a pickled state dict, the weight norm of the positions under old names."""
    from transformers import HubertConfig, HubertForCTC

    config = HubertConfig(**_SPEECH, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)
    model = HubertForCTC(config).eval()
    config.architectures = ["HubertForCTC"]
    config.save_pretrained(folder)
    save_pickled(_old_weight_norm(model.state_dict()), folder / "pytorch_model.bin")
    _ctc_files(folder, return_attention_mask=True)


def wav2vec2(folder: Path) -> None:
    """As `facebook/wav2vec2-base-960h`: safetensors, group norm, no attention mask."""
    from safetensors.torch import save_file
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    config = Wav2Vec2Config(**_SPEECH, feat_extract_norm="group")
    model = Wav2Vec2ForCTC(config).eval()
    config.architectures = ["Wav2Vec2ForCTC"]
    config.save_pretrained(folder)
    save_file(_old_weight_norm(model.state_dict()), folder / "model.safetensors", {"format": "pt"})
    _ctc_files(folder, return_attention_mask=False)


def _old_weight_norm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names that torch gave the two parts of a normed weight before version 2.0."""
    new = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    renamed = {}
    for key, tensor in state.items():
        for modern, old in new.items():
            key = key.replace(modern, old)
        renamed[key] = tensor.contiguous()
    return renamed


def _ctc_files(folder: Path, return_attention_mask: bool) -> None:
    """Feature extractor and letters of both speech encoders."""
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
    write_json(folder / "vocab.json", {letter: number for number, letter in enumerate(letters)})
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    write_json(folder / "special_tokens_map.json", special)
    options = {"do_lower_case": False, "return_attention_mask": return_attention_mask, "do_normalize": True}
    write_json(folder / "tokenizer_config.json", special | options | {"tokenizer_class": "Wav2Vec2CTCTokenizer"})
    extractor = {"do_normalize": True, "feature_size": 1, "padding_side": "right", "padding_value": 0.0}
    extractor |= {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16_000}
    write_json(folder / "preprocessor_config.json", extractor | {"return_attention_mask": return_attention_mask})


def whisper(folder: Path) -> None:
    """As `openai/whisper-small`: byte pairs, languages and tasks as tokens, one matrix for reading and writing.

    Its answers end after 24 tokens, not 448: what never learnt to stop would go on to the end.
    """
    import torch
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )
    from transformers.convert_slow_tokenizer import bytes_to_unicode
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    pieces = list(bytes_to_unicode().values())
    pairs = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "n"), ("i", "n"), ("Ġ", "a")]
    pieces += ["".join(pair) for pair in pairs]
    languages = [f"<|{code}|>" for code in list(LANGUAGES)[:99]]  # the hundredth came with large-v3
    special = ["<|endoftext|>", "<|startoftranscript|>", *languages, "<|translate|>", "<|transcribe|>"]
    special += ["<|startoflm|>", "<|startofprev|>", "<|nocaptions|>", "<|notimestamps|>"]
    number = {token: len(pieces) + i for i, token in enumerate(special)}
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    end, start = number["<|endoftext|>"], number["<|startoftranscript|>"]
    tokens: dict[str, Any] = {
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": start,
    }
    small: dict[str, Any] = {"d_model": 32, "init_std": 0.2, "max_target_positions": 24}
    for part in ("encoder", "decoder"):
        small |= {f"{part}_layers": 2, f"{part}_attention_heads": 4, f"{part}_ffn_dim": 64}
    size = len(pieces) + len(special) + 1501  # the last are moments, every 20 ms
    model = WhisperForConditionalGeneration(WhisperConfig(vocab_size=size, **small, **tokens)).eval()
    decoder = model.model.decoder  # it would repeat one token, if it did not mind the moment and the sound
    torch.nn.init.normal_(decoder.embed_positions.weight)
    torch.nn.init.zeros_(decoder.embed_tokens.weight[-1501:])  # no moment is ever the likeliest
    for layer in decoder.layers:
        torch.nn.init.normal_(layer.encoder_attn.out_proj.weight)
    model.generation_config = GenerationConfig(
        **tokens,
        is_multilingual=True,
        lang_to_id={token: number[token] for token in languages},
        max_length=24,
        no_timestamps_token_id=number["<|notimestamps|>"],
        return_timestamps=False,
        suppress_tokens=[i for piece, i in vocabulary.items() if not piece.strip("Ġ").isascii() or not piece.isalpha()]
        + [number[token] for token in special[1:]],
        begin_suppress_tokens=[vocabulary["Ġ"], end],
        task_to_id={task: number[f"<|{task}|>"] for task in ("transcribe", "translate")},
    )
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=pairs, additional_special_tokens=special[1:])
    tokenizer.add_tokens([f"<|{i * 0.02:.2f}|>" for i in range(1501)])
    tokenizer.save_pretrained(folder)
    added = {token: tokenizer.convert_tokens_to_ids(token) for token in special}
    assert added == number and len(tokenizer) == size
    write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(folder / "normalizer.json", {"colour": "color", "grey": "gray"})  # British spellings to American ones
    write_json(folder / "added_tokens.json", added)


def vits(folder: Path) -> None:
    """As `kakao-enterprise/vits-vctk`, with six speakers: the symbols are VITS's, and it says it phonemises itself."""
    import torch
    from transformers import VitsConfig, VitsModel, VitsTokenizer

    small: dict[str, Any] = dict.fromkeys(("hidden_size", "flow_size"), 16)
    small |= dict.fromkeys(("num_hidden_layers", "prior_encoder_num_flows", "prior_encoder_num_wavenet_layers"), 2)
    small |= {"ffn_dim": 32, "spectrogram_bins": 9, "posterior_encoder_num_wavenet_layers": 1}
    small |= {"upsample_initial_channel": 32, "sampling_rate": 22_050, "num_speakers": 6, "speaker_embedding_size": 8}
    model: Any = VitsModel(VitsConfig(**small, vocab_size=len(SYMBOLS), initializer_range=0.2))
    with torch.no_grad():
        model.duration_predictor.flows[0].log_scale.fill_(1.5)  # sounds of a few frames, as if trained
    model.save_pretrained(folder)
    write_json(folder / "symbols.json", {symbol: number for number, symbol in enumerate(SYMBOLS)})
    VitsTokenizer(str(folder / "symbols.json"), phonemize=True, pad_token="_").save_pretrained(folder)
    (folder / "symbols.json").unlink()
