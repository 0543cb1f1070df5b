// What all parts of the page share: the data, the state that they show, and small tools.
// Whatever comes from a run is put into the page as text only.

const VIEW = JSON.parse(document.getElementById("data").textContent);
const WORLDS = VIEW.worlds;
const LASTS = Math.max(1, ...WORLDS.map((world) => world.lasts));
const BETWEEN = ["nothing", "LAN", "direct", "relay"];
const ONE_SIDED = 4;
const UNTOLD = -2;
const PATH_CLASS = { local: "local", lan: "lan", direct: "direct", relay: "relay" };

// An element; `attributes` are set one by one, and children are elements or texts.
function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

// The first place in a sorted array whose element is beyond `at`.
function beyond(sorted, at, of = (each) => each) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (of(sorted[middle]) <= at) low = middle + 1;
    else high = middle;
  }
  return low;
}

function seconds(at, digits = 3) {
  return `${(at / 1e6).toFixed(digits)} s`;
}

function lasted(duration) {
  if (!duration) return "0";
  if (duration < 1e3) return `${duration} µs`;
  if (duration < 1e6) return `${(duration / 1e3).toFixed(duration < 1e5 ? 1 : 0)} ms`;
  return `${(duration / 1e6).toFixed(2)} s`;
}

function bytes(size) {
  return size < 10000 ? `${size} B` : `${(size / 1000).toFixed(1)} kB`;
}

const hostName = (world, host) => (host >= 0 ? world.hosts[host].name : "");
const worldName = (index) => {
  const { label } = WORLDS[index];
  const same = WORLDS.filter((world) => world.label === label).length > 1;
  return same ? `${label} ${index + 1}` : label;
};

// The state, and who wants to know of changes to it.
const state = { t: 0, from: 0, to: LASTS, request: "", host: "", playing: false };
const listeners = [];

function onChange(keys, listener) {
  listeners.push({ keys, listener });
}

function update(patch) {
  const changed = Object.keys(patch).filter((key) => state[key] !== patch[key]);
  if (!changed.length) return;
  Object.assign(state, patch);
  for (const { keys, listener } of listeners) {
    if (keys.some((key) => changed.includes(key))) listener(changed);
  }
}

// The requests of all worlds, those with the same asker and order beside each other.
const REQUESTS = (() => {
  const found = new Map();
  WORLDS.forEach((world, index) => {
    for (const request of world.requests) {
      const asker = hostName(world, request.asker);
      const key = `${asker}/${request.nth + 1}`;
      if (!found.has(key)) found.set(key, { key, asker, at: request.asked_at, worlds: WORLDS.map(() => null) });
      found.get(key).worlds[index] = request;
    }
  });
  return [...found.values()].sort((a, b) => a.at - b.at);
})();

// What was done to the worlds, with what kind of thing it was.
const FAMILIES = [
  ["crashed", "crash"], ["stopped", "stop"], ["restarted", "start"], ["nat", "nat"], ["partition", "partition"],
  ["weather", "weather"], ["slowed", "slow"], ["moved", "move"],
];
const familyOf = (kind) => (FAMILIES.find(([word]) => kind.includes(word)) || ["", "other"])[1];
const told = (each) => `${each.host} ${each.kind}`.trim() + (each.detail ? `: ${each.detail}` : "");

// "office-0, office-1, office-2" as "office-0 to office-2": names that count on are told by the first and the last.
function shortly(names) {
  const runs = [];
  for (const name of names) {
    const [, stem, number] = name.match(/^(.*?)(\d{1,9})$/) || [null, name, ""];
    const run = runs[runs.length - 1];
    if (run && number && run.stem === stem && run.last + 1 === Number(number)) Object.assign(run, { last: Number(number), to: name });
    else runs.push({ stem, last: number ? Number(number) : NaN, from: name, to: name });
  }
  return runs.map(({ from, to }) => (from === to ? from : `${from} to ${to}`)).join(", ");
}

// Arrow keys move the focus among the children of `box`, of which one is in the tab order.
function roving(box, items, { onMove = () => {} } = {}) {
  const focus = (index) => {
    const all = items();
    if (!all.length) return;
    const to = all[clamp(index, 0, all.length - 1)];
    all.forEach((item) => { item.tabIndex = item === to ? 0 : -1; });
    to.focus();
    onMove(to);
  };
  box.addEventListener("keydown", (event) => {
    const all = items();
    const at = all.indexOf(document.activeElement);
    if (at < 0) return;
    const page = 10;
    const moves = {
      ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1,
      PageDown: at + page, PageUp: at - page, Home: 0, End: all.length - 1,
    };
    if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    focus(moves[event.key]);
  });
}
