// A formula is a line of text in which `_x`, `_{ij}` stand lower and `^x`, `^{1/4}` higher.
const written = (line) => {
  const nodes = [];
  let end = 0;
  for (const found of line.matchAll(/([_^])(?:\{([^{}]*)\}|([^\s{}_^]))/g)) {
    // A word joiner: no line ends between a bracket and its power.
    nodes.push(`${line.slice(end, found.index)}\u2060`, h(found[1] === "_" ? "sub" : "sup", null, found[2] ?? found[3]));
    end = found.index + found[0].length;
  }
  return [...nodes, line.slice(end)];
};
const list = (rows) => h("dl", null, ...rows.flatMap(([name, text]) => [h("dt", { dir: "auto" }, name), h("dd", { dir: "auto" }, text)]));
const toMap = (v) => {
  const button = h("button", { type: "button", class: "bv-button" }, "Colour the Map by it");
  button.addEventListener("click", () => {
    trigger("colour", { metric: v.colour });
    openTab("Map")?.focus();
  });
  return button;
};
draw((v) => {
  const source = v.source ? h("p", { class: "bv-sources", dir: "auto" }, "Source: ", safeLink(v.address, v.source)) : "";
  const lines = v.equation.split(/,\s{2,}/).map((line) => h("p", null, ...written(line)));
  const formula = h("div", { class: "bv-formula" },
    h("div", { class: "bv-equation", tabindex: "0", role: "group", "aria-label": "Formula" }, ...lines),
    v.letters ? h("p", { class: "bv-lead", dir: "auto" }, ...written(v.letters)) : "");
  const here = h("section", { class: "bv-here" },
    h("h4", null, "On ", h("span", { dir: "auto" }, v.model)),
    h("p", { class: "bv-lead", dir: "auto" }, v.lead || v.empty),
    v.own.length ? list(v.own) : "",
    v.colour ? toMap(v) : "");
  root.replaceChildren(
    h("div", null, h("h3", null, h("span", { dir: "auto" }, v.title), " ", h("small", null, v.kind)), h("p", { dir: "auto" }, v.meaning), v.equation ? formula : "", list(v.facts), source),
    here,
  );
});
