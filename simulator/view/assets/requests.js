// The list of requests: one row each, with both worlds beside each other where there are two.

let rows = [];

const outcomeSign = (request) => ({ finished: "✓", open: "…" }[request.outcome] || "✗");
const outcomeWord = (request) => request.outcome.replaceAll("_", " ");

function cellsOf(request) {
  if (!request) return [el("span", { class: "muted missing" }, "not there")];
  const first = request.first_at >= 0 ? lasted(request.first_at - request.asked_at) : "–";
  const whole = request.ended_at >= 0 ? lasted(request.ended_at - request.asked_at) : "–";
  const retried = request.attempts > 1 ? ` ×${request.attempts}` : "";
  return [
    el("span", { class: "path-cell" }, request.path ? sample(PATH_CLASS[request.path] || "local") : "", (request.path || "–") + retried),
    el("span", { class: "number" }, first),
    el("span", { class: "number" }, whole),
    el("span", { class: request.outcome === "finished" ? "good" : "bad", title: outcomeWord(request) }, `${outcomeSign(request)} ${request.outcome === "finished" ? "" : outcomeWord(request)}`),
  ];
}

function rowOf(entry) {
  const servers = entry.worlds.map((request, index) => request && (hostName(WORLDS[index], request.server) || "nobody"));
  const server = [...new Set(servers.filter(Boolean))].join(" | ");
  const row = el("div", { role: "option", class: "row", tabindex: -1, "aria-selected": "false" });
  row.append(el("span", { class: "number" }, seconds(entry.at)), el("span", { class: "who" }, `${entry.asker} → ${server}`));
  const words = [entry.key, server];
  entry.worlds.forEach((request, index) => {
    row.append(el("span", { class: "cells" }, ...cellsOf(request)));
    if (request) words.push(request.path, request.outcome, request.model, hostName(WORLDS[index], request.server));
  });
  const spoken = entry.worlds.map((request, index) => {
    if (!request) return `${worldName(index)}: not there`;
    const took = request.ended_at >= 0 ? ` in ${lasted(request.ended_at - request.asked_at)}` : "";
    return `${WORLDS.length > 1 ? `${worldName(index)}: ` : ""}${outcomeWord(request)}${took} over ${request.path || "no path"}`;
  });
  row.setAttribute("aria-label", `${entry.asker} asked at ${seconds(entry.at)}; ${spoken.join("; ")}`);
  row.addEventListener("click", () => choose(entry));
  return { entry, row, words: words.join(" ").toLowerCase() };
}

function choose(entry) {
  if (state.t < entry.at || state.t > entry.at + 60e6) seek(entry.at);
  update({ request: entry.key });
}

function drawRequests() {
  rows = REQUESTS.map(rowOf);
  const list = el("div", { role: "listbox", "aria-label": "Requests", class: "list" }, ...rows.map(({ row }) => row));
  const columns = () => el("span", { class: "cells" }, ...["path", "first", "whole", "end"].map((name) => el("span", {}, name)));
  const heads = el("div", { class: "row heads", "aria-hidden": "true" }, el("span", {}, "asked at"), el("span", {}, "asker → server"));
  WORLDS.forEach((_, index) => {
    const cell = columns();
    if (WORLDS.length > 1) cell.prepend(el("strong", { class: "world" }, worldName(index)));
    heads.append(cell);
  });
  const box = byId("requests");
  box.className = `requests worlds-${WORLDS.length}`;
  box.replaceChildren(heads, list);
  if (rows.length) rows[0].row.tabIndex = 0;
  else list.replaceWith(el("p", { class: "muted" }, "Nobody asked for anything."));
  roving(list, () => rows.filter(({ row }) => !row.hidden).map(({ row }) => row), {
    onMove: (to) => choose(rows.find(({ row }) => row === to).entry),
  });
  list.addEventListener("keydown", (event) => {
    const at = rows.find(({ row }) => row === document.activeElement);
    if (!at || !["Enter", " "].includes(event.key)) return;
    event.preventDefault();
    choose(at.entry);
  });
  filterRequests();
}

function filterRequests() {
  const wanted = byId("filter").value.trim().toLowerCase().split(/\s+/);
  let count = 0;
  for (const { row, words } of rows) {
    row.hidden = !wanted.every((word) => words.includes(word));
    count += !row.hidden;
  }
  const visible = rows.filter(({ row }) => !row.hidden);
  if (visible.length && !visible.some(({ row }) => row.tabIndex === 0)) visible[0].row.tabIndex = 0;
  byId("found").textContent = count === rows.length ? plural(count, "request") : `${count} of ${plural(rows.length, "request")}`;
}

function markRequest() {
  for (const { entry, row } of rows) {
    const isChosen = entry.key === state.request;
    row.setAttribute("aria-selected", String(isChosen));
    if (!isChosen) continue;
    rows.forEach((each) => { each.row.tabIndex = each.row === row ? 0 : -1; });
    // Within the list alone: the page itself stays where it is.
    const list = row.parentElement;
    if (row.offsetTop < list.scrollTop) list.scrollTop = row.offsetTop;
    const below = row.offsetTop + row.offsetHeight - list.clientHeight;
    if (below > list.scrollTop) list.scrollTop = below;
  }
}

function startRequests() {
  drawRequests();
  byId("filter").addEventListener("input", filterRequests);
  onChange(["request"], markRequest);
}
