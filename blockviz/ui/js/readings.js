draw((v) => {
  root.replaceChildren(h("dl", null, ...v.metrics.map((m) => h("div", null, h("dt", null, m.title), h("dd", null, m.meaning, " ", h("span", { class: "bv-dir" }, m.direction), " ", safeLink(m.reference, "paper", `${m.title}: paper`))))));
});
