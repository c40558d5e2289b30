// Players, the waveform and its marks. Gradio runs this once for each component, with `element` in its scope.
const audio = () => element.querySelector(":scope section > audio");
let until = null; // where a moment ends, while one plays

function play(start, end) {
  const player = audio();
  player.currentTime = start;
  until = end;
  player.play();
}

function mark(seconds) {
  const wave = element.querySelector(".clasp-wave");
  if (!wave) return;
  element.querySelector(".clasp-head-of-play").style.left = `${(100 * seconds) / Number(wave.dataset.seconds)}%`;
}

element.addEventListener("click", (event) => {
  const moment = event.target.closest("[data-start]");
  if (moment) return play(Number(moment.dataset.start), Number(moment.dataset.end));
  const wave = event.target.closest(".clasp-wave");
  if (!wave) return;
  const box = wave.getBoundingClientRect();
  play((Number(wave.dataset.seconds) * (event.clientX - box.left)) / box.width, null);
});

// Events of players do not bubble: they are caught on their way down.
element.addEventListener(
  "timeupdate",
  (event) => {
    if (event.target !== audio()) return;
    mark(event.target.currentTime);
    if (until !== null && event.target.currentTime >= until) {
      until = null;
      event.target.pause();
    }
  },
  true,
);
element.addEventListener("seeked", (event) => event.target === audio() && mark(event.target.currentTime), true);
element.addEventListener(
  "play",
  (event) => document.querySelectorAll("audio").forEach((other) => other !== event.target && other.pause()),
  true,
);
