draw((v) => {
  root.hidden = !v.text;
  const source = v.source ? [" ", safeLink(v.address, v.source)] : [];
  root.replaceChildren(
    h("p", { class: "bv-lead" }, h("span", { dir: "auto" }, v.text), ...source),
    v.note ? h("p", { class: "bv-caution", dir: "auto" }, v.note) : "",
  );
});
