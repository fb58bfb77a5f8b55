draw((v) => {
  const entries = (items) => h("dl", null, ...items.map(([term, text]) => h("div", null, h("dt", null, term), h("dd", null, text))));
  root.replaceChildren(h("h2", null, "Words"), h("p", { class: "bv-lead" }, "What the screen speaks of, in one sentence each."), entries(v.words), h("h2", null, "Before you believe a number"), h("p", { class: "bv-lead" }, "Three ways in which a good-looking cut misleads."), entries(v.caveats));
});
