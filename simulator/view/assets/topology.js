// Who is where, behind what, and who reaches whom at the chosen instant.

const shownPaths = { lan: true, direct: true, relay: true };
let maps = [];

// What a world is like at an instant: replayed from the beginning where time went back, and on from there otherwise.
class Moment {
  constructor(world) {
    this.world = world;
    this.reset();
  }

  reset() {
    this.at = -1;
    this.nextPath = 0;
    this.nextLife = 0;
    this.pairs = new Map();
    this.alive = this.world.hosts.map(() => false);
  }

  // Returns the pairs that changed, or null for all of them.
  go(at) {
    const back = at < this.at;
    if (back) this.reset();
    this.at = at;
    const changed = [];
    const { paths, lives, hosts } = this.world;
    for (; this.nextPath < paths.length && paths[this.nextPath][0] <= at; this.nextPath += 1) {
      const [, one, other, between] = paths[this.nextPath];
      const pair = one * hosts.length + other;
      this.pairs.set(pair, between);
      changed.push(pair);
    }
    for (; this.nextLife < lives.length && lives[this.nextLife][0] <= at; this.nextLife += 1) {
      this.alive[lives[this.nextLife][1]] = lives[this.nextLife][2];
    }
    return back ? null : changed;
  }

  counts() {
    const counts = [0, 0, 0, 0];
    let oneSided = 0;
    for (const between of this.pairs.values()) {
      counts[between % ONE_SIDED] += 1;
      oneSided += between > ONE_SIDED;
    }
    return { counts, oneSided };
  }
}

const underWay = (world, at) => world.requests.filter((each) => each.asked_at <= at && endOf(each) >= at);

// The partitions in force at an instant, in words; two that cut both ways are told as one.
function partitions(world, at) {
  const active = new Map();
  for (const each of world.happenings) {
    if (each.at > at) break;
    const [, sources, targets] = each.detail.match(/^sources (.*); targets (.*)$/) || [null, each.detail, ""];
    if (each.kind === "partition began") active.set(`${sources}|${targets}`, [sources, targets]);
    if (each.kind === "partition ended") active.delete(`${sources}|${targets}`);
  }
  const told = [];
  for (const [key, [sources, targets]] of active) {
    const back = `${targets}|${sources}`;
    if (targets && active.has(back) && back < key) continue;
    const [one, other] = [sources, targets].map((names) => shortly(names.split(", ")));
    told.push(active.has(back) ? `${one} and ${other} from each other` : `${other} from ${one}`);
  }
  return told;
}

// A world at the chosen instant, in a sentence.
function situation(world) {
  const { moment } = maps[WORLDS.indexOf(world)] || {};
  if (!moment) return "";
  const { counts, oneSided } = moment.counts();
  const up = moment.alive.filter(Boolean).length;
  const cut = partitions(world, state.t).length;
  return [
    `${up} of ${plural(world.hosts.length, "host")} up`,
    `paths: ${counts[1]} LAN, ${counts[2]} direct, ${counts[3]} relay${oneSided ? `, ${oneSided} of them one-sided` : ""}`,
    `${plural(underWay(world, state.t).length, "request")} under way`,
    cut ? `${plural(cut, "partition")} in force` : "",
  ].filter(Boolean).join("; ");
}

const hostsOf = (sites) => [...sites.values()].flat().length;

// Where one NAT has most of the hosts, it is cut in two, so that paths have room between the halves.
function halved(groups) {
  const all = groups.reduce((sum, { sites }) => sum + hostsOf(sites), 0);
  return groups.flatMap(({ box, sites }) => {
    if (sites.size < 2 || hostsOf(sites) * 5 < all * 3) return [{ box, sites }];
    const halves = [new Map(), new Map()];
    let taken = 0;
    for (const [site, hosts] of sites) {
      halves[taken * 2 >= hostsOf(sites) ? 1 : 0].set(site, hosts);
      taken += hosts.length;
    }
    return halves.filter((half) => half.size).map((half) => ({ box, sites: half }));
  });
}

class Topology {
  constructor(world, index) {
    this.world = world;
    this.moment = new Moment(world);
    this.chips = new Map();
    this.lines = new Map();
    this.ends = new Map();
    this.moves = new Map(world.happenings.filter(({ kind }) => kind === "host moved").map(({ host, at }) => [host, at]));
    this.root = el("section", { class: "topology", "aria-label": `Hosts, ${worldName(index)}` });
    if (WORLDS.length > 1) this.root.append(el("h3", { class: "world" }, worldName(index)));
    this.says = el("p", { class: "says" });
    this.drawn = svg("svg", { class: "paths", "aria-hidden": "true" });
    const shown = world.hosts.filter((host) => host.is_shown).length;
    this.board = el("div", { class: shown > 40 ? "board compact" : "board" }, this.drawn, ...this.columns());
    this.root.append(this.says, this.board);
    roving(this.board, () => [...this.board.querySelectorAll(".chip")]);
  }

  // NATs left and right, by how many lines of text they take; relays and servers between them.
  columns() {
    const groups = this.world.boxes.map((box) => ({ box, sites: new Map() }));
    const servers = [];
    this.world.hosts.forEach((host, index) => {
      if (!host.is_shown) return;
      if (host.role !== "node" && !this.world.boxes[host.box].code) servers.push(index);
      else {
        const { sites } = groups[host.box];
        const site = host.site || `\0${index}`;
        sites.set(site, [...(sites.get(site) || []), index]);
      }
    });
    const sides = [el("div", { class: "side left" }), el("div", { class: "side right" })];
    const heights = [0, 0];
    const cards = halved(groups.filter(({ sites }) => sites.size)).map(({ box, sites }) => {
      const height = 3 + hostsOf(sites) / 3 + sites.size / 4;
      return { card: this.card(box, sites), height };
    });
    for (const { card, height } of cards.sort((a, b) => b.height - a.height)) {
      const side = heights[0] <= heights[1] ? 0 : 1;
      heights[side] += height;
      sides[side].append(card);
    }
    return [sides[0], this.between(servers), sides[1]];
  }

  between(servers) {
    const chips = servers.map((index) => {
      const host = this.world.hosts[index];
      return el("div", { class: "server" }, el("span", { class: "role" }, roleWord(host)), this.chip(index));
    });
    return el("div", { class: "servers" }, el("span", { class: "internet" }, "internet"), ...chips);
  }

  card(box, sites) {
    const head = el("div", { class: "box-head" }, el("strong", {}, box.title));
    if (box.code) head.append(" ", el("code", {}, box.code));
    if (box.words) head.append(el("span", { class: "box-words" }, box.words));
    const places = [...sites].map(([site, hosts]) => {
      const isSite = !site.startsWith("\0");
      const place = el("div", { class: isSite ? "site" : "site open", title: isSite ? `site: ${site}` : null });
      if (isSite && hosts.length > 1) place.append(el("span", { class: "site-name" }, site));
      place.append(...hosts.map((host) => this.chip(host)));
      return place;
    });
    return el("div", { class: "card" }, head, el("div", { class: "sites" }, ...places));
  }

  chip(index) {
    const host = this.world.hosts[index];
    const chip = el(
      "button",
      { type: "button", class: `chip ${host.role}`, "aria-pressed": "false", tabindex: this.chips.size ? -1 : 0, title: `${host.name}: ${host.addresses.join(", ")}` },
      el("span", { class: "sign", "aria-hidden": "true" }),
      // A gateway is called after its site, which is told beside it.
      el("span", { class: "name" }, host.site && host.name.startsWith(`${host.site} `) ? host.name.slice(host.site.length + 1) : host.name),
    );
    chip.addEventListener("click", () => update({ host: state.host === host.name ? "" : host.name }));
    this.chips.set(index, chip);
    return chip;
  }

  // Where the middles of the chips are; after every change of the layout.
  measure() {
    const origin = this.board.getBoundingClientRect();
    this.ends.clear();
    for (const [index, chip] of this.chips) {
      const { left, right, top, bottom } = chip.getBoundingClientRect();
      this.ends.set(index, { x: (left + right) / 2 - origin.left, y: (top + bottom) / 2 - origin.top, left: left - origin.left, right: right - origin.left });
    }
    const relays = this.world.hosts.map((host, index) => (host.role === "relay" ? this.ends.get(index) : null)).filter(Boolean);
    const mean = (of) => relays.reduce((sum, each) => sum + of(each), 0) / relays.length;
    this.middle = relays.length ? { x: mean((each) => each.x), y: mean((each) => each.y) } : { x: origin.width / 2, y: origin.height / 2 };
    this.drawn.setAttribute("width", origin.width);
    this.drawn.setAttribute("height", origin.height);
    this.drawn.replaceChildren();
    this.lines.clear();
    for (const pair of this.moment.pairs.keys()) this.line(pair);
    this.flows();
  }

  line(pair) {
    const between = this.moment.pairs.get(pair) || 0;
    const kind = between % ONE_SIDED;
    let line = this.lines.get(pair);
    if (!kind) {
      line?.remove();
      this.lines.delete(pair);
      return;
    }
    const count = this.world.hosts.length;
    const [one, other] = [Math.floor(pair / count), pair % count];
    const [a, b] = [this.ends.get(one), this.ends.get(other)];
    if (!a || !b) return;
    if (!line) {
      line = svg("path");
      this.lines.set(pair, line);
      this.drawn.append(line);
    }
    const isChosen = state.host && [one, other].some((each) => this.world.hosts[each].name === state.host);
    const name = BETWEEN[kind].toLowerCase();
    line.setAttribute("class", `path ${name}${between > ONE_SIDED ? " one-sided" : ""}${isChosen ? " chosen" : ""}`);
    line.setAttribute("d", this.curve(a, b, kind));
  }

  // Paths through a relay lead past the relays, direct ones bow a little, and those of a LAN stay beside their hosts.
  curve(a, b, kind) {
    const to = (x, y) => `M${a.x.toFixed(1)} ${a.y.toFixed(1)}Q${x.toFixed(1)} ${y.toFixed(1)} ${b.x.toFixed(1)} ${b.y.toFixed(1)}`;
    if (kind === 3) {
      const middle = `${this.middle.x.toFixed(1)} ${this.middle.y.toFixed(1)}`;
      return `M${a.x.toFixed(1)} ${a.y.toFixed(1)}C${middle} ${middle} ${b.x.toFixed(1)} ${b.y.toFixed(1)}`;
    }
    if (kind === 1) {
      const [dx, dy] = [b.x - a.x, b.y - a.y];
      const far = Math.hypot(dx, dy) || 1;
      return to((a.x + b.x) / 2 - (dy / far) * 14, (a.y + b.y) / 2 + (dx / far) * 14);
    }
    const inward = Math.abs(a.x - b.x) < 60 ? 0.45 : 0.12;
    return to((a.x + b.x) / 2 * (1 - inward) + this.middle.x * inward, (a.y + b.y) / 2);
  }

  // Requests that are under way: a broad line from the asker to its server.
  flows() {
    this.drawn.querySelectorAll(".flow").forEach((line) => line.remove());
    const doing = new Map();
    for (const request of underWay(this.world, state.t)) {
      doing.set(request.asker, "asks");
      if (request.server >= 0 && request.server !== request.asker) doing.set(request.server, "serves");
      const [a, b] = [this.ends.get(request.asker), this.ends.get(request.server)];
      if (!a || !b || a === b) continue;
      const kind = { lan: 1, direct: 2 }[request.path] || 3;
      this.drawn.append(svg("path", { class: `flow ${request.path}`, d: this.curve(a, b, kind) }));
    }
    for (const [index, chip] of this.chips) {
      const host = this.world.hosts[index];
      const isUp = this.moment.alive[index];
      const act = doing.get(index) || (this.moves.get(host.name) > state.t ? "will move here" : "");
      chip.classList.toggle("down", !isUp);
      chip.classList.toggle("busy", doing.has(index));
      chip.querySelector(".sign").textContent = isUp ? { asks: "?", serves: "▸", "will move here": "↷" }[act] || "" : "✕";
      chip.setAttribute("aria-pressed", String(state.host === host.name));
      chip.setAttribute("aria-label", `${host.name}, ${roleWord(host)}${isUp ? "" : ", down"}${act ? `, ${act}` : ""}`);
    }
  }

  show() {
    const changed = this.moment.go(state.t);
    if (changed) new Set(changed).forEach((pair) => this.line(pair));
    else this.measure();
    this.flows();
    const cuts = partitions(this.world, state.t);
    this.says.textContent = `At ${seconds(state.t)}: ${situation(this.world)}.`;
    if (cuts.length) this.says.append(el("span", { class: "cut" }, ` Cut off: ${cuts.join("; ")}.`));
    this.crowd();
  }

  // The more lines there are, the fainter each of them.
  crowd() {
    const faint = clamp(9 / Math.sqrt(this.lines.size + 1), 0.16, 0.95);
    this.drawn.style.setProperty("--crowd", faint.toFixed(2));
    this.board.classList.toggle("has-choice", this.world.hosts.some((host) => host.name === state.host));
    for (const kind of ["lan", "direct", "relay"]) this.board.classList.toggle(`no-${kind}`, !shownPaths[kind]);
  }
}

const roleWord = (host) => (host.role === "server" && host.name.startsWith("stun") ? "STUN server" : host.role);

function sample(kind) {
  return svg("svg", { class: "sample", width: 28, height: 10, "aria-hidden": "true" }, svg("path", { class: `path ${kind}`, d: "M1 5H27" }));
}

function drawLegend() {
  const entries = [["lan", "LAN"], ["direct", "direct"], ["relay", "relay"]].map(([kind, words]) => {
    const box = el("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      shownPaths[kind] = box.checked;
      maps.forEach((map) => map.crowd());
    });
    return el("label", {}, box, sample(kind), words);
  });
  const one = el("span", {}, sample("relay one-sided"), "one-sided: the other holds it for lost");
  const signs = el("span", {}, "✕ down, ? asks, ▸ serves, ↷ is not there yet; choose a host to see its paths alone");
  byId("legend").replaceChildren(...entries, one, signs);
}

function showChosenHost() {
  maps.forEach((map) => {
    for (const pair of map.lines.keys()) map.line(pair);
    map.flows();
    map.crowd();
  });
}

function startTopology() {
  maps = WORLDS.map((world, index) => new Topology(world, index));
  byId("topologies").replaceChildren(...maps.map((map) => map.root));
  drawLegend();
  onChange(["t"], () => maps.forEach((map) => map.show()));
  onChange(["host"], showChosenHost);
}
