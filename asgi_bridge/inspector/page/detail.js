// One request: its way through the plugins, and all that is known of it.
import {bytes, h, milliseconds, statusClass, tabs} from "./elements.js";
import {bodyChange, bodyView, lineOf, textOf} from "./bodies.js";

const SIGNS = {passed: "✓", changed: "✎", answered: "↩", failed: "✕", waits: "…", running: "…", skipped: "", unknown: "?"};

/** Makes the view of a request. `act` has what its buttons do; `tab` is the chosen one, `choose(tab)` tells another. */
export function detailView(detail, act, tab, choose) {
  const faults = detail.lanes.flatMap(lane => lane.steps).filter(step => step.fault);
  const alarm = faults.length > 0 || detail.lines.some(line => line.level === "error");
  const steps = detail.lanes.reduce((sum, lane) => sum + lane.steps.length, 0);
  return [
    h("div", {class: "head"},
      h("button", {type: "button", class: "back", onclick: act.back}, "‹ Requests"),
      h("h2", {}, h("span", {class: "status " + statusClass(detail.status)}, detail.status === null ? "···" : String(detail.status)),
        h("b", {}, detail.method), " ", h("span", {class: "target"}, detail.target)),
      h("p", {class: "facts"}, facts(detail)),
      h("div", {class: "actions", role: "group", "aria-label": "With this request"},
        h("button", {type: "button", class: "main", id: "send", onclick: act.send, title: "s"}, "Send again"),
        h("button", {type: "button", id: "edit", onclick: act.edit, title: "e"}, "Edit and send"),
        h("button", {type: "button", id: "curl", onclick: act.curl, title: "c"}, "Copy as curl"),
        h("button", {type: "button", id: "test", onclick: act.test, title: "t"}, "Copy as test")),
      h("p", {role: "alert", class: "alarm", id: "failed"})),
    way(detail, index => { choose("Plugins"); act.show(index); }),
    tabs("detail", [
      {name: "Plugins", count: steps, view: () => plugins(detail)},
      {name: "Client", view: () => client(detail)},
      {name: "Upstream", count: detail.upstreams.length, view: () => upstreams(detail)},
      {name: "Output", count: detail.lines.length, alarm, view: () => output(detail, faults)},
      {name: "Asked", count: detail.asked.length, view: () => asked(detail)},
      {name: "Frames", count: detail.frames.length, view: () => frames(detail)},
    ], tab, choose),
  ];
}

function facts(detail) {
  const found = [h("span", {class: detail.fault && "alarm"}, detail.outcome)];
  if (detail.about.route) found.push("route " + detail.about.route);
  if (detail.milliseconds !== null) found.push(milliseconds(detail.milliseconds));
  if (detail.about.own && detail.about.own.length) found.push("APISIX's own: " + detail.about.own.join(", "));
  if (detail.again) found.push("sent again, as request " + detail.again);
  if (detail.websocket) found.push("WebSocket handshake: the stand-in does not proxy WebSockets, so it goes upstream as a plain request");
  return found.flatMap((part, index) => index ? [h("span", {class: "dot"}, " · "), part] : [part]);
}

// --- the way ---------------------------------------------------------------------------------------------------------

/** The picture: client → plugin → plugin → upstream, and back. */
function way(detail, show) {
  const requests = detail.lanes.filter(lane => lane.phase === "request");
  const responses = detail.lanes.filter(lane => lane.phase === "response");
  let number = 0;
  const stepsOf = lanes => lanes.flatMap(lane => lane.steps.map(step => ({step, lane})));
  const longest = Math.max(0.001, ...stepsOf(detail.lanes).map(({step}) => step.milliseconds || 0),
    ...detail.upstreams.map(each => each.milliseconds || 0));
  const nodes = lanes => stepsOf(lanes).map(({step, lane}) => {
    const index = number++;
    return node(step, lane, longest, () => show(index));
  });
  const there = nodes(requests), back = nodes(responses);
  const last = detail.upstreams[detail.upstreams.length - 1];
  const reached = Boolean(last);
  const end = h("div", {class: ["end", !reached && "skipped"]}, h("b", {}, "Upstream"),
    h("span", {}, !reached ? "not reached" : last.error ? "failed" : !last.response ? "no answer"
      : `answered ${last.response.status}`),
    h("span", {class: "ms"}, reached ? milliseconds(last.milliseconds) : ""),
    reached ? bar(last.milliseconds, longest) : null);
  const clientEnd = h("div", {class: "end"}, h("b", {}, "Client"),
    h("span", {}, `${detail.method} request`));
  const answered = h("div", {class: "end"}, h("b", {}, "Client"),
    h("span", {class: "got"}, detail.status === null ? "no answer" : `got ${detail.status}`),
    h("span", {class: "ms"}, milliseconds(detail.milliseconds)));
  const failures = detail.lanes.filter(lane => lane.error && !lane.steps.some(step => step.state === "failed"));
  return h("div", {class: "way", role: "group", "aria-label": "The way of the request"},
    lane("Request", "→", [clientEnd, ...there, end]),
    lane("Response", "←", [answered, ...back, reached ? h("div", {class: "end"}, h("b", {}, "Upstream"),
      h("span", {}, last.response ? `${last.response.status}` : "no answer")) : h("div", {class: "end"}, h("b", {}, "Gateway"),
      h("span", {}, stopped(detail)))]),
    beside(detail),
    failures.map(each => h("p", {class: "alarm"}, `${each.listed}: the runner failed: ${each.error}`,
      each.degraded ? "; the request went on without the plugins" : "")));
}

/** The shadows: they run beside the request, and change nothing. */
function beside(detail) {
  const found = shadowsOf(detail);
  return found.length ? h("div", {class: "lane"}, h("h3", {}, "Beside"), h("div", {class: "nodes"}, found.map(each =>
    h("div", {class: "end shadow", title: each.text}, h("small", {}, each.listed), h("b", {}, each.plugin),
      h("span", {}, `would: ${each.outcome}`))))) : null;
}

const shadowsOf = detail => detail.lanes.flatMap(lane => lane.shadows.map(each => ({...each, listed: lane.listed})));

function stopped(detail) {
  const step = detail.lanes.flatMap(lane => lane.steps).find(each => each.state === "answered" || each.state === "failed");
  return step ? `${step.plugin} ${step.state === "failed" ? "failed" : "answered"}` : "answered";
}

function lane(name, arrow, parts) {
  const found = [];
  parts.forEach((part, index) => {
    if (index) found.push(h("span", {class: "arrow " + (arrow === "→" ? "there" : "home"), "aria-hidden": "true"}));
    found.push(part);
  });
  return h("div", {class: "lane"}, h("h3", {}, name), h("div", {class: "nodes"}, found));
}

function node(step, lane, longest, show) {
  return h("button", {type: "button", class: "node " + step.state, onclick: show, title: step.changes.join("\n")},
    h("small", {}, lane.listed),
    h("b", {}, step.plugin),
    h("span", {class: "words"}, h("span", {"aria-hidden": "true"}, SIGNS[step.state] + " "), short(step)),
    h("span", {class: "ms"}, milliseconds(step.milliseconds)),
    step.milliseconds === null ? null : bar(step.milliseconds, longest));
}

function short(step) {
  if (step.state === "failed") return step.fault && step.fault.kind === "timeout" ? "timeout" : "failed";
  if (step.state === "changed" && step.changes.length) {
    return `${step.changes.length} ${step.changes.length === 1 ? "change" : "changes"}`;
  }
  return step.words.replace(/^passed the (request|response) on/, "passed").replace(/, and waits for the response$/, "");
}

function bar(value, longest) {
  const inside = h("i", {});
  inside.style.width = Math.max(2, 100 * (value || 0) / longest) + "%";
  return h("span", {class: "bar", "aria-hidden": "true"}, inside);
}

// --- plugins ---------------------------------------------------------------------------------------------------------

function plugins(detail) {
  const steps = detail.lanes.flatMap(lane => lane.steps);
  const shadows = shadowsOf(detail);
  if (!steps.length && !shadows.length) {
    const why = detail.about.route ? `Route ${detail.about.route} lists no plugin of the runner.`
      : detail.outcome === "no route" ? "No route fits this request, so no plugin ran."
        : "No plugin of the runner was called.";
    return h("p", {class: "quiet"}, why);
  }
  return h("div", {}, steps.map((step, index) => h("article", {class: "step " + step.state, id: "step-" + index, tabindex: "-1"},
    h("h3", {}, step.plugin, h("small", {}, step.listed), h("span", {class: "words"}, step.words),
      h("span", {class: "ms"}, milliseconds(step.milliseconds))),
    fault(step.fault),
    changes("Request", step.request, detail.bodies, step.request && step.request.after === null),
    changes("Response", step.response, detail.bodies, step.response && step.response.before === null))),
  shadows.map(each => h("article", {class: "skipped"},
    h("h3", {}, each.plugin, h("small", {}, each.listed), h("span", {class: "words"}, `shadow, would: ${each.outcome}`)),
    each.text ? h("p", {}, each.text) : null)));
}

function fault(found) {
  if (!found) return null;
  return h("div", {class: "broken"}, h("p", {class: "alarm"}, found.text),
    found.own ? h("pre", {}, found.own.trimEnd()) : null,
    found.whole ? h("details", {}, h("summary", {}, "The whole traceback"), h("pre", {}, found.whole)) : null);
}

/** The difference that a plugin has made to a request or response. `whole`: there is nothing to compare it with. */
function changes(what, exchange, bodies, whole_) {
  if (!exchange) return null;
  if (whole_) return wholeOf(what, exchange, bodies);
  const {changes: found, body} = exchange;
  const changed = found ? found.headers.filter(each => each.kind === "changed") : [];
  const same = found ? found.headers.filter(each => each.kind === "same") : [];
  const fields = found ? found.fields : [];
  const bodyOf = body.after !== null ? bodyChange(body, bodies, what) : null;
  if (!fields.length && !changed.length && !bodyOf) {
    const empty = what === "Response" && !same.length && exchange.before && exchange.before.status === 200;
    return empty ? null : h("details", {class: "unchanged"}, h("summary", {}, what + " unchanged"), inFull(what, exchange, bodies));
  }
  return h("section", {},
    h("h4", {}, what, " changed"),
    h("div", {class: "diff"},
      fields.flatMap(each => [lineOf(["-", `${each.name}  ${each.before}`]), lineOf(["+", `${each.name}  ${each.after}`])]),
      changed.flatMap(each => [
        each.before === null ? null : lineOf(["-", `${each.name}: ${each.before}`]),
        each.after === null ? null : lineOf(["+", `${each.name}: ${each.after}`])])),
    bodyOf,
    same.length ? h("details", {}, h("summary", {}, `${same.length} unchanged header${same.length === 1 ? "" : "s"}`),
      h("div", {class: "diff"}, same.map(each => lineOf([" ", `${each.name}: ${each.after}`])))) : null);
}

function inFull(what, exchange, bodies) {
  const shown = exchange.after || exchange.before;
  const line = what === "Request" ? `${shown.method} ${shown.path}${shown.query ? "?" + shown.query : ""}` : `status ${shown.status}`;
  return h("div", {}, h("p", {}, h("code", {}, line)), headerTable(shown.headers),
    exchange.body.before === null ? h("p", {class: "quiet"}, what === "Request" ? "It has not read the body." : "")
      : bodyView(bodies[exchange.body.before]));
}

function wholeOf(what, exchange, bodies) {
  const shown = exchange.after || exchange.before;
  if (what === "Request") {
    return h("details", {class: "unchanged"}, h("summary", {}, "The request that it got"), inFull(what, exchange, bodies));
  }
  const number = exchange.body.after !== null ? exchange.body.after : exchange.body.before;
  return h("section", {}, h("h4", {}, `It answered ${shown.status}`), headerTable(shown.headers),
    bodyView(number === null ? null : bodies[number]));
}

// --- the other tabs --------------------------------------------------------------------------------------------------

function headerTable(headers) {
  if (!headers.length) return h("p", {class: "quiet"}, "no headers");
  return h("table", {class: "headers"}, h("tbody", {}, headers.map(([name, value]) =>
    h("tr", {}, h("th", {scope: "row"}, name), h("td", {}, value === null ? "(deleted)" : value)))));
}

function message(title, line, headers, body) {
  return h("section", {}, h("h3", {}, title), h("p", {}, h("code", {}, line)), headerTable(headers), bodyView(body));
}

function client(detail) {
  const {request, response} = detail.client;
  return h("div", {class: "halves"},
    message("The client sent", `${request.method} ${request.target}`, request.headers, detail.bodies[request.body]),
    response ? message("The client got", `status ${response.status}`, response.headers, detail.bodies[response.body])
      : h("section", {}, h("h3", {}, "The client got"), h("p", {class: "quiet"}, detail.error || "nothing yet")));
}

function upstreams(detail) {
  if (!detail.upstreams.length) return h("p", {class: "quiet"}, "The request did not reach the upstream.");
  return h("div", {}, detail.upstreams.map(each => h("article", {},
    h("h3", {}, each.to, h("small", {}, each.fetch ? "fetched by ext-plugin-post-resp" : "proxied by nginx"),
      h("span", {class: "ms"}, milliseconds(each.milliseconds))),
    each.error ? h("p", {class: "alarm"}, each.error) : null,
    h("div", {class: "halves"},
      message("The upstream got", `${each.request.method} ${each.request.target}`, each.request.headers, detail.bodies[each.request.body]),
      each.response ? message("It answered", `status ${each.response.status}`, each.response.headers, detail.bodies[each.response.body])
        : h("section", {}, h("h3", {}, "It answered"), h("p", {class: "quiet"}, "nothing"))))));
}

function output(detail, faults) {
  if (!detail.lines.length && !faults.length) {
    return h("p", {class: "quiet"}, "Nothing was logged or printed during this request.");
  }
  return h("div", {},
    h("div", {class: "log"}, detail.lines.map(line => h("div", {class: "line " + (line.level || "print")},
      h("span", {class: "at"}, milliseconds(line.at)), h("span", {class: "level"}, line.level || "print"),
      h("span", {class: "by"}, line.plugin || (line.logger || "").replace("asgi_bridge.", "")), h("span", {class: "text"}, line.text)))),
    faults.map(step => h("article", {}, h("h3", {}, "Traceback of ", step.plugin), fault(step.fault))));
}

function asked(detail) {
  if (!detail.asked.length) return h("p", {class: "quiet"}, "The plugins asked the gateway for no variable and no body.");
  return h("div", {}, h("table", {class: "headers"}, h("tbody", {}, detail.asked.filter(each => each.what.startsWith("$")).map(each =>
    h("tr", {}, h("th", {scope: "row"}, each.what), h("td", {}, each.text === null || each.text === undefined ? "not set" : each.text))))),
    detail.asked.filter(each => !each.what.startsWith("$")).map(each =>
      each.answer === null ? h("p", {}, each.what + ": there is none") : bodyView(detail.bodies[each.answer], each.what)));
}

function frames(detail) {
  if (!detail.frames.length) return h("p", {class: "quiet"}, "No frame was exchanged with the runner.");
  return h("div", {class: "frames"}, detail.frames.map(frame => h("details", {},
    h("summary", {}, h("span", {class: "at"}, milliseconds(frame.at)),
      h("span", {class: "way-of"}, frame.sent ? "gateway → runner" : "runner → gateway"),
      h("b", {}, frame.name), h("span", {class: "gist"}, gist(frame, detail)), h("span", {class: "ms"}, bytes(frame.size))),
    h("table", {class: "headers"}, h("tbody", {}, Object.entries(frame.fields).map(([name, value]) =>
      h("tr", {}, h("th", {scope: "row"}, name), h("td", {}, field(value, detail)))))))));
}

function gist(frame, detail) {
  const {fields} = frame;
  if (frame.name === "HTTPReqCall.Req") return `${fields.method} ${fields.path}`;
  if (frame.name === "HTTPReqCall.Resp") return fields.action + (fields.status ? " " + fields.status : "");
  if (frame.name.startsWith("HTTPRespCall")) return String(fields.status || "status unchanged");
  if (frame.name === "ExtraInfo.Req") return fields.info;
  if (frame.name === "ExtraInfo.Resp") {
    if (!fields.result) return "nil";
    const body = detail.bodies[fields.result.body], text = body.size <= 80 ? textOf(body) : null;
    return text === null ? bytes(body.size) : text;
  }
  if (frame.name === "Err.Resp") return String(fields.code);
  return fields.key || String(fields.conf_token || "");
}

function field(value, detail) {
  if (Array.isArray(value)) return headerTable(value);
  if (value && typeof value === "object") return bodyView(detail.bodies[value.body]);
  return String(value);
}
