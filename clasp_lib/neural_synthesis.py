"""Speech from a neural network, many sentences at once, on a GPU where there is one.

`Vits` reads in the 109 voices of VCTK. It was preferred to SpeechT5 because it is not autoregressive (a batch is one
pass) and keeps its speakers in its weights; the other's x-vectors are a data set that `datasets` 4 no longer opens.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from clasp_lib.audio import MAX_SECONDS
from clasp_lib.corpus import SPLITS, Split
from clasp_lib.encoders.checkpoints import Precision, check_complete, chosen_device, digest_of
from clasp_lib.errors import CheckpointError, ClaspError, TextError, brief
from clasp_lib.synthesis import Voice, check_speakable, espeak_library, in_rounds, trimmed

VITS = "kakao-enterprise/vits-vctk"
"""The VITS for VCTK of the method's authors: 109 speakers, 22 050 Hz, MIT licence, in the layout of transformers."""

OWN_RATE, OWN_PITCH = 175, 50
"""`Voice.rate` and `Voice.pitch` of a speaker who is left as he or she is."""

_MAX_PHONEMES = 2_000  # nobody says so many in a minute, and attention needs memory for the square of them

Clip: TypeAlias = np.ndarray | ClaspError
"""What a batch gives for a text: samples, or why there are none."""


def split_speakers(n: int) -> dict[Split, tuple[str, ...]]:
    """Deal the speakers "vits0" to "vits<n - 1>" to the splits, once and for all, in the order of a hash.

    Validation gets 10 % and test 15 %, at least one each, train the others: of VCTK's 109 these are 82, 11 and 16.
    """
    order = sorted(range(n), key=lambda i: hashlib.sha256(f"speaker {i}".encode()).digest())
    names = [f"vits{i}" for i in order]
    held_out, first = max(1, round(0.10 * n)), max(1, round(0.15 * n))
    parts = names[held_out + first :], names[:held_out], names[held_out : held_out + first]
    return {split: tuple(part) for split, part in zip(SPLITS, parts, strict=True)}


class Vits:
    """VITS of transformers with several speakers (Kim, Kong and Son 2021, arXiv:2106.06103), a `BatchSynthesizer`.

    A clip is a function of text, voice and seed: it draws its own noise, attention and flow are masked, and the vocoder
    gets every clip alone and unpadded. What a batch can still change is rounding: samples differ by about 1e-5, or,
    where a duration lies as close as that to a whole number of frames, a sound is one frame (12 ms) longer or shorter.

    Args:
        name: a hub id or a local folder.
        seed: of the noise that makes rhythm and intonation.
        precision: "mixed" runs the vocoder in float16 on a GPU (bfloat16 would put its rounding only 50 dB below the
            voice). Durations and intonation are computed in float32 in any case.
        device: "cuda", "cpu", ...; the GPU where there is one if not given.

    Raises:
        CheckpointError: no such checkpoint, another kind of network, or fewer than three speakers.
        MissingDependencyError: `espeakng-loader`, which turns text into phonemes, is not installed.
    """

    def __init__(
        self,
        name: str = VITS,
        *,
        seed: int = 0,
        precision: Precision = "mixed",
        device: str | torch.device | None = None,
    ) -> None:
        import transformers

        phonemes([])  # says what is missing before the download, not after it
        self.name, self.seed = name, seed
        self.device = chosen_device(device)
        self._half = precision == "mixed" and self.device.type == "cuda"
        try:
            config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
            if config.model_type != "vits" or config.num_speakers < len(SPLITS):
                raise CheckpointError(
                    f"{name}: is a {config.model_type!r} model with {getattr(config, 'num_speakers', 0)} speaker(s). "
                    f"A VITS with at least three is needed: {', '.join(SPLITS)} share none."
                )
            tokenizer = transformers.VitsTokenizer.from_pretrained(name)
            load: Any = transformers.VitsModel.from_pretrained
            model, report = load(name, dtype=torch.float32, output_loading_info=True)
        except CheckpointError:
            raise
        except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
            raise CheckpointError(f"{name}: cannot be loaded as a VITS ({brief(error)}).") from error
        check_complete(name, report["missing_keys"])
        self._model = model.to(self.device).eval().requires_grad_(False)
        self._symbols: dict[str, int] = tokenizer.encoder
        self._blanks: bool = tokenizer.add_blank
        self.sampling_rate: int = config.sampling_rate
        self.speakers = split_speakers(config.num_speakers)
        self._seconds_per_frame = float(np.prod(config.upsample_rates)) / config.sampling_rate

    @functools.cached_property
    def digest(self) -> str:
        """Of the weights and of every setting that is heard."""
        return f"{digest_of(self._model)}-{self.seed}{'-half' if self._half else ''}"

    def voices(self, split: Split, n: int, seed: int = 0) -> list[Voice]:
        """Draw `n` voices of a split: one of its speakers, and a rate of 140 to 210 words a minute."""
        rng = np.random.default_rng([seed, SPLITS.index(split)])
        speakers = in_rounds(self.speakers[split], n, rng)
        return [Voice("en-us", speaker, rate=int(rng.integers(140, 211))) for speaker in speakers]

    def synthesize(self, text: str, voice: Voice) -> np.ndarray:
        """Speak one text; see `Synthesizer`. Silence before and after the sentence is kept to 0.1 s.

        Raises:
            TextError: the text is empty or holds nothing that can be spoken.
            ClaspError: the voice is not one of the checkpoint's, or the clip would last longer than a minute.
        """
        return single(self.synthesize_batch([text], [voice]))

    @torch.inference_mode()
    def synthesize_batch(self, texts: Sequence[str], voices: Sequence[Voice]) -> list[Clip]:
        """Speak each text in the voice beside it, as one batch; see `BatchSynthesizer`."""
        clips: dict[int, Clip] = {}
        tokens: dict[int, list[int]] = {}
        for i, (text, voice) in enumerate(zip(texts, voices, strict=True)):
            try:
                check_speakable(text)
                self._number(voice)
            except ClaspError as error:
                clips[i] = error
        good = [i for i in range(len(texts)) if i not in clips]
        for i, spoken in zip(good, phonemes([texts[i] for i in good]), strict=True):
            known = [self._symbols[ch] for ch in spoken if ch in self._symbols]
            if not known or any(ch.isalpha() and ch not in self._symbols for ch in spoken):
                clips[i] = TextError(f"text {texts[i]!r}: {self.name} cannot say its phonemes, {spoken!r}.")
            elif len(known) > _MAX_PHONEMES:
                clips[i] = _too_long(texts[i])
            else:
                tokens[i] = [0, *(token for symbol in known for token in (symbol, 0))] if self._blanks else known
        if tokens:
            for i, latents in zip(tokens, self._latents(tokens, texts, voices), strict=True):
                clips[i] = self._vocode(latents, texts[i], voices[i])
        return [clips[i] for i in range(len(texts))]

    def _number(self, voice: Voice) -> int:
        """Which of the checkpoint's speakers a voice is."""
        speakers = self._model.config.num_speakers
        number = voice.variant.removeprefix("vits")
        known = (
            number.isascii() and number.isdigit() and voice.variant == f"vits{int(number)}" and int(number) < speakers
        )
        if not known or voice.accent != "en-us" or voice.pitch != OWN_PITCH or voice.rate <= 0:
            raise ClaspError(
                f"{voice}: is not a voice of {self.name}. Its accent is 'en-us', its speakers are 'vits0' to "
                f"'vits{speakers - 1}', the rate is above 0, and the pitch is the speaker's own, {OWN_PITCH}."
            )
        return int(number)

    def _speaker(self, voices: Sequence[Voice]) -> torch.Tensor:
        """Embeddings (voices, width, 1)."""
        numbers = torch.tensor([self._number(voice) for voice in voices], device=self.device)
        return self._model.embed_speaker(numbers).unsqueeze(-1)

    def _latents(
        self, tokens: dict[int, list[int]], texts: Sequence[str], voices: Sequence[Voice]
    ) -> list[torch.Tensor | None]:
        """What the vocoder makes sound of, (channels, frames) for each clip; None where it would last too long.

        This is `VitsModel.forward` for clips with a speaker, a rate and a noise each, where that has one for all.
        """
        model = self._model
        lengths = [len(ids) for ids in tokens.values()]
        ids = pad_sequence([torch.tensor(ids) for ids in tokens.values()], batch_first=True).to(self.device)
        mask = mask_of(lengths, self.device)  # (batch, 1, tokens)
        noises = [_generator(self.seed, texts[i], voices[i]) for i in tokens]
        speakers = self._speaker([voices[i] for i in tokens])
        encoded = model.text_encoder(ids, padding_mask=mask.transpose(1, 2), attention_mask=mask[:, 0].long())
        drawn = [
            torch.from_numpy(rng.standard_normal((n, 2), np.float32)) for rng, n in zip(noises, lengths, strict=True)
        ]
        noise = pad_sequence(drawn, batch_first=True).transpose(1, 2).to(self.device)  # (batch, 2, tokens)
        hidden = encoded.last_hidden_state.transpose(1, 2)
        log_durations = self._log_durations(hidden, mask, speakers, noise * model.noise_scale_duration)
        rates = torch.tensor([voices[i].rate / OWN_RATE * model.speaking_rate for i in tokens], device=self.device)
        durations = (torch.ceil(log_durations.exp() * mask / rates[:, None, None]))[:, 0]  # (batch, tokens), in frames
        frames = durations.sum(1).tolist()
        brief = [row for row, count in enumerate(frames) if count * self._seconds_per_frame <= MAX_SECONDS]
        spoken: list[torch.Tensor | None] = [None] * len(lengths)
        if not brief:
            return spoken
        priors = []
        for row in brief:
            repeats = durations[row, : lengths[row]].long()
            mean, log_deviation = (
                part[row, : lengths[row]].repeat_interleave(repeats, 0)  # (frames, channels)
                for part in (encoded.prior_means, encoded.prior_log_variances)
            )
            drawn_here = torch.from_numpy(noises[row].standard_normal(tuple(mean.shape), np.float32)).to(self.device)
            priors.append(mean + drawn_here * log_deviation.exp() * model.noise_scale)
        mask = mask_of([len(prior) for prior in priors], self.device)  # (brief, 1, frames)
        latents = model.flow(
            pad_sequence(priors, batch_first=True).transpose(1, 2), mask, speakers[brief], reverse=True
        )
        for latent, prior, row in zip(latents, priors, brief, strict=True):
            spoken[row] = latent[:, : len(prior)]
        return spoken

    def _log_durations(
        self, hidden: torch.Tensor, mask: torch.Tensor, speakers: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """Logarithms of the tokens' durations in frames, (batch, 1, tokens): the predictor's flow, run backwards."""
        predictor = self._model.duration_predictor
        if not self._model.config.use_stochastic_duration_prediction:
            return predictor(hidden, mask, speakers)
        given = predictor.conv_pre(hidden) + predictor.cond(speakers)
        given = predictor.conv_proj(predictor.conv_dds(given, mask)) * mask
        first, _, *flows = predictor.flows  # the second is left out, as by the authors
        for flow in (*reversed(flows), first):
            noise, _ = flow(noise.flip(1), mask, global_conditioning=given, reverse=True)
        return noise[:, :1]

    def _vocode(self, latents: torch.Tensor | None, text: str, voice: Voice) -> Clip:
        if latents is None:
            return _too_long(text)
        for half in (True, False) if self._half else (False,):
            with torch.autocast(self.device.type, torch.float16, enabled=half):
                wave = self._model.decoder(latents[None], self._speaker([voice]))[0, 0]  # (samples,)
            samples = wave.float().cpu().numpy()
            if np.isfinite(samples).all():  # float16 ends at 65 504; what it cannot hold is done again in float32
                break
        return finished(samples, self.sampling_rate, text)


_SHORT = "Mr Mrs Ms Dr St Jr Sr Gen Col Capt Lt Sgt Rev Gov Sen Prof Co"
_FULL = "mister missis miz doctor saint junior senior general colonel captain lieutenant sergeant reverend governor "
_ABBREVIATIONS = dict(zip(_SHORT.split(), [*_FULL.split(), "senator", "professor", "company"], strict=True))
_UTF8, _IPA = 1, 2  # constants of espeak-ng's speak_lib.h
_MARKS = ';:,.!?¡¿—…"«»“”()[]{}'
_PAUSES = re.compile(rf"(\s*(?:(?<!\S)[{re.escape(_MARKS)}]+|[{re.escape(_MARKS)}]+(?!\S)|[—…\"«»“”]+)\s*)")


def phonemes(texts: Sequence[str], accent: str = "en-us") -> list[str]:
    """Texts in the International Phonetic Alphabet as eSpeak NG reads them, stress marked, punctuation kept.

    So VITS was taught to read (Kim, Kong and Son 2021): words are separated by a space, and marks stand where they
    stood. Brackets are left out, abbreviations such as "Mr." written in full, and Brown's `` and '' become ".

    Raises:
        MissingDependencyError: `espeakng-loader` is not installed.
        TextError: a text holds nothing that can be spoken.
        ClaspError: there is no such accent.
    """
    for text in texts:
        check_speakable(text)
    with espeak_library() as (library, _):
        if library.espeak_SetVoiceByName(accent.encode()) != 0:
            raise ClaspError(f"accent {accent!r}: eSpeak NG has no such accent.")
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        return [_read_aloud(text, library) for text in texts]


def _read_aloud(text: str, library: ctypes.CDLL) -> str:
    text = re.sub(r"``\s*|\s*''", '"', text).replace("--", "—")
    text = re.sub(r"\s+([;:,.!?])(?!\S)", r"\1", text)  # Brown sets a space before them
    text = re.sub(r"(?<!\S)((?:[A-Z]\.)*[A-Z])\.(?=\s+\w)", r"\1", text)  # "J. Smith of the U.S. navy": no pauses
    text = re.sub(rf"\b({'|'.join(_ABBREVIATIONS)})\.(?=\s)", lambda found: _ABBREVIATIONS[found[1]], text)
    pieces = _PAUSES.split(text)  # words, marks, words, ...: the engine would drop the marks
    for i in range(0, len(pieces), 2):
        rest = ctypes.c_char_p(pieces[i].encode("utf-8", "ignore"))
        clauses = []
        while rest.value is not None:
            clauses.append(library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA).decode())
        pieces[i] = re.sub(r"\(\w+\)", "", " ".join(filter(None, clauses)))  # "(fr)": a word of another language
    return re.sub(r"\s+", " ", re.sub(r"[()\[\]{}]", "", "".join(pieces))).strip()


def _too_long(text: str) -> TextError:
    return TextError(f"text {text[:80]!r}...: would last more than {MAX_SECONDS:g} s. Cut it into sentences.")


def _generator(seed: int, text: str, voice: Voice) -> np.random.Generator:
    """The noise of one clip: numpy draws one number after the other, so that padding does not shift it."""
    digest = hashlib.sha256(repr((seed, text, voice)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def mask_of(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """Ones for what is there and zeros for padding, (batch, 1, longest)."""
    positions = torch.arange(max(lengths), device=device)
    return (positions < torch.tensor(lengths, device=device)[:, None])[:, None].float()


def finished(samples: np.ndarray, rate: int, text: str) -> Clip:
    """Samples as `Synthesizer` promises them."""
    if not np.isfinite(samples).all():
        return ClaspError(f"text {text!r}: the network returned NaN or infinite samples.")
    samples, _ = trimmed(np.clip(samples, -1.0, 1.0), rate)
    return samples if len(samples) else TextError(f"text {text!r}: the network makes no sound of it.")


def single(clips: list[Clip]) -> np.ndarray:
    """The clip of a batch of one, or its error raised."""
    if isinstance(clips[0], ClaspError):
        raise clips[0]
    return clips[0]
