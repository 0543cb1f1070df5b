// One request, message by message: a list of what happened, and beside it the lines of life of who took part.

const ROW = { step: 21, arrival: 6, gap: 18, head: 34 };
const FOLD = { from: 90, first: 48, last: 24 };
const unfolded = new Set();
let showsOthers = true;

const PHASES = [
  ["to the server", "from the ask until the server begins"],
  ["until its first piece", "until the server has made the first piece of the answer"],
  ["way of the first piece", "until the asker has it"],
  ["rest of the answer", "until the request has ended"],
];

// How long the parts of a request took; null for what there was not.
function phasesOf(request) {
  const [began, made] = request.marks;
  const first = request.first_at >= 0 ? request.first_at - request.asked_at : -1;
  const ended = request.ended_at >= 0 ? request.ended_at - request.asked_at : -1;
  const instants = [0, began, made, first, ended];
  return PHASES.map((_, index) => {
    const [from, to] = [instants[index], instants[index + 1]];
    return from >= 0 && to >= from ? { from, to } : null;
  });
}

function drawPhases(entry) {
  const all = entry.worlds.map((request) => (request ? phasesOf(request) : PHASES.map(() => null)));
  const longest = Math.max(1, ...all.flat().filter(Boolean).map((phase) => phase.to));
  const width = 1000;
  const bars = all.map((phases, index) => {
    const rects = phases.map((phase, number) => phase && svg("rect", {
      class: `phase p${number}`, x: (phase.from / longest) * width, y: 0, width: Math.max(1, ((phase.to - phase.from) / longest) * width), height: 14,
    }, svg("title", {}, `${PHASES[number][1]}: ${lasted(phase.to - phase.from)}`)));
    const drawn = svg("svg", { class: "phases", viewBox: `0 0 ${width} 14`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...rects.filter(Boolean));
    return el("div", { class: "phase-row" }, el("span", {}, worldName(index)), drawn);
  });
  const length = (phase) => (phase ? lasted(phase.to - phase.from) : "–");
  const body = PHASES.map(([name, words], number) => {
    const cells = all.map((phases) => length(phases[number]));
    if (all.length === 2) cells.push(difference(all[0][number], all[1][number]));
    const key = svg("svg", { class: "phases key", width: 22, height: 12, "aria-hidden": "true" }, svg("rect", { class: `phase p${number}`, width: 22, height: 12 }));
    return el("tr", {}, el("th", { scope: "row", title: words }, key, ` ${name}`), ...cells.map((cell) => el("td", { class: "number" }, cell)));
  });
  const heads = ["", ...WORLDS.map((_, index) => worldName(index)), ...(all.length === 2 ? ["difference"] : [])];
  const head = el("thead", {}, el("tr", {}, ...heads.map((each) => el("th", { scope: "col" }, each))));
  const table = el("table", { class: "phase-table" }, el("caption", { class: "away" }, "Parts of the request"), head, el("tbody", {}, ...body));
  return el("div", { class: "phase-box" }, el("div", {}, ...bars), table);
}

function difference(one, other) {
  if (!one || !other) return "–";
  const by = other.to - other.from - (one.to - one.from);
  return `${by < 0 ? "−" : "+"}${lasted(Math.abs(by))}`;
}

// Which steps are shown, with a number of missing ones where some are not.
function shownSteps(request, key) {
  const steps = request.steps.map((step, index) => ({ step, index })).filter(({ step }) => showsOthers || step[6]);
  const entries = [];
  const fold = steps.length > FOLD.from && !unfolded.has(key);
  steps.forEach((each, place) => {
    if (each.index === request.cut_at) entries.push({ cut: request.cut });
    if (fold && place === FOLD.first) entries.push({ folded: steps.length - FOLD.first - FOLD.last });
    if (!fold || place < FOLD.first || place >= steps.length - FOLD.last) entries.push(each);
  });
  return entries;
}

// Everything in the order in which it happened, each at its height: labelled rows are high, arrivals take little.
function laidOut(entries) {
  const points = [];
  entries.forEach((entry, place) => {
    if (!entry.step) {
      points.push({ at: points.length ? points[points.length - 1].at : 0, place, order: place, note: true });
      return;
    }
    const [at, , to, arrived] = entry.step;
    points.push({ at, place, order: place });
    // What arrives in the instant in which it is passed on comes before that.
    if (to >= 0 && arrived >= 0) points.push({ at: arrived, place, order: arrived > at ? -1 : place + 0.5, arrival: true });
  });
  points.sort((a, b) => a.at - b.at || a.order - b.order);
  let y = ROW.head;
  let before = null;
  for (const point of points) {
    const isWait = before && point.at - before.at > Math.max(50000, points[points.length - 1].at / 12);
    if (isWait) { point.wait = { y: y + 7 + ROW.gap / 2, length: point.at - before.at }; y += ROW.gap; }
    y += point.arrival ? ROW.arrival : ROW.step;
    const entry = entries[point.place];
    if (point.arrival) entry.arrivalY = y;
    else entry.y = y;
    before = point;
  }
  return { waits: points.map((point) => point.wait).filter(Boolean), height: y + 24 };
}

function participants(world, request, entries) {
  const seen = new Set([request.asker]);
  for (const { step } of entries) {
    if (!step) continue;
    if (step[1] >= 0) seen.add(step[1]);
    if (step[2] >= 0) seen.add(step[2]);
  }
  if (request.server >= 0) seen.add(request.server);
  const rank = (host) => (host === request.asker ? 0 : world.hosts[host].role === "relay" ? 1 : 2);
  return [...seen].sort((a, b) => rank(a) - rank(b) || a - b);
}

function hopKind(world, step) {
  const [one, other] = [world.hosts[step[1]], world.hosts[step[2]]];
  if (one.role === "relay" || other.role === "relay") return "relay";
  return one.site && one.site === other.site ? "lan" : "direct";
}

function rowFor(world, entry, key) {
  if (!entry.step) {
    const words = entry.cut ? `${plural(entry.cut, "step")} left out of this page` : `${entry.folded} steps more`;
    const row = el("li", { class: "more" });
    if (entry.cut) row.append(words);
    else {
      const button = el("button", { type: "button" }, `Show ${words}`);
      button.addEventListener("click", () => { unfolded.add(key); drawRequest(); });
      row.append(button);
    }
    return row;
  }
  const [at, host, to, arrived, size, label, isOwn] = entry.step;
  const from = hostName(world, host);
  const words = world.labels[label];
  const way = to >= 0 ? `from ${from} to ${hostName(world, to)}, ${arrived >= 0 ? `arrived at +${lasted(arrived)}` : arrived === UNTOLD ? "the trace does not tell when it arrived" : "it did not arrive"}` : from && `at ${from}`;
  const row = el("li", { class: `${to >= 0 ? "message" : "local"}${isOwn ? "" : " near"}`, title: `+${lasted(at)} ${words}${size >= 0 ? `, ${bytes(size)}` : ""} ${way}` });
  row.append(
    el("span", { class: "number" }, `+${lasted(at)}`),
    el("span", { class: "label" }, words, el("span", { class: "away" }, ` ${way}`)),
    el("span", { class: "number size" }, size >= 0 ? bytes(size) : ""),
  );
  return row;
}

function drawSequence(world, index, request, key) {
  const root = el("section", { class: "sequence", "aria-label": `Messages, ${worldName(index)}` });
  if (WORLDS.length > 1) root.append(el("h3", { class: "world" }, worldName(index)));
  if (!request) {
    root.append(el("p", { class: "muted" }, "This request is not in this world, or not in this page."));
    return root;
  }
  const took = request.ended_at >= 0 ? `, after ${lasted(request.ended_at - request.asked_at)}` : "";
  const tokens = request.tokens_out ? `; ${request.tokens_in} tokens in, ${request.tokens_out} out` : "";
  const asker = hostName(world, request.asker);
  const server = hostName(world, request.server);
  root.append(el("p", { class: "says" }, `${asker} asked at ${seconds(request.asked_at, 6)}${server ? `, ${server} ${server === asker ? "(itself) " : ""}served` : ""}${request.path ? ` over ${request.path}` : ""}: ${outcomeWord(request)}${took}${tokens}.`));
  if (request.prompt) root.append(el("details", { class: "text" }, el("summary", {}, "Prompt"), el("pre", { tabindex: 0 }, request.prompt)));
  if (request.answer) root.append(el("details", { class: "text" }, el("summary", {}, "Answer"), el("pre", { tabindex: 0 }, request.answer)));
  const entries = shownSteps(request, `${index} ${key}`);
  const { waits, height } = laidOut(entries);
  const hosts = participants(world, request, entries);
  const lives = el("div", { class: "lives" });
  const list = el("ol", { class: "steps" }, ...entries.map((entry) => {
    const row = rowFor(world, entry, `${index} ${key}`);
    row.style.setProperty("top", `${entry.y - 14}px`);
    return row;
  }));
  for (const { y, length } of waits) {
    const wait = el("li", { class: "wait" }, `${lasted(length)} later`);
    wait.style.setProperty("top", `${y}px`);
    list.append(wait);
  }
  const diagram = el("div", { class: "diagram", tabindex: 0, role: "region", "aria-label": `Messages in order, ${worldName(index)}` }, list, lives);
  diagram.firstChild.style.setProperty("height", `${height}px`);
  root.append(diagram);
  sequenceDrawings.push(() => {
    lives.replaceChildren(drawLives(world, request, entries, hosts, waits, { width: Math.min(lives.clientWidth, 280 * hosts.length), height }));
  });
  return root;
}

let sequenceDrawings = [];

function drawLives(world, request, entries, hosts, waits, { width, height }) {
  const inset = Math.min(46, width / (2 * hosts.length));
  const gap = hosts.length > 1 ? (width - 2 * inset) / (hosts.length - 1) : 0;
  const x = (host) => (hosts.length > 1 ? inset + hosts.indexOf(host) * gap : width / 2);
  const drawn = svg("svg", { width, height, "aria-hidden": "true" });
  for (const host of hosts) {
    const { name, role } = world.hosts[host];
    const isTight = gap < 80 && hosts.length > 1;
    const room = Math.max(4, Math.floor((hosts.length > 1 ? gap : width) / (isTight ? 5.8 : 7.2)));
    const shown = name.length > room ? `${name.slice(0, room - 1)}…` : name;
    const part = host === request.asker ? (host === request.server ? "asks itself" : "asks") : role === "node" ? "serves" : role;
    drawn.append(
      svg("line", { class: "life", x1: x(host), x2: x(host), y1: ROW.head + 4, y2: height - 8 }),
      svg("text", { class: isTight ? "life-name tight" : "life-name", x: x(host), y: 14, "text-anchor": "middle" }, svg("title", {}, name), shown),
      svg("text", { class: "life-part", x: x(host), y: 27, "text-anchor": "middle" }, part),
    );
  }
  for (const { y } of waits) drawn.append(svg("line", { class: "wait", x1: 0, x2: width, y1: y, y2: y }));
  for (const entry of entries) {
    if (entry.step) drawn.append(...drawStep(world, entry, x, width));
  }
  return drawn;
}

function drawStep(world, { step, y, arrivalY }, x, width) {
  const [, host, to, arrived, , label, isOwn] = step;
  const near = isOwn ? "" : " near";
  if (host < 0 || (to < 0 && familyOf(world.labels[label]) !== "other" && !/^[A-Z]/.test(world.labels[label]))) {
    return [svg("line", { class: "befell", x1: 0, x2: width, y1: y - 4, y2: y - 4 })];
  }
  if (to < 0) return [svg("circle", { class: `dot${near}`, cx: x(host), cy: y - 4, r: 3.5 })];
  const kind = hopKind(world, step);
  const [from, until] = [x(host), x(to)];
  const start = y - 4;
  if (arrived === UNTOLD) return [svg("line", { class: `hop untold ${kind}${near}`, x1: from, x2: until, y1: start, y2: start })];
  if (arrived < 0) {
    const half = (from + until) / 2;
    return [
      svg("line", { class: `hop ${kind}${near}`, x1: from, x2: half, y1: start, y2: start }),
      svg("path", { class: "lost", d: `M${half - 4} ${start - 4}l8 8m0-8l-8 8` }),
    ];
  }
  const end = arrivalY - 4;
  const turn = (Math.atan2(end - start, until - from) * 180) / Math.PI;
  return [
    svg("line", { class: `hop ${kind}${near}`, x1: from, x2: until, y1: start, y2: end }),
    svg("path", { class: `head ${kind}${near}`, d: "M0 0L-7-3.2V3.2Z", transform: `translate(${until} ${end}) rotate(${turn.toFixed(1)})` }),
  ];
}

function drawRequest() {
  const entry = REQUESTS.find(({ key }) => key === state.request);
  const box = byId("request");
  sequenceDrawings = [];
  if (!entry) {
    byId("request-title").textContent = "No request chosen";
    box.replaceChildren(el("p", { class: "muted" }, "Choose one in the list, or a bar of the timeline, to see its messages."));
    return;
  }
  byId("request-title").textContent = `Request ${entry.key}`;
  const others = el("input", { type: "checkbox", checked: showsOthers });
  others.addEventListener("change", () => {
    showsOthers = others.checked;
    drawRequest();
    byId("request").querySelector("input").focus();
  });
  const legend = el(
    "div",
    { class: "legend" },
    el("label", {}, others, sample("near"), "also what cannot be told to be of this request: it went between the same hosts, and nobody can read it"),
    el("span", {}, "✕ did not arrive. Times count from the ask. Sizes are of what was given to the connection."),
  );
  const sequences = entry.worlds.map((request, index) => drawSequence(WORLDS[index], index, request, entry.key));
  box.replaceChildren(drawPhases(entry), legend, el("div", { class: `sequences worlds-${WORLDS.length}` }, ...sequences));
  sequenceDrawings.forEach((draw) => draw());
}

function startSequence() {
  onChange(["request"], drawRequest);
}
