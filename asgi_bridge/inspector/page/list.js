// The list of requests: rows that are kept, filters, and the choice of one.
import {byId, h, milliseconds, statusClass, timeOf} from "./elements.js";

export class List {
  /** `choose(id)` is called when a person chooses a request. */
  constructor(choose) {
    this.choose = choose;
    this.chosen = null;
    this.kept = 500;
    this.rows = new Map();
    this.element = byId("list");
    this.choices = {"by-route": new Set(), "by-plugin": new Set()};
    byId("filters").addEventListener("submit", event => event.preventDefault());
    for (const id of ["search", "by-route", "by-plugin", "by-status"]) {
      for (const event of ["input", "change"]) byId(id).addEventListener(event, () => this.filter());
    }
    this.element.addEventListener("click", event => {
      const row = event.target.closest("[role=option]");
      if (row) this.pick(Number(row.dataset.id));
    });
    this.element.addEventListener("keydown", event => {
      const step = {ArrowDown: 1, ArrowUp: -1, j: 1, k: -1}[event.key];
      if (step) { this.move(step); event.preventDefault(); }
      if (event.key === "Home") { this.move(-Infinity); event.preventDefault(); }
      if (event.key === "End") { this.move(Infinity); event.preventDefault(); }
    });
  }

  /** Replaces everything. */
  reset(requests, kept) {
    this.kept = kept;
    this.rows.clear();
    this.element.replaceChildren();
    for (const set of Object.values(this.choices)) set.clear();
    this.update(requests);
    this.options();
    this.filter();
  }

  update(requests) {
    let fresh = false;
    for (const request of requests.sort((one, other) => one.id - other.id)) {
      const row = this.rows.get(request.id);
      // a row stays the same element: a click on it may have begun
      const element = row ? row.element : h("div", {role: "option", id: "request-" + request.id, "data-id": request.id});
      if (!row) {
        if (this.rows.size && request.id < this.newest) continue;  // it was dropped
        this.element.prepend(element);
        this.newest = request.id;
      }
      this.fill(element, request);
      this.rows.set(request.id, {element, request});
      for (const [id, value] of [["by-route", request.route], ...request.plugins.map(name => ["by-plugin", name])]) {
        if (value && !this.choices[id].has(value)) { this.choices[id].add(value); fresh = true; }
      }
    }
    while (this.rows.size > this.kept) {
      const [id, row] = this.rows.entries().next().value;
      row.element.remove();
      this.rows.delete(id);
    }
    if (fresh) this.options();
    this.tell();
  }

  fill(element, request) {
    element.setAttribute("aria-selected", String(request.id === this.chosen));
    element.className = [request.fault && "fault", !request.plugins.length && "plain"].filter(Boolean).join(" ");
    element.replaceChildren(
      h("span", {class: "status " + statusClass(request.status)}, request.status === null ? "···" : String(request.status)),
      h("span", {class: "line1"}, h("b", {}, request.method), " ", request.target),
      h("span", {class: "took"}, milliseconds(request.milliseconds)),
      h("span", {class: "line2"}, request.again ? [h("i", {class: "mark"}, "sent again"), " "] : null,
        request.websocket ? [h("i", {class: "mark"}, "WebSocket"), " "] : null,
        request.route === null ? null : [h("i", {class: "tag"}, request.route), " "], request.outcome),
      h("span", {class: "time"}, timeOf(request.at)),
    );
    element.hidden = !this.fits(request);
  }

  options() {
    for (const [id, name] of [["by-route", "any route"], ["by-plugin", "any plugin"]]) {
      const select = byId(id), value = select.value;
      select.replaceChildren(h("option", {value: ""}, name),
        ...[...this.choices[id]].sort().map(each => h("option", {value: each}, each)));
      select.value = this.choices[id].has(value) ? value : "";
    }
  }

  fits(request) {
    const route = byId("by-route").value, plugin = byId("by-plugin").value, status = byId("by-status").value;
    if (route && request.route !== route) return false;
    if (plugin && !request.plugins.includes(plugin)) return false;
    if (status === "fault" ? !request.fault : status && String(request.status)[0] !== status) return false;
    const all = [request.method, request.target, request.route, request.status, request.outcome, ...request.plugins];
    const content = all.join(" ").toLowerCase();
    return byId("search").value.toLowerCase().split(/\s+/).every(word => content.includes(word));
  }

  filter() {
    for (const {element, request} of this.rows.values()) element.hidden = !this.fits(request);
    this.tell();
  }

  tell() {
    const shown = [...this.rows.values()].filter(row => !row.element.hidden).length;
    byId("nothing").textContent = shown ? ""
      : this.rows.size ? "No request fits the filter." : "No request yet. Send one to the gateway, and it shows up here.";
  }

  mark(id) {
    this.chosen = id;
    for (const [each, row] of this.rows) row.element.setAttribute("aria-selected", String(each === id));
    const row = this.rows.get(id);
    if (row) {
      this.element.setAttribute("aria-activedescendant", row.element.id);
      row.element.scrollIntoView({block: "nearest"});
    }
  }

  pick(id) {
    this.mark(id);
    this.choose(id);
  }

  move(step) {
    const shown = [...this.element.children].filter(row => !row.hidden).map(row => Number(row.dataset.id));
    if (!shown.length) return;
    const at = shown.indexOf(this.chosen);
    this.pick(shown[Math.max(0, Math.min(shown.length - 1, at < 0 ? 0 : at + step))]);
  }
}
