draw((v) => {
  const cell = (label, big, small, tone, extra) =>
    h(
      "div",
      { class: "bv-cell" },
      h("span", { class: "bv-label" }, label),
      h("span", { class: "bv-figures" }, h("b", null, big), " ", h("em", { class: tone || "" }, small)),
      extra || null,
    );
  const state = h("span", { class: `bv-state ${v.tone}` }, v.state);
  const foot = h("span", { class: "bv-foot" }, state, " ", h("span", { dir: "auto" }, v.data));
  if (v.can_measure) {
    const again = h("button", { type: "button", class: "bv-textlink" }, "Measure now");
    again.addEventListener("click", () => trigger("measure", {}));
    foot.append(" ", again);
  }
  const perplexity = cell("Perplexity", v.perplexity, v.rise, v.rise_tone, foot);
  perplexity.classList.add("bv-wide");
  if (v.is_dim) perplexity.classList.add("dim");
  root.replaceChildren(
    cell("Blocks kept", v.kept, v.cut, v.has_cut ? "warn" : ""),
    cell("Parameters", v.parameters, v.kv, "good"),
    perplexity,
  );
});
