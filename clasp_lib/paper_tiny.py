"""Tiny checkpoints with random weights, in the layout of the published ones, file by file.

The profile `paper-tiny` runs the code of `paper` on them, without a network and without a GPU. What they compute means
nothing; that they load, and how, means something: the same classes, the same file names, the pickled state dicts and
old key names of the originals, and CLASP's own fusions as the whole modules that its authors pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_lib import tiny_corpora
from clasp_lib.convert import PUBLISHED, PUBLISHED_WEIGHTS
from clasp_lib.encoders.drawing import PICTURE_RATE, draw
from clasp_lib.folders import written_whole
from clasp_lib.fusion import build_fusion

if TYPE_CHECKING:
    import torch

HUBERT = "facebook/hubert-large-ls960-ft"
WAV2VEC2 = "facebook/wav2vec2-base-960h"
EFFICIENTNET = "torchvision/efficientnet_b0_rwightman-7f5810bc.pth"
STAND_INS = {"torchvision/efficientnet_b7": EFFICIENTNET}
"""Files that are not called as what they stand in for."""

LABSE = "sentence-transformers/LaBSE"
XLM_R = "sentence-transformers/paraphrase-xlm-r-multilingual-v1"

VITS = "kakao-enterprise/vits-vctk"

SYMBOLS = (
    '_;:,.!?¡¿—…"«»“” ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
    "ɑɐɒæɓʙβɔɕçɗɖðʤəɘɚɛɜɝɞɟʄɡɠɢʛɦɧħɥʜɨɪʝɭɬɫɮʟɱɯɰŋɳɲɴøɵɸθœɶʘɹɺɾɻʀʁɽʂʃʈʧʉʊʋⱱʌɣɤʍχʎʏʑʐʒʔʡʕʢǀǁǂǃˈˌːˑʼʴʰʱʲʷˠˤ˞↓↑→↗↘'̩'ᵻ"
)
"""Of VITS (its text/symbols.py, and the conversion script of transformers): the second ' has the number of both, so
that the vocabulary of 178 has 177 entries."""

WIDTHS = {"speech": 32, "picture": 1000, "text": 24}
"""Of the tiny HuBERT and wav2vec2, of the EfficientNet, which keeps its classes, and of the tiny sentence encoders."""

_MARKER = "paper-tiny.json"
_LETTERS = "abcdefghijklmnopqrstuvwxyz'"


def make_checkpoints(folder: str | Path) -> Path:
    """Write all tiny checkpoints and corpora below `folder`, each under its name on the hub, unless they are there."""
    import torch

    folder, marker = Path(folder), Path(folder) / _MARKER
    source = Path(__file__).read_bytes() + Path(tiny_corpora.__file__).read_bytes()
    made_by = json.dumps({"weights": "random", "made by": hashlib.sha256(source).hexdigest()})
    if marker.is_file() and marker.read_text("utf-8") == made_by:
        return folder
    with torch.random.fork_rng(), written_whole(folder, _MARKER) as new:
        torch.manual_seed(0)
        _hubert(new / HUBERT)
        _wav2vec2(new / WAV2VEC2)
        _efficientnet(new / EFFICIENTNET)
        _labse(new / LABSE)
        _xlm_r(new / XLM_R)
        _clasp(new / PUBLISHED)
        _vits(new / VITS)
        tiny_corpora.write_corpora(new)
        (new / _MARKER).write_text(made_by, encoding="utf-8")
    return folder


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


def _hubert(folder: Path) -> None:
    """As `facebook/hubert-large-ls960-ft`: a pickled state dict, the weight norm of the positions under old names."""
    from transformers import HubertConfig, HubertForCTC

    config = HubertConfig(**_SPEECH, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)
    model = HubertForCTC(config).eval()
    config.architectures = ["HubertForCTC"]
    config.save_pretrained(folder)
    _save_pickled(_old_weight_norm(model.state_dict()), folder / "pytorch_model.bin")
    _ctc_files(folder, return_attention_mask=True)


def _wav2vec2(folder: Path) -> None:
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
    _write(folder / "vocab.json", {letter: number for number, letter in enumerate(letters)})
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    _write(folder / "special_tokens_map.json", special)
    options = {"do_lower_case": False, "return_attention_mask": return_attention_mask, "do_normalize": True}
    _write(folder / "tokenizer_config.json", special | options | {"tokenizer_class": "Wav2Vec2CTCTokenizer"})
    extractor = {"do_normalize": True, "feature_size": 1, "padding_side": "right", "padding_value": 0.0}
    extractor |= {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16_000}
    _write(folder / "preprocessor_config.json", extractor | {"return_attention_mask": return_attention_mask})


def _efficientnet(file: Path) -> None:
    """As torchvision's `efficientnet_b0`, whole: the smallest that loads as `efficientnet_b7` does.

    Its batch norms have the statistics of a few spectrograms of noise. Without any, a signal dies out on its way.
    """
    import torch
    from torchvision.models import efficientnet_b0

    model = efficientnet_b0(norm_layer=partial(torch.nn.BatchNorm2d, momentum=1.0)).train()
    fading = torch.linspace(0, -3, PICTURE_RATE)
    pictures = draw([torch.randn(PICTURE_RATE) * torch.exp(rate * fading) for rate in range(6)])
    with torch.no_grad():
        model(pictures[:, ::3, ::3].permute(0, 3, 1, 2).float())
    file.parent.mkdir(parents=True)
    _save_pickled(model.state_dict(), file)


def _labse(folder: Path) -> None:
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
    _write(folder / "2_Dense" / "config.json", shape)
    _save_pickled(
        {f"linear.{key}": value for key, value in dense.state_dict().items()}, folder / "2_Dense/pytorch_model.bin"
    )


def _xlm_r(folder: Path) -> None:
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

    letters = [piece.lstrip("#") for piece in _pieces("##")[: len(_pieces("##")) // 2]]
    words = ["<s>", "<pad>", "</s>", "<unk>", "▁", *letters, *(letter.upper() for letter in _LETTERS[:26]), *".,?!-"]
    tokenizer = Tokenizer(models.Unigram([(word, -float(i > 3)) for i, word in enumerate(words)], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special), len(words)


def _sentence_modules(folder: Path, pooling: str, more: Sequence[str]) -> None:
    """What sentence-transformers reads beside a transformer: the list of modules, and how tokens are pooled."""
    names = ["Transformer", "Pooling", *more]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(names)
    ]
    _write(folder / "modules.json", modules)
    modes = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "sqrt": "mean_sqrt_len_tokens"}
    chosen = {f"pooling_mode_{token}": name == pooling for name, token in modes.items()}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTHS["text"]} | chosen)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    for i, name in enumerate(names):
        if i:
            (folder / f"{i}_{name}").mkdir(exist_ok=True)


def _clasp(folder: Path) -> None:
    """As `llm-lab/CLASP`: whole modules, pickled from a notebook; as in the older ones, LASP's have no `.mode`."""
    import torch

    folder.mkdir(parents=True)
    for file in PUBLISHED_WEIGHTS:
        gating = "Gating" in file
        fusion = build_fusion("gating" if gating else "concatenation", *WIDTHS.values())
        for _ in range(50):  # batch norms get the statistics of vectors of length one
            fusion(torch.randn(64, WIDTHS["speech"]), torch.randn(64, WIDTHS["picture"]))
        module = _as_published("HubertLabseGating" if gating else "HubertLabseConcat", fusion.eval())
        if file.startswith("CLASP"):
            module.mode = "joint"
        with _found_in_main(type(module)):
            torch.save(module, folder / file)


def _vits(folder: Path) -> None:
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
    _write(folder / "symbols.json", {symbol: number for number, symbol in enumerate(SYMBOLS)})
    VitsTokenizer(str(folder / "symbols.json"), phonemize=True, pad_token="_").save_pretrained(folder)
    (folder / "symbols.json").unlink()


def _as_published(kind: str, fusion: Any) -> Any:
    """A fusion's layers under the authors' names, in a class that says it is a notebook's."""
    from torch import nn

    def branch(layers: Any) -> Any:
        """In torch's own layers, as the authors pickled them."""
        return nn.Sequential(*(nn.Dropout(layer.p) if isinstance(layer, nn.Dropout) else layer for layer in layers))

    parts = {"image_seq": branch(fusion.picture_branch)}
    if kind == "HubertLabseConcat":
        parts |= {"audio_seq": branch(fusion.speech_branch), "mix_seq": fusion.mix}
    else:
        parts |= {"text_seq": branch(fusion.speech_branch), "weight": nn.Sequential(fusion.weight)}
        for modality, gates in (("text", fusion.speech_gates), ("image", fusion.picture_gates)):
            parts[f"input_gate_{modality}"] = nn.Sequential(gates.input, nn.Sigmoid())
            parts[f"forget_gate_{modality}"] = nn.Sequential(gates.forget, nn.Sigmoid())
            parts[f"tanh_{modality}"] = nn.Sequential(gates.candidate, nn.Tanh())
    module: Any = type(kind, (nn.Module,), {"__module__": "__main__"})()
    for name, part in parts.items():
        module.add_module(name, part)
    return module.eval()


@contextlib.contextmanager
def _found_in_main(kind: type) -> Iterator[None]:
    """Pickle refuses a class that it cannot find where the class says it is; what was there comes back."""
    home = vars(sys.modules["__main__"])
    before = {kind.__name__: home[kind.__name__]} if kind.__name__ in home else {}
    home[kind.__name__] = kind
    try:
        yield
    finally:
        del home[kind.__name__]
        home.update(before)


def _save_pickled(state: dict[str, torch.Tensor], file: Path) -> None:
    import torch

    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({key: tensor.clone() for key, tensor in state.items()}, file)


def _write(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
