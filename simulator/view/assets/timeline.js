// Time: the slider, playing, stepping and zooming, and the lanes of each world over one common clock.

const LANE = { faults: 26, bar: 9, rows: 10, paths: 58 };
const ZOOM_LEAST = 20000;
const slider = byId("time");
let shownLanes = [];

const scale = (at, width) => ((at - state.from) / (state.to - state.from)) * width;

// Where stepping stops.
function stopsOf(what) {
  const stops = [];
  WORLDS.forEach((world, index) => {
    const where = WORLDS.length > 1 ? `${worldName(index)}: ` : "";
    if (what.includes("faults")) {
      for (const each of world.happenings) stops.push([each.at, where + told(each)]);
    }
    if (what.includes("requests")) {
      for (const each of world.requests) {
        const asker = hostName(world, each.asker);
        stops.push([each.asked_at, `${where}${asker} asks for ${each.model}`]);
        if (each.ended_at >= 0) stops.push([each.ended_at, `${where}request of ${asker}: ${each.outcome}`]);
      }
    }
    if (what.includes("paths")) {
      for (const [at, one, other, between] of world.paths) {
        stops.push([at, `${where}${hostName(world, one)} and ${hostName(world, other)}: ${pathWords(between)}`]);
      }
    }
  });
  return stops.sort((a, b) => a[0] - b[0]);
}

function pathWords(between) {
  const kind = between % ONE_SIDED;
  if (!kind) return "no path";
  return BETWEEN[kind] + (between >= ONE_SIDED ? ", as one of them sees it" : "");
}

let stops = [];
function chooseStops() {
  stops = stopsOf(byId("stops").value);
}

function step(direction) {
  const at = direction > 0
    ? beyond(stops, Math.round(state.t), (stop) => stop[0])
    : beyond(stops, Math.round(state.t) - 1, (stop) => stop[0]) - 1;
  const stop = stops[at];
  if (!stop) {
    byId("stop").textContent = direction > 0 ? "Nothing comes after this." : "Nothing came before this.";
    return;
  }
  seek(stop[0], { playing: false });
  // What happens in the same instant is told together.
  const together = stops.filter((each) => each[0] === stop[0]).map((each) => each[1]);
  const more = together.length > 3 ? `; and ${together.length - 3} more` : "";
  byId("stop").textContent = `${seconds(stop[0])}: ${together.slice(0, 3).join("; ")}${more}`;
}

// Go to an instant; the window follows where it is outside.
function seek(t, more = {}) {
  const at = clamp(t, 0, LASTS);
  const width = state.to - state.from;
  let { from } = state;
  if (at < from || at > state.to) from = clamp(at - width / 4, 0, LASTS - width);
  update({ t: at, from, to: from + width, ...more });
}

function zoom(factor) {
  const width = clamp((state.to - state.from) * factor, Math.min(ZOOM_LEAST, LASTS), LASTS);
  const share = (state.t - state.from) / (state.to - state.from);
  const from = clamp(state.t - share * width, 0, LASTS - width);
  update({ from, to: from + width });
}

let last = 0;
function frame(now) {
  if (!state.playing) return;
  const passed = last ? Math.min(now - last, 200) : 0;
  last = now;
  const t = state.t + passed * 1000 * Number(byId("speed").value);
  seek(t, t >= LASTS ? { playing: false } : {});
  if (state.playing) requestAnimationFrame(frame);
}

function togglePlay() {
  if (!state.playing && state.t >= LASTS) seek(0);
  update({ playing: !state.playing });
}

// The lanes of one world.
function drawLanes(world, index, width) {
  const rows = packed(world.requests);
  const height = Math.max(2, Math.min(LANE.rows, rows.count)) * LANE.bar + 4;
  const lanes = [
    lane("Faults", LANE.faults, width, faultMarks(world, width)),
    lane("Requests", height, width, requestBars(world, rows, width)),
    lane("Paths", LANE.paths, width, pathLines(world, width)),
  ];
  const box = el("div", { class: "lanes" });
  if (WORLDS.length > 1) box.append(el("h3", { class: "world" }, worldName(index)));
  for (const { label, drawn } of lanes) box.append(el("span", { class: "lane-name" }, label), drawn);
  return box;
}

function lane(label, height, width, content) {
  const head = svg("line", { class: "playhead", y1: 0, y2: height });
  const drawn = svg(
    "svg",
    { class: "lane", width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    ...content,
    head,
  );
  shownLanes.push({ head, width });
  let dragging = false;
  const to = (event) => seek(state.from + ((event.clientX - drawn.getBoundingClientRect().left) / width) * (state.to - state.from));
  drawn.addEventListener("pointerdown", (event) => {
    if (event.target.dataset.request) return;
    dragging = true;
    drawn.setPointerCapture(event.pointerId);
    to(event);
  });
  drawn.addEventListener("pointermove", (event) => dragging && to(event));
  drawn.addEventListener("pointerup", () => { dragging = false; });
  return { label, drawn };
}

const MARKS = {
  crash: "M-4-4L4 4M4-4L-4 4", stop: "M-4-4H4V4H-4Z", start: "M0-5L5 4H-5Z", nat: "M0-6L6 0L0 6L-6 0Z",
  partition: "M-5-5V5M5-5V5", weather: "M-6 2Q-3-6 0 0T6-2", slow: "M0-5A5 5 0 1 0 .1-5M0-3V0H3",
  move: "M-6 0H5M1-4L5 0L1 4", other: "M-3 0A3 3 0 1 0 3 0A3 3 0 1 0-3 0Z",
};

function mark(family, x, y, title) {
  return svg("path", { class: `mark ${family}`, d: MARKS[family], transform: `translate(${x} ${y})` }, svg("title", {}, title));
}

function faultMarks(world, width) {
  const drawn = [];
  const began = new Map();
  const middle = LANE.faults / 2;
  const span = (from, to, title) => drawn.unshift(svg(
    "rect",
    { class: "span", x: scale(from, width), y: 3, width: Math.max(2, scale(to, width) - scale(from, width)), height: LANE.faults - 6 },
    svg("title", {}, title),
  ));
  for (const each of world.happenings) {
    if (each.kind === "partition began") began.set(each.detail, each);
    if (each.kind === "partition ended" && began.has(each.detail)) {
      span(began.get(each.detail).at, each.at, `partition: ${each.detail}`);
      began.delete(each.detail);
    }
    if (each.at < state.from || each.at > state.to) continue;
    drawn.push(mark(familyOf(each.kind), scale(each.at, width), middle, `${seconds(each.at)} ${told(each)}`));
  }
  for (const each of began.values()) span(each.at, LASTS, `partition, to the end: ${each.detail}`);
  return drawn;
}

// Which row each request's bar is in, so that no two overlap while there is room.
function packed(requests) {
  const free = [];
  const least = (state.to - state.from) / 250;
  const rows = requests.map((request) => {
    const end = Math.max(endOf(request), request.asked_at + least);
    let row = free.findIndex((until) => until <= request.asked_at);
    if (row < 0) row = free.length < LANE.rows ? free.length : free.indexOf(Math.min(...free));
    free[row] = end;
    return row;
  });
  return { rows, count: free.length };
}

const endOf = (request) => (request.ended_at >= 0 ? request.ended_at : LASTS);

function requestBars(world, { rows }, width) {
  const drawn = [];
  world.requests.forEach((request, index) => {
    const end = endOf(request);
    if (end < state.from || request.asked_at > state.to) return;
    const x = scale(request.asked_at, width);
    const size = Math.max(3, scale(end, width) - x);
    const y = 2 + rows[index] * LANE.bar;
    const key = `${hostName(world, request.asker)}/${request.nth + 1}`;
    const failed = request.outcome !== "finished";
    const kind = failed ? "failed" : PATH_CLASS[request.path] || "local";
    const title = `${seconds(request.asked_at)} ${key}: ${request.outcome}, ${request.path || "nowhere"}, ${lasted(end - request.asked_at)}`;
    const bar = svg("rect", { class: `bar ${kind}${key === state.request ? " chosen" : ""}`, x, y, width: size, height: LANE.bar - 2, "data-request": key }, svg("title", {}, title));
    bar.addEventListener("click", () => { update({ request: key }); seek(request.asked_at); });
    drawn.push(bar);
    if (failed) drawn.push(svg("path", { class: "bar-end", d: `M${x + size} ${y - 1}l4 7m0-7l-4 7` }));
  });
  return drawn;
}

// How many pairs reach each other over each kind of path, from instant to instant.
function pathLines(world, width) {
  const counts = [0, 0, 0, 0];
  const now = new Map();
  const series = [[], [[0, 0]], [[0, 0]], [[0, 0]]];
  let top = 1;
  for (const [at, one, other, between] of world.paths) {
    const pair = one * world.hosts.length + other;
    const before = (now.get(pair) || 0) % ONE_SIDED;
    const after = between % ONE_SIDED;
    now.set(pair, between);
    if (before === after) continue;
    for (const [kind, by] of [[before, -1], [after, 1]]) {
      if (!kind) continue;
      counts[kind] += by;
      series[kind].push([at, counts[kind]]);
    }
    top = Math.max(top, ...counts);
  }
  const height = LANE.paths - 12;
  const y = (count) => 8 + height - (count / top) * height;
  const drawn = [
    svg("line", { class: "grid", x1: 0, x2: width, y1: y(0), y2: y(0) }),
    svg("text", { class: "tick", x: 2, y: 9 }, String(top)),
  ];
  for (const kind of [3, 2, 1]) {
    const points = series[kind];
    if (points.length < 2) continue;
    let d = "";
    let former = "";
    for (const [at, count] of points) {
      const x = clamp(scale(at, width), -5, width + 5).toFixed(1);
      if (`${x} ${count}` === former) continue;
      former = `${x} ${count}`;
      d += d ? `H${x}V${y(count).toFixed(1)}` : `M${x} ${y(count).toFixed(1)}`;
    }
    drawn.push(svg("path", { class: `line ${BETWEEN[kind].toLowerCase()}`, d: `${d}H${clamp(scale(world.lasts, width), -5, width + 5)}` }));
  }
  return drawn;
}

function drawAxis(width) {
  const rough = (state.to - state.from) / Math.max(4, width / 110);
  const base = 10 ** Math.floor(Math.log10(rough));
  const between = [1, 2, 5, 10].map((each) => each * base).find((each) => each >= rough);
  const digits = clamp(Math.ceil(-Math.log10(between / 1e6)), 0, 6);
  const drawn = [];
  for (let at = Math.ceil(state.from / between) * between; at <= state.to; at += between) {
    const x = scale(at, width);
    const anchor = x < 20 ? "start" : x > width - 24 ? "end" : "middle";
    drawn.push(svg("line", { class: "grid", x1: x, x2: x, y1: 0, y2: 5 }));
    drawn.push(svg("text", { class: "tick", x, y: 16, "text-anchor": anchor }, `${(at / 1e6).toFixed(digits)} s`));
  }
  return svg("svg", { class: "lane axis", width, height: 20, "aria-hidden": "true" }, ...drawn);
}

function drawTimeline() {
  const box = byId("lanes");
  const width = Math.max(300, Math.floor(box.clientWidth - 84));
  shownLanes = [];
  const axis = el("div", { class: "lanes" }, el("span"), drawAxis(width));
  box.replaceChildren(axis, ...WORLDS.map((world, index) => drawLanes(world, index, width)));
  slider.min = state.from;
  slider.max = state.to;
  moveHead();
}

function moveHead() {
  slider.value = state.t;
  for (const { head, width } of shownLanes) {
    const x = scale(state.t, width);
    head.setAttribute("x1", x);
    head.setAttribute("x2", x);
  }
  byId("clock").textContent = seconds(state.t);
  slider.setAttribute("aria-valuetext", WORLDS.map((world, index) => `${seconds(state.t)}, ${worldName(index)}: ${situation(world)}`).join("; "));
}

function listFaults() {
  const all = WORLDS.flatMap((world, index) => world.happenings.map((each) => ({ ...each, world: worldName(index) })));
  all.sort((a, b) => a.at - b.at);
  const box = byId("happened");
  box.querySelector("summary").textContent = all.length ? `${plural(all.length, "fault")} as a list` : "Nothing was done to the world";
  const heads = ["at", ...(WORLDS.length > 1 ? ["world"] : []), "whom", "what", "detail"];
  const rows = all.map((each) => {
    const button = el("button", { type: "button", class: "link" }, seconds(each.at));
    button.addEventListener("click", () => seek(each.at, { playing: false }));
    const cells = [button, ...(WORLDS.length > 1 ? [each.world] : []), each.host, each.kind, each.detail];
    return el("tr", {}, ...cells.map((cell) => el("td", {}, cell)));
  });
  const head = el("thead", {}, el("tr", {}, ...heads.map((each) => el("th", { scope: "col" }, each))));
  box.querySelector("div").replaceChildren(el("table", {}, head, el("tbody", {}, ...rows)));
  box.hidden = false;
}

function startTimeline() {
  const speed = byId("speed");
  const wanted = LASTS / 1e6 / 40;
  const speeds = [...speed.options].map((option) => Number(option.value));
  speed.value = String(speeds.reduce((best, each) => (Math.abs(Math.log(each / wanted)) < Math.abs(Math.log(best / wanted)) ? each : best)));
  speed.selectedIndex = speeds.indexOf(Number(speed.value));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("play").addEventListener("click", togglePlay);
  byId("stops").addEventListener("change", chooseStops);
  byId("zoom-in").addEventListener("click", () => zoom(0.5));
  byId("zoom-out").addEventListener("click", () => zoom(2));
  byId("zoom-all").addEventListener("click", () => update({ from: 0, to: LASTS }));
  slider.addEventListener("input", () => update({ t: Number(slider.value) }));
  slider.addEventListener("keydown", (event) => {
    const span = state.to - state.from;
    const moves = { ArrowRight: 1 / 400, ArrowUp: 1 / 400, ArrowLeft: -1 / 400, ArrowDown: -1 / 400, PageUp: 1 / 20, PageDown: -1 / 20 };
    if (event.key in moves) seek(state.t + moves[event.key] * span);
    else if (event.key === "Home") seek(0);
    else if (event.key === "End") seek(LASTS);
    else return;
    event.preventDefault();
  });
  byId("deck").addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.tagName === "SELECT") return;
    const acts = { ",": () => step(-1), ".": () => step(1), "+": () => zoom(0.5), "-": () => zoom(2), 0: () => update({ from: 0, to: LASTS }) };
    if (event.target === slider) acts[" "] = togglePlay;
    if (!(event.key in acts)) return;
    event.preventDefault();
    acts[event.key]();
  });
  onChange(["playing"], () => {
    byId("play-sign").textContent = state.playing ? "⏸" : "▶";
    byId("play-word").textContent = state.playing ? "Pause" : "Play";
    if (!state.playing) return;
    last = 0;
    requestAnimationFrame(frame);
  });
  onChange(["from", "to", "request"], drawTimeline);
  onChange(["t"], moveHead);
  chooseStops();
  listFaults();
}
