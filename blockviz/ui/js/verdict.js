draw((v) => {
  root.hidden = !v.title;
  root.dataset.ok = String(v.is_supported);
  root.replaceChildren(
    h("p", { class: "bv-verdict-title" }, h("b", { dir: "auto" }, v.title)),
    h("p", { dir: "auto" }, v.reason),
    h("dl", null, ...v.facts.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", { dir: "auto" }, value)))),
  );
});
