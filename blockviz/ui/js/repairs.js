// One row a correction, each with the button that draws it below. Focus stays where rows arrive.
const look = (row) => {
  if (!row.can_show) return h("td", { class: "bv-do" });
  const button = h("button", { type: "button", class: "bv-button", "aria-label": row.label, "aria-pressed": String(row.is_shown) }, row.is_shown ? "Below" : "Look");
  button.dataset.row = row.name;
  button.addEventListener("click", () => trigger("look", { key: props.value.key, row: row.name }));
  return h("td", { class: "bv-do" }, button);
};
const tag = ([kind, text]) => h("span", { class: `bv-tag ${kind}` }, text);
const named = (row) => h("th", { scope: "row" }, h("span", { class: "bv-name", dir: "auto" }, row.title), ...row.tags.map(tag));
const closed = (row) => h("td", null, row.share === null ? "" : bar(row.share), row.closed);
const cells = (row, width) =>
  row.refused
    ? [h("td", { class: "bv-refused", colspan: String(width), dir: "auto" }, row.refused)]
    : [...row.cells.slice(0, 2).map((t) => h("td", null, t)), closed(row), ...row.cells.slice(2).map((t) => h("td", { dir: "auto" }, t))];
draw((v) => {
  root.hidden = !v.rows.length;
  const active = root.contains(document.activeElement) ? document.activeElement.dataset.row : null;
  const rows = v.rows.map((row) => h("tr", { class: row.is_best ? "best" : "" }, named(row), ...cells(row, v.headers.length - 1), look(row)));
  const head = h("tr", null, ...[...v.headers, "Figures"].map((t) => h("th", { scope: "col" }, t)));
  const box = h("div", { class: "bv-numbers", tabindex: "0", role: "region", "aria-label": v.title }, h("table", null, h("thead", null, head), h("tbody", null, ...rows)));
  root.replaceChildren(h("h2", null, v.title), h("p", { class: "bv-lead", dir: "auto" }, v.lead), box, h("p", { class: "bv-sources", dir: "auto" }, v.note));
  if (active) [...root.querySelectorAll("[data-row]")].find((b) => b.dataset.row === active)?.focus({ preventScroll: true });
});

// Gradio gives the box that chooses all of them a title only, which not every reader reads out.
draw(() => {
  const all = document.querySelector("#corrections .select-all-checkbox");
  if (all) all.setAttribute("aria-label", "All corrections");
});
