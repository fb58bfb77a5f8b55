draw((v) => {
  const entry = ([term, text]) => h("div", null, h("dt", null, term), h("dd", null, text));
  const section = ([title, lead, words]) => h("section", null, h("h3", null, title), h("p", { class: "bv-lead" }, lead), h("dl", null, ...words.map(entry)));
  root.replaceChildren(...v.sections.map(section));
});
