/* The gates of one clip, as two drawings: over time, on its spectrogram, and over dimensions, which are no time. */
window.CLASP_GATES = (data, base, percent) => {
  "use strict";

  const svg = window.CLASP_GATES.svg;
  const LEFT = 36;
  const room = (wide) => [LEFT, Math.max(wide, 200) - 22]; // from and to, in CSS pixels, which are the drawing's units
  const text = (x, y, side, content) => svg("text", { x, y, class: `explorer-${side}` }, content);

  function show(drawing, wide, high, parts, said) {
    drawing.setAttribute("viewBox", `0 0 ${Math.max(wide, 200)} ${high}`);
    drawing.setAttribute("aria-label", said);
    drawing.replaceChildren(...parts);
  }

  /* The part of the category's sheet that is this clip's spectrogram, stretched to a rectangle. */
  function sound(i, x, y, width, height) {
    const [file, line, columns, lines] = data.sheets.of[i];
    const { row, columns: each } = data.sheets;
    const whole = Math.max(1, Math.round(data.seconds[i] * each));
    const sheet = { href: new URL(`sheets/${file}`, base).href, width: columns, height: lines * row };
    const window = { viewBox: `0 ${line * row} ${whole} ${row}`, preserveAspectRatio: "none", class: "explorer-sound" };
    return svg("svg", { ...window, x, y, width, height }, svg("image", sheet));
  }

  /* The spectrogram, and over it, on the same axis of time, what the gate says of each window. Returns it in words. */
  function drawSpectrogram(drawing, i, wide) {
    const [top, bottom] = [8, 152];
    const [left, right] = room(wide);
    const { share, windows, window: length, hop } = data.gate;
    const seconds = data.seconds[i];
    const x = (time) => left + ((right - left) * time) / seconds;
    const y = (value) => bottom - (bottom - top) * value;
    const parts = [sound(i, left, top, right - left, bottom - top)];
    for (let time = 0; time <= seconds; time += 1) parts.push(text(x(time), bottom + 16, "middle", `${time} s`));
    for (const [value, name] of [[0, "0"], [0.5, "½"], [1, "1"]]) parts.push(text(right + 6, y(value) + 5, "start", name));
    parts.push(text(left - 6, top + 10, "end", "high"), text(left - 6, bottom, "end", "low"));
    const level = { x1: left, x2: right, y1: y(share[i]), y2: y(share[i]) };
    parts.push(svg("line", { ...level, class: "explorer-halo" }), svg("line", { ...level, class: "explorer-whole" }));
    const values = windows[i] || [];
    const middle = Math.min(length, seconds) / 2;
    const path = values.map((value, k) => [x(k * hop + middle), y(value)]);
    for (const name of ["explorer-halo", "explorer-windows"])
      parts.push(svg("polyline", { points: path.join(" "), class: name }));
    parts.push(...path.map(([cx, cy]) => svg("circle", { cx, cy, r: 3.5, class: "explorer-window" })));
    parts.push(svg("line", { x1: left, x2: left, y1: top, y2: bottom, class: "explorer-now", "data-room": right - left }));
    const range = `from ${Math.min(...values).toFixed(2)} to ${Math.max(...values).toFixed(2)}`;
    const said =
      `The whole clip gives the picture ${share[i].toFixed(2)} (dashed). ` +
      (values.length
        ? `In windows of ${length} s the picture's share goes ${range} (line with dots; each window was cut out and ` +
          "read as a clip of its own)."
        : `Windows were computed for ${Object.keys(windows).length} of the ${data.texts.length} clips, and this is none ` +
          "of them.");
    show(drawing, wide, bottom + 22, parts, `Spectrogram of the clip over ${seconds} s. ${said}`);
    return said;
  }

  /* Not over time: the dimensions of the vector, sorted into bins by their share. Returns it in words. */
  function drawDimensions(drawing, i, wide) {
    const [top, bottom] = [6, 66];
    const [left, right] = room(wide);
    const bins = data.gate.bins[i];
    const step = (right - left) / bins.length;
    const most = Math.max(...bins);
    const parts = bins.map((bin, k) => {
      const height = ((bottom - top) * bin) / most;
      return svg("rect", { x: left + k * step + 1, y: bottom - height, width: step - 2, height });
    });
    parts.push(svg("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "explorer-axis" }));
    parts.push(text(left, bottom + 17, "start", "0: speech"), text((left + right) / 2, bottom + 17, "middle", "½"));
    parts.push(text(right, bottom + 17, "end", "1: picture"));
    const sum = (counts) => counts.reduce((a, b) => a + b, 0);
    const looking = sum(bins.slice(bins.length / 2)) / sum(bins);
    const said =
      `Of the ${data.gate.dimensions} dimensions of this clip's vector, ${percent(looking)} give the picture more ` +
      "weight than the speech. No axis of time here: each dimension counts once, in the bin of its share.";
    show(drawing, wide, bottom + 24, parts, `Histogram over dimensions. ${said}`);
    return said;
  }

  /* Move the line that says what is heard now to a part of the clip, 0 to 1. */
  function showTime(drawing, part) {
    const now = drawing.querySelector(".explorer-now");
    now.setAttribute("transform", `translate(${(now.dataset.room * Math.min(1, part)).toFixed(1)} 0)`);
  }

  return { drawSpectrogram, drawDimensions, showTime };
};

/* An element of SVG with its attributes and what is in it. */
window.CLASP_GATES.svg = (name, attributes = {}, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
