"""Tacotron 2, the nearest relative of what spoke the published Speech Brown (NVIDIA's Tacotron 2 and WaveGlow)."""

from __future__ import annotations

import functools
import hashlib
import unicodedata
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from clasp_lib.corpus import Split
from clasp_lib.encoders.checkpoints import chosen_device, digest_of
from clasp_lib.errors import CheckpointError, ClaspError, MissingDependencyError, TextError
from clasp_lib.neural_synthesis import Clip, finished, mask_of, single
from clasp_lib.synthesis import Voice, check_speakable


class Tacotron2:
    """Tacotron 2 and a vocoder out of a bundle of torchaudio, trained on LJSpeech, a `BatchSynthesizer`.

    It has one speaker, so a dataset of it shares that speaker between its splits. Decoder and vocoder are drawn from at
    random, with padding in sight: the same batch on the same machine gives the same clips, another batch other ones.

    Args:
        bundle: name of one of `torchaudio.pipelines`: the WaveRNN ones sound better, those of Griffin and Lim are
            quicker; the CHAR ones need nothing more, PHONE ones need the package deep-phonemizer.
        seed: of dropout, sampling and phases.
        device: "cuda", "cpu", ...; the GPU where there is one if not given.

    Raises:
        MissingDependencyError: torchaudio, or what its bundle needs, is not installed.
        CheckpointError: no such bundle, or its weights cannot be had.
    """

    VOICE = Voice("en-us", "ljspeech")

    def __init__(
        self,
        bundle: str = "TACOTRON2_WAVERNN_CHAR_LJSPEECH",
        *,
        seed: int = 0,
        device: str | torch.device | None = None,
    ) -> None:
        try:
            from torchaudio import pipelines
        except (ImportError, OSError) as error:  # its wheel loads only beside the very torch that it was built for
            version = torch.__version__.partition("+")[0]
            raise MissingDependencyError(
                f"torchaudio cannot be imported ({error}). Run: pip install torchaudio=={version}"
            ) from error
        known = [name for name in dir(pipelines) if name.startswith("TACOTRON2_")]
        if bundle not in known:
            raise CheckpointError(f"bundle {bundle!r}: torchaudio has {', '.join(known)}.")
        self.name, self.seed = bundle, seed
        self.device = chosen_device(device)
        parts, safely = getattr(pipelines, bundle), {"map_location": "cpu", "weights_only": True}
        try:
            self._processor = parts.get_text_processor()
            self._network = parts.get_tacotron2(dl_kwargs=safely).to(self.device).eval().requires_grad_(False)
            self._vocoder = parts.get_vocoder(dl_kwargs=safely).to(self.device).eval().requires_grad_(False)
        except Exception as error:  # of the download, of pickles, of the state dict, of DeepPhonemizer
            if "DeepPhonemizer is not installed" in str(error):
                raise MissingDependencyError(f"{bundle}: needs phonemes. Run: pip install deep-phonemizer") from error
            raise CheckpointError(f"{bundle}: cannot be loaded ({error}).") from error
        self.sampling_rate: int = self._vocoder.sample_rate

    @functools.cached_property
    def digest(self) -> str:
        """Of the weights and of every setting that is heard."""
        return f"{self.name}-{digest_of(self._network)}-{digest_of(self._vocoder)}-{self.seed}"

    def voices(self, split: Split, n: int, seed: int = 0) -> list[Voice]:
        """The one voice, `n` times."""
        return [self.VOICE] * n

    def synthesize(self, text: str, voice: Voice) -> np.ndarray:
        """Speak one text; see `Synthesizer`. Silence before and after the sentence is kept to 0.1 s.

        Raises:
            TextError: the text holds nothing that can be spoken, or letters or digits that the bundle cannot read.
            ClaspError: it is another voice; or the attention got lost and the decoder did not stop.
        """
        return single(self.synthesize_batch([text], [voice]))

    @torch.no_grad()
    def synthesize_batch(self, texts: Sequence[str], voices: Sequence[Voice]) -> list[Clip]:
        """Speak each text in the voice beside it, as one batch; see `BatchSynthesizer`."""
        clips: dict[int, Clip] = {}
        rows: dict[int, torch.Tensor] = {}
        for i, (text, voice) in enumerate(zip(texts, voices, strict=True)):
            try:
                rows[i] = self._tokens(text, voice)
            except ClaspError as error:
                clips[i] = error
        order = sorted(rows, key=lambda i: (-len(rows[i]), texts[i]))  # the encoder wants the longest first
        if order:
            seed = hashlib.sha256(repr((self.seed, [texts[i] for i in order])).encode()).digest()
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                torch.manual_seed(int.from_bytes(seed[:8], "little"))
                for i, samples in zip(order, self._waves([rows[i] for i in order]), strict=True):
                    clips[i] = (
                        self._lost(texts[i]) if samples is None else finished(samples, self.sampling_rate, texts[i])
                    )
        return [clips[i] for i in range(len(texts))]

    def _tokens(self, text: str, voice: Voice) -> torch.Tensor:
        check_speakable(text)
        if voice != self.VOICE:
            raise ClaspError(f"{voice}: {self.name} has one voice, {self.VOICE}.")
        plain = "".join(ch for ch in unicodedata.normalize("NFKD", text) if not unicodedata.combining(ch))  # é is e
        if "CHAR" in self.name and (lost := {ch for ch in plain.lower() if ch.isalnum()} - set(self._processor.tokens)):
            raise TextError(
                f"text {text!r}: {self.name} cannot read {', '.join(map(repr, sorted(lost)))}. Write numbers in words."
            )
        tokens, lengths = self._processor(plain)
        return tokens[0, : lengths[0]]

    def _lost(self, text: str) -> ClaspError:
        return ClaspError(
            f"text {text!r}: {self.name} lost its place: the decoder stopped at once or not at all. Try another seed."
        )

    def _waves(self, rows: list[torch.Tensor]) -> list[np.ndarray | None]:
        """Samples of each text, longest text first; None where the decoder ran on to its last step, or not at all."""
        lengths = torch.tensor([len(row) for row in rows])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Reached max decoder steps": said below, and of the right clip
            mel, frames, _ = self._network.infer(pad_sequence(rows, batch_first=True).to(self.device), lengths)
        steps = range(5, self._network.decoder.decoder_max_step)  # 5 frames are 0.06 s: nothing is said in less
        stopped = [row for row, count in enumerate(frames.tolist()) if count in steps]
        waves: list[np.ndarray | None] = [None] * len(rows)
        if not stopped:
            return waves
        frames, mel = frames[stopped], mel[stopped][:, :, : max(frames[stopped])]
        silence = ~mask_of(frames.tolist(), self.device).bool()  # (batch, 1, frames)
        mel = mel.masked_fill(silence, float(np.log(1e-5)))  # what was decoded after the end; 1e-5 is LJSpeech's floor
        sound = self._vocoder(mel, frames)[0].float().cpu().numpy()  # (batch, samples)
        for row, samples, count in zip(stopped, sound, frames.tolist(), strict=True):
            # Not the lengths that the vocoder returns: Griffin and Lim's are frames, not samples.
            waves[row] = samples[: round(count * sound.shape[1] / mel.shape[2])]
        return waves
