// Writing into the page: only what changed is touched, so that a selection or a focused element survives an update.

export const byId = (id) => document.getElementById(id);

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Put {text, value} into a <data> element; its value attribute carries the full number.
export function putData(node, formatted) {
  setText(node, formatted.text);
  const value = formatted.value === null || formatted.value === undefined ? "" : String(formatted.value);
  if (node.getAttribute("value") !== value) node.setAttribute("value", value);
  node.classList.toggle("unknown", formatted.value === null);
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, String(value));
  }
}

// Rows of cells. A cell is a string, {text, value} or {text, value?, side?, state?, className?, href?, button?, title?}; numbers are
// right-aligned, and a button is the name of what it opens.
export function fillRows(table, rows, empty) {
  const body = table.tBodies[0];
  const columns = table.tHead.rows[0].cells.length;
  const wanted = rows.length ? rows : [[{ text: empty, className: "unknown", span: columns }]];
  while (body.rows.length > wanted.length) body.deleteRow(-1);
  wanted.forEach((cells, index) => {
    const row = body.rows[index] ?? body.insertRow();
    while (row.cells.length > cells.length) row.deleteCell(-1);
    cells.forEach((cell, position) => fillCell(row.cells[position] ?? row.insertCell(), cell));
  });
}

function fillCell(td, cell) {
  const { text, value, side, state, className, href, button, title, span } = typeof cell === "string" ? { text: cell } : cell;
  const numeric = value !== undefined;
  const name = [numeric ? "n" : "", value === null ? "unknown" : "", className ?? ""].filter(Boolean).join(" ");
  if (td.className !== name) td.className = name;
  setAttribute(td, "data-side", side);
  setAttribute(td, "data-state", state);
  setAttribute(td, "colspan", span);
  setAttribute(td, "title", title);
  const tag = href ? "A" : button ? "BUTTON" : numeric ? "DATA" : null;
  let node = td;
  if (tag) {
    node = td.firstElementChild;
    if (!node || node.tagName !== tag || td.childNodes.length !== 1) {
      node = document.createElement(tag);
      td.replaceChildren(node);
    }
    if (href) setAttribute(node, "href", href);
    if (button) {
      setAttribute(node, "type", "button");
      setAttribute(node, "aria-label", button);
    }
    if (numeric) setAttribute(node, "value", value ?? "");
  }
  setText(node, text);
}

// Rows that belong to something keep their elements when they change places, so that what has the focus is still the same thing.
export function fillKeyedRows(table, keys, rows, empty) {
  const body = table.tBodies[0];
  const focused = body.contains(document.activeElement) ? document.activeElement : null;
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  keys.forEach((key, index) => {
    const at = body.rows[index];
    if (at?.dataset.key === key) return;
    const row = known.get(key) ?? document.createElement("tr");
    row.dataset.key = key;
    body.insertBefore(row, at ?? null);
  });
  fillRows(table, rows, empty);
  if (!keys.length) delete body.rows[0].dataset.key;
  // Moving an element takes the focus from it.
  if (focused && focused !== document.activeElement && body.contains(focused)) focused.focus({ preventScroll: true });
}

// A definition list of [key, label, term, {text, value}].
export function fillFigures(list, figures) {
  for (const [key, label, term, formatted] of figures) {
    let node = list.querySelector(`[data-key="${key}"]`);
    if (!node) {
      const group = document.createElement("div");
      const dt = document.createElement("dt");
      const name = document.createElement("span");
      name.textContent = label;
      if (term) {
        name.className = "term";
        name.dataset.term = term;
        name.tabIndex = 0;
      }
      dt.append(name);
      const dd = document.createElement("dd");
      node = document.createElement("data");
      node.dataset.key = key;
      dd.append(node);
      group.append(dt, dd);
      list.append(group);
    }
    putData(node, formatted);
    setAttribute(node, "data-state", formatted.state);
  }
}
