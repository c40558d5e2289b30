/* The explorer: a map of clips that can be heard, queries that were answered beforehand, and the gates of each clip.

   The data are a script of their own (explorer/data.js, made by book/explorer_data.py), since a page that was opened
   from a folder may not fetch. explorer_gates.js draws the gates. Nothing is loaded from elsewhere. Clips, kinds and
   queries are known by their numbers. */
(() => {
  "use strict";

  const here = document.currentScript.src;
  const data = window.CLASP_EXPLORER;
  const byId = (name) => document.getElementById(`explorer-${name}`);
  const root = document.getElementById("explorer");
  if (!root) return;
  if (!data) {
    byId("missing").hidden = false;
    return;
  }

  const base = new URL("explorer/", here);
  const EDGE = 45; // room around the points, in units of the map
  const NEAR = { mouse: 12, touch: 22 }; // how far off, in CSS pixels, a point may be meant
  const POINT = 4.4; // radius of a point in CSS pixels
  const SHOWN = 8; // options of the search box
  const SHAPES = [
    "M-.9-.9h1.8v1.8h-1.8z",
    "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0z",
    "M0-1.2L1.15.8h-2.3z",
    "M0-1.3L1.3 0L0 1.3L-1.3 0z",
  ];
  const percent = (share) => `${Math.round(100 * share)}%`;
  const count = data.texts.length;
  const all = [...data.texts.keys()];
  const state = { layout: "before", colour: "category", only: new Set(), query: null, selected: 0 };
  const player = byId("player");

  /* Small helpers. Text always enters as text, never as markup. */
  function html(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  const svg = window.CLASP_GATES.svg;
  const kindOf = (i, way = state.colour) => data.colours[way].kinds[data.colours[way].of[i]];
  const isShown = (i) => state.only.size === 0 || state.only.has(data.colours[state.colour].of[i]);
  const shown = () => all.filter(isShown);
  const hits = () => (state.query ? state.query.hits.map(([i]) => i) : []);
  const described = (i) =>
    `${kindOf(i, "category").name}; ${kindOf(i, "accent").name} voice, ${data.timbres[i]}; ${data.seconds[i].toFixed(1)} s`;

  /* The map ------------------------------------------------------------------------------------------------------ */

  const map = byId("map");
  map.setAttribute("viewBox", [-EDGE, -EDGE, data.side + 2 * EDGE, data.side + 2 * EDGE].join(" "));
  const layer = svg("g");
  const points = all.map(() => svg("path"));
  const ring = svg("circle", { class: "explorer-ring", r: 2.2 });
  const marks = svg("g");
  layer.append(...points);
  map.append(layer, marks, ring);

  const place = (element, [x, y]) => {
    element.style.transform = `translate(${x}px, ${y}px) scale(var(--explorer-point))`;
  };
  const placeOf = (i) => data.layouts[state.layout][i];

  /* A point keeps its size on the screen, whatever the size of the map. */
  new ResizeObserver(([entry]) => {
    const units = (data.side + 2 * EDGE) / entry.contentRect.width;
    map.style.setProperty("--explorer-point", (POINT * units).toFixed(3));
  }).observe(map);

  function drawMap() {
    const found = new Set(hits());
    all.forEach((i) => {
      const { shape, colour } = kindOf(i);
      const faded = state.query ? !found.has(i) : !isShown(i);
      points[i].setAttribute("d", SHAPES[shape % SHAPES.length]);
      points[i].setAttribute("class", `explorer-point explorer-c${colour}${faded ? " explorer-faded" : ""}`);
      place(points[i], placeOf(i));
    });
    layer.append(...points.filter((point) => !point.classList.contains("explorer-faded"))); // on top
    drawMarks();
    place(ring, placeOf(state.selected));
    byId("finding").textContent = finding();
  }

  function drawMarks() {
    marks.replaceChildren();
    hits().forEach((i, rank) => {
      const text = svg("text", { class: "explorer-number", y: 0.75 }, String(rank + 1));
      const mark = svg("g", { class: "explorer-mark" }, svg("circle", { r: 1.9 }), text);
      place(mark, placeOf(i));
      marks.prepend(mark); // the best on top
    });
  }

  function finding() {
    if (state.layout === "search")
      return (
        `The space of ${data.models.search}, which answers the queries. ` +
        (state.query ? "The ten best clips carry their numbers." : "Ask for something, and its ten best clips are marked.")
      );
    const { before, after, guess, change } = data.colours[state.colour].near;
    const verdict = {
      fewer: "After the fusion clearly fewer neighbours agree.",
      more: "After the fusion clearly more neighbours agree.",
      "as many": "The fusion does not clearly change that.",
    }[change];
    return (
      `Of ${count} clips, the nearest neighbour in the full space has the same ${state.colour} for ${percent(before)} ` +
      `before the fusion and for ${percent(after)} after it; guessing would give ${percent(guess)}. ${verdict}`
    );
  }

  /* The clip that is meant by a place on the screen: a hit rather than another clip, if one is near enough. */
  function clipAt(event) {
    const box = map.getBoundingClientRect();
    const units = (data.side + 2 * EDGE) / box.width;
    const limit = event.pointerType === "touch" ? NEAR.touch : NEAR.mouse;
    const away = (i) => {
      const [x, y] = placeOf(i);
      return Math.hypot((x + EDGE) / units + box.left - event.clientX, (y + EDGE) / units + box.top - event.clientY);
    };
    for (const group of [hits(), shown()]) {
      const best = group.reduce((a, b) => (a === null || away(b) < away(a) ? b : a), null);
      if (best !== null && away(best) <= limit) return best;
    }
    return null;
  }

  /* The next clip in a direction: near, and rather straight on than aside. */
  function neighbour(dx, dy) {
    const [x, y] = placeOf(state.selected);
    let best = null;
    let least = Infinity;
    for (const i of shown()) {
      const [right, down] = [placeOf(i)[0] - x, placeOf(i)[1] - y];
      const ahead = right * dx + down * dy;
      const aside = Math.abs(right * dy) + Math.abs(down * dx);
      if (ahead > 0 && aside <= ahead && ahead + 2 * aside < least) [best, least] = [i, ahead + 2 * aside];
    }
    return best;
  }

  const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  map.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const order = shown();
    if (event.key in ARROWS) select(neighbour(...ARROWS[event.key]) ?? state.selected);
    else if (event.key === "Home") select(order[0]);
    else if (event.key === "End") select(order[order.length - 1]);
    else if (event.key === "Enter" || event.key === " ") play(state.selected);
    else if (event.key === "Escape") player.pause();
    else return;
    event.preventDefault();
  });
  map.addEventListener("focus", () => say(state.selected));
  map.addEventListener("click", (event) => {
    const i = clipAt(event);
    if (i !== null) play(i);
  });
  map.addEventListener("pointermove", (event) => {
    const i = event.pointerType === "touch" ? null : clipAt(event);
    map.style.cursor = i === null ? "default" : "pointer";
    showTip(i);
  });
  map.addEventListener("pointerleave", () => showTip(null));

  function showTip(i) {
    const tip = byId("tip");
    tip.hidden = i === null;
    if (i === null) return;
    const [x, y] = placeOf(i).map((value) => (value + EDGE) / (data.side + 2 * EDGE));
    tip.replaceChildren(data.texts[i], html("small", {}, described(i)));
    tip.style.setProperty("--x", x);
    tip.style.setProperty("--y", y);
    tip.classList.toggle("explorer-below", y < 0.25);
  }

  /* One clip ----------------------------------------------------------------------------------------------------- */

  const soundOf = (i) => new URL(`clips/${String(i).padStart(3, "0")}.mp3`, base).href;

  function select(i) {
    state.selected = i;
    place(ring, placeOf(i));
    byId("text").textContent = data.texts[i];
    byId("about").textContent = described(i);
    if (player.getAttribute("src") !== soundOf(i)) {
      player.src = soundOf(i);
      player.setAttribute("aria-label", `Clip: ${data.texts[i]}`);
    }
    byId("trouble").hidden = true;
    drawGates();
    say(i);
  }

  function say(i) {
    const rank = hits().indexOf(i);
    byId("live").textContent = `${rank < 0 ? "" : `Hit ${rank + 1}. `}${data.texts[i]} ${described(i)}`;
  }

  function play(i) {
    if (i !== state.selected) select(i);
    player.currentTime = 0;
    player.play().catch((error) => {
      if (error.name !== "AbortError") byId("trouble").hidden = false; // aborted: another clip came sooner
    });
  }

  const gates = window.CLASP_GATES(data, base, percent);

  /* Both drawings are as wide as there is room, with letters of one size. */
  function drawGates() {
    const [over, across] = [byId("spectrogram"), byId("dimensions")];
    byId("windows").textContent = gates.drawSpectrogram(over, state.selected, over.clientWidth);
    byId("spread").textContent = gates.drawDimensions(across, state.selected, across.clientWidth);
    byId("next").hidden = state.selected in data.gate.windows;
  }
  new ResizeObserver(drawGates).observe(byId("spectrogram"));

  byId("next").addEventListener("click", () => {
    const known = Object.keys(data.gate.windows).map(Number);
    select(known.find((i) => i > state.selected) ?? known[0]);
  });

  function follow() {
    gates.showTime(byId("spectrogram"), player.currentTime / data.seconds[state.selected]);
    if (!player.paused) requestAnimationFrame(follow);
  }
  player.addEventListener("play", follow);
  player.addEventListener("play", () => ring.classList.add("explorer-playing"));
  for (const end of ["pause", "ended", "emptied"])
    player.addEventListener(end, () => ring.classList.remove("explorer-playing"));

  /* Colours, filter and list ------------------------------------------------------------------------------------- */

  function drawLegend() {
    const { kinds, of } = data.colours[state.colour];
    const legend = byId("legend");
    const families = [...new Set(kinds.map((kind) => kind.family))];
    const groups = families.map((family) => {
      const group = html("div", { role: "group", "aria-label": family }, html("span", {}, family));
      kinds.forEach((kind, number) => {
        const many = of.filter((other) => other === number).length;
        if (kind.family !== family || !many) return;
        const drawing = svg("svg", { viewBox: "-1.5 -1.5 3 3", "aria-hidden": "true" });
        drawing.append(svg("path", { d: SHAPES[kind.shape % SHAPES.length], class: `explorer-c${kind.colour}` }));
        const pressed = { type: "button", "aria-pressed": state.only.has(number), "data-kind": number };
        group.append(html("button", pressed, drawing, kind.name, html("small", {}, String(many))));
      });
      return group;
    });
    legend.replaceChildren(...groups);
    byId("everything").hidden = state.only.size === 0;
  }

  byId("legend").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const number = Number(button.dataset.kind);
    if (!state.only.delete(number)) state.only.add(number);
    refresh();
    byId("legend").querySelector(`[data-kind="${number}"]`).focus();
  });
  byId("everything").addEventListener("click", () => {
    state.only.clear();
    refresh();
    byId("legend").querySelector("button").focus();
  });
  root.addEventListener("change", (event) => {
    const { name, value } = event.target;
    if (name === "explorer-layout") state.layout = value;
    else if (name === "explorer-colour") {
      state.colour = value;
      state.only.clear();
    } else return;
    refresh();
  });

  function drawList() {
    const clips = byId("clips");
    if (!byId("all").open) return;
    const wanted = wordsOf(byId("words").value);
    const rows = shown().filter((i) => wanted.every((word) => has(wordsOf(data.texts[i]), word)));
    byId("listed").textContent = `${rows.length} of ${count} clips`;
    clips.replaceChildren(...rows.map((i) => html("li", {}, clipButton(i, data.texts[i]), html("small", {}, described(i)))));
  }
  const clipButton = (i, text) => html("button", { type: "button", "data-clip": i, class: "explorer-play" }, text);

  byId("all").addEventListener("toggle", drawList);
  byId("words").addEventListener("input", drawList);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-clip]");
    if (button) play(Number(button.dataset.clip));
  });

  /* Queries ------------------------------------------------------------------------------------------------------ */

  const box = byId("query");
  const list = byId("options");
  let options = []; // numbers of queries in the list
  let active = -1;

  function wordsOf(text) {
    return text.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "").match(/[\p{L}\p{N}]+/gu) || [];
  }
  const has = (words, beginning) => words.some((word) => word.startsWith(beginning));
  const queryWords = data.queries.map((query) => wordsOf(query.text));
  /* A word of many queries says little: its weight is the logarithm of how rare it is. */
  const weight = (word) => Math.log(data.queries.length / (1 + queryWords.filter((words) => has(words, word)).length));

  /* Queries with all words of the text, or else those that share the most of them, weighted. */
  function matching(text) {
    const wanted = wordsOf(text);
    const numbers = [...data.queries.keys()];
    const whole = numbers.filter((q) => wanted.every((word) => has(queryWords[q], word)));
    if (whole.length) return { found: wanted.length ? whole : samples(), complete: true };
    const weights = wanted.map((word) => [word, Math.max(0, weight(word))]);
    const score = (q) => weights.reduce((sum, [word, value]) => sum + (has(queryWords[q], word) ? value : 0), 0);
    const scored = numbers.map((q) => [q, score(q)]).filter(([, value]) => value > 0.5);
    return { found: scored.sort((a, b) => b[1] - a[1]).map(([q]) => q), complete: false };
  }

  /* To begin with: the first query of each kind, then the second. */
  function samples() {
    const kinds = [...new Set(data.queries.map((query) => query.kind))];
    const of = (kind) => [...data.queries.keys()].filter((q) => data.queries[q].kind === kind);
    return [0, 1].flatMap((turn) => kinds.map((kind) => of(kind)[turn])).filter((q) => q !== undefined);
  }

  function suggest() {
    const { found, complete } = matching(box.value);
    options = found.slice(0, SHOWN);
    active = -1;
    const typed = box.value.trim();
    const none = "No prepared query has all of these words, and this page has no encoder for new ones.";
    if (!typed) byId("said").textContent = `${data.queries.length} queries were answered beforehand. Some of them:`;
    else if (complete) byId("said").textContent = `Prepared queries with these words: ${found.length}.`;
    else if (found.length) byId("said").textContent = `${none} These share words with yours:`;
    else byId("said").textContent = `${none} None shares a word with yours, either.`;
    list.replaceChildren(
      ...options.map((q, k) => {
        const { text, kind } = data.queries[q];
        const attributes = { role: "option", id: `explorer-option-${k}`, "aria-selected": "false", "data-query": q };
        return html("li", attributes, text, html("small", {}, kind));
      }),
    );
    open(options.length > 0);
  }

  function open(yes) {
    list.hidden = !yes;
    box.setAttribute("aria-expanded", String(yes));
    if (!yes) active = -1;
    highlight();
  }

  function highlight() {
    [...list.children].forEach((item, k) => item.setAttribute("aria-selected", String(k === active)));
    if (active < 0) box.removeAttribute("aria-activedescendant");
    else {
      box.setAttribute("aria-activedescendant", `explorer-option-${active}`);
      list.children[active].scrollIntoView({ block: "nearest" });
    }
  }

  box.addEventListener("input", suggest);
  box.addEventListener("click", () => list.hidden && suggest());
  box.addEventListener("blur", () => open(false));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      if (list.hidden) suggest();
      const n = options.length + 1; // one place more: the box itself
      active = ((active + 1 + step + n) % n) - 1;
      highlight();
    } else if (event.key === "Enter") {
      const same = data.queries.findIndex((query) => wordsOf(query.text).join() === wordsOf(box.value).join());
      const chosen = active >= 0 ? options[active] : same;
      if (chosen >= 0) choose(chosen);
      else suggest();
    } else if (event.key === "Escape") {
      if (list.hidden) forget();
      else open(false);
    } else return;
    event.preventDefault();
  });
  list.addEventListener("pointerdown", (event) => event.preventDefault()); // the box keeps the focus
  list.addEventListener("click", (event) => {
    const item = event.target.closest("[data-query]");
    if (item) choose(Number(item.dataset.query));
  });
  byId("clear").addEventListener("click", () => {
    forget();
    box.focus();
  });

  function choose(q) {
    state.query = data.queries[q];
    state.layout = "search";
    state.only.clear();
    box.value = state.query.text;
    open(false);
    byId("said").textContent = verdict(state.query);
    refresh();
    select(state.query.hits[0][0]);
  }

  function forget() {
    state.query = null;
    box.value = "";
    open(false);
    byId("said").textContent = "";
    refresh();
  }

  function verdict({ kind, rank }) {
    if (!rank) return `Query: ${kind}, written freely. No clip is the right answer, so listen and judge.`;
    const guess = (count + 1) / 2;
    return `Query: ${kind}. The clip that was meant came at place ${rank} of ${count}; a guess comes at ${guess} on average.`;
  }

  function drawHits() {
    const panel = byId("hits");
    panel.hidden = !state.query;
    byId("filter").hidden = Boolean(state.query);
    root.classList.toggle("explorer-asked", Boolean(state.query));
    byId("clear").hidden = !state.query;
    if (!state.query) return;
    const best = Math.max(...state.query.hits.map(([, score]) => score));
    const rows = state.query.hits.map(([i, score]) => {
      const meter = html("span", { class: "explorer-score", style: `--part: ${Math.max(0, score / best)}` }, score.toFixed(2));
      const own = i === state.query.about ? [html("strong", {}, "the clip that was meant")] : [];
      return html("li", own.length ? { class: "explorer-own" } : {}, clipButton(i, data.texts[i]), meter, ...own);
    });
    byId("found").replaceChildren(...rows);
  }

  function drawKinds() {
    byId("kinds").replaceChildren(
      ...data.kinds.map((one) => {
        const cells = [one.n, percent(one.first / one.n), percent(one.in_hits / one.n), one.median];
        return html("tr", {}, html("th", { scope: "row" }, one.kind), ...cells.map((cell) => html("td", {}, String(cell))));
      }),
    );
    byId("size").textContent = `: all ${count} together are ${data.megabytes} MB`;
    byId("guess").textContent = `Guessing would find ${(100 / count).toFixed(1)}% first, at a median rank of ${(count + 1) / 2}.`;
  }

  /* All that depends on the state. */
  function refresh() {
    for (const name of ["layout", "colour"])
      root.querySelector(`[name="explorer-${name}"][value="${state[name]}"]`).checked = true;
    drawMap();
    drawLegend();
    drawHits();
    drawList();
  }

  player.addEventListener("error", () => {
    byId("trouble").hidden = false;
  });
  root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  root.hidden = false; // first, since drawings ask how wide they are
  refresh();
  drawKinds();
  select(0);
  byId("live").textContent = "";
  requestAnimationFrame(() => requestAnimationFrame(() => map.classList.add("explorer-moves"))); // not at first
})();
