// Bodies as text, as JSON or as hexadecimal digits, and their differences.
import {bytes, h, whole} from "./elements.js";

const SHOWN = 32 * 1024;  // characters of a text that are shown at first
const HEX = 2048;  // bytes that are shown as hexadecimal digits
const AROUND = 3;  // lines around a change

export function decoded(body) {
  const binary = atob(body.base64);
  return Uint8Array.from(binary, char => char.charCodeAt(0));
}

/** Gives a body's text; null: it has none. */
export function textOf(body) {
  try {
    const text = new TextDecoder("utf-8", {fatal: true}).decode(decoded(body), {stream: body.cut});
    return /[\u0000-\u0008\u000b\u000c\u000e-\u001f]/.test(text) ? null : text;
  } catch {
    return null;
  }
}

function jsonOf(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && value !== null ? JSON.stringify(value, null, 2) : null;
  } catch {
    return null;
  }
}

function hexOf(data) {
  const lines = [];
  for (let start = 0; start < Math.min(data.length, HEX); start += 16) {
    const part = [...data.subarray(start, start + 16)];
    const digits = part.map(byte => byte.toString(16).padStart(2, "0"));
    const shown = part.map(byte => byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "·").join("");
    const columns = digits.slice(0, 8).join(" ") + "  " + digits.slice(8).join(" ");
    lines.push(start.toString(16).padStart(6, "0") + "  " + columns.padEnd(49) + " " + shown);
  }
  if (data.length > HEX) lines.push(`… ${whole(data.length - HEX)} more bytes are not shown`);
  return lines.join("\n");
}

function longText(text) {
  if (text.length <= SHOWN) return [h("pre", {}, text)];
  const all = h("pre", {}, text.slice(0, SHOWN));
  const more = h("button", {type: "button", onclick: () => { all.textContent = text; more.remove(); }},
    `Show all ${whole(text.length)} characters`);
  return [all, more];
}

/** Shows a body, in the form that fits it best; buttons give the others. */
export function bodyView(body, title = "Body") {
  if (!body || !body.size) return h("p", {class: "quiet"}, title + ": empty");
  const text = textOf(body);
  const json = text === null || body.cut ? null : jsonOf(text);
  const forms = [];
  if (json !== null) forms.push(["JSON", () => longText(json)]);
  if (text !== null) forms.push(["Text", () => longText(text)]);
  forms.push(["Hex", () => [h("pre", {class: "hex"}, hexOf(decoded(body)))]]);
  const place = h("div", {});
  const buttons = forms.map(([name, view]) => h("button", {
    type: "button", onclick: event => {
      for (const each of buttons) each.setAttribute("aria-pressed", String(each === event.currentTarget));
      place.replaceChildren(...view());
    },
  }, name));
  buttons[0].click();
  const size = body.cut ? `the first ${bytes(atob(body.base64).length)} of ${bytes(body.size)}` : bytes(body.size);
  return h("div", {class: "body"},
    h("div", {class: "row"}, h("h4", {}, title), h("span", {class: "quiet"}, size),
      h("span", {class: "choice", role: "group", "aria-label": "Form of the body"}, buttons)),
    place);
}

/** Shows what has changed between two bodies. */
export function bodyChange(change, bodies, what) {
  const before = change.before === null ? null : bodies[change.before];
  const after = bodies[change.after];
  const head = `${what} body: ${bytes(before ? before.size : 0)} → ${bytes(after.size)}`;
  if (change.lines === null) {
    return h("div", {}, h("h4", {}, head), bodyView(before, "Before"), bodyView(after, "After"));
  }
  return h("div", {}, h("h4", {}, head), h("div", {class: "diff"}, folded(change.lines).map(lineOf)));
}

function folded(lines) {
  const near = lines.map((_, index) =>
    lines.slice(Math.max(0, index - AROUND), index + AROUND + 1).some(([sign]) => sign !== " "));
  const found = [];
  let left = 0;
  lines.forEach((line, index) => {
    if (near[index]) {
      if (left) found.push(["…", `${left} unchanged lines`]);
      left = 0;
      found.push(line);
    } else left += 1;
  });
  if (left) found.push(["…", `${left} unchanged lines`]);
  return found;
}

export function lineOf([sign, text]) {
  const kind = {"+": "added", "-": "gone", "…": "fold"}[sign] || "same";
  return h("div", {class: "line " + kind}, h("span", {class: "sign"}, sign), h("span", {}, text));
}
