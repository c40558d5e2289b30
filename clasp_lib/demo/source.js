// A recording from a file or the microphone; it is uploaded, and then the server is told its path and name.
// Gradio runs this once for each component, with `element`, `trigger`, `upload` and `watch` in its scope.
const root = () => element.querySelector(".clasp-source");
const part = (name) => element.querySelector(`.clasp-${name}`);
let status = "";
let recorder = null;

function show(text) {
  status = text;
  paint();
}

function paint() {
  // The server redraws the component when the language changes: what happens just now is written into it again.
  part("status").textContent = status;
  part("record").textContent = recorder ? root().dataset.stop : root().dataset.record;
  part("record").classList.toggle("clasp-live", recorder !== null);
}

async function send(file) {
  if (file.size > Number(root().dataset.bytes)) return show(root().dataset.tooLarge);
  show(root().dataset.uploading);
  try {
    const sent = await upload(file);
    show(file.name);
    trigger("upload", { path: sent.path, name: file.name });
  } catch (error) {
    show(root().dataset.notUploaded);
  }
}

async function record() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    return show(root().dataset.noMicrophone);
  }
  const pieces = [];
  const began = Date.now();
  const longest = Number(root().dataset.seconds);
  recorder = new MediaRecorder(stream);
  const timer = setInterval(() => {
    const seconds = Math.floor((Date.now() - began) / 1000);
    show(`${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`);
    if (seconds >= longest - 0.5) stop();
  }, 250);
  recorder.ondataavailable = (event) => pieces.push(event.data);
  recorder.onstop = async () => {
    clearInterval(timer);
    stream.getTracks().forEach((track) => track.stop());
    recorder = null;
    paint();
    try {
      await send(await wav(new Blob(pieces)));
    } catch (error) {
      show(root().dataset.notUploaded);
    }
  };
  recorder.start();
  paint();
}

function stop() {
  if (recorder && recorder.state !== "inactive") recorder.stop();
}

async function wav(blob) {
  // Browsers record in formats of their own; the server reads PCM.
  const context = new AudioContext({ sampleRate: 16000 });
  const sound = await context.decodeAudioData(await blob.arrayBuffer());
  context.close();
  const samples = sound.getChannelData(0);
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const word = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, 16000, true);
  view.setUint32(28, 32000, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => view.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, x)), true));
  return new File([view], "microphone.wav", { type: "audio/wav" });
}

element.addEventListener("change", (event) => {
  if (event.target.type !== "file") return;
  const file = event.target.files[0];
  event.target.value = ""; // the same file may be chosen again
  if (file) send(file);
});
element.addEventListener("click", (event) => {
  if (event.target.closest(".clasp-record")) recorder ? stop() : record();
});
element.addEventListener("dragover", (event) => event.preventDefault());
element.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
});
watch("value", paint);
