draw((v) => {
  root.hidden = !v.text;
  root.replaceChildren(h("p", { class: "bv-empty", role: "status" }, v.text));
});
