draw((v) => {
  const entries = (items) => h("dl", null, ...items.map(([term, text]) => h("div", null, h("dt", null, term), h("dd", null, text))));
  const part = (title, lead, items) => h("section", null, h("h2", null, title), h("p", { class: "bv-lead" }, lead), entries(items));
  root.replaceChildren(
    part("Words", "What the screen speaks of, in one or two sentences each.", v.words),
    part("Before you believe a number", "Three ways in which a good-looking cut misleads.", v.caveats),
  );
});
