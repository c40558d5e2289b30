"""Tiny sentence encoders and a translator, with the files of the published ones."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clasp_lib.paper_tiny.files import WIDTHS, save_pickled, write_json

LABSE = "sentence-transformers/LaBSE"
XLM_R = "sentence-transformers/paraphrase-xlm-r-multilingual-v1"
SMALL_100 = "alirezamsh/small100"


_LETTERS = "abcdefghijklmnopqrstuvwxyz'"


def labse(folder: Path) -> None:
    """As `sentence-transformers/LaBSE`: BERT, the first token, a dense layer with tanh, length one."""
    import torch
    from transformers import BertConfig, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_pieces("##")]
    model = BertModel(BertConfig(vocab_size=len(words), **_sentence_shape()))
    model.save_pretrained(folder)
    _bert_tokenizer(words).save_pretrained(folder)
    width = WIDTHS["text"]
    _sentence_modules(folder, "cls", ("Dense", "Normalize"))
    dense = torch.nn.Linear(width, width)
    activation = "torch.nn.modules.activation.Tanh"
    shape = {"in_features": width, "out_features": width, "bias": True, "activation_function": activation}
    write_json(folder / "2_Dense" / "config.json", shape)
    save_pickled(
        {f"linear.{key}": value for key, value in dense.state_dict().items()}, folder / "2_Dense/pytorch_model.bin"
    )


def xlm_r(folder: Path) -> None:
    """As `sentence-transformers/paraphrase-xlm-r-multilingual-v1`: XLM-RoBERTa, the mean of all tokens."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    tokenizer, size = _xlm_r_tokenizer()
    shape = _sentence_shape() | {"max_position_embeddings": 130}
    XLMRobertaModel(XLMRobertaConfig(vocab_size=size, pad_token_id=1, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _sentence_modules(folder, "mean", ())


def _sentence_shape() -> dict[str, Any]:
    return {
        "hidden_size": WIDTHS["text"],
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
    }


def _pieces(within: str) -> list[str]:
    """Letters of several scripts, at the start of a word and within one."""
    letters = list(_LETTERS + "0123456789" + "äöüßéèçñ" + "ابپتجچدرزسشکگلمنوهی" + "的一是不了人我在有他这中大来上国")
    return letters + [within + letter for letter in letters]


def _bert_tokenizer(words: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special)


def _xlm_r_tokenizer() -> tuple[Any, int]:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "<pad>", "</s>", "<unk>", *_cased_pieces()]
    tokenizer = Tokenizer(models.Unigram([(word, -float(i > 3)) for i, word in enumerate(words)], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special), len(words)


def _cased_pieces() -> list[str]:
    """The start of a word, and letters of several scripts."""
    letters = _pieces("")
    return ["▁", *letters[: len(letters) // 2], *(letter.upper() for letter in _LETTERS[:26]), *".,?!-"]


def small_100(folder: Path) -> None:
    """As `alirezamsh/small100`: an encoder and a shallow decoder with one matrix of pieces, then marks of 100 languages
    and 8 numbers without a meaning; how to search stands in the model's config, and the tokenizer says it is its own.

    Its answers are as long as if trained: twelve pieces at least, and then the end is as likely as any other.
    """
    import torch
    from transformers import M2M100Config, M2M100ForConditionalGeneration
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *_cased_pieces()]
    marks = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    size = len(vocabulary) + len(marks) + 8
    small: dict[str, Any] = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "init_std": 1.0}
    for part in ("encoder", "decoder"):
        small |= {f"{part}_attention_heads": 2, f"{part}_ffn_dim": 32}
    config = M2M100Config(vocab_size=size, max_position_embeddings=1024, **small)
    model: Any = M2M100ForConditionalGeneration(config).eval()
    with torch.no_grad():
        pieces, last = model.model.shared.weight, model.model.decoder.layer_norm
        pieces[len(vocabulary) :] *= 0.3  # an answer is seldom made of marks
        pieces[2], pieces[:, 0], pieces[2, 0] = 0.0, 0.0, 1.0  # one dimension for the end alone
        last.weight[0], last.bias[0] = 0.0, 11.0
        for layer in model.model.decoder.layers:  # or the text would hardly matter
            torch.nn.init.normal_(layer.encoder_attn.out_proj.weight)
    save_pickled(model.state_dict(), folder / "pytorch_model.bin")
    never = [0, 1, 3, 4, *range(size - 8, size)]
    search = {"max_length": 200, "num_beams": 5, "early_stopping": True, "min_length": 12, "suppress_tokens": never}
    write_json(
        folder / "config.json",
        config.to_diff_dict() | search | {"architectures": ["M2M100ForConditionalGeneration"], "vocab_size": size},
    )
    write_json(folder / "vocab.json", {piece: number for number, piece in enumerate(vocabulary)})
    (folder / "sentencepiece.bpe.model").write_bytes(_sentencepiece_model(vocabulary[4:]))
    special = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    listed: dict[str, Any] = {**special, "additional_special_tokens": marks}
    write_json(folder / "special_tokens_map.json", listed)
    own = {"tokenizer_class": "SMALL100Tokenizer", "language_codes": "m2m100", "num_madeup_words": 8}
    write_json(folder / "tokenizer_config.json", listed | own | {"src_lang": None, "tgt_lang": None})


def _sentencepiece_model(pieces: Sequence[str]) -> bytes:
    """A model of byte pairs that knows `pieces` and no pair, as sentencepiece_model.proto lays it out.

    By hand, because the package that would write it is needed only by those who translate.
    """

    def field(number: int, value: bytes | int | float) -> bytes:
        if isinstance(value, bytes):
            assert len(value) < 128, "a length of one byte"
            return bytes([number << 3 | 2, len(value)]) + value
        if isinstance(value, float):
            return bytes([number << 3 | 5]) + struct.pack("<f", value)
        return bytes([number << 3, value])

    normal, unknown, control, byte_pairs = 1, 2, 3, 2
    kinds = [("<unk>", unknown), ("<s>", control), ("</s>", control), *((piece, normal) for piece in pieces)]
    listed = [
        field(1, field(1, piece.encode()) + field(2, -float(number)) + field(3, kind))
        for number, (piece, kind) in enumerate(kinds)
    ]
    return b"".join(listed) + field(2, field(3, byte_pairs)) + field(3, field(1, b"identity"))


def _sentence_modules(folder: Path, pooling: str, more: Sequence[str]) -> None:
    """What sentence-transformers reads beside a transformer: the list of modules, and how tokens are pooled."""
    names = ["Transformer", "Pooling", *more]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(names)
    ]
    write_json(folder / "modules.json", modules)
    modes = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "sqrt": "mean_sqrt_len_tokens"}
    chosen = {f"pooling_mode_{token}": name == pooling for name, token in modes.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTHS["text"]} | chosen)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    for i, name in enumerate(names):
        if i:
            (folder / f"{i}_{name}").mkdir(exist_ok=True)
