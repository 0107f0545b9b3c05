// Everything that the page shows comes from requests, so from anybody: it is only ever set as text.

/** Makes an element. `props` are attributes; those that begin with "on" are listeners, `class` may be a list. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = Array.isArray(value) ? value.filter(Boolean).join(" ") : value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = id => document.getElementById(id);

export function milliseconds(value) {
  if (value === null || value === undefined) return "";
  if (value >= 10000) return (value / 1000).toFixed(1) + " s";
  return value.toFixed(value < 1 ? 2 : 1) + " ms";
}

export const whole = number => number.toLocaleString("en");

export const bytes = number => number === 1 ? "1 byte" : whole(number) + " bytes";

export const statusClass = status => status === null ? "none" : "s" + String(status)[0];

export function timeOf(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

/** A row of tabs with their panels; arrow keys go from tab to tab. */
export function tabs(id, entries, chosen, choose) {
  const list = h("div", {role: "tablist", class: "tabs"});
  const panel = h("div", {role: "tabpanel", class: "panel", id: id + "-panel", tabindex: "0"});
  const buttons = entries.map(({name, count, alarm, view}) => {
    const tab = h("button", {role: "tab", type: "button", "aria-controls": id + "-panel", class: alarm && "alarm"}, name,
      count ? h("span", {class: "badge"}, whole(count)) : null);
    const show = () => {
      for (const other of buttons) {
        other.setAttribute("aria-selected", String(other === tab));
        other.tabIndex = other === tab ? 0 : -1;
      }
      panel.setAttribute("aria-label", name);
      panel.replaceChildren(view());
    };
    tab.addEventListener("click", () => { show(); choose(name); });
    tab.show = show;
    return tab;
  });
  list.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    next.click();
    next.focus();
    event.preventDefault();
    event.stopPropagation();
  });
  list.append(...buttons);
  const first = entries.findIndex(entry => entry.name === chosen);
  buttons[first < 0 ? 0 : first].show();
  return h("div", {}, list, panel);
}
