// Puts the parts together; what is chosen is kept in the address, so that a place in a run can be passed on.

function drawHead() {
  const names = [...new Set(WORLDS.map((world) => `${world.scenario}, seed ${world.seed}`))];
  byId("heading").textContent = names.join(" and ");
  byId("worlds").replaceChildren(...WORLDS.map((world, index) => {
    const verdict = world.checks_failed
      ? el("strong", { class: "failed" }, `✗ ${world.checks_failed} of ${plural(world.checks, "check")} failed`)
      : el("strong", { class: "passed" }, `✓ all of ${plural(world.checks, "check")} passed`);
    return el("li", {}, el("strong", {}, `${worldName(index)}: `), verdict, `, ${seconds(world.lasts, 1)}, ${plural(world.asked, "request")} `, el("code", {}, world.command));
  }));
  const left = WORLDS.flatMap((world, index) => world.left_out.map((each) => (WORLDS.length > 1 ? `${worldName(index)}: ${each}` : each)));
  byId("left-out").hidden = !left.length;
  byId("left-out").querySelector("summary").textContent = "Not everything is in this page";
  byId("left-out").querySelector("ul").replaceChildren(...left.map((each) => el("li", {}, each)));
  const made = [...new Set(WORLDS.map((world) => world.made_by))].filter(Boolean).join("; ");
  const texts = VIEW.with_texts ? "Prompts and answers are part of this page: mind whom you give it to." : "Prompts and answers are not part of this page.";
  byId("made").replaceChildren(el("p", {}, `Made by teale-sim ${made}. ${texts}`));
}

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const number = (name) => (given.has(name) && Number.isFinite(Number(given.get(name))) ? Number(given.get(name)) * 1e6 : null);
  const request = REQUESTS.some(({ key }) => key === given.get("request")) ? given.get("request") : "";
  const host = WORLDS.some((world) => world.hosts.some(({ name }) => name === given.get("host"))) ? given.get("host") : "";
  const from = clamp(number("from") ?? 0, 0, LASTS - 1);
  const to = clamp(number("to") ?? LASTS, from + 1, LASTS);
  update({ from, to, request, host });
  const at = number("t") ?? (request ? REQUESTS.find(({ key }) => key === request).at : 0);
  update({ t: clamp(at, 0, LASTS) });
}

function writeAddress() {
  if (state.playing) return;
  const parts = { t: (state.t / 1e6).toFixed(6) };
  if (state.from > 0 || state.to < LASTS) Object.assign(parts, { from: (state.from / 1e6).toFixed(6), to: (state.to / 1e6).toFixed(6) });
  if (state.request) parts.request = state.request;
  if (state.host) parts.host = state.host;
  history.replaceState(null, "", `#${new URLSearchParams(parts)}`);
}

function start() {
  document.body.classList.toggle("two", WORLDS.length > 1);
  drawHead();
  startTopology();
  startTimeline();
  startRequests();
  startSequence();
  drawTimeline();
  drawRequest();
  readAddress();
  maps.forEach((map) => map.show());
  let waiting = 0;
  onChange(["t", "from", "to", "request", "host", "playing"], () => {
    clearTimeout(waiting);
    waiting = setTimeout(writeAddress, 250);
  });
  window.addEventListener("hashchange", readAddress);
  let former = 0;
  new ResizeObserver(() => {
    if (document.body.clientWidth === former) return;
    former = document.body.clientWidth;
    drawTimeline();
    sequenceDrawings.forEach((draw) => draw());
  }).observe(document.body);
  const boards = new ResizeObserver(() => maps.forEach((map) => map.measure()));
  maps.forEach((map) => boards.observe(map.board));
  maps.forEach((map) => map.measure());
  document.body.dataset.ready = "yes";
}

start();
