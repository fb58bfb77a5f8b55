// A table whose rows fold into blocks on a narrow screen; roles are written out because a browser
// forgets them where a table is displayed as something else.
const toMap = () => {
  const button = h("button", { type: "button", class: "bv-button" }, "Go to the Map");
  button.addEventListener("click", () => openTab("Map")?.focus());
  return button;
};
const tag = ([kind, text]) => h("span", { class: `bv-tag ${kind}` }, text);
const head = (column) => h("th", { scope: "col", role: "columnheader" }, h("span", { class: "bv-name", dir: "auto" }, column.title), ...column.tags.map(tag));
const written = ({ pieces, said }) => {
  const text = h("p", { dir: "auto", class: "bv-model-text" }, pieces[0]);
  if (pieces[1]) text.append(h("mark", null, pieces[1]));
  text.append(pieces[2]);
  return [text, said ? h("small", null, said) : ""];
};
const number = ({ main, small }) => [h("b", { dir: "auto" }, main), small ? h("small", { dir: "auto" }, small) : ""];
// On a narrow screen the column's name stands in each cell, as the head is out of sight.
const cell = (column, found, isText) => {
  const name = h("span", { class: "bv-of", "aria-hidden": "true", dir: "auto" }, column.title);
  const inside = found === null ? [h("span", { "aria-hidden": "true" }, "–"), h("span", { class: "bv-sr" }, "not measured")] : isText ? written(found) : number(found);
  return h("td", { role: "cell", class: found === null ? "none" : "" }, name, ...inside);
};
const refused = (column, n) =>
  h("td", { role: "cell", class: "bv-refused", rowspan: String(n), "aria-rowspan": String(n) }, h("span", { class: "bv-of", "aria-hidden": "true", dir: "auto" }, column.title), h("p", { dir: "auto" }, column.refused));
const line = (v, row, i) => {
  const name = h("th", { scope: "row", role: "rowheader" }, h("span", { class: "bv-what" }, row.name), h("small", { dir: "auto" }, row.source));
  if (row.prompt) name.append(h("q", { class: "bv-prompt", dir: "auto" }, row.prompt));
  const cells = v.columns.flatMap((column, k) => (column.refused ? (i ? [] : [refused(column, v.rows.length)]) : [cell(column, row.cells[k], row.kind === "texts")]));
  return h("tr", { role: "row", class: row.kind }, name, ...cells);
};
draw((v) => {
  if (!v.columns.length) {
    root.replaceChildren(h("p", { class: "bv-empty" }, v.empty), v.to_map ? toMap() : "");
    return;
  }
  const first = h("tr", { role: "row" }, h("td", { role: "cell" }), ...v.columns.map(head));
  const body = h("tbody", { role: "rowgroup" }, ...v.rows.map((row, i) => line(v, row, i)));
  const table = h("table", { role: "table", "aria-label": v.title }, h("thead", { role: "rowgroup" }, first), body);
  table.style.setProperty("--columns", String(v.columns.length));
  root.replaceChildren(
    h("h2", null, v.title),
    h("p", { class: "bv-lead", dir: "auto" }, v.lead),
    h("div", { class: "bv-side", tabindex: "0", role: "region", "aria-label": v.title }, table),
    h("p", { class: "bv-sources", dir: "auto" }, v.note),
  );
});
