// The page: keeps the list and the chosen request up to date, and listens to keys.
import {byId, bytes, h, whole} from "./elements.js";
import {List} from "./list.js";
import {detailView} from "./detail.js";
import {copied, edit, keys, post} from "./edit.js";

const place = byId("detail");
let detail = null, tab = "Plugins", asking = 0, paused = false, connected = false;

const list = new List(id => { location.hash = String(id); });

async function load(id) {
  const mine = ++asking;
  const answer = await fetch(`requests/${id}`);
  const found = answer.ok ? await answer.json() : null;
  if (mine !== asking) return;  // a person has chosen another one meanwhile
  detail = found;
  if (detail) render();
  else place.replaceChildren(h("p", {class: "quiet empty"}, await answer.text()));
}

function render() {
  const at = place.scrollTop;
  place.replaceChildren(...detailView(detail, act, tab, name => { tab = name; }));
  place.scrollTop = at;
  document.body.dataset.shown = detail.id;
}

function close() {
  detail = null;
  asking += 1;
  delete document.body.dataset.shown;
  history.replaceState(null, "", location.pathname);
  document.body.classList.remove("chosen");
  list.mark(null);
  empty();
  list.element.focus();
}

function empty() {
  place.replaceChildren(h("div", {class: "empty"}, h("p", {}, "Choose a request to see its way through the plugins."),
    h("p", {class: "quiet"}, "Keys: ↑ ↓ choose, / filters, ? shows all.")));
}

async function attempt(what) {
  try {
    await what();
  } catch (error) {
    byId("failed").textContent = error.message;
  }
}

const go = id => { location.hash = String(id); };
const act = {
  back: close,
  show: index => {
    render();
    const step = byId("step-" + index);
    step.scrollIntoView({block: "start"});
    step.focus({preventScroll: true});
  },
  send: () => attempt(async () => go((await post(`requests/${detail.id}/send`, {})).id)),
  edit: () => edit(detail, go),
  curl: () => copied("As curl", `requests/${detail.id}/curl`),
  test: () => copied("As a test, to stand beside the plugins", `requests/${detail.id}/test`),
};

function chosenByHash() {
  const id = Number(location.hash.slice(1));
  if (!id) return;
  if (!detail || detail.id !== id) place.scrollTop = 0;
  document.body.classList.add("chosen");
  list.mark(id);
  load(id);
}

const pause = () => post("pause", !paused);

/** Shows whether the page is told of requests, and whether they are kept. */
function live(now, isPaused) {
  [connected, paused] = [now, isPaused];
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
  byId("live").textContent = !connected ? "dev does not answer" : paused ? "paused: requests are not kept" : "live";
  byId("live").className = !connected ? "alarm" : paused ? "paused" : "good";
}

async function start() {
  const state = await (await fetch("state")).json();
  byId("gateway").textContent = byId("gateway").href = state.gateway;
  byId("total").textContent = whole(state.total);
  byId("bounds").textContent = `Kept in memory: the last ${whole(state.kept)} requests, at most `
    + `${whole(state.kept_bytes / 1048576)} MiB; of each body the first ${bytes(state.body_limit)}.`
    + (state.told ? "" : " This runner was started by hand, so what each plugin did is not known.");
  list.reset(state.requests, state.kept);
  chosenByHash();
  live(true, state.paused);
}

function listen() {
  const events = new EventSource("events");
  events.onopen = start;
  events.onerror = () => live(false, paused);
  events.onmessage = event => {
    const news = JSON.parse(event.data);
    byId("total").textContent = whole(news.total);
    if (news.paused !== paused) live(true, news.paused);
    list.update(news.requests);
    const own = news.requests.find(each => each.id === list.chosen);
    if (own) load(own.id);
  };
}

addEventListener("hashchange", chosenByHash);
byId("pause").addEventListener("click", pause);
byId("keys").addEventListener("click", keys);
byId("clear").addEventListener("click", async () => {
  await post("clear", {});
  close();
  start();
});
addEventListener("keydown", event => {
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "Escape" && !byId("dialog").open) {
    if (typing) list.element.focus();
    else close();
    return;
  }
  if (typing || byId("dialog").open || event.ctrlKey || event.metaKey || event.altKey) return;
  const does = {
    "/": () => byId("search").focus(), "?": keys, p: pause,
    s: () => detail && act.send(), e: () => detail && act.edit(),
    c: () => detail && act.curl(), t: () => detail && act.test(),
    ArrowDown: () => list.move(1), ArrowUp: () => list.move(-1), j: () => list.move(1), k: () => list.move(-1),
  }[event.key];
  const inside = event.target.closest("#list, #detail-panel, [role=tablist]");
  if (!does || (inside && event.key.startsWith("Arrow")) || (event.target.closest("#list") && "jk".includes(event.key))) return;
  does();
  event.preventDefault();
});

empty();
listen();
