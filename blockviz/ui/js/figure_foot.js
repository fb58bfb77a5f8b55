const summary = h("summary", null, "The same numbers as a table");
const box = h("div", { class: "bv-numbers", tabindex: "0", role: "region" });
const details = h("details", null, summary, box);
const sources = h("p", { class: "bv-sources" });
root.replaceChildren(details, sources);
let view = null, isStale = true;

const cell = (value, column) => (column === 0 ? h("th", { scope: "row", dir: "auto" }, String(value)) : h("td", { dir: "auto" }, String(value)));
const fill = () => {
  if (!details.open || !isStale || !view) return;
  const head = h("tr", null, ...view.headers.map((t) => h("th", { scope: "col", dir: "auto" }, t)));
  box.replaceChildren(h("table", null, h("thead", null, head), h("tbody", null, ...view.rows.map((row) => h("tr", null, ...row.map(cell))))));
  isStale = false;
};
details.addEventListener("toggle", fill);
draw((v) => {
  view = v;
  isStale = true;
  root.hidden = !v.headers.length;
  box.setAttribute("aria-label", `Table: ${v.title}`);
  const links = v.citation.flatMap(([text, address], i) => [i ? "; " : "", safeLink(address, text)]);
  sources.replaceChildren(...links, v.note ? h("span", { dir: "auto" }, `${links.length ? " · " : ""}${v.note}`) : "");
  fill();
});
