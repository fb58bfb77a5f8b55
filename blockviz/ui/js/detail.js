draw((v) => {
  const rows = v.rows.map((r) => h("tr", null, h("th", { scope: "row" }, r.title), h("td", null, bar(r.share), h("span", null, r.rank, r.range ? h("span", { class: "bv-range" }, `could be ${r.range}`) : null)), h("td", { class: "bv-raw" }, r.raw)));
  root.replaceChildren(
    h("h2", null, v.title),
    h("p", { class: "bv-lead" }, v.lead),
    rows.length ? h("table", null, h("thead", { class: "bv-sr" }, h("tr", null, ...["metric", "rank", "value"].map((t) => h("th", { scope: "col" }, t)))), h("tbody", null, ...rows)) : h("p", { class: "bv-empty" }, v.empty),
  );
});
