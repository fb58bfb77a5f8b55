// One row a decision, each with its button. What is focused stays focused when rows arrive.
const apply = (row) => {
  const button = h("button", { type: "button", class: "bv-button", "aria-label": row.label, "aria-disabled": row.is_applied ? "true" : null }, row.is_applied ? "On the Map" : "Apply");
  button.dataset.step = row.step;
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") !== "true") trigger("apply", { key: props.value.key, step: row.step });
  });
  return h("td", { class: "bv-do" }, button);
};
const cell = (text, column) => (column === 0 ? h("th", { scope: "row" }, text) : h("td", { dir: "auto" }, text));
draw((v) => {
  root.hidden = !v.rows.length;
  const active = root.contains(document.activeElement) ? document.activeElement.dataset.step : null;
  const rows = v.rows.map((row) => h("tr", { class: row.is_best ? "best" : "" }, ...row.cells.map(cell), apply(row)));
  const head = h("tr", null, ...[...v.headers, "On the Map"].map((t) => h("th", { scope: "col" }, t)));
  const table = h("table", null, h("thead", null, head), h("tbody", null, ...rows));
  root.replaceChildren(
    h("h2", null, v.title),
    h("p", { class: "bv-lead", dir: "auto" }, v.lead),
    h("div", { class: "bv-numbers", tabindex: "0", role: "region", "aria-label": v.title }, table),
  );
  if (active !== null) root.querySelector(`[data-step="${active}"]`)?.focus({ preventScroll: true });
});
