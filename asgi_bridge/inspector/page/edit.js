// What opens in front of the page: editing a request, copied text, the keys.
import {byId, h} from "./elements.js";
import {textOf} from "./bodies.js";

export async function post(path, content) {
  const answer = await fetch(path, {
    method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(content),
  });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

function open(title, ...children) {
  const dialog = byId("dialog");
  dialog.replaceChildren(
    h("div", {class: "row"}, h("h2", {}, title), h("span", {class: "push"}),
      h("button", {type: "button", class: "quiet", onclick: () => dialog.close(), "aria-label": "Close"}, "✕")),
    ...children);
  if (!dialog.open) dialog.showModal();
  return dialog;
}

/** Lets a person edit a request and send it. `done(id)` is called with the number of the new one. */
export function edit(detail, done) {
  const {request} = detail.client, body = detail.bodies[request.body];
  const text = body.cut ? null : textOf(body);
  const method = h("input", {value: request.method, size: "8", spellcheck: "false", autocomplete: "off"});
  const target = h("input", {value: request.target, class: "wide", spellcheck: "false", autocomplete: "off"});
  const headers = h("textarea", {rows: "8", spellcheck: "false"});
  headers.value = request.headers.map(([name, value]) => `${name}: ${value}`).join("\n");
  const content = h("textarea", {rows: "8", spellcheck: "false"});
  content.value = text === null ? (body.cut ? "" : body.base64) : text;
  const label = text !== null ? "Body" : body.cut
    ? `Body: only its beginning is kept, so write another one` : "Body, as base64: it is no text";
  const failed = h("p", {role: "alert", class: "alarm"});
  const send = async () => {
    failed.textContent = "";
    const edited = {
      method: method.value.trim(), target: target.value,
      headers: headers.value.split("\n").filter(line => line.trim()).map(line => {
        const at = line.indexOf(":");
        return at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1)];
      }),
    };
    if (text === null && !body.cut) edited.base64 = content.value.replace(/\s/g, "");
    else if (text === null || content.value !== text.replace(/\r\n?/g, "\n")) edited.body = content.value;
    try {
      const {id} = await post(`requests/${detail.id}/send`, edited);
      byId("dialog").close();
      done(id);
    } catch (error) {
      failed.textContent = error.message;
    }
  };
  const dialog = open("Edit and send",
    h("div", {class: "row"}, h("label", {}, "Method", method), h("label", {class: "wide"}, "Path and query", target)),
    h("label", {}, "Headers, one a line", headers),
    h("label", {}, label, content),
    failed,
    h("div", {class: "row"}, h("span", {class: "push"}),
      h("button", {type: "button", class: "main", id: "send-edited", onclick: send}, "Send")));
  dialog.onkeydown = event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
  };
  target.focus();
}

/** Shows a text, and copies it. */
export async function copied(title, path) {
  const answer = await fetch(path);
  const text = await answer.text();
  const said = h("p", {role: "status", class: "quiet"}, answer.ok ? "Copying …" : "");
  open(title, h("pre", {id: "copied", tabindex: "0"}, text), said);
  if (!answer.ok) return;
  try {
    await navigator.clipboard.writeText(text);
    said.textContent = "It is in the clipboard.";
  } catch {
    said.textContent = "The browser does not let it into the clipboard: mark and copy it.";
    getSelection().selectAllChildren(byId("copied"));
  }
}

export function keys() {
  const all = [["↑ ↓ or k j", "choose a request"], ["/", "filter"], ["s", "send it again"], ["e", "edit and send it"],
    ["c", "copy as curl"], ["t", "copy as test"], ["p", "pause: keep no further requests"], ["Esc", "close, or back to the list"]];
  open("Keys", h("dl", {class: "keys"}, all.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])));
}
